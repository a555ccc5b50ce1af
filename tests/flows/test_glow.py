"""Glow: volumes by autodiff, inverses, integrals, and what depth is worth."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding

import harness
from jaxgen import catalog
from jaxgen.config import Experiment, MeshConfig, TrainConfig
from jaxgen.data import Images, Spec, Toy, batch_at
from jaxgen.flows import glow
from jaxgen.flows.layers import actnorm, convolution, coupling, squeeze, unsqueeze
from jaxgen.flows.multiscale import Flow, FlowConfig, standard_normal
from jaxgen.numerics import bits_per_dim, dequantize, quantize
from jaxgen.optimizer import AdamWConfig
from jaxgen.sharding import BATCH, make_mesh

NET = FlowConfig(levels=2, steps=2, width=8)
OPTIMIZER = AdamWConfig(learning_rate=3e-3, warmup_steps=5)

# The smallest run of this method, for the suites that go over the whole catalog.
TINY = Experiment(
    method=glow.Config(net=dataclasses.replace(NET, levels=1), optimizer=OPTIMIZER),
    data=Images("digits"),
    train=TrainConfig(batch_size=8),
)
LAYERS = {
    "actnorm": actnorm(),
    "plain": convolution("plain"),
    "lu": convolution("lu"),
    "affine": coupling("affine", 8, 4),
    "affine, least scale": coupling("affine", 8, 4, 0.5),
    "additive": coupling("additive", 8, 4),
    "spline": coupling("spline", 8, 4),
}


def perturbed(params, scale=0.1):
    """Parameters without the zeros that make most of the flow an identity; what is fixed stays."""
    leaves, layout = jax.tree.flatten(params)
    keys, free = jax.random.split(jax.random.key(7), len(leaves)), jax.tree.leaves(glow.trained(params))
    return layout.unflatten(
        [x + scale * f * jax.random.normal(k, x.shape) for x, k, f in zip(leaves, keys, free, strict=True)]
    )


def noise(*shape):
    return 1.5 * jax.random.normal(jax.random.key(3), shape) + 0.5


def check_bijection(forward, inverse, x):
    """log|det| against the Jacobian that autodiff finds, and the inverse; forward gives a flat y, which is returned."""

    @jax.jit
    def everything(x):
        y, log_det = forward(x)
        return y, log_det, inverse(y), jax.vmap(jax.jacrev(lambda x: forward(x[None])[0][0]))(x)

    y, log_det, back, jacobian = everything(x)
    np.testing.assert_allclose(back, x, atol=1e-4)
    jacobian = jacobian.reshape(len(x), x[0].size, -1)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobian)[1], atol=1e-4)
    return y, log_det


@pytest.mark.parametrize("name", LAYERS)
def test_a_layers_volume_and_inverse(name):
    layer, x = LAYERS[name], noise(3, 2, 2, 5)
    params = jax.jit(lambda key: perturbed(layer.init(key, x)[0], 0.3))(jax.random.key(1))

    def forward(x):
        y, log_det = layer.forward(params, x)
        return y.reshape(len(x), -1), log_det

    y, _ = check_bijection(forward, lambda y: layer.inverse(params, y.reshape(-1, 2, 2, 5)), x)
    assert np.abs(y.reshape(x.shape) - x).max() > 0.1


def test_squeezing_makes_blocks_of_pixels():
    x = jnp.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    y = squeeze(x)
    assert y.shape == (2, 2, 3, 12)
    assert sorted(y[1, 1, 2].tolist()) == sorted(x[1, 2:4, 4:6].ravel().tolist())
    np.testing.assert_array_equal(unsqueeze(y), x)


@pytest.mark.parametrize("kind", ["plain", "lu"])
def test_a_1x1_convolution_starts_as_a_rotation(kind):
    layer = convolution(kind)
    params, _ = layer.init(jax.random.key(0), noise(1, 1, 1, 6))
    w, _ = layer.forward(params, jnp.eye(6)[None, None])
    np.testing.assert_allclose(w[0, 0] @ w[0, 0].T, np.eye(6), atol=1e-5)
    assert np.abs(w[0, 0]).max() < 0.999  # no permutation


@pytest.mark.parametrize(
    "changes",
    [{}, {"coupling": "additive", "convolution": "lu", "remat": True}],
    ids=["affine", "additive-lu"],
)
def test_the_whole_flows_volume_and_inverse(changes):
    """Of two levels; one of splines is integrated below."""
    flow, x = Flow(dataclasses.replace(NET, **changes), (4, 4, 1)), noise(2, 4, 4, 1)
    params = jax.jit(lambda key: perturbed(flow.init(key, noise(16, 4, 4, 1))))(jax.random.key(1))
    shapes = flow.noise_shapes(-1)
    ends = np.cumsum([np.prod(shape[1:]) for shape in shapes])

    def forward(x):
        eps, log_det = flow.forward(params, x)
        return jnp.concatenate([part.reshape(len(x), -1) for part in eps], 1), log_det

    def inverse(y):
        parts = jnp.split(y, ends[:-1], 1)
        return flow.inverse(params, [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)])

    y, log_det = check_bijection(forward, inverse, x)
    expected = -0.5 * (y**2).sum(1) - 8 * np.log(2 * np.pi) + log_det
    np.testing.assert_allclose(jax.jit(flow.log_prob)(params, x), expected, rtol=1e-5)


def test_actnorm_whitens_the_first_batch_on_one_device_and_on_eight():
    """Also where each device's rows have a mean of their own, so that local moments would be wrong."""
    x = noise(16, 2, 2, 3) + jnp.arange(16.0)[:, None, None, None]
    layer, mesh = actnorm(), make_mesh(MeshConfig(data=4, fsdp=2))
    one, _ = jax.jit(layer.init)(jax.random.key(0), x)
    with jax.set_mesh(mesh):
        split = jax.device_put(x, NamedSharding(mesh, BATCH))
        eight, _ = jax.jit(layer.init)(jax.random.key(0), split)
    for params in (one, jax.device_get(eight)):
        y, _ = layer.forward(params, x)
        np.testing.assert_allclose(y.mean((0, 1, 2)), 0.0, atol=1e-5)
        np.testing.assert_allclose(y.std((0, 1, 2)), 1.0, atol=1e-5)


