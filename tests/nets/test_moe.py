"""Mixtures of experts: one expert, every expert by hand, places, terms by hand, meshes, what balance does."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import flops
from jaxgen.config import MeshConfig
from jaxgen.nets import moe
from jaxgen.nets.blocks import Mlp, TransformerConfig, make_experts
from jaxgen.nets.transformer import Transformer
from jaxgen.sharding import global_batch, make_mesh, state_shardings

ONE = TransformerConfig(num_layers=2, width=8, num_heads=2, hidden=12, context=16)
MIX = dataclasses.replace(ONE, moe=moe.MoeConfig(4, 2))
X = jax.random.normal(jax.random.key(0), (2, 6, 8))
COUNTS = jnp.array([[1.0] * 6, [1.0] * 4 + [0.0] * 2])


def with_moe(cfg=MIX, **changes):
    return dataclasses.replace(cfg, moe=dataclasses.replace(cfg.moe, **changes))


def layer_of(cfg, seed=1):
    """The layer, and parameters that are not small."""
    layer = make_experts(cfg)
    params = jax.jit(layer.init)(jax.random.key(seed), X, COUNTS)["params"]
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return layer, tree.unflatten([0.5 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)])


def by_hand(cfg, params, x):
    """Every expert of every token, weighed: [B, T, D]."""
    probs = jax.nn.softmax(x @ params["router"]["kernel"])
    best = np.argsort(-np.asarray(probs), -1)[..., : cfg.moe.top_k]
    weight = np.zeros(probs.shape, np.float32)
    np.put_along_axis(weight, best, np.take_along_axis(np.asarray(probs), best, -1), -1)
    weight = weight / weight.sum(-1, keepdims=True) if cfg.moe.normalize else weight
    outs = []
    for i in range(cfg.moe.num_experts):
        mine = {name: jax.tree.map(lambda w, i=i: w[i], params[name]) for name in params if name != "router"}
        outs.append(Mlp(cfg).apply({"params": mine}, x))
    return jnp.einsum("bte,ebtd->btd", weight, jnp.stack(outs))


@pytest.mark.parametrize(("activation", "capacity"), [("gelu", None), ("swiglu", 1.0)])
def test_one_expert_is_the_dense_layer(activation, capacity):
    cfg = dataclasses.replace(ONE, activation=activation, moe=moe.MoeConfig(1, 1, capacity=capacity))
    layer, params = layer_of(cfg)
    dense = {name: jax.tree.map(lambda w: w[0], params[name]) for name in params if name != "router"}
    run = lambda: (layer.apply({"params": params}, X, jnp.ones((2, 6))), Mlp(cfg).apply({"params": dense}, X))
    (y, found), expected = jax.jit(run)()
    np.testing.assert_allclose(y, expected, atol=1e-6)
    assert found.balance == pytest.approx(1.0) and found.entropy == 0.0
    assert found.dropped == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("capacity", [None, 4.0])
def test_outputs_and_gradients_are_those_of_every_expert_by_hand(capacity, normalize):
    """Sorted, and by places with room for all; padding comes out as zero."""
    cfg = with_moe(capacity=capacity, normalize=normalize)
    layer, params = layer_of(cfg)
    other = make_experts(with_moe(capacity=4.0 if capacity is None else None, normalize=normalize))

    def run(layer, params):
        y = layer.apply({"params": params}, X, COUNTS)[0]
        return jnp.square(y).sum(), y

    both = jax.jit(lambda params: [jax.grad(lambda p, m=m: run(m, p), has_aux=True)(params) for m in (layer, other)])
    (ours, y), (theirs, _) = both(params)
    np.testing.assert_allclose(y, by_hand(cfg, params, X) * COUNTS[..., None], atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), ours, theirs)


def test_places_by_hand():
    """Two places an expert, E = 3: left before right, whatever comes behind; padding takes none."""
    expert = jnp.array([[[0, 1], [0, 2], [0, 1], [1, 0], [2, 0]]])
    counts = jnp.array([[1.0, 1.0, 1.0, 1.0, 0.0]])
    found = moe.places(expert, counts, 3, 2)
    assert found.tolist() == [[[0, 2], [1, 4], [6, 3], [6, 6], [6, 6]]]
    for length in range(1, 5):
        np.testing.assert_array_equal(moe.places(expert[:, :length], counts[:, :length], 3, 2), found[:, :length])


def test_what_an_expert_has_no_place_for_skips_the_layer():
    """With half of the places: a token's output is that of the assignments that stay, the rest is counted."""
    cfg = with_moe(capacity=0.5, normalize=False)  # ⌈0.5 · 2 · 6 / 4⌉ = 2 places
    layer, params = layer_of(cfg)
    y, found = layer.apply({"params": params}, X, COUNTS, train=True)
    expert, _ = moe.route(X @ params["router"]["kernel"], cfg.moe)
    place = np.asarray(moe.places(expert, COUNTS, 4, 2))
    assert found.dropped == pytest.approx((place == 8).sum() / 20 - 4 / 20, abs=1e-6) and found.dropped > 0.1
    probs = np.asarray(jax.nn.softmax(X @ params["router"]["kernel"]))
    outs = [
        Mlp(cfg).apply({"params": {n: jax.tree.map(lambda w, i=i: w[i], params[n]) for n in ("up", "down")}}, X)
        for i in range(4)
    ]
    for b, t in np.ndindex(2, 6):
        stay = [int(e) for e, p in zip(expert[b, t], place[b, t], strict=True) if p < 8]
        expected = sum((probs[b, t, e] * outs[e][b, t] for e in stay), jnp.zeros(8))
        np.testing.assert_allclose(y[b, t], expected, atol=1e-5)


