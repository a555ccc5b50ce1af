"""BERT in ours and in transformers, with the words of `speeches` in a vocabulary of 8192."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.program import Program
from benchmarks.training import step_facts, torch_facts, torch_training, training

VOCAB, LENGTH, BATCH = 8192, 128, 32
SMALL = {"num_layers": 4, "width": 256, "num_heads": 4, "context": LENGTH}  # configs/bert_speeches.py
MINI = {"num_layers": 6, "width": 384, "num_heads": 12, "context": 512}  # MiniLM's
TOKENIZER, SENTENCES, NUM = "tokenizer.json", "sentences.txt", 256


def texts():
    """Pairs of texts of the addresses, in ours."""
    from jaxgen.data import Text

    return Text("speeches", f"wordpiece:{VOCAB}", length=LENGTH, packing="pairs").load()


def prepare(folder: Path) -> None:
    """Writes the tokenizer, and sentences of the test split, one a line."""
    from jaxgen.data.corpus import read_documents
    from jaxgen.data.tokenizer import Tokenizer

    Tokenizer(texts().spec.tokenizer).library().save(str(folder / TOKENIZER))
    sentences = [s for document in read_documents("speeches") if document.split == "test" for s in document.sentences]
    lines = [" ".join(sentence) for sentence in sentences[:: len(sentences) // NUM][:NUM]]
    (folder / SENTENCES).write_text("\n".join(lines), "utf-8")


def jaxgen_train() -> Program:
    """A training step of ours; masks are drawn in it."""
    import dataclasses

    from jaxgen.data import batch_at
    from jaxgen.language import bert
    from jaxgen.nets.bert import BERT

    data = texts()
    method = bert.make(bert.Config(dataclasses.replace(BERT, dropout=0.0, **SMALL)), data.spec)
    batch = batch_at(data, seed=0, step=0, batch_size=BATCH, keys=method.reads)
    run, abstract = training(method, data.spec, batch)
    return Program(run, lambda: step_facts(method, abstract, data.spec.batch(BATCH, method.reads)))


def jaxgen_encode() -> Program:
    """Sentences as vectors by ours."""
    import dataclasses

    import jax

    from jaxgen import backend
    from jaxgen.config import TrainConfig
    from jaxgen.data import tokenizer
    from jaxgen.language.embed import sentence_vectors
    from jaxgen.nets.bert import BERT, Bert

    backend.prepare(TrainConfig(compilation_cache=""))
    net = Bert(dataclasses.replace(BERT, **MINI), VOCAB)
    params, words = jax.jit(net.init)(jax.random.key(0)), tokenizer.read(TOKENIZER)
    lines = Path(SENTENCES).read_text("utf-8").splitlines()
    return Program(lambda: sentence_vectors(net, params, words, lines))


def config(num_layers: int, width: int, num_heads: int, context: int) -> Any:
    """The network's, in transformers; without dropout."""
    from transformers import BertConfig

    return BertConfig(
        vocab_size=VOCAB, hidden_size=width, num_hidden_layers=num_layers, num_attention_heads=num_heads,
        intermediate_size=4 * width, max_position_embeddings=context, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip


def transformers_train(compiled: bool = False) -> Program:
    """A training step of transformers' `BertForPreTraining`, which predicts at all places; masks are drawn before."""
    import torch
    from transformers import BertForPreTraining

    torch.manual_seed(0)
    model = BertForPreTraining(config(**SMALL))
    call = torch.compile(model) if compiled else model
    tokens = torch.randint(5, VOCAB, (BATCH, LENGTH))
    inputs = {
        "input_ids": tokens,
        "attention_mask": torch.ones_like(tokens),
        "token_type_ids": (torch.arange(LENGTH) >= LENGTH // 2).long().expand(BATCH, -1),
        "labels": torch.where(torch.rand(BATCH, LENGTH) < 0.15, tokens, -100),
        "next_sentence_label": torch.randint(0, 2, (BATCH,)),
    }
    step, _ = torch_training(model, lambda: call(**inputs).loss)
    return Program(step, lambda: torch_facts(model))


def transformers_encode() -> Program:
    """The same by transformers, as sentence-transformers does it: texts of similar lengths together."""
    import torch
    from tokenizers import Tokenizer
    from transformers import BertModel

    model = BertModel(config(**MINI), add_pooling_layer=False).eval()
    words = Tokenizer.from_file(TOKENIZER)
    begin, end = (words.token_to_id(name) for name in ("[CLS]", "[SEP]"))
    lines = Path(SENTENCES).read_text("utf-8").splitlines()

    @torch.inference_mode()
    def run() -> None:
        encoded = words.encode_batch_fast(lines, add_special_tokens=False)
        rows = sorted(([begin, *found.ids[:254], end] for found in encoded), key=len)
        for start in range(0, NUM, BATCH):
            part = [torch.tensor(row) for row in rows[start : start + BATCH]]
            tokens = torch.nn.utils.rnn.pad_sequence(part, batch_first=True)
            mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in part], batch_first=True)
            hidden = model(input_ids=tokens, attention_mask=mask).last_hidden_state
            mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            torch.nn.functional.normalize(mean, dim=1).numpy()

    return Program(run)
