"""FLOPs of a program, counted from its jaxpr: a scan's body times its length, where XLA's cost analysis has it once.

What counts is matrix products and convolutions, 2 FLOPs (a product and a sum) for each pair of numbers that meet:

  dot_general           2 · (elements of the result) · (contracted elements)
  conv_general_dilated  2 · (examples) · (output channels) · (input channels a group) · Π_d |{(output, tap) that meet}|

where along each spatial dimension d a tap meets a number of the image, not the padding and not a zero that dilation
inserts. The two gradients of a convolution then cost exactly what it costs itself, as those of a matrix product do.

Model FLOPs are those of the mathematics, the numerator of model FLOPs utilisation (Chowdhery et al. 2022, arXiv
2204.02311, appendix B): what `jax.checkpoint` computes a second time does not count. Deviation: they add 6·N a token
for N parameters and attention by a formula, here every product of the program counts. Elementwise work and reductions
are counted apart, one an element, and are no part of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from jaxgen.kernels import plain
from jaxgen.method import Method

ELEMENTWISE = frozenset(
    "abs add add_any acos asin atan atan2 cbrt cos cosh div erf erf_inv erfc exp exp2 expm1 integer_pow lgamma log "
    "log1p logistic max min mul neg pow rsqrt sign sin sinh sqrt square sub tan tanh".split()
)
REDUCTIONS = frozenset(
    "argmax argmin cumlogsumexp cummax cummin cumprod cumsum reduce_max reduce_min reduce_prod reduce_sum".split()
)
SCATTERS = frozenset(("scatter-add", "scatter-sub", "scatter-mul", "scatter-min", "scatter-max"))
NOT_COUNTED = frozenset(
    "cholesky custom_call eig eigh ffi_call fft geqrf householder_product lu pallas_call qr schur "
    " svd triangular_solve tridiagonal_solve".split()
)
# JAX's name for what a checkpointed function computes again in the backward pass.
AGAIN = "rematted_computation"


class Flops(NamedTuple):
    """FLOPs of one call of a program, over all devices.

    Attributes:
      dot: of matrix products.
      conv: of convolutions.
      again: of `dot` and `conv`, what `jax.checkpoint` has computed a second time.
      other: of elementwise operations and reductions, one an element.
      notes: what could not be counted, in words.
    """

    dot: int = 0
    conv: int = 0
    again: int = 0
    other: int = 0
    notes: frozenset[str] = frozenset()

    @property
    def model(self) -> int:
        """Model FLOPs: matrix products and convolutions, none of them twice."""
        return self.dot + self.conv - self.again

    def plus(self, more: Flops, times: int = 1) -> Flops:
        """This and `more`, the latter so many times."""
        return Flops(
            self.dot + times * more.dot,
            self.conv + times * more.conv,
            self.again + times * more.again,
            self.other + times * more.other,
            self.notes | more.notes,
        )


def count(program: Any, *args: Any) -> Flops:
    """FLOPs of a jaxpr, or of a function called with `args`, arrays or their `ShapeDtypeStruct`s.

    A `cond` counts as its costliest branch. A `while` counts as often as its body runs where that can be read from
    constants, as in a `fori_loop`; else once, and `notes` says so.
    """
    if not isinstance(program, (Jaxpr, ClosedJaxpr)):
        program = jax.make_jaxpr(program)(*args)
    return _count(program, False)


def model_flops(method: Method, state: Any, batch: Any) -> Flops:
    """FLOPs of the method's step with plain kernels, whatever the device at hand; `state` and `batch` may be shapes."""
    with plain():
        return count(method.step, state, batch, jax.random.key(0))


def _count(jaxpr: Any, again: bool) -> Flops:
    total = Flops()
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        total = total.plus(_count_equation(eqn, again))
    return total


