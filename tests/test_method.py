"""One gradient step by hand, accumulation that is exact, and the moving average's recursion."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding

from jaxgen.config import MeshConfig
from jaxgen.method import Method, descend, gradient_method, split_batch, with_ema
from jaxgen.sharding import BATCH, make_mesh, replicated


def squares(params, x, y):
    """The mean of (x·w − y)², and the mean of |x·w − y| beside it."""
    error = x @ params["w"] - y
    return jnp.mean(error**2), {"absolute": jnp.mean(jnp.abs(error))}


def test_descend_is_a_step_of_gradient_descent_by_hand():
    """Errors (1, 4): loss (1 + 16)/2, gradient ((2·1·1)/2, (2·4·2)/2) = (1, 8); each rate 0.1."""
    params, x, y = {"w": jnp.array([1.0, 2.0])}, jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.zeros(2)
    tx = optax.sgd(0.1)
    new, _, metrics = descend(tx, squares, params, tx.init(params), x, y)
    np.testing.assert_allclose(new["w"], [0.9, 1.2], rtol=1e-6)
    assert metrics.keys() == {"loss", "absolute", "grad_norm"}
    np.testing.assert_allclose([metrics["loss"], metrics["absolute"]], [8.5, 2.5], rtol=1e-6)
    np.testing.assert_allclose(metrics["grad_norm"], 65**0.5, rtol=1e-6)


def test_the_optimizer_sees_the_parameters_and_keeps_its_state():
    """Weight decay 0.5 adds (0.5, 1) to the gradient (1, 8), not to its norm; momentum 0.5 adds up over two steps."""
    params, x, y = {"w": jnp.array([1.0, 2.0])}, jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.zeros(2)
    tx = optax.chain(optax.add_decayed_weights(0.5), optax.sgd(0.1))
    new, _, metrics = descend(tx, squares, params, tx.init(params), x, y)
    np.testing.assert_allclose(new["w"], [0.85, 1.1], rtol=1e-6)
    np.testing.assert_allclose(metrics["grad_norm"], 65**0.5, rtol=1e-6)

    tx = optax.sgd(0.1, momentum=0.5)
    params, opt_state, _ = descend(tx, squares, params, tx.init(params), x, y)  # w = (0.9, 1.2), trace (1, 8)
    params, _, _ = descend(tx, squares, params, opt_state, x, y)  # gradient (0.9, 4.8), trace (1.4, 8.8)
    np.testing.assert_allclose(params["w"], [0.76, 0.32], rtol=1e-5)


def masked(params, x, mask):
    """A mean over tokens of a loss that is no quadratic, so that no symmetry hides a wrong weight."""
    losses = jnp.log1p((jnp.einsum("btd,d->bt", x, params["w"]) - 1) ** 2)
    return jnp.sum(losses * mask) / mask.sum(), {"first": jnp.sum(losses[:, 0]) / losses.shape[0]}


def random_batch():
    key_x, key_w = jax.random.split(jax.random.key(0))
    x, params = jax.random.normal(key_x, (8, 6, 3)), {"w": jax.random.normal(key_w, (3,))}
    lengths = jnp.array([3, 0, 5, 1, 6, 0, 4, 2])
    return params, x, (jnp.arange(6)[None] < lengths[:, None]).astype(jnp.float32)


def gradient(accumulate, weight_fn, mask=None):
    """Gradient (what a rate of 1 takes off the parameters) and loss of one descent on the whole batch."""
    params, x, lengths = random_batch()
    mask = lengths if mask is None else mask
    tx = optax.sgd(1.0)
    new, _, metrics = descend(tx, masked, params, tx.init(params), x, mask, accumulate=accumulate, weight_fn=weight_fn)
    return np.asarray(params["w"] - new["w"]), metrics


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulation_by_examples_is_the_large_batch(accumulate):
    whole, metrics = gradient(1, None, jnp.ones((8, 6)))
    parts, part_metrics = gradient(accumulate, None, jnp.ones((8, 6)))
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-7)
    assert metrics.keys() == part_metrics.keys()
    for name in metrics:
        np.testing.assert_allclose(part_metrics[name], metrics[name], rtol=1e-5)


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulation_by_tokens_is_the_large_batch(accumulate):
    """Of 4 parts, part 1 (examples 1 and 5) has no token at all; plain averaging is wrong, as the counts differ."""
    whole, metrics = gradient(1, None)
    parts, part_metrics = gradient(accumulate, lambda x, mask: mask.sum())
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(part_metrics["loss"], metrics["loss"], rtol=1e-5)
    np.testing.assert_allclose(part_metrics["grad_norm"], metrics["grad_norm"], rtol=1e-5)
    plain, _ = gradient(accumulate, None)
    assert not np.allclose(plain, whole, rtol=1e-2)


def test_accumulation_keeps_the_parameters_dtype():
    params = {"w": jnp.array([1.0, 2.0], jnp.bfloat16)}
    tx = optax.sgd(0.1)
    x, y = jnp.ones((4, 2), jnp.bfloat16), jnp.zeros(4, jnp.bfloat16)
    new, _, metrics = descend(tx, squares, params, tx.init(params), x, y, accumulate=2)
    assert new["w"].dtype == jnp.bfloat16 and metrics["loss"].dtype == jnp.bfloat16
    assert metrics["loss"] == 9


@pytest.mark.parametrize("extra", [lambda x: x.mean(0), lambda x: {"mean": x.mean(0)}], ids=["array", "tree"])
def test_accumulation_is_refused_where_the_loss_hands_on_batch_statistics(extra):
    params, tx = {"w": jnp.array([1.0, 2.0])}, optax.sgd(0.1)

    def loss_fn(params, x, y):
        loss, metrics = squares(params, x, y)
        return loss, metrics | {"batch_stats": extra(x)}

    def go(accumulate):
        x = jnp.arange(8.0).reshape(4, 2)
        return descend(tx, loss_fn, params, tx.init(params), x, jnp.zeros(4), accumulate=accumulate)

    message = r"accumulation over 2 parts is not exact .* hands on batch_stats .*set accumulate=1"
    with pytest.raises(ValueError, match=message):
        go(2)
    (statistics,) = jax.tree.leaves(go(1)[2]["batch_stats"])
    np.testing.assert_array_equal(statistics, [3, 4])


def test_example_i_goes_to_part_i_modulo_num():
    tree = {"x": jnp.arange(12).reshape(6, 2), "label": jnp.arange(6)}
    parts = split_batch(tree, 3)
    np.testing.assert_array_equal(parts["label"], [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(parts["x"][2], [[4, 5], [10, 11]])
    parts = split_batch(jax.random.split(jax.random.key(0), 6), 3)
    draws = np.array([[jax.random.normal(key) for key in part] for part in parts])
    expected = np.array([jax.random.normal(key) for key in jax.random.split(jax.random.key(0), 6)])
    np.testing.assert_array_equal(draws, expected[[[0, 3], [1, 4], [2, 5]]])
    with pytest.raises(ValueError, match="cannot split a batch of 6 into 4 equal parts"):
        split_batch(tree, 4)


def test_accumulation_over_devices_moves_no_examples_between_them():
    """The compiled step sums gradients (all-reduce) and gathers nothing; consecutive parts would need it."""
    mesh = make_mesh(MeshConfig(data=4, fsdp=2))
    params, tx = {"w": jnp.ones(16)}, optax.sgd(0.1)
    examples = jax.ShapeDtypeStruct((64, 16), jnp.float32, sharding=NamedSharding(mesh, BATCH))

    def loss_fn(params, x):
        return jnp.mean((x @ params["w"]) ** 2), {}

    def strided(params, x):
        return descend(tx, loss_fn, params, tx.init(params), x, accumulate=4)[0]

    def consecutive(params, x):
        gradients = jax.lax.map(lambda part: jax.grad(loss_fn, has_aux=True)(params, part)[0], x.reshape(4, -1, 16))
        return jax.tree.map(lambda p, g: p - 0.1 * g.mean(0), params, gradients)

    def program(function):
        everywhere = replicated(mesh)
        jitted = jax.jit(function, in_shardings=(everywhere, NamedSharding(mesh, BATCH)), out_shardings=everywhere)
        return jitted.lower(params, examples).compile().as_text()

    moves = ("all-gather", "all-to-all", "collective-permute")
    assert "all-reduce" in program(strided)
    assert not any(move in program(strided) for move in moves)
    assert any(move in program(consecutive) for move in moves)


BATCH_OF_4 = {"x": jnp.arange(4.0)}


def noisy(accumulate=1, draw=None):
    """Loss mean(w · eps · x): its gradient is mean(eps · x); without `draw`, eps is a normal of each example's key."""

    def loss_fn(params, batch, noise):
        eps = jax.vmap(jax.random.normal)(noise) if draw is None else noise
        return jnp.mean(params["w"] * eps * batch["x"]), {}

    def init_params(key, batch, warm=None):
        return {"w": batch["x"].sum() + (0.0 if warm is None else warm["start"])}

    return gradient_method(init_params, loss_fn, optax.sgd(1.0), draw=draw, accumulate=accumulate, reads=("x",))