def test_terms_by_hand():
    logits = jnp.array([[[2.0, 1.0, 0.0], [0.0, 1.0, 2.0], [9.0, 0.0, 0.0]]])
    counts, kept = jnp.array([[1.0, 1.0, 0.0]]), jnp.array([[[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]])
    found = moe.terms(logits, moe.route(logits, moe.MoeConfig(3, 2))[0], counts, kept)
    p = np.exp([2.0, 1.0, 0.0]) / np.exp([2.0, 1.0, 0.0]).sum()
    mean = (p + p[::-1]) / 2
    assert found.balance == pytest.approx(3 * (mean @ [1 / 4, 1 / 2, 1 / 4]), rel=1e-6)
    assert found.z == pytest.approx(np.log(np.exp([2.0, 1.0, 0.0]).sum()) ** 2, rel=1e-6)
    assert found.entropy == pytest.approx(1.5 * math.log(2), rel=1e-6) and found.dropped == pytest.approx(1 / 4)
    even = moe.terms(jnp.zeros((1, 3, 3)), jnp.array([[[0], [1], [2]]]), jnp.ones((1, 3)), jnp.ones((1, 3, 1)))
    assert even.balance == pytest.approx(1.0) and even.entropy == pytest.approx(math.log(3))


@pytest.mark.parametrize("capacity", [1.25, pytest.param(None, marks=pytest.mark.slow)])
def test_experts_on_several_devices_are_those_on_one(capacity):
    """Split whole over `tensor`, each over `fsdp`: vectors, terms and gradients to 1e-5."""
    cfg = with_moe(dataclasses.replace(MIX, width=16, activation="swiglu", norm="rms"), capacity=capacity)
    net = Transformer(cfg, 20)
    tokens = np.random.default_rng(0).integers(0, 20, (8, 6)).astype(np.int32)
    params = jax.tree.map(lambda x: x + 0.1, jax.jit(net.init)(jax.random.key(0)))

    def loss(params, tokens):
        hidden, terms = net.apply_with_terms(params, tokens, key=jax.random.key(0))  # as in training
        return jnp.square(net.logits(params, hidden)).mean() + terms.balance + terms.z, terms

    results = []
    for shape in ((1, 1, 1), (2, 2, 2)):
        axes = MeshConfig(*shape, min_shard_size=8)
        mesh = make_mesh(axes, jax.devices()[: math.prod(shape)])
        with jax.set_mesh(mesh):
            shardings = state_shardings({"params": params}, mesh, net.rules, 8)["params"]
            placed = jax.device_put(params, shardings)
            batch = global_batch(lambda rows: {"tokens": tokens[rows]}, 8, mesh)["tokens"]
            results.append(jax.device_get(jax.jit(jax.value_and_grad(loss, has_aux=True))(placed, batch)))
    spec = placed["blocks"]["moe"]["up"]["kernel"].sharding.spec
    assert tuple(spec) == (None, "tensor", "fsdp", None)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), *results)