def test_every_actnorm_of_a_flow_sees_the_batch_as_it_arrives_on_eight_devices_too():
    """The outputs of both steps' actnorms are white, and the whole state is that of one device."""
    data = Images("digits").load()
    method = catalog.make(TINY.method, data.spec)
    batch = batch_at(data, seed=0, step=0, batch_size=64, keys=("image",))
    mesh = make_mesh(MeshConfig(data=4, fsdp=2))
    one = jax.jit(method.init)(jax.random.key(0), batch)["params"]
    with jax.set_mesh(mesh):
        split = jax.device_put(batch, NamedSharding(mesh, BATCH))
        eight = jax.device_get(jax.jit(method.init)(jax.random.key(0), split)["params"])
    a, b = harness.leaves(one), harness.leaves(eight)
    assert a.keys() == b.keys()
    for path in a:
        np.testing.assert_allclose(a[path], b[path], rtol=1e-4, atol=1e-4, err_msg=path)
    u = jax.random.uniform(jax.random.split(jax.random.key(0))[0], batch["image"].shape)
    x = squeeze(dequantize(batch["image"], u, data.spec.levels))

    @jax.jit
    def advance(params, x):
        white, _ = actnorm().forward(params["actnorm"], x)
        x, _ = convolution("plain").forward(params["convolution"], white)
        return white, coupling("affine", 8, 8, NET.min_scale).forward(params["coupling"], x)[0]

    for step in range(2):
        white, x = advance(jax.tree.map(lambda p, step=step: p[step], eight["steps_0"]), x)
        np.testing.assert_allclose(white.mean((0, 1, 2)), 0.0, atol=1e-3)
        np.testing.assert_allclose(white.std((0, 1, 2)), 1.0, atol=1e-3)


def test_every_pixel_comes_back_from_its_bin():
    pixels = jnp.arange(17, dtype=jnp.uint8)
    for u in (0.01, 0.5, 0.99):
        x = dequantize(pixels, jnp.full(17, u), 17)
        assert x.min() >= -0.5 and x.max() < 0.5
        np.testing.assert_array_equal(quantize(x, 17), pixels)
    np.testing.assert_array_equal(quantize(jnp.array([-9.0, 9.0]), 17), [0, 16])


def test_bits_of_uniform_pixels():
    """Density 1 on a cube of side 1: each of 256 values takes 8 bits."""
    assert bits_per_dim(jnp.zeros(()), 12, 256) == 8


def train(experiment, steps):
    """The method, its data and its state after so many steps, for the tests that need a trained flow."""
    data = experiment.data.load()
    method = catalog.make(experiment.method, data.spec)
    size = experiment.train.batch_size
    read = lambda step: batch_at(data, seed=0, step=step, batch_size=size, keys=method.reads)
    state, step = jax.jit(method.init)(jax.random.key(0), read(0)), jax.jit(method.step, donate_argnums=0)
    for i in range(steps):
        state, metrics = step(state, read(i), jax.random.fold_in(jax.random.key(1), i))
    return method, data, state, metrics


