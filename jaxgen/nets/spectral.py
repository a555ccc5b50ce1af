"""Spectral normalisation as a function of parameters and explicit state (Miyato et al. 2018, arXiv 1802.05957).

Every kernel W, seen as a matrix of all inputs by outputs, is divided by its largest singular value σ(W), so that each
dense layer is 1-Lipschitz. One power iteration a step keeps up with σ: v ← W u / ‖·‖, u ← Wᵀ v / ‖·‖, σ = vᵀ W u, with
u and v held in the gradient (algorithm 1). The state is the u of each kernel; the networks know nothing of it, and a
step's σ depends on parameters alone: parts of a batch see the same one.

As in the paper a convolution's kernel is a matrix [h·w·C, O], whose σ is not the convolution's own norm, but bounds it
up to a factor of √(h·w).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.maximum(jnp.linalg.norm(x), 1e-12)


def _matrix(kernel: jax.Array) -> jax.Array:
    return kernel.reshape(-1, kernel.shape[-1])


def _over_kernels(function: Any, params: Mapping[str, Any], *others: Mapping[str, Any]) -> dict[str, Any]:
    """`function` of every leaf named `kernel`, in nested dicts that have nothing else."""
    found = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            if inner := _over_kernels(function, value, *(other[name] if name in other else {} for other in others)):
                found[name] = inner
        elif name == "kernel":
            found[name] = function(value, *(other[name] for other in others))
    return found


def init_vectors(params: PyTree, num: int = 10) -> PyTree:
    """u of every kernel in `params`, after `num` power iterations: nested dicts of vectors [O]."""

    def start(kernel: jax.Array) -> jax.Array:
        # Any direction that is not orthogonal to the first singular vector will do; of random weights a row is not.
        matrix = _matrix(kernel)
        return _unit(matrix[jnp.argmax(jnp.square(matrix).sum(1))])

    return jax.lax.fori_loop(0, num, lambda _, vectors: power_iterate(params, vectors), _over_kernels(start, params))


def power_iterate(params: PyTree, vectors: PyTree) -> PyTree:
    """One power iteration of every kernel's u."""
    step = lambda kernel, u: _unit(_matrix(kernel).T @ _unit(_matrix(kernel) @ u))
    return jax.lax.stop_gradient(_over_kernels(step, params, vectors))


def normalised(params: PyTree, vectors: PyTree) -> PyTree:
    """`params` with every kernel divided by the singular value that its u stands for."""

    def divide(kernel: jax.Array, u: jax.Array) -> jax.Array:
        matrix = _matrix(kernel)
        v = jax.lax.stop_gradient(_unit(matrix @ u))
        return kernel / (v @ matrix @ jax.lax.stop_gradient(u))

    def merge(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
        return {k: merge(x, new.get(k, {})) if isinstance(x, Mapping) else new.get(k, x) for k, x in old.items()}

    return merge(params, _over_kernels(divide, params, vectors))
