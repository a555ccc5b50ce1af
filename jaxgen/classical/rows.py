"""What the classical methods share: a table's rows in chunks on every device, images as rows, exact epochs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.sharding import over_batch

if TYPE_CHECKING:
    from jaxgen.data import Spec

# Elements of a chunk of rows, and rows at most: one fits a CPU's cache, an accelerator wants more at once.
CHUNK = {"cpu": 2**19}
CHUNK_ELSEWHERE = 2**25
MOST = {"cpu": 512}


def matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    """`a @ b` in full precision: GPUs and TPUs would round the factors, and distances are differences of products."""
    return jnp.matmul(a, b, precision="highest")


def sum_by_label(x: jax.Array, label: jax.Array, num: int) -> jax.Array:
    """Σ of the rows of x [n, ...] with each of the labels 0…num − 1, [num, ...].

    On CPUs one row after the other; elsewhere by a product, which adds in the same order each time.
    """
    if jax.default_backend() == "cpu":
        return jax.ops.segment_sum(x, label, num)
    return matmul(jax.nn.one_hot(label, num, axis=0, dtype=x.dtype), x)


def over_rows(fn: Callable[..., tuple[Any, Any]], rows: Any, *shared: Any) -> tuple[Any, Any]:
    """Applies `fn` to chunks of rows; sums one part of what it returns and strings the other together.

    Memory stays flat: what `fn` makes of a chunk is gone when the next one comes, and chunks are small enough for a
    number for each of their rows and each row of a shared array, the distance to each centroid, say. On a mesh each
    device takes its own rows, and the sums meet in one all-reduce.

    Args:
      fn: `(chunk of rows, *shared) -> (sums, outs)`, `outs` a pytree of [n, ...] arrays for the chunk's n rows.
      rows: a pytree of [N, ...] arrays; on a mesh, N divides over `data` × `fsdp`.
      *shared: pytrees that every chunk sees whole.

    Returns:
      `(Σ sums, outs [N, ...])`.
    """

    def local(rows: Any, *shared: Any) -> tuple[Any, Any]:
        num = jax.tree.leaves(rows)[0].shape[0]
        widths = [x[:1].size for x in jax.tree.leaves(rows)] + [len(x) for x in jax.tree.leaves(shared) if x.ndim]
        device = jax.default_backend()
        size = max(1, min(CHUNK.get(device, CHUNK_ELSEWHERE) // max(1, *widths), MOST.get(device, num)))
        if num <= size:
            return fn(rows, *shared)
        part = lambda start, n: jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, n), rows)

        def add(sums, i):
            more, outs = fn(part(i * size, size), *shared)
            return jax.tree.map(jnp.add, sums, more), outs

        shapes, _ = jax.eval_shape(lambda: fn(part(0, size), *shared))
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        sums, outs = jax.lax.scan(add, zeros, jnp.arange(num // size))
        outs = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), outs)
        if rest := num % size:
            more, last = fn(part(num - rest, rest), *shared)
            sums, outs = jax.tree.map(jnp.add, sums, more), jax.tree.map(lambda *x: jnp.concatenate(x), outs, last)
        return sums, outs

    return over_batch(local, rows, *shared)


class Vectors(NamedTuple):
    """How examples become vectors and back.

    Attributes:
      key: the batch key, `image` or `x`.
      dim: D.
      read: the key's array [n, ...] → float32 [n, D]; pixels in [0, 1].
      write: [n, D] → what a method samples: `image` uint8 [n, H, W, C], clipped, or `x` [n, D].
    """

    key: str
    dim: int
    read: Callable[[jax.Array], jax.Array]
    write: Callable[[jax.Array], dict[str, jax.Array]]


def vectors(spec: Spec) -> Vectors:
    """Images as rows of pixels in [0, 1], or plain vectors `x`; ValueError where the data has neither."""
    if "image" in spec.shapes:
        shape, top = spec.shape("image"), spec.levels - 1
        pixels = lambda x: jnp.round(jnp.clip(x, 0, 1) * top).astype(jnp.uint8).reshape(-1, *shape)
        read = lambda image: image.reshape(image.shape[0], -1).astype(jnp.float32) / top
        return Vectors("image", shape[0] * shape[1] * shape[2], read, lambda x: {"image": pixels(x)})
    (dim,) = spec.shape("x")
    return Vectors("x", dim, lambda x: x, lambda x: {"x": x})


def in_epochs(
    carry: Any, seen: jax.Array, size: int, count: int, add: Callable[..., Any], finish: Callable[..., Any]
) -> tuple[Any, jax.Array]:
    """One batch of a method that acts once an epoch: adds its rows, and acts where the epoch ends, in mid-batch even.

    Args:
      carry: a pytree.
      seen: how many examples of the epoch came before, int32 [].
      size: the batch's size B.
      count: the number of training examples.
      add: `(carry, weight [B] of 0 and 1) -> carry`, the rows of weight 1 added.
      finish: `(carry, weight) -> carry`, called when all `count` examples have been added.

    Returns:
      `(carry, seen)`, where some of the next epoch's rows may have been added.

    Raises:
      ValueError: B exceeds `count`.
    """
    if size > count:
        raise ValueError(f"train.batch_size={size} exceeds the {count} training examples; take {count} or fewer")
    mine = (jnp.arange(size) < count - seen).astype(jnp.float32)
    carry, seen = add(carry, mine), seen + size

    def turn(carry):
        carry = finish(carry, mine)
        return add(carry, 1 - mine) if count % size else carry  # else an epoch ends with its batch

    return jax.lax.cond(seen >= count, turn, lambda carry: carry, carry), jnp.where(seen >= count, seen - count, seen)