@pytest.mark.parametrize("kind", ["affine", "spline"])
def test_the_density_of_points_in_the_plane_integrates_to_one(kind):
    """After training on two moons, and the flow has an inverse then."""
    net = FlowConfig(levels=1, steps=3, width=16, coupling=kind)
    config = glow.Config(net=net, optimizer=AdamWConfig(learning_rate=5e-3, warmup_steps=5), ema_decay=0.9)
    experiment = Experiment(method=config, data=Toy("moons", size=2000, noise=0.1), train=TrainConfig(batch_size=256))
    method, data, state, metrics = train(experiment, 100)
    assert metrics["loss"] < 1.4  # a Gaussian of the points' moments has 1.56
    flow, params = Flow(net, (1, 1, 2)), state["params"]
    side = np.arange(-6.0, 6.0, 0.08, dtype=np.float32) + 0.04
    grid = jnp.asarray(np.stack(np.meshgrid(side + 0.5, side + 0.25), -1).reshape(-1, 1, 1, 2))
    log_prob = jax.jit(flow.log_prob)(params, grid)
    assert float(jnp.exp(log_prob).sum() * 0.08**2) == pytest.approx(1.0, abs=0.01)
    x = jnp.asarray(data.read("test", np.arange(100), ("x",))["x"]).reshape(-1, 1, 1, 2)
    there_and_back = jax.jit(lambda x: flow.inverse(params, flow.forward(params, x)[0]))
    np.testing.assert_allclose(there_and_back(x), x, atol=1e-4)
    assert jax.eval_shape(lambda: method.sample(state, jax.random.key(2), 5))["x"].shape == (5, 2)


def test_after_training_the_flow_of_images_has_its_inverse_and_autodiffs_log_determinant():
    net = FlowConfig(levels=2, steps=2, width=16)
    config = glow.Config(net=net, optimizer=AdamWConfig(learning_rate=3e-3, warmup_steps=5))
    experiment = Experiment(method=config, data=Images("digits"), train=TrainConfig(batch_size=64))
    _, data, state, metrics = train(experiment, 100)
    assert metrics["loss"] < 4.3  # 1×1 convolutions alone end at 4.32
    flow, params = Flow(net, (8, 8, 1)), state["params"]
    image = jnp.asarray(data.read("test", np.arange(16), ("image",))["image"])
    x = dequantize(image, jax.random.uniform(jax.random.key(0), image.shape), 17)
    flat = lambda x: jnp.concatenate([e.ravel() for e in flow.forward(params, x.reshape(1, 8, 8, 1))[0]])

    @jax.jit
    def check(x):
        eps, log_det = flow.forward(params, x)
        jacobians = jax.lax.map(jax.jacrev(flat), x[:3].reshape(3, -1))
        return flow.inverse(params, eps), log_det[:3], jnp.linalg.slogdet(jacobians)[1]

    back, log_det, expected = check(x)
    np.testing.assert_allclose(back, x, atol=1e-4)
    np.testing.assert_allclose(log_det, expected, rtol=1e-4)


def test_without_the_log_determinant_all_noise_collapses_to_zero():
    """The prior's term alone asks for ε = 0; with log|det dε/dx| its variance stays near 1."""
    flow = Flow(FlowConfig(levels=1, steps=2, width=16), (1, 1, 2))
    x = jnp.asarray(Toy("moons", size=256, noise=0.1).load().read("train", np.arange(200), ("x",))["x"])
    x, tx = x.reshape(-1, 1, 1, 2), optax.adam(1e-2)

    @jax.jit
    def variance(weight):
        def loss(params):
            eps, log_det = flow.forward(params, x)
            return -(standard_normal(eps) + weight * log_det).mean()

        def descend(carry, _):
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params), state)
            return (optax.apply_updates(params, updates), state), ()

        params = flow.init(jax.random.key(0), x)
        params = jax.lax.scan(descend, (params, tx.init(params)), None, 500)[0][0]
        return jnp.square(flow.forward(params, x)[0][0]).mean()

    assert variance(0.0) < 1e-3
    assert variance(1.0) == pytest.approx(1.0, abs=0.2)


def test_without_coupling_any_depth_is_one_linear_map():
    """E13: eight steps equal one with the product of their maps, so that depth adds nothing."""
    x = noise(8, 2, 2, 3)
    deep = Flow(FlowConfig(levels=1, steps=8, coupling="none"), (4, 4, 3))
    shallow = Flow(dataclasses.replace(deep.cfg, steps=1), (4, 4, 3))
    images = unsqueeze(jnp.concatenate([x, x**2, jnp.sin(x), x**3], -1))

    @jax.jit
    def log_probs(key):
        params = perturbed(deep.init(key, images))
        # [N, 12] → [N, 12]
        pixel = lambda rows: deep._steps.forward(params["steps_0"], rows[:, None, None])[0][:, 0, 0]
        offset = pixel(jnp.zeros((1, 12)))
        weight = pixel(jnp.eye(12)) - offset
        steps = {
            "actnorm": {"bias": (offset @ jnp.linalg.inv(weight)), "log_scale": jnp.zeros((1, 12))},
            "convolution": {"weight": weight[None]},
            "coupling": {},
        }
        one = shallow.log_prob({"steps_0": steps, "prior": params["prior"]}, images)
        return one, deep.log_prob(params, images)

    one, many = log_probs(jax.random.key(0))
    np.testing.assert_allclose(one, many, rtol=1e-4)


