import jax
import jax.numpy as jnp
import pytest

from jaxgen.optimizer import AdamWConfig, adamw


@pytest.mark.parametrize(
    ("warmup_steps", "decay_steps", "rates"),
    [
        (10, 30, {0: 0.0, 5: 0.5, 10: 1.0, 20: 0.05 + 0.95 / 2, 30: 0.05, 35: 0.05}),
        (0, 30, {0: 1.0, 15: 0.05 + 0.95 / 2, 30: 0.05, 35: 0.05}),
        (10, None, {0: 0.0, 5: 0.5, 10: 1.0, 35: 1.0}),
        (0, None, {0: 1.0, 1: 1.0, 35: 1.0}),
    ],
)
def test_learning_rate_warms_up_and_decays_to_a_twentieth(warmup_steps, decay_steps, rates):
    tx = adamw(AdamWConfig(1.0, warmup_steps, decay_steps, grad_clip=1e9))
    params = jnp.zeros(1)
    update = jax.jit(tx.update)
    state, sizes = tx.init(params), []
    for _ in range(40):
        updates, state = update(jnp.ones(1), state, params)
        sizes.append(-float(updates[0]))  # Adam's step on a constant gradient is the rate
    assert {step: sizes[step] for step in rates} == pytest.approx(rates, abs=1e-3)


def test_gradients_are_clipped_and_weights_decay():
    tx = adamw(AdamWConfig(0.1, warmup_steps=0, b1=0.0, b2=0.0, weight_decay=0.5, grad_clip=1.0))
    params = jnp.array([2.0, -4.0])
    updates, state = tx.update(jnp.array([30.0, -40.0]), tx.init(params), params)
    # Adam without memory steps by the gradient's sign; the decay is decoupled from it.
    assert list(updates) == pytest.approx([-0.1 * (1 + 0.5 * 2), 0.1 * (1 + 0.5 * 4)], rel=1e-5)
    mu = next(s.mu for s in jax.tree.leaves(state, is_leaf=lambda s: hasattr(s, "mu")) if hasattr(s, "mu"))
    assert list(mu) == pytest.approx([0.6, -0.8], rel=1e-5)  # cut to the norm 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decay_steps": 50}, "must exceed warmup_steps"),
        ({"learning_rate": 0.0}, "optimizer.learning_rate=0.0 must be above 0"),
        ({"learning_rate": float("nan")}, "optimizer.learning_rate=nan"),
        ({"grad_clip": 0.0}, "optimizer.grad_clip=0.0 must be above 0"),
        ({"warmup_steps": -1}, "optimizer.warmup_steps=-1 must be 0"),
        ({"b1": 1.0}, "must lie in"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0"),
    ],
)
def test_options_that_cannot_be_followed_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        AdamWConfig(**change)
