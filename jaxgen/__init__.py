"""jaxgen: generative models in JAX, trained, sampled, evaluated and sharded by one small codebase."""

__version__ = "0.1.0"
