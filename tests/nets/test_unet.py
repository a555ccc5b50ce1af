import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.config import MeshConfig
from jaxgen.nets.attention import attention
from jaxgen.nets.resample import double, halve
from jaxgen.nets.unet import UNet, UNetConfig, time_embedding
from jaxgen.program import late
from jaxgen.sharding import make_mesh

TINY = UNetConfig(width=8, multipliers=(1, 2), attention_resolutions=(4,), num_heads=2, num_groups=4, dropout=0.5)


def perturbed(params):
    """Parameters without the zeros that hide most of the network at initialisation."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: np.asarray(x) + 0.2 * rng.standard_normal(x.shape, np.float32), params)


@pytest.fixture(scope="module")
def tiny():
    net = UNet(TINY, 2)
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    t = jnp.array([0.0, 0.3, 0.6, 1.0])
    cond = jax.random.normal(jax.random.key(2), (4, 5))
    params = jax.jit(net.init)(jax.random.key(1), x, t, cond)
    return jax.jit(net.apply), params, perturbed(params), x, t, cond


def test_output_is_zero_at_initialisation_and_not_after(tiny):
    apply, params, noisy, x, t, cond = tiny
    y = apply(params, x, t, cond)
    assert y.shape == (4, 8, 8, 2) and y.dtype == jnp.float32
    assert not y.any()
    assert float(jnp.abs(apply(noisy, x, t, cond)).mean()) > 0.1


def test_examples_do_not_see_each_other(tiny):
    apply, _, noisy, x, t, cond = tiny
    order = jnp.array([2, 0, 3, 1])
    y = apply(noisy, x, t, cond)
    np.testing.assert_allclose(apply(noisy, x[order], t[order], cond[order]), y[order], atol=1e-5)


def test_time_and_condition_matter_and_a_zero_condition_is_none(tiny):
    apply, _, noisy, x, t, cond = tiny
    y = apply(noisy, x, t, cond)
    assert float(jnp.abs(apply(noisy, x, 1 - t, cond) - y).mean()) > 0.01
    assert float(jnp.abs(apply(noisy, x, t, -cond) - y).mean()) > 0.01
    # Without a condition a block's layer for the time has only the rows that see the time.
    rows = lambda path, p: p[: 4 * TINY.width] if jax.tree_util.keystr(path).endswith("['time']['kernel']") else p
    alone = jax.tree_util.tree_map_with_path(rows, noisy)
    np.testing.assert_allclose(apply(noisy, x, t, 0 * cond), jax.jit(UNet(TINY, 2).apply)(alone, x, t), atol=1e-5)


def test_dropout_acts_in_training_only(tiny):
    apply, _, noisy, x, t, cond = tiny
    train = jax.jit(lambda key: UNet(TINY, 2).apply(noisy, x, t, cond, train=True, rngs={"dropout": key}))
    a, b = train(jax.random.key(0)), train(jax.random.key(1))
    assert float(jnp.abs(a - b).mean()) > 0.01
    np.testing.assert_array_equal(apply(noisy, x, t, cond), apply(noisy, x, t, cond))


def test_half_precision_computes_the_same_function(tiny):
    apply, _, noisy, x, t, cond = tiny
    half = jax.jit(UNet(dataclasses.replace(TINY, dtype="bfloat16"), 2).apply)(noisy, x, t, cond)
    exact = apply(noisy, x, t, cond)
    assert half.dtype == jnp.float32
    assert 0 < float(jnp.abs(half - exact).mean() / jnp.abs(exact).mean()) < 0.05


def test_rematerialised_blocks_give_the_same_gradients(tiny):
    """Of the same parameters, dropout included; of one level."""
    *_, x, t, cond = tiny
    small = dataclasses.replace(TINY, multipliers=(1,), attention_resolutions=(8,))
    nets = [UNet(dataclasses.replace(small, remat=remat), 2) for remat in (False, True)]
    params, again = jax.jit(lambda: [net.init(jax.random.key(1), x, t, cond) for net in nets])()
    jax.tree.map(np.testing.assert_array_equal, params, again)

    def gradient(net, params):
        rngs = {"dropout": jax.random.key(5)}
        loss = lambda params: jnp.square(net.apply(params, x, t, cond, train=True, rngs=rngs)).mean()
        return jax.grad(loss)(params)

    plain, remat = jax.jit(lambda params: [gradient(net, params) for net in nets])(perturbed(params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), plain, remat)


def test_rematerialised_blocks_take_less_memory():
    """By the compiler's count, under the schedule of training; a CPU's saves less of it than an accelerator's."""
    x, t = jax.ShapeDtypeStruct((4, 32, 32, 3), jnp.float32), jax.ShapeDtypeStruct((4,), jnp.float32)

    def temporary(remat):
        net = UNet(UNetConfig(width=8, multipliers=(1,), num_blocks=3, attention_resolutions=(), remat=remat), 2)
        params = jax.eval_shape(net.init, jax.random.key(0), x, t)
        loss = lambda params, x, t: jnp.square(net.apply(params, x, t)).mean()
        options = late(make_mesh(MeshConfig(), jax.devices()[:1]))
        compiled = jax.jit(jax.grad(loss), compiler_options=options).lower(params, x, t).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(True) < 0.92 * temporary(False)


