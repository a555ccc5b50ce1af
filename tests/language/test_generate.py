"""Generation against full forward passes, filters by hand, beams against every text there is."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers

from jaxgen.data.tokenizer import Tokenizer, wrap
from jaxgen.language.generate import aligned, generate, stream
from jaxgen.language.sampling import (
    SampleConfig,
    check_sampling,
    filtered,
    min_p_of,
    penalized,
    top_k_of,
    top_p_of,
)
from jaxgen.nets.lstm import LSTM
from jaxgen.nets.transformer import Transformer, TransformerConfig

VOCAB, END = 6, 5
CONFIG = TransformerConfig(num_layers=2, width=16, num_heads=2, context=16)
PROMPTS = [[1, 2, 3, 4], [0], [3, 3]]


@pytest.fixture(scope="module", params=["transformer", "lstm"])
def model(request):
    net = Transformer(CONFIG, VOCAB) if request.param == "transformer" else LSTM(CONFIG, 3000, VOCAB)
    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda x: x + 0.5 * rng.standard_normal(x.shape, np.float32), jax.jit(net.init)(jax.random.key(0))
    )
    rows = jax.jit(lambda tokens: net.logits(params, net.apply(params, tokens)))

    def next_logits(tokens):
        padded = np.zeros((1, CONFIG.context), np.int32)
        padded[0, : len(tokens)] = tokens
        return np.array(rows(padded))[0, len(tokens) - 1]

    return net, params, next_logits


def run(net, params, prompts, cfg, stop=(END,), key=0):
    tokens = jax.jit(lambda params, key: generate(net, params, jnp.asarray(aligned(prompts)), key, cfg, stop))(
        params, jax.random.key(key)
    )
    return [[t for t in row if t >= 0] for row in np.asarray(tokens).tolist()]


def test_greedy_is_the_argmax_of_full_passes_for_prompts_of_all_lengths(model):
    net, params, next_logits = model
    for penalty in (1.0, 1.7):
        cfg = SampleConfig(length=8, temperature=0.0, repetition_penalty=penalty)
        for prompt, found in zip(PROMPTS, run(net, params, PROMPTS, cfg), strict=True):
            tokens = list(prompt)
            while len(tokens) < len(prompt) + 8 and (tokens == prompt or tokens[-1] != END):
                logits = next_logits(tokens)
                for token in set(tokens):
                    logits[token] *= penalty if logits[token] < 0 else 1 / penalty
                tokens.append(int(logits.argmax()))
            assert found == tokens


def test_draws_follow_the_filtered_distribution(model):
    net, params, next_logits = model
    cfg = SampleConfig(length=1, temperature=1.5, top_k=4)
    found = np.array(run(net, params, [PROMPTS[0]] * 4000, cfg))[:, -1]
    logits = next_logits(PROMPTS[0]) / 1.5
    logits[np.argsort(logits)[:2]] = -np.inf
    probs = np.exp(logits) / np.exp(logits).sum()
    share = np.bincount(found, minlength=VOCAB) / 4000
    assert (np.abs(share - probs) <= 4.5 * np.sqrt(probs * (1 - probs) / 4000)).all()


def test_a_stop_token_ends_a_text(model):
    net, params, _ = model
    cfg = SampleConfig(length=12)
    found = run(net, params, [[0]] * 64, cfg, stop=(END, 2))
    ends = [row[-1] for row in found if len(row) < 13]
    assert set(ends) == {END, 2} and not any({END, 2} & set(row[1:-1]) for row in found)


def best_of_all(next_logits, prompt, length, penalty):
    """The best of every text: its log-probability / length^penalty, by the chain rule."""
    best = (-np.inf, None)
    for num in range(1, length + 1):
        for text in itertools.product(range(VOCAB), repeat=num):
            if END in text[:-1] or (num < length and text[-1] != END):
                continue
            total = 0.0
            for i, token in enumerate(text):
                logits = next_logits([*prompt, *text[:i]]).astype(float)
                total += logits[token] - np.log(np.exp(logits).sum())
            best = max(best, (total / num**penalty, [*prompt, *text]))
    return best[1]


def test_enough_beams_find_the_best_text(model):
    net, params, next_logits = model
    cache = {}
    remembered = lambda tokens: cache.setdefault(tuple(tokens), next_logits(tokens))
    for penalty in (0.0, 1.0):
        cfg = SampleConfig(length=3, beams=VOCAB**2, length_penalty=penalty)
        found = run(net, params, PROMPTS[:2], cfg)
        assert found == [best_of_all(remembered, prompt, 3, penalty) for prompt in PROMPTS[:2]]


def test_beams_go_by_the_models_own_probabilities(model):
    net, params, _ = model
    plain = SampleConfig(length=3, beams=4)
    shaped = dataclasses.replace(plain, temperature=0.3, top_k=2, top_p=0.5, min_p=0.5)
    found = [run(net, params, [[0, 1]], cfg) for cfg in (plain, shaped)]
    np.testing.assert_array_equal(*found)


def test_a_stream_behind_a_prompt_keeps_the_space_that_a_text_would_not_begin_with():
    words = ("<s>", "</s>", *(f"▁{word}" for word in ("the", "union", "of", "states")))  # SentencePiece's way
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<s>"))
    inner.add_special_tokens(list(words[:2]))
    inner.pre_tokenizer, inner.decoder = tokenizers.pre_tokenizers.Metaspace(), tokenizers.decoders.Metaspace()
    tokenizer = Tokenizer(wrap(inner))
    assert tokenizer.decode([4, 2]) == "of the"
    net = Transformer(CONFIG, tokenizer.size)
    params, cfg = jax.jit(net.init)(jax.random.key(2)), SampleConfig(length=6)
    pieces = list(stream(net, params, tokenizer, "the union", jax.random.key(3), cfg, ()))
    (whole,) = run(net, params, [[0, *tokenizer.encode("the union")]], cfg, (), key=3)
    assert "".join(["the union", *pieces]) == tokenizer.decode(whole) and pieces[0].startswith(" ")


def test_a_stream_is_the_same_text():
    """And hands out no half character: 2 of the 3 bytes of ☃ are none."""
    tokenizer = Tokenizer("bytes")
    net = Transformer(CONFIG, tokenizer.size)
    params = jax.jit(net.init)(jax.random.key(2))
    cfg = SampleConfig(length=9, repetition_penalty=1.2)
    pieces = list(stream(net, params, tokenizer, "a☃", jax.random.key(3), cfg, (tokenizer.end,)))
    (whole,) = run(net, params, [[tokenizer.begin, *tokenizer.encode("a☃")]], cfg, (tokenizer.end,), key=3)
    assert "".join(pieces) == tokenizer.decode(whole[5:])

    class Echo:  # writes ☃ and ends
        cfg = CONFIG
        text = jnp.array([*"☃".encode(), 256])

        def prefill(self, params, tokens, first, size):
            return jnp.zeros(1, jnp.int32), jnp.zeros(())

        def logits(self, params, hidden):
            return 100.0 * jax.nn.one_hot(self.text[hidden], 257)

        def prepared(self, params):
            return params

        def step(self, params, cache, token, index):
            return jnp.full(1, index - 1), cache

    assert list(stream(Echo(), {}, tokenizer, "a", jax.random.key(0), cfg, (256,))) == ["☃", ""]


LOGITS = np.log([[0.5, 0.25, 0.15, 0.1], [0.1, 0.2, 0.3, 0.4]]).astype(np.float32)


def kept(logits):
    return [np.flatnonzero(row > -np.inf).tolist() for row in np.asarray(logits)]


def test_filters_by_hand():
    assert kept(top_k_of(LOGITS, 2)) == [[0, 1], [2, 3]]
    assert kept(top_p_of(LOGITS, 0.7)) == [[0, 1], [2, 3]]
    assert kept(top_p_of(LOGITS, 0.76)) == [[0, 1, 2], [1, 2, 3]]
    assert kept(top_p_of(LOGITS, 0.01)) == [[0], [3]]
    assert kept(min_p_of(LOGITS, 0.45)) == [[0, 1], [1, 2, 3]]
    penalty = penalized(jnp.array([[2.0, -2.0, 1.0]]), jnp.array([[True, True, False]]), 2.0)
    assert penalty.tolist() == [[1.0, -4.0, 1.0]]
    every = SampleConfig(temperature=0.5, top_k=3, top_p=0.95, min_p=0.1)  # squares: .25 .0625 .0225 of .335
    assert kept(filtered(LOGITS, None, every)) == [[0, 1], [1, 2, 3]]


def test_the_context_ends_a_text_and_a_prompt_that_fills_it_is_refused(model):
    net, params, _ = model
    (found,) = run(net, params, [PROMPTS[0]], SampleConfig(length=100), stop=())
    assert len(found) == CONFIG.context
    with pytest.raises(ValueError, match=r"a prompt of 16 tokens fills net\.context=16"):
        run(net, params, [[1] * 16], SampleConfig(length=1))


@pytest.mark.parametrize("change", ["length=0", "temperature=-1.0", "top_k=-1", "top_p=0.0", "min_p=2.0", "beams=0"])
def test_bad_options_get_a_message(change):
    name, _, value = change.partition("=")
    cfg = dataclasses.replace(SampleConfig(), **{name: type(getattr(SampleConfig(), name))(float(value))})
    with pytest.raises(ValueError, match=rf"method\.sample\.{change}"):
        check_sampling(cfg)