def test_a_gradient_method_draws_one_key_an_example():
    eps = np.array([jax.random.normal(key) for key in jax.random.split(jax.random.key(7), 4)])
    for accumulate in (1, 2):
        method = noisy(accumulate)
        state = method.init(jax.random.key(0), BATCH_OF_4)
        new, metrics = jax.jit(method.step)(state, BATCH_OF_4, jax.random.key(7))
        np.testing.assert_allclose(new["params"]["w"], 6 - np.mean(eps * np.arange(4)), rtol=1e-6)
        np.testing.assert_allclose(metrics["loss"], 6 * np.mean(eps * np.arange(4)), rtol=1e-6)


def test_a_gradient_method_draws_for_the_whole_batch_where_it_is_told_how():
    draw = lambda key, batch: batch["x"] + jax.random.uniform(key)
    uniform = jax.random.uniform(jax.random.key(7))
    expected = 6 - np.mean((np.arange(4) + uniform) * np.arange(4))
    for accumulate in (1, 4):
        method = noisy(accumulate, draw)
        new, _ = method.step(method.init(jax.random.key(0), BATCH_OF_4), BATCH_OF_4, jax.random.key(7))
        np.testing.assert_allclose(new["params"]["w"], expected, rtol=1e-6)


def test_a_gradient_methods_state_is_parameters_and_optimizer():
    method = noisy()
    state = method.init(jax.random.key(0), BATCH_OF_4)
    assert state.keys() == {"params", "opt_state"} and method.reads == ("x",)
    assert method.init(jax.random.key(0), BATCH_OF_4, {"start": 100.0})["params"]["w"] == 106
    assert jax.tree.structure(method.step(state, BATCH_OF_4, jax.random.key(1))[0]) == jax.tree.structure(state)