@pytest.mark.parametrize(("size", "bottom"), [(28, 7), (16, 4), (32, 8)])
def test_sizes_of_the_bundled_images_run_through_three_levels(size, bottom):
    net = UNet(UNetConfig(width=8, multipliers=(1, 1, 2), num_groups=4, attention_resolutions=(bottom,)), 1)
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.ones((2, size, size, 1)), jnp.ones(2))
    names = set(shapes["params"])
    assert {"conv_in", "down_2_0_attention", "middle_0_attention", "up_2_0_attention", "up_0_0", "conv_out"} <= names
    assert "down_0_0_attention" not in names
    y = jax.eval_shape(net.apply, shapes, jnp.ones((2, size, size, 1)), jnp.ones(2))
    assert y.shape == (2, size, size, 1)


@pytest.mark.parametrize(
    ("change", "size", "message"),
    [
        ({"layout": "ful"}, 8, r"unknown net.layout='ful' \(did you mean full\?\)"),
        ({"multipliers": (1, 1, 2, 2)}, 28, "cannot be halved 3 times"),
        ({"num_groups": 3}, 8, "num_groups=3 does not divide the 8 channels"),
        ({"num_heads": 5}, 8, "num_heads=5 does not divide"),
        ({"num_blocks": 0}, 8, "num_blocks"),
    ],
)
def test_impossible_shapes_are_refused_up_front(change, size, message):
    net = UNet(dataclasses.replace(TINY, **change), 1)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(net.init, jax.random.key(0), jnp.ones((1, size, size, 1)), jnp.ones(1))


def test_the_papers_network_has_the_papers_parameters():
    """35.7 M for CIFAR-10 (Ho et al. 2020, appendix B); 35,746,307 in their released checkpoint."""
    cfg = UNetConfig(128, (1, 2, 2, 2), 2, (16,), num_heads=1, num_groups=32, film=False, layout="full")
    params = jax.eval_shape(UNet(cfg, 3).init, jax.random.key(0), jnp.ones((1, 32, 32, 3)), jnp.ones(1))
    assert sum(x.size for x in jax.tree.leaves(params)) == 35_746_307


def test_a_sequence_is_attended_to_where_it_holds_something():
    cfg = dataclasses.replace(TINY, multipliers=(1,), attention_resolutions=(8,), layout="full", film=False)
    net, x, t = UNet(cfg, 2), jax.random.normal(jax.random.key(0), (2, 8, 8, 3)), jnp.array([0.2, 0.7])
    context = jax.random.normal(jax.random.key(1), (2, 5, 4))
    seen = jnp.arange(5)[None] < jnp.array([[2], [4]])
    params = perturbed(jax.jit(net.init)(jax.random.key(2), x, t, None, (context, seen)))
    apply = jax.jit(lambda context: net.apply(params, x, t, None, (context, seen)))
    y = apply(context)
    hidden = jnp.where(seen[:, :, None], context, 7.0)
    np.testing.assert_allclose(apply(hidden), y, atol=1e-5)
    other = apply(context.at[:, 1].add(1.0))
    assert float(jnp.abs(other - y).mean()) > 1e-3


def test_halving_takes_means_and_doubling_repeats():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(halve(x)[0, :, :, 0], [[2.5, 4.5], [10.5, 12.5]])
    np.testing.assert_array_equal(double(x), np.repeat(np.repeat(x, 2, 1), 2, 2))


def test_time_embedding_of_vaswani_et_al():
    embedded = time_embedding(jnp.array([0.25]), 4)
    np.testing.assert_allclose(embedded[0], [np.sin(250), np.sin(0.025), np.cos(250), np.cos(0.025)], atol=2e-5)
    assert time_embedding(jnp.ones(3), 7).shape == (3, 7)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_a_softmax_over_scaled_products(causal):
    q, k, v = np.random.default_rng(0).normal(size=(3, 2, 5, 3, 4)).astype(np.float32)
    scores = np.einsum("btnd,bsnd->bnts", q, k) / 2
    if causal:
        scores = np.where(np.tril(np.ones((5, 5), bool)), scores, -np.inf)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    expected = np.einsum("bnts,bsnd->btnd", weights, v)
    np.testing.assert_allclose(attention(q, k, v, causal=causal), expected, atol=1e-5)
    mask = np.tril(np.ones((1, 1, 5, 5), bool)) if causal else None
    np.testing.assert_allclose(attention(q, k, v, mask=mask), expected, atol=1e-5)
