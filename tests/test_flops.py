"""FLOPs by closed forms, against unrolled programs, and against XLA's own count."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import harness
import toy_methods
from jaxgen import catalog
from jaxgen.config import MeshConfig
from jaxgen.flops import count
from jaxgen.kernels import plain
from jaxgen.nets.conv import conv
from jaxgen.sharding import P, make_mesh


def shapes(*sizes, dtype=jnp.float32):
    return [jax.ShapeDtypeStruct(size, dtype) for size in sizes]


@pytest.mark.parametrize(
    ("spec", "a", "b", "flops"),
    [
        ("ij,jk->ik", (3, 4), (4, 5), 2 * 3 * 4 * 5),
        ("bij,bjk->bik", (7, 3, 4), (7, 4, 5), 2 * 7 * 3 * 4 * 5),
        ("bhtd,bhsd->bhts", (2, 3, 4, 5), (2, 3, 6, 5), 2 * 2 * 3 * 4 * 6 * 5),
        ("ijk,jk->i", (3, 4, 5), (4, 5), 2 * 3 * 4 * 5),
    ],
)
def test_matrix_products_by_hand(spec, a, b, flops):
    assert count(lambda x, y: jnp.einsum(spec, x, y), *shapes(a, b))[:2] == (flops, 0)


def brute_force(x, kernel, strides, pads, lhs_dilation, rhs_dilation, groups, batch_groups):
    """Every output, every tap, one after the other: 2 FLOPs where the tap meets a number of the image."""
    num, *sizes, _ = x
    *taps, depth, features = kernel
    total = 0
    spread = [(n - 1) * d + 1 for n, d in zip(sizes, lhs_dilation, strict=True)]
    reach = [(k - 1) * d + 1 for k, d in zip(taps, rhs_dilation, strict=True)]
    out = [(n + lo + hi - r) // s + 1 for n, (lo, hi), r, s in zip(spread, pads, reach, strides, strict=True)]
    for o in itertools.product(*map(range, out)):
        for t in itertools.product(*map(range, taps)):
            at = [i * s + k * d - lo for i, s, k, d, (lo, _) in zip(o, strides, t, rhs_dilation, pads, strict=True)]
            total += all(0 <= a < n and a % d == 0 for a, n, d in zip(at, spread, lhs_dilation, strict=True))
    return 2 * total * (num // batch_groups) * features * depth


@pytest.mark.parametrize(
    ("x", "kernel", "strides", "pads", "lhs_dilation", "rhs_dilation", "groups", "batch_groups"),
    [
        ((2, 5, 6, 3), (3, 3, 3, 4), (1, 1), ((0, 0), (0, 0)), (1, 1), (1, 1), 1, 1),
        ((2, 5, 6, 3), (3, 2, 3, 4), (2, 1), ((1, 1), (0, 2)), (1, 1), (1, 1), 1, 1),
        ((2, 5, 6, 4), (3, 3, 2, 6), (1, 2), ((1, 1), (1, 1)), (1, 1), (1, 2), 2, 1),
        ((2, 5, 6, 3), (3, 3, 3, 4), (1, 1), ((2, 1), (1, 2)), (2, 3), (1, 1), 1, 1),
        ((4, 5, 6, 3), (3, 3, 3, 4), (1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1), 1, 2),
    ],
    ids=["valid", "strided", "grouped and dilated", "transposed", "batch groups"],
)
def test_convolutions_by_brute_force(x, kernel, strides, pads, lhs_dilation, rhs_dilation, groups, batch_groups):
    def run(a, b):
        return lax.conv_general_dilated(
            a, b, strides, pads, lhs_dilation, rhs_dilation, ("NHWC", "HWIO", "NHWC"), groups, batch_groups
        )

    expected = brute_force(x, kernel, strides, pads, lhs_dilation, rhs_dilation, groups, batch_groups)
    assert count(run, *shapes(x, kernel)).conv == expected > 0


def test_a_convolution_without_padding_is_the_textbook_formula():
    flops = count(lambda x, k: conv(x, k, padding="VALID"), *shapes((8, 32, 32, 16), (3, 3, 16, 24)))
    assert flops.conv == 2 * 8 * 30 * 30 * 3 * 3 * 16 * 24 and flops.dot == 0


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_gradients_of_a_convolution_cost_what_it_costs_twice(stride):
    """Strides make their backward pass dilate: the zeros between do not count."""
    loss = lambda x, k: conv(x, k, stride).sum()
    with plain():
        forward = count(loss, *shapes((2, 12, 9, 3), (3, 3, 3, 4))).conv
        both = count(jax.grad(loss, (0, 1)), *shapes((2, 12, 9, 3), (3, 3, 3, 4))).conv
    assert both == 3 * forward > 0


def dense_loss(params, x):
    for kernel in params:
        x = jnp.tanh(x @ kernel)
    return (x**2).sum()


def test_the_gradient_of_a_dense_net_is_three_forwards_less_the_first_input():
    widths, num = [7, 11, 13, 5], 16
    params = shapes(*itertools.pairwise(widths))
    forward = count(dense_loss, params, *shapes((num, 7))).model
    assert forward == 2 * num * (7 * 11 + 11 * 13 + 13 * 5)
    assert count(jax.grad(dense_loss), params, *shapes((num, 7))).model == 3 * forward - 2 * num * 7 * 11


def stacked_loss(kernels, x, scanned, remat=False):
    layer = lambda x, kernel: (jnp.tanh(conv(x @ kernel, kernel[None, None])), None)
    layer = jax.checkpoint(layer) if remat else layer
    if scanned:
        return lax.scan(layer, x, kernels)[0].sum()
    for i in range(len(kernels)):
        x, _ = layer(x, kernels[i])
    return x.sum()


@pytest.mark.parametrize("function", [lambda f: f, lambda f: jax.grad(f, (0, 1))], ids=["forward", "gradient"])
def test_a_scan_counts_as_the_program_unrolled(function):
    args = shapes((6, 5, 5), (2, 4, 4, 5))
    scanned, unrolled = (count(function(lambda k, x, s=s: stacked_loss(k, x, s)), *args) for s in (True, False))
    assert scanned[:3] == unrolled[:3] and scanned.model > 0 and not scanned.notes
    nested = lambda k, x: lax.scan(lambda c, _: (c + stacked_loss(k, x, True), None), 0.0, None, 3)[0]
    assert count(nested, *args).model == 3 * count(lambda k, x: stacked_loss(k, x, False), *args).model


def test_what_a_checkpoint_computes_again_is_known_apart():
    args = shapes((6, 5, 5), (2, 4, 4, 5))
    forward = count(lambda k, x: stacked_loss(k, x, False), *args)
    for scanned in (True, False):
        once, twice = (
            count(jax.grad(functools.partial(stacked_loss, scanned=scanned, remat=remat), (0, 1)), *args)
            for remat in (False, True)
        )
        assert once.again == 0 and once.model == 3 * forward.model
        assert twice.again == forward.model and twice.model == once.model  # tanh's gradient needs all of the layer


def test_accumulation_counts_every_part():
    """A step in four parts does the arithmetic of the step in one."""
    spec = toy_methods.ToyTokens().load().spec

    def flops(accumulate):
        method = toy_methods.make_lm(toy_methods.LmConfig(accumulate=accumulate), spec)
        batch = spec.batch(16, method.reads)
        state = jax.eval_shape(method.init, jax.random.key(0), batch)
        return count(method.step, state, batch, jax.random.key(0)).model

    assert flops(4) == flops(1) > 0


def test_branches_count_as_the_costliest_and_loops_by_their_constants():
    x = shapes((8, 8))[0]
    cost = 2 * 8**3
    assert count(lambda x: lax.cond(x[0, 0] > 0, lambda x: x @ x, lambda x: x @ x @ x, x), x).dot == 2 * cost

    def loop(start, stop, step, x):
        return lax.while_loop(lambda c: c[0] < stop, lambda c: (c[0] + step, c[1] @ c[1]), (start, x))

    for start, stop, step, rounds in [(0, 7, 1, 7), (2, 7, 2, 3), (7, 7, 1, 0)]:
        flops = count(lambda x, s=start, e=stop, by=step: loop(s, e, by, x), x)
        assert flops.dot == rounds * cost and not flops.notes
    halves = count(lambda x: lax.while_loop(lambda c: c[0] < 2.5, lambda c: (c[0] + 0.5, c[1] @ x), (0.0, x))[1], x)
    assert halves.dot == cost and "unknown length" in str(halves.notes)
    bounds = count(lambda x, n: lax.fori_loop(0, n, lambda i, x: x @ x, x), x, jax.ShapeDtypeStruct((), jnp.int32))
    assert bounds.dot == cost and "unknown length" in str(bounds.notes)
    assert count(lambda x: lax.fori_loop(0, 5, lambda i, x: x @ x, x), x).dot == 5 * cost
    assert "svd is not counted" in count(jnp.linalg.svd, x).notes


def test_calls_and_shards_are_looked_into():
    mesh = make_mesh(MeshConfig(data=4, fsdp=2))
    x, w = shapes((8, 6), (6, 6))

    @jax.custom_vjp
    def product(x, w):
        return x @ w

    product.defvjp(lambda x, w: (x @ w, (x, w)), lambda res, dy: (dy @ res[1].T, res[0].T @ dy))
    cost = 2 * 8 * 6 * 6
    assert count(jax.jit(jax.vmap(product)), *shapes((3, 8, 6), (3, 6, 6))).dot == 3 * cost
    assert count(jax.grad(lambda x, w: product(x, w).sum(), (0, 1)), x, w).dot == 3 * cost
    split = jax.shard_map(
        lambda x, w: x @ w, mesh=mesh, in_specs=(P(("data", "fsdp")), P()), out_specs=P(("data", "fsdp"))
    )
    assert count(split, x, w).dot == cost


def test_elementwise_work_is_counted_apart():
    flops = count(lambda x: (jnp.exp(x) + 1.0).sum(), *shapes((3, 5)))
    assert flops.other == 3 * 15 and flops.model == 0
    assert count(lambda i: i + 1, *shapes((3,), dtype=jnp.int32)).other == 0


def test_a_diffusion_step_agrees_with_xla():
    """XLA counts the compiled program, which drops what nobody reads, with its elementwise work by rules of its own."""
    experiment = harness.tiny("ddpm")
    spec = experiment.data.load().spec
    method = catalog.make(experiment.method, spec)
    batch = spec.batch(16, method.reads)
    key = jax.random.key(0)
    state = jax.eval_shape(method.init, key, batch)
    flops = count(method.step, state, batch, key)
    xla = jax.jit(method.step).lower(state, batch, key).compile().cost_analysis()["flops"]
    assert flops.model < xla and 0.9 < (flops.model + flops.other) / xla < 1.1


def test_kernels_for_cpus_give_the_same_numbers_as_plain_ones():
    """The fold of a stride into channels is a rewriting; its zeros are what the CPU's program counts more."""
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 16))
    run = jax.jit(lambda x, kernel: conv(x, kernel, 2))
    on_cpu, flops = run(x, kernel), count(run, x, kernel)
    with plain():
        np.testing.assert_allclose(run(x, kernel), on_cpu, rtol=1e-5, atol=1e-5)
        assert count(run, x, kernel).conv < flops.conv
