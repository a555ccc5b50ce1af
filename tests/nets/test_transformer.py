"""The transformer: what sees what, the cache, and closed forms; its numbers are held to other libraries' in interop."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.nets.lstm import LSTM, equal_width, num_parameters
from jaxgen.nets.moe import MoeConfig
from jaxgen.nets.rotary import frequencies, rotary_angles, rotated
from jaxgen.nets.transformer import Transformer, TransformerConfig, place_in_segment

VOCAB, LENGTH = 17, 12
GPT = TransformerConfig(num_layers=2, width=16, num_heads=4, context=LENGTH)
ROPE = {"positions": "rotary", "norm": "rms", "activation": "swiglu", "bias": False, "tied": False}
LLAMA = dataclasses.replace(GPT, num_kv_heads=2, window=5, hidden=24, **ROPE)
BERT = dataclasses.replace(GPT, post_norm=True, causal=False, num_types=2, activation="gelu_exact")
NETS = {
    "gpt": Transformer(GPT, VOCAB),
    "llama": Transformer(LLAMA, VOCAB),
    "bert": Transformer(BERT, VOCAB),
    "experts": Transformer(dataclasses.replace(GPT, moe=MoeConfig(4, 2, capacity=0.5)), VOCAB),
    "lstm": LSTM(GPT, 8000, VOCAB),
}
TOKENS = jax.random.randint(jax.random.key(3), (2, LENGTH), 0, VOCAB)
SEGMENT = jnp.array([[1] * 5 + [2] * 7, [1] * 3 + [2] * 6 + [0] * 3])


@pytest.fixture(scope="module", params=NETS)
def case(request):
    """A network with parameters far from the initial ones, and its compiled logits of rows in segments."""
    net = NETS[request.param]
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: x + 0.3 * rng.standard_normal(x.shape, np.float32), jax.jit(net.init)(jax.random.key(0))
    )
    logits = jax.jit(lambda params, tokens, segment: net.logits(params, net.apply(params, tokens, segment)))
    return request.param, net, params, logits


def test_what_a_token_sees(case):
    """Bit for bit: not another segment, and, where the network is causal, nothing that comes later."""
    name, _, params, logits = case
    before = np.asarray(logits(params, TOKENS, SEGMENT))
    changed = TOKENS.at[0, 3].set((TOKENS[0, 3] + 1) % VOCAB)
    after = np.asarray(logits(params, changed, SEGMENT))
    moved = (before != after).any(-1)
    causal = name != "bert"
    assert moved[0].tolist() == [(i >= 3 if causal else True) and i < 5 for i in range(LENGTH)]
    assert not moved[1].any()


def test_segments_are_as_if_alone(case):
    _, _, params, logits = case
    whole = np.asarray(logits(params, TOKENS, SEGMENT))
    rows = [(0, 0, 5), (0, 5, 12), (1, 0, 3), (1, 3, 9)]
    alone, own = np.zeros((2, 4, LENGTH), np.int32)
    for row, (b, start, end) in enumerate(rows):
        alone[row, : end - start], own[row, : end - start] = TOKENS[b, start:end], 1
    for row in range(0, 4, 2):
        found = np.asarray(logits(params, alone[row : row + 2], own[row : row + 2]))
        for i in range(2):
            b, start, end = rows[row + i]
            np.testing.assert_allclose(found[i, : end - start], whole[b, start:end], atol=1e-5)


def test_the_cache_gives_the_full_forward_of_prompts_of_two_lengths(case):
    name, net, params, logits = case
    if name == "bert":
        pytest.skip("sees both ways: it has no cache")
    first = jnp.array([0, 2])
    segment = (jnp.arange(LENGTH)[None] >= first[:, None]).astype(jnp.int32)
    expected = np.asarray(logits(params, TOKENS, segment))
    hidden, cache = jax.jit(lambda p: net.prefill(p, TOKENS[:, :6], first, LENGTH))(params)
    ready, step = net.prepared(params), jax.jit(net.step)
    for i in range(6, LENGTH + 1):
        np.testing.assert_allclose(net.logits(params, hidden), expected[:, i - 1], atol=1e-5)
        if i < LENGTH:
            hidden, cache = step(ready, cache, TOKENS[:, i], jnp.int32(i))


def test_numbers_of_parameters():
    count = lambda net: sum(x.size for x in jax.tree.leaves(jax.eval_shape(net.init, jax.random.key(0))))
    gpt2 = TransformerConfig(num_layers=12, width=768, num_heads=12, context=1024)
    assert count(Transformer(gpt2, 50257)) == 124_439_808  # the 124 M of its name
    padded = dataclasses.replace(gpt2, vocab_multiple=128)
    assert count(Transformer(padded, 50257)) == 124_439_808 + 47 * 768
    tiny_llama = TransformerConfig(22, 2048, 32, num_kv_heads=4, hidden=5632, context=2048, **ROPE)
    assert count(Transformer(tiny_llama, 32000)) == 1_100_048_384
    bert = dataclasses.replace(BERT, num_layers=12, width=768, num_heads=12, context=512)
    assert count(Transformer(bert, 30522)) == 109_482_240 - 590_592  # BERT-base without its pooler
    size = 3_000_000
    lstm = LSTM(TransformerConfig(num_layers=4), size, 2048)
    assert count(lstm) == num_parameters(4, lstm.width, 2048) == pytest.approx(size, rel=0.01)
    assert equal_width(num_parameters(3, 77, 500), 3, 500) == 77


def test_padded_rows_of_the_vocabulary_do_not_show():
    padded = Transformer(dataclasses.replace(GPT, vocab_multiple=8), VOCAB)
    params = padded.init(jax.random.key(0))
    assert params["embed"]["tokens"].shape[0] == 24
    plain = {**params, "embed": {**params["embed"], "tokens": params["embed"]["tokens"][:VOCAB]}}
    found = jax.jit(lambda p: padded.logits(p, padded.apply(p, TOKENS)))(params)
    net = NETS["gpt"]
    expected = jax.jit(lambda p: net.logits(p, net.apply(p, TOKENS)))(plain)
    np.testing.assert_array_equal(found[..., :VOCAB], expected)
    assert (found[..., VOCAB:] == -np.inf).all()


def test_remat_and_half_precision_compute_the_same():
    one = dataclasses.replace(GPT, num_layers=1)
    params = jax.tree.map(lambda x: 5 * x, jax.jit(Transformer(one, VOCAB).init)(jax.random.key(0)))

    def logits(**changes):
        net = Transformer(dataclasses.replace(one, **changes), VOCAB)
        return lambda p: net.logits(p, net.apply(p, TOKENS))

    gradient = lambda **changes: jax.jit(jax.grad(lambda p: logits(**changes)(p).std()))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), gradient(remat=True), gradient())
    full, half = logits()(params), logits(dtype="bfloat16")(params)
    assert half.dtype == jnp.float32 and 0 < np.linalg.norm(full - half) < 0.02 * np.linalg.norm(full)


def test_dropout_follows_its_key():
    net = Transformer(dataclasses.replace(GPT, num_layers=1, dropout=0.2), VOCAB)
    params = jax.jit(net.init)(jax.random.key(0))
    run = jax.jit(lambda key: net.apply(params, TOKENS, key=key))
    a, b, c = run(jax.random.key(1)), run(jax.random.key(1)), run(jax.random.key(2))
    assert (a == b).all() and (a != c).any()


def test_rotary_products_depend_on_the_distance_alone():
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 8))
    rates = frequencies(8)
    turn = lambda x, place: rotated(x, *rotary_angles(jnp.full((1, 1), place), rates))
    product = lambda i, j: float(jnp.sum(turn(q, i) * turn(k, j)))
    assert product(9, 4) == pytest.approx(product(25, 20), abs=1e-5)
    assert product(9, 4) != pytest.approx(product(9, 5), abs=1e-3)


def test_rotary_scaling_stretches_long_waves_alone():
    plain, scaled = frequencies(64, 500_000.0), frequencies(64, 500_000.0, (8.0, 1.0, 4.0, 8192.0))
    waves = 2 * math.pi / plain
    np.testing.assert_array_equal(scaled[waves < 8192 / 4], plain[waves < 8192 / 4])
    np.testing.assert_allclose(scaled[waves > 8192], plain[waves > 8192] / 8)
    between = (waves >= 8192 / 4) & (waves <= 8192)
    assert between.any() and ((scaled < plain) & (scaled > plain / 8))[between].all()


def test_places():
    found = place_in_segment(jnp.array([[1, 1, 2, 2, 2, 0], [0, 0, 1, 1, 1, 1]]))
    assert found.tolist() == [[0, 1, 0, 1, 2, 0], [0, 1, 0, 1, 2, 3]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm": "batch"}, "unknown net.norm='batch'"),
        ({"num_heads": 3}, "num_heads=3 must divide width=16"),
        ({"num_kv_heads": 3}, "num_kv_heads=3 must divide num_heads=4"),
        ({"head_size": 3, "positions": "rotary"}, "even heads"),
        ({"window": 4, "causal": False}, "window=4 must be"),
        ({"rope_scaling": (8.0,)}, "four numbers"),
        ({"dropout": 1.0}, "dropout"),
        ({"num_layers": 0}, "num_layers=0 must be 1 or more"),
    ],
)
def test_options_that_contradict_get_a_message(changes, message):
    with pytest.raises(ValueError, match=message):
        Transformer(dataclasses.replace(GPT, **changes), VOCAB)


def test_rows_longer_than_the_context_are_refused():
    with pytest.raises(ValueError, match=r"20 tokens in a row exceed net\.context=12"):
        jax.eval_shape(NETS["gpt"].apply, NETS["gpt"].init(jax.random.key(0)), jnp.zeros((1, 20), jnp.int32))
