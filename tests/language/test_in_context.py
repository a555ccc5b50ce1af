"""What the lecture says of language models, on made-up texts (`jaxgen.data.tasks`): slow, since models are trained."""

import jax
import numpy as np
import pytest

from jaxgen.checksum import digest
from jaxgen.data import Text, batch_at
from jaxgen.data.prompts import answer_of, prompt
from jaxgen.data.tasks import COLOURS, WORDS, mapping, parity_question
from jaxgen.data.tokenizer import Tokenizer
from jaxgen.language import gpt
from jaxgen.language.generate import aligned
from jaxgen.language.sampling import SampleConfig
from jaxgen.nets.transformer import TransformerConfig
from jaxgen.optimizer import AdamWConfig

pytestmark = pytest.mark.slow
TOKENIZER = Tokenizer("bytes")
NUM = 200  # questions of each kind


def trained(task, length, steps, folder, core="transformer", width=96, new=12):
    """A method and its state after so many steps on a task; `new` is the length of an answer."""
    net = TransformerConfig(num_layers=3, width=width, num_heads=4, context=length + 64)
    optimizer = AdamWConfig(2e-3, warmup_steps=100, decay_steps=steps, b2=0.95, weight_decay=0.1)
    sample = SampleConfig(length=new, temperature=0.0)
    data = Text(f"tasks:{task}", "bytes", length, "fit", data_dir=str(folder)).load()
    method = gpt.make(gpt.Config(net, core, optimizer=optimizer, sample=sample), data.spec)
    read = lambda step: batch_at(data, seed=0, step=step, batch_size=32, keys=method.reads)
    state, step = jax.jit(method.init)(jax.random.key(0), read(0)), jax.jit(method.step, donate_argnums=0)
    for i in range(steps):
        state, metrics = step(state, read(i), jax.random.key(i))
    print(task, core, {name: float(value) for name, value in metrics.items()})
    return method, state


def ask(method, state, prompts):
    """What a model writes behind each prompt."""
    ids = aligned([[TOKENIZER.begin, *TOKENIZER.encode(text)] for text in prompts])
    tokens = jax.jit(method.sample, static_argnums=2)(state, jax.random.key(0), len(ids), {"prompt": ids})["tokens"]
    return [TOKENIZER.decode(row)[len(text) :] for row, text in zip(np.asarray(tokens), prompts, strict=True)]


def test_the_task_in_words_switches_what_a_model_does(tmp_path):
    """Multitask learners: the same three words, translated or coloured (L286)."""
    method, state = trained("multitask", 128, 1500, tmp_path, new=32)
    rng = np.random.default_rng(5)
    questions = [" ".join(rng.choice(list(WORDS), 3)) for _ in range(NUM)]
    for task, table in (("translate to french", WORDS), ("say the colours", COLOURS)):
        found = ask(method, state, [prompt(question, task=task) for question in questions])
        right = [" ".join(table[w] for w in q.split()) == answer_of(a) for q, a in zip(questions, found, strict=True)]
        print(task, np.mean(right))
        assert np.mean(right) >= 0.95


def test_examples_in_the_prompt_teach_without_a_gradient(tmp_path):
    """Zero-, one- and few-shot (L466, L480), on assignments of labels that training never saw."""
    method, state = trained("mappings", 256, 2500, tmp_path, new=6)
    before, accuracy = digest(state["params"]), {}
    for shots in (0, 1, 12):
        rng = np.random.default_rng(7)
        asked = [mapping(rng, True, shots) for _ in range(NUM)]
        found = ask(method, state, [prompt(last.question, examples) for *examples, last in asked])
        accuracy[shots] = np.mean([answer_of(a) == q[-1].answer for a, q in zip(found, asked, strict=True)])
    print(accuracy)
    assert accuracy[12] > accuracy[1] + 0.1 and accuracy[1] > accuracy[0] + 0.1
    assert digest(state["params"]) == before


def test_steps_before_the_answer_help(tmp_path):
    """Chain of thought (L469): the parity of numbers that training never asked for, at once and step by step."""
    method, state = trained("parity", 256, 1500, tmp_path, new=48)
    rng = np.random.default_rng(9)
    asked = [parity_question(rng, True) for _ in range(NUM)]
    accuracy = {}
    for think in (False, True):
        found = ask(method, state, [prompt(example.question, think=think) for example in asked])
        accuracy[think] = np.mean([answer_of(a, think) == e.answer for a, e in zip(found, asked, strict=True)])
    print(accuracy)
    assert accuracy[True] >= accuracy[False] + 0.3


def test_a_transformer_copies_what_is_far_back_and_an_lstm_does_not(tmp_path):
    """At equal size and steps (L256)."""
    rng = np.random.default_rng(3)
    texts = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 24)) for _ in range(NUM)]
    accuracy = {}
    for core in ("transformer", "lstm"):
        method, state = trained("copy", 52, 1500, tmp_path, core, new=24)
        found = ask(method, state, [f"{text}|" for text in texts])
        pairs = [
            (a, b)
            for text, answer in zip(texts, found, strict=True)
            for a, b in zip(text, f"{answer:24}", strict=False)
        ]
        accuracy[core] = np.mean([a == b for a, b in pairs])
    print(accuracy)
    assert accuracy["transformer"] >= 0.99 and accuracy["lstm"] <= 0.6
