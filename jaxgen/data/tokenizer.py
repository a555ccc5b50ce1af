"""Tokenizers: bytes, and byte-level BPE, WordPiece and whatever else the library `tokenizers` reads.

A tokenizer is saved as text, in the `Spec` and with it in a run's config.json, so that a run needs nothing else to
encode and decode.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.config import closest

BYTES = "bytes"
SEPARATOR = "<|endoftext|>"
WORDPIECE = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# What a document begins and ends with, by the name that families of models give it, where no file says so.
BEGIN = (SEPARATOR, "<|begin_of_text|>", "<s>", "<bos>", "[CLS]")
END = (SEPARATOR, "<|end_of_text|>", "</s>", "<eos>", "[SEP]")
CHUNK = 2**22  # characters encoded at a time


class Tokenizer:
    """Text ↔ tokens.

    Attributes:
      saved: the tokenizer as text, from which it is made: `bytes`, or the JSON that `wrap` writes.
      size: how many tokens there are, those numbered but unused among them.
      begin: the token before a document's first.
      end: the one behind its last.
    """

    def __init__(self, saved: str):
        """Restores a tokenizer; ValueError where `saved` is none."""
        self.saved = saved
        self._inner: Any = None
        if saved == BYTES:
            self.size, self.begin, self.end = 257, 256, 256
            return
        from tokenizers import Tokenizer as Inner

        try:
            tree = json.loads(saved)
            self._inner = Inner.from_str(json.dumps(tree["tokenizer"]))
            names = tree["begin"], tree["end"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"this is no saved tokenizer: {error}: {saved[:60]!r}") from None
        except Exception as error:  # what the library raises has no type of its own
            raise ValueError(f"the library tokenizers cannot read this tokenizer: {error}") from None
        self._inner.encode_special_tokens = True  # a document that spells `<|endoftext|>` does not end there
        self._inner.no_padding()
        self._inner.no_truncation()
        vocabulary = self._inner.get_vocab(with_added_tokens=True)
        self.size = max(vocabulary.values()) + 1
        for name in names:
            if name not in vocabulary:
                raise ValueError(f"the tokenizer has no token {name!r}{closest(name, vocabulary)[:200]}")
        self.begin, self.end = (vocabulary[name] for name in names)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without `begin` and `end`."""
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text, on all cores."""
        if self._inner is None:
            return [list(text.encode()) for text in texts]
        return [found.ids for found in self._inner.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_marked(self, text: str) -> list[int]:
        """The tokens of a text in which special tokens, such as [MASK], stand for themselves as they are written."""
        special = {self.piece(number): number for number in self.special()}
        parts = re.split(f"({'|'.join(map(re.escape, special))})", text)
        return [t for part in parts for t in ([special[part]] if part in special else self.encode(part))]

    def special(self) -> tuple[int, ...]:
        """The tokens that stand for no text."""
        if self._inner is None:
            return (256,)
        added = json.loads(self._inner.to_str())["added_tokens"]
        return tuple(sorted(token["id"] for token in added if token["special"]))

    def piece(self, number: int) -> str:
        """How a token is written in the vocabulary; "" for a number that is none."""
        if self._inner is None:
            return SEPARATOR if number == 256 else bytes([number]).decode("latin-1")
        return self._inner.id_to_token(number) or ""

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens; special ones have none, and bytes that are no UTF-8 come as U+FFFD."""
        kept = [int(token) for token in tokens if 0 <= token < self.size]
        if self._inner is None:
            return bytes(token for token in kept if token < 256).decode(errors="replace")
        return self._inner.decode(kept, skip_special_tokens=True)

    def token(self, name: str) -> int:
        """The number of the token that is written so; ValueError where there is none."""
        number = {SEPARATOR: 256}.get(name) if self._inner is None else self._inner.token_to_id(name)
        if number is None:
            raise ValueError(f"the tokenizer has no token {name!r}")
        return number

    def library(self) -> Any:
        """The same tokenizer as one of the library `tokenizers`, a copy without options of ours."""
        from tokenizers import Tokenizer as Inner
        from tokenizers import decoders, models, pre_tokenizers

        if self._inner is not None:
            return Inner.from_str(self._inner.to_str())
        # Bytes are tokens of a byte-level BPE without pairs, which writes each as a letter (Radford et al. 2019).
        printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = [byte for byte in range(256) if byte not in printable]
        letters = {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
        inner = Inner(models.BPE(vocab=letters, merges=[]))
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        inner.decoder = decoders.ByteLevel()
        inner.add_special_tokens([SEPARATOR])
        return inner

    def num_bytes(self) -> np.ndarray | None:
        """How many bytes of text each token stands for, int [size], special ones none.

        None where a text cannot be had back from its tokens (WordPiece), so that bits a byte mean nothing.
        """
        if self._inner is None:
            return np.array([1] * 256 + [0])
        tree = json.loads(self._inner.to_str())
        if tree["model"]["type"] == "WordPiece":
            return None
        special = self.special()
        byte_level = "ByteLevel" in json.dumps([tree["pre_tokenizer"], tree["decoder"]])

        def length(piece: str) -> int:
            if byte_level:  # each byte is a character of its own
                return len(piece)
            return 1 if re.fullmatch("<0x[0-9A-F]{2}>", piece) else len(piece.replace("▁", " ").encode())

        table = np.zeros(self.size, int)
        for piece, number in self._inner.get_vocab(with_added_tokens=True).items():
            table[number] = 0 if number in special else length(piece)
        return table


def wrap(inner: Any, begin: str | None = None, end: str | None = None) -> str:
    """A tokenizer of the library as text; ValueError where it has none of the usual names for `begin` or `end`."""

    def found(name: str | None, usual: Sequence[str], what: str) -> str:
        names = (name,) if name else usual
        for name in names:
            if inner.token_to_id(name) is not None:
                return name
        raise ValueError(f"the tokenizer has no token that {what} a document: none of {', '.join(names)}")

    tree = {"begin": found(begin, BEGIN, "begins"), "end": found(end, END, "ends")}
    return json.dumps({**tree, "tokenizer": json.loads(inner.to_str())})


def train(kind: str, size: int, texts: Iterable[str]) -> Tokenizer:
    """Learns a vocabulary of `size` tokens.

    Args:
      kind: `bpe`, byte-level pair encoding as of GPT-2 (Radford et al. 2019), or `wordpiece`, lower-case as of BERT
        (Devlin et al. 2019, arXiv 1810.04805).
      size: tokens at most, special ones and single bytes (or letters) among them.
      texts: what it learns from.

    Raises:
      ValueError: a size that leaves nothing to learn.
    """
    from tokenizers import Tokenizer as Inner
    from tokenizers import decoders, models, pre_tokenizers, trainers

    if kind == "bpe":
        if size <= 257:
            raise ValueError(
                f"a byte-level vocabulary of {size} tokens has no pairs: 256 bytes and a separator come first"
            )
        inner = Inner(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        trainer: Any = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=[SEPARATOR],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
    else:
        if size < 100:
            raise ValueError(f"a WordPiece vocabulary of {size} tokens has no room for letters: 100 are the least")
        inner, texts = bert(models.WordPiece(unk_token="[UNK]"), lowercase=True), list(texts)
        # The trainer numbers letters inside words as its hash table yields them, and breaks ties by these numbers:
        # given beforehand, the same texts have the same vocabulary in every process.
        fixed = [*WORDPIECE, *(f"##{letter}" for letter in _inner_letters(inner, texts))]
        trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=fixed, show_progress=False)
        inner.train_from_iterator(texts, trainer)
        inner = bert(models.WordPiece(inner.get_vocab(), unk_token="[UNK]"), lowercase=True)
        inner.add_special_tokens(list(WORDPIECE))
        return Tokenizer(wrap(inner))
    inner.train_from_iterator(texts, trainer)
    return Tokenizer(wrap(inner))


def _inner_letters(inner: Any, texts: Sequence[str], most: int = 1000) -> list[str]:
    """The letters behind the first of a word; of more than the trainer's `most` those that occur oftenest."""
    words: Counter[str] = Counter()
    for text in texts:
        words.update(word for word, _ in inner.pre_tokenizer.pre_tokenize_str(inner.normalizer.normalize_str(text)))
    counts: Counter[str] = Counter()
    for word, num in words.items():
        for letter in word[1:]:
            counts[letter] += num
    return sorted(sorted(counts, key=lambda letter: (-counts[letter], letter))[:most])


def bert(model: Any, lowercase: bool) -> Any:
    """A tokenizer that cuts as BERT's does, around a WordPiece model."""
    from tokenizers import Tokenizer as Inner
    from tokenizers import decoders, normalizers, pre_tokenizers

    inner = Inner(model)
    inner.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    return inner


def read(path: str | Path) -> Tokenizer:
    """A tokenizer from its files, as Hugging Face's models have them.

    They are a `tokenizer.json`, BERT's `vocab.txt`, or a folder with one of them or with GPT-2's `vocab.json` and
    `merges.txt`. Where the folder has a `tokenizer_config.json`, it names the tokens that begin and end a document.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a file that is none of them.
    """
    path = Path(path).expanduser()
    folder = path if path.is_dir() else path.parent
    candidates = [path] if path.is_file() else [folder / name for name in ("tokenizer.json", "vocab.json", "vocab.txt")]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        raise FileNotFoundError(
            f"no tokenizer in {path}: neither tokenizer.json, nor vocab.json and merges.txt, nor vocab.txt"
        )
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    except FileNotFoundError:
        config = {}
    name = lambda key: value["content"] if isinstance(value := config.get(key), dict) else value
    begin, end = name("bos_token"), name("eos_token")
    try:
        inner = _inner(file, config.get("do_lower_case"))
    except Exception as error:
        raise ValueError(f"{file} is no tokenizer that can be read: {error}") from None
    return Tokenizer(wrap(inner, begin or end, end))


def _inner(file: Path, lowercase: bool | None) -> Any:
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Inner

    if file.name == "vocab.json":
        inner = Inner(models.BPE.from_file(str(file), str(file.with_name("merges.txt"))))
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        inner.add_special_tokens([AddedToken(SEPARATOR, special=True)])
        return inner
    if file.suffix == ".txt":
        model = models.WordPiece.from_file(str(file), unk_token="[UNK]")
        words = file.read_text("utf-8").split("\n")
        if lowercase is None:  # the file does not say: its words do
            lowercase = not any(re.search("[A-Z]", word) for word in words if not word.startswith("["))
        inner = bert(model, lowercase)
        inner.add_special_tokens([name for name in WORDPIECE if name in words])
        return inner
    return Inner.from_file(str(file))