def _count_equation(eqn: Any, again: bool) -> Flops:
    name, params = eqn.primitive.name, eqn.params
    if name in ELEMENTWISE or name in REDUCTIONS or name in SCATTERS:
        x = eqn.invars[0 if name in REDUCTIONS else -1 if name in SCATTERS else 0].aval
        size = x.size if name in REDUCTIONS or name in SCATTERS else eqn.outvars[0].aval.size
        return Flops(other=size if jnp.issubdtype(x.dtype, jnp.inexact) else 0)
    again = again or AGAIN in str(eqn.source_info.name_stack)
    if name == "dot_general":
        contracted, _ = params["dimension_numbers"][0]
        flops = 2 * eqn.outvars[0].aval.size * math.prod(eqn.invars[0].aval.shape[d] for d in contracted)
        return Flops(dot=flops, again=flops if again else 0)
    if name == "ragged_dot_general":
        # Each row meets one group's matrix: products of rows, of two numbers each with every other dimension of both.
        (rows, groups), dims = (v.aval.shape for v in eqn.invars[:2]), params["ragged_dot_dimension_numbers"]
        contracted = dims.dot_dimension_numbers[0]
        other = [n for d, n in enumerate(groups) if d not in (*contracted[1], *dims.rhs_group_dimensions)]
        flops = 2 * math.prod(rows) * math.prod(other)
        return Flops(dot=flops, again=flops if again else 0)
    if name == "conv_general_dilated":
        flops = _convolution(eqn)
        return Flops(conv=flops, again=flops if again else 0)
    if name in NOT_COUNTED:
        return Flops(notes=frozenset([f"{name} is not counted"]))
    if name == "cond":
        branches = [_count(branch, again) for branch in params["branches"]]
        return max(branches, key=lambda flops: (flops.dot + flops.conv, flops.other))
    total, times = Flops(), 1
    if name == "scan":
        times = params["length"]
    elif name == "shard_map":  # the body is what one shard does
        axes = params.get("newly_manual_axes", params.get("manual_axes"))  # the name depends on JAX's version
        times = math.prod(params["mesh"].shape[axis] for axis in axes)
    elif name == "while" and (trips := _trips(eqn)) is not None:
        times = trips
    elif name == "while":
        total = Flops(notes=frozenset(["a while loop of unknown length counts as one round"]))
    for inner in _jaxprs(params):
        total = total.plus(_count(inner, again), times)
    return total


def _jaxprs(params: dict[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, (Jaxpr, ClosedJaxpr)):
                yield item


def _convolution(eqn: Any) -> int:
    x, kernel = (v.aval.shape for v in eqn.invars)
    out, p = eqn.outvars[0].aval.shape, eqn.params
    dims = p["dimension_numbers"]
    meetings = 1
    for d, (stride, (low, _), spread, dilation) in enumerate(
        zip(p["window_strides"], p["padding"], p["lhs_dilation"], p["rhs_dilation"], strict=True)
    ):
        length = x[dims.lhs_spec[2 + d]]
        outputs, taps = np.arange(out[dims.out_spec[2 + d]]), np.arange(kernel[dims.rhs_spec[2 + d]])
        at = outputs[:, None] * stride + taps[None] * dilation - low  # places in the spread-out image
        meetings *= int(np.sum((at >= 0) & (at <= (length - 1) * spread) & (at % spread == 0)))
    return 2 * meetings * out[dims.out_spec[0]] * out[dims.out_spec[1]] * kernel[dims.rhs_spec[1]]


def _trips(eqn: Any) -> int | None:
    """How often the body of `while i < stop: …; i += step` runs, where the three are constant integers; else None."""
    cond, body = eqn.params["cond_jaxpr"].jaxpr, eqn.params["body_jaxpr"].jaxpr
    num_cond, num_body = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    if [e.primitive.name for e in cond.eqns] != ["lt"]:
        return None
    # The condition's variables, as they are before the loop; those that the loop carries, before and after a round.
    before = dict(zip(cond.invars, eqn.invars[:num_cond] + eqn.invars[num_cond + num_body :], strict=True))
    rounds = dict(
        zip(cond.invars[num_cond:], zip(body.invars[num_body:], body.outvars, strict=True), strict=True),
    )
    i, stop = cond.eqns[0].invars
    if isinstance(i, Literal) or i not in rounds:
        return None
    if not isinstance(stop, Literal):
        if stop in rounds and rounds[stop][0] is not rounds[stop][1]:
            return None
        stop = before.get(stop)
    steps = [e for e in body.eqns if e.primitive.name == "add" and e.outvars[0] is rounds[i][1]]
    if len(steps) != 1 or steps[0].invars[0] is not rounds[i][0]:
        return None
    begin, end, step = map(_integer, (before[i], stop, steps[0].invars[1]))
    if begin is None or end is None or step is None or step < 1:
        return None
    return max(0, -(-(end - begin) // step))


def _integer(var: Any) -> int | None:
    if not isinstance(var, Literal):
        return None
    return int(var.val) if jnp.issubdtype(np.asarray(var.val).dtype, jnp.integer) else None
