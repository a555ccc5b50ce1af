"""GPU: attention.

Causal attention and its gradients in bfloat16, 8 rows of 2048 tokens with 16 heads of 64: ours through cuDNN, PyTorch's
`scaled_dot_product_attention`. Wall time of ten of them, one after the other.
"""

from benchmarks.program import Program

SHAPE, TIMES = (8, 2048, 16, 64), 10  # [B, T, N, D]


def jaxgen() -> Program:
    """Ours."""
    import jax

    from benchmarks.gpu import jax_facts
    from jaxgen.nets.attention import attention

    total = lambda q, k, v: attention(q, k, v, causal=True).astype("float32").sum()
    gradients = jax.jit(jax.grad(total, argnums=(0, 1, 2)))
    inputs = [jax.random.normal(key, SHAPE, "bfloat16") for key in jax.random.split(jax.random.key(0), 3)]
    cudnn = float("cudnn" in gradients.lower(*inputs).as_text())
    return Program(
        lambda: jax.block_until_ready([gradients(*inputs) for _ in range(TIMES)]),
        lambda: {"cudnn": cudnn} | jax_facts(),
    )


def torch_program() -> Program:
    """PyTorch's."""
    import torch

    from benchmarks.gpu import torch_device, torch_memory

    options = {"dtype": torch.bfloat16, "device": torch_device(), "requires_grad": True}
    batch, length, heads, dim = SHAPE
    inputs = [torch.randn((batch, heads, length, dim), **options) for _ in range(3)]

    def run() -> None:
        for _ in range(TIMES):
            out = torch.nn.functional.scaled_dot_product_attention(*inputs, is_causal=True)
            torch.autograd.grad(out.float().sum(), inputs)
        torch.cuda.synchronize()

    return Program(run, torch_memory)


ROWS = {"8 × 2048, 16 heads of 64": {}}
WORK = dict.fromkeys(ROWS, (TIMES * SHAPE[0] * SHAPE[1], "tokens"))
PROGRAMS = {"jaxgen": jaxgen, "torch": torch_program}
DEVICE, CORES, CLOCK = "gpu", 2, "wall"