def test_the_cache_sees_the_same_experts():
    """One token at a time: the vectors of the whole row."""
    net = Transformer(MIX, 20)
    tokens = jax.random.randint(jax.random.key(1), (2, 6), 0, 20)

    @jax.jit
    def run():
        params = jax.tree.map(
            lambda x: x + 0.1 * jnp.sin(jnp.arange(x.size)).reshape(x.shape), net.init(jax.random.key(0))
        )
        last, cache = net.prefill(params, tokens[:, :5], jnp.zeros(2, jnp.int32), 6)
        return net.apply(params, tokens), last, net.step(net.prepared(params), cache, tokens[:, 5], jnp.int32(5))[0]

    whole, last, one_more = run()
    np.testing.assert_allclose(last, whole[:, 4], atol=1e-5)
    np.testing.assert_allclose(one_more, whole[:, 5], atol=1e-5)


def test_flops_are_of_the_chosen_experts():
    """Sorted: 2 k T products of each of the two layers; by places, those of the places."""
    router, each = 2 * 12 * 8 * 4, 2 * 2 * 8 * 12
    for capacity, rows in ((None, 2 * 12), (1.0, 2 * 4 * 3)):
        layer, params = layer_of(with_moe(capacity=capacity))
        run = lambda params, layer=layer: layer.apply({"params": params}, X, COUNTS, train=True)[0].sum()
        assert flops.count(run, params).dot == router + rows * each
        # Backwards: the kernels' gradients, and that of what is between the layers; x needs none.
        assert flops.count(jax.grad(run), params).dot == 2 * router + rows * (each + 3 * each // 2)


def test_balance_keeps_the_router_from_choosing_always_the_same():
    """Experts that begin far apart in skill: the share that the first gets with the term, and without."""
    cfg = with_moe(top_k=1, normalize=False)
    layer, params = layer_of(cfg)
    params["router"]["kernel"] = params["router"]["kernel"].at[:, 0].add(1.0)
    x = jnp.abs(jax.random.normal(jax.random.key(5), (4, 32, 8)))
    target, counts = jnp.tanh(x[..., ::-1]), jnp.ones((4, 32))

    def run(weight):
        def loss(params):
            y, found = layer.apply({"params": params}, x, counts)
            return jnp.square(y - target).mean() + weight * found.balance, found.entropy

        def step(params, _):
            (_, entropy), grads = jax.value_and_grad(loss, has_aux=True)(params)
            return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), entropy

        return jax.lax.scan(step, params, None, 200)[1]

    entropy = jax.jit(lambda: jnp.stack([run(0.0), run(0.5)]))()
    assert entropy[0, 0] == entropy[1, 0] < 0.3 * math.log(4)
    assert entropy[0, -1] < 0.6 * math.log(4) and entropy[1, -1] > 0.9 * math.log(4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_experts": 0}, "num_experts=0 must be 1 or more"),
        ({"top_k": 5}, "top_k=5 must be 1 … num_experts"),
        ({"capacity": 0.0}, "capacity=0.0 must be above 0"),
        ({"z_weight": -1.0}, "must be 0 or more"),
    ],
)
def test_bad_options_get_a_message(changes, message):
    with pytest.raises(ValueError, match=message):
        Transformer(with_moe(**changes), 20)
