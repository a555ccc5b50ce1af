"""The cuDNN branch of attention, which runs on a GPU alone: `JAX_PLATFORMS=cuda,cpu pytest -m gpu`."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.nets.attention import attention


def gpus():
    """Those of compute capability 8.0 or more; AMD's is a word."""
    try:
        return [gpu for gpu in jax.devices("gpu") if re.fullmatch(r"([89]|\d\d)\.\d", gpu.compute_capability)]
    except RuntimeError:
        return []


@pytest.mark.gpu
@pytest.mark.skipif(not gpus(), reason="needs an NVIDIA GPU from Ampere on")
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_cudnn_equals_xla(causal, masked):
    """Half precision by cuDNN's kernel, grouped queries and a mask included, is XLA's result to rounding."""
    keys = jax.random.split(jax.random.key(0), 4)
    q = jax.random.normal(keys[0], (2, 64, 4, 32), jnp.bfloat16)
    k, v = (jax.random.normal(key, (2, 64, 2, 32), jnp.bfloat16) for key in keys[1:3])
    mask = jax.random.bernoulli(keys[3], 0.7, (2, 1, 64, 64)) | jnp.eye(64, dtype=bool)[None, None] if masked else None
    run = jax.jit(lambda q, k, v: attention(q, k, v, mask=mask, causal=causal))
    assert "cudnn$fmha" in run.lower(q, k, v).as_text(), "the branch under test was not taken"
    expected = jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=causal, implementation="xla")
    result = run(q, k, v)
    assert result.dtype == jnp.bfloat16
    np.testing.assert_allclose(result.astype(jnp.float32), expected.astype(jnp.float32), atol=2e-2, rtol=2e-2)