def climber():
    """A method whose weight is 0, 1, 2, … and which says what its sampler and its evaluation were given."""

    def step(state, batch, key):
        return {"gen": {"w": state["gen"]["w"] + 1}, "other": state["other"]}, {"loss": state["gen"]["w"]}

    def seen(state, *args):
        return {"w": state["gen"]["w"], "names": sorted(state), "args": args}

    return Method(
        init=lambda key, batch, warm=None: {"gen": {"w": jnp.zeros(())}, "other": jnp.ones(())},
        step=step,
        sample=lambda state, key, num, cond=None: seen(state, num, cond),
        evaluate=lambda state, batch, key: seen(state, batch),
    )


@pytest.mark.parametrize(
    ("decay", "averages"),
    [
        (0.999, [0.9, 1.8, 2.7]),  # kept: 1/10, 2/11, 3/12
        (0.15, [0.9, 1.835, 2.82525]),  # kept: 1/10, then 0.15
        (0.0, [1.0, 2.0, 3.0]),
    ],
)
def test_the_average_is_its_recursion_by_hand(decay, averages):
    """e ← k·e + (1 − k)·w, k = min(decay, n / (n + 9)), over w = 1, 2, 3 from e = 0."""
    method = with_ema(climber(), "gen", decay)
    state = method.init(None, None)
    step = jax.jit(method.step)
    for n, average in enumerate(averages, 1):
        state, metrics = step(state, None, None)
        np.testing.assert_allclose(state["ema"]["w"], average, rtol=1e-6)
        assert state["gen"]["w"] == n and state["ema_count"] == n and metrics["loss"] == n - 1


def test_samples_and_evaluations_see_the_average_in_place_of_the_weights():
    method = with_ema(climber(), "gen", 0.999)
    state, _ = method.step(method.init(None, None), None, None)
    for seen, args in (
        (method.sample(state, None, 5, cond="hat"), (5, "hat")),
        (method.evaluate(state, "batch", None), ("batch",)),
    ):
        np.testing.assert_allclose(seen["w"], 0.9, rtol=1e-6)
        assert seen["names"] == ["gen", "other"] and seen["args"] == args
    assert state["gen"]["w"] == 1
    without = with_ema(climber()._replace(sample=None, evaluate=None), "gen")
    assert without.sample is None and without.evaluate is None


def test_the_average_is_a_buffer_of_its_own():
    """The state is donated to the step; one buffer could not be given twice."""
    method = with_ema(climber(), "gen", 0.9)
    state = method.init(None, None)
    assert state["ema"]["w"].unsafe_buffer_pointer() != state["gen"]["w"].unsafe_buffer_pointer()
    new, _ = jax.jit(method.step, donate_argnums=0)(state, None, None)
    assert state["ema"]["w"].is_deleted() and state["gen"]["w"].is_deleted()
    np.testing.assert_allclose(new["ema"]["w"], 0.9, rtol=1e-6)


@pytest.mark.parametrize("decay", [1.0, -0.1, 1.5, float("nan")])
def test_impossible_decays_are_refused(decay):
    with pytest.raises(ValueError, match=r"decay lies in \[0, 1\)"):
        with_ema(climber(), "gen", decay)
