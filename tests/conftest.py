"""Every test runs on 8 simulated CPU devices, with warnings as errors, strict ranks and key-reuse checks."""

import atexit
import os
import shutil
import tempfile

from commands import QUICK

os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count=8 {QUICK}"  # read when JAX starts its CPU backend
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# A program that several tests build anew is compiled once; in the environment, so that no command they start uses the
# user's own cache.
os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jaxgen-tests-")

import jax

atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
