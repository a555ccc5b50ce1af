"""Checksums of a state: what a checkpoint is checked by."""

from __future__ import annotations

import functools
import json
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.sharding import QUEUE, path_name


def by_path(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their paths, `params/conv/kernel`."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """A tree of dicts from its leaves by their paths; the inverse of `by_path` where all of the tree is dicts."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, name = path.split("/")
        functools.reduce(lambda node, key: node.setdefault(key, {}), parents, tree)[name] = leaf
    return tree


def checksum(x: jax.Array) -> jax.Array:
    """A uint32 of the bits of `x` that any change of one element changes, the same under every sharding.

    Σ mix(bits_i ⊕ φi) mod 2³², where mix, the finalizer of MurmurHash3, is a bijection: integer sums do not depend on
    their order, another element is another summand, and two elements that change places do not cancel.
    """
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    if jnp.iscomplexobj(x):
        x = jnp.stack([x.real, x.imag], -1)
    if x.dtype == jnp.bool_:
        x = x.astype(jnp.uint8)
    bits = jax.lax.bitcast_convert_type(x, {1: jnp.uint8, 2: jnp.uint16}.get(x.dtype.itemsize, jnp.uint32))
    index = jnp.zeros(bits.shape, jnp.uint32)
    for dim, size in enumerate(bits.shape):
        index = index * np.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, bits.shape, dim)
    mixed = bits.astype(jnp.uint32) ^ (index * np.uint32(0x9E3779B9))
    mixed = (mixed ^ (mixed >> 16)) * np.uint32(0x85EBCA6B)
    mixed = (mixed ^ (mixed >> 13)) * np.uint32(0xC2B2AE35)
    return jnp.sum(mixed ^ (mixed >> 16), dtype=jnp.uint32)


@jax.jit
def _examine(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return checksum(x), jnp.isfinite(x).all() if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.bool_(True)


def digest(state: Any) -> tuple[dict[str, int], bool]:
    """The checksum of each array by path, and whether every number is finite."""
    # Array by array: the program is compiled once a shape, which takes a tenth of compiling it for a whole state.
    found = {}
    for path, x in by_path(state).items():
        found[path] = _examine(x)
        if len(found) % QUEUE == 0:
            jax.block_until_ready(found[path])
    found = jax.device_get(found)
    return {path: int(checksum) for path, (checksum, _) in found.items()}, all(finite for _, finite in found.values())


def text_checksum(info: Any) -> int:
    """The checksum of what JSON can hold."""
    return zlib.crc32(json.dumps(info, sort_keys=True).encode())
