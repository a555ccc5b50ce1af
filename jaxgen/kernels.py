"""Which kernels networks are traced with: those of the device at hand, or the plain ones.

Plain means one convolution as one `lax` convolution and attention as matrix products, which is what other devices
than CPUs are given (but for cuDNN's attention), and what FLOPs are counted of.
"""

from __future__ import annotations

import contextlib

import jax

# Part of the key of JAX's caches: what was traced with other kernels is traced anew.
_plain = jax.make_user_context(False)


def plain() -> contextlib.AbstractContextManager[None]:
    """A context in which networks are traced with plain kernels, whatever the device at hand."""
    return _plain(True)


def backend() -> str:
    """`cpu`, `gpu` or `tpu`, for which networks choose their kernels; `plain` within `plain()`."""
    return "plain" if _plain.value else jax.default_backend()
