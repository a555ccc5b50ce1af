"""Bits a byte of the bundled addresses without a neural network: an n-gram model of bytes, and the compressor xz.

Both see the training documents and are charged for the test documents alone, what `jaxgen evaluate` charges a model of
gpt_speeches for (it counts one more token a document, its end).

Run: python -m benchmarks.text_rates
"""

from __future__ import annotations

import lzma

import numpy as np

from jaxgen.data import Text

ORDERS = range(1, 9)  # bytes of context, at most


def texts(split: str) -> list[bytes]:
    """The documents of a split."""
    text = Text("speeches", "bytes")
    return [document.text.encode() for document in text.documents() if document.split == split]


def contexts(documents: list[bytes], order: int) -> tuple[np.ndarray, np.ndarray]:
    """The `order` bytes before each byte, as one number (shorter at the beginnings), and the byte, uint64 [N] each."""
    found = []
    for document in documents:
        x = np.frombuffer(bytes(order) + document, np.uint8).astype(np.uint64)
        code = np.zeros(len(document), np.uint64)
        for i in range(order):
            code = code * np.uint64(256) + x[i : i + len(document)]
        found.append((code, x[order:]))
    codes, symbols = zip(*found, strict=True)
    return np.concatenate(codes), np.concatenate(symbols)


def number_of(keys: np.ndarray, counts: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """The counts of what is asked for, 0 where it is no key; `keys` sorted."""
    place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[place] == asked, counts[place], 0)


def ngram_bits(train: list[bytes], test: list[bytes], orders: range) -> list[float]:
    """Bits a byte of `test` by contexts of up to 0, 1, … bytes, interpolated as by Witten & Bell (1991).

      p_n(x | c) = (N(c x) + T(c) p_{n−1}(x | c')) / (N(c) + T(c)),

    T(c) being the number of different bytes behind the context c, and c' the context without its first byte.
    """
    bits, probs = [], np.full(sum(map(len, test)), 1 / 256)
    for order in (0, *orders):
        context, symbol = contexts(train, order)
        # The pair of an 8-byte context and a byte has 72 bits: contexts are numbered first.
        known, number = np.unique(context, return_inverse=True)
        pairs, num_pairs = np.unique(number.astype(np.uint64) * np.uint64(256) + symbol, return_counts=True)
        num_contexts = np.bincount(number)
        kinds = np.bincount((pairs // np.uint64(256)).astype(np.int64))
        context, symbol = contexts(test, order)
        place = np.minimum(np.searchsorted(known, context), len(known) - 1)
        seen = known[place] == context
        count = number_of(pairs, num_pairs, place.astype(np.uint64) * np.uint64(256) + symbol)
        total, different = np.where(seen, num_contexts[place], 0), np.where(seen, kinds[place], 0)
        mixed = (count + different * probs) / np.maximum(total + different, 1)
        probs = np.where(seen, mixed, probs)
        bits.append(float(-np.log2(probs).mean()))
    return bits


def main() -> None:
    """Prints both."""
    train, test = texts("train"), texts("test")
    size = sum(map(len, test))
    print(
        f"{len(train)} training documents, {sum(map(len, train)):,} bytes; {len(test)} test documents, {size:,} bytes"
    )
    for order, bits in enumerate(ngram_bits(train, test, ORDERS)):
        print(f"contexts of {order} bytes: {bits:.3f} bits/byte")
    packed = lambda data: len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))
    before, asked = b"".join(train), b"".join(test)
    print(f"xz -9e, after the training text: {8 * (packed(before + asked) - packed(before)) / size:.3f} bits/byte")
    print(f"xz -9e, alone: {8 * packed(asked) / size:.3f} bits/byte")


if __name__ == "__main__":
    main()