@pytest.mark.slow
def test_depth_pays_with_coupling_alone():
    """E13 trained: held-out bits/dim of digits, one step against eight, without coupling and with."""

    def held_out(kind, steps):
        net = FlowConfig(levels=1, steps=steps, width=64, coupling=kind)
        config = glow.Config(net=net, optimizer=AdamWConfig(learning_rate=2e-3), ema_decay=0.99)
        experiment = Experiment(method=config, data=Images("digits"), train=TrainConfig(batch_size=128))
        method, data, state, _ = train(experiment, 800)
        image = data.read("test", np.arange(data.spec.counts["test"]), ("image",))
        return float(jax.jit(method.evaluate)(state, image, jax.random.key(0))["bits_per_dim/exact"][0].mean())

    assert abs(held_out("none", 1) - held_out("none", 8)) < 0.05
    assert held_out("affine", 1) - held_out("affine", 8) > 1


def test_a_colder_sample_is_nearer_to_the_mean():
    spec = Images("digits").load().spec
    batch = {"image": jax.random.randint(jax.random.key(0), (32, 8, 8, 1), 0, 17).astype(jnp.uint8)}
    state = jax.jit(glow.make(TINY.method, spec).init)(jax.random.key(0), batch)
    spread = {}
    for temperature in (0.0, 0.5, 1.0):
        config = dataclasses.replace(TINY.method, sample=glow.SampleConfig(temperature))
        image = jax.jit(glow.make(config, spec).sample, static_argnums=2)(state, jax.random.key(1), 64)["image"]
        spread[temperature] = image.astype(jnp.float32).std(0).mean()
    assert spread[0.0] == 0 < spread[0.5] < 0.8 * spread[1.0]


def test_permutations_stay_as_they_are():
    """Neither gradients nor weight decay move them."""
    optimizer = AdamWConfig(learning_rate=1e-2, warmup_steps=0, weight_decay=0.1)
    config = glow.Config(
        net=FlowConfig(levels=1, steps=1, width=4, convolution="lu"), optimizer=optimizer, ema_decay=0.5
    )
    data = Toy("moons", size=100).load()
    method, batch = glow.make(config, data.spec), data.read("train", np.arange(32), ("x",))
    states, step = [jax.jit(method.init)(jax.random.key(0), batch)], jax.jit(method.step)
    for i in range(2):
        states.append(step(states[-1], batch, jax.random.key(i))[0])
    first, _, last = (state["params"]["steps_0"]["convolution"] for state in states)
    np.testing.assert_array_equal(first["permutation"], last["permutation"])
    assert (first["lower"] != last["lower"]).any()


def spec_of(*shape):
    key = "image" if len(shape) == 3 else "x"
    return Spec(shapes={key: shape}, dtypes={key: "uint8"}, counts={"train": 8}, names={}, sizes={})


@pytest.mark.parametrize(
    ("changes", "shape", "message"),
    [
        ({"net": FlowConfig(levels=3)}, (28, 28, 1), "they divide 2 times"),
        ({"net": FlowConfig(levels=2)}, (2,), "must be 1 for vectors"),
        ({"net": FlowConfig(levels=1)}, (1,), "2 numbers or more"),
        ({"net": FlowConfig(coupling="afine")}, (28, 28, 1), "did you mean affine"),
        ({"net": FlowConfig(convolution="LU")}, (28, 28, 1), "method.net.convolution"),
        ({"net": FlowConfig(steps=0)}, (28, 28, 1), "method.net.steps=0 must be 1 or more"),
        ({"net": FlowConfig(min_scale=1.0)}, (28, 28, 1), "min_scale=1.0 must lie in 0…1"),
        ({"sample": glow.SampleConfig(-1.0)}, (28, 28, 1), "sample.temperature=-1.0"),
        ({"accumulate": 0}, (28, 28, 1), "accumulate=0"),
    ],
)
def test_what_it_refuses(changes, shape, message):
    with pytest.raises(ValueError, match=message):
        glow.make(dataclasses.replace(glow.Config(), **changes), spec_of(*shape))
