"""Phrases: pairs of neighbouring words that belong together, joined to one word (Mikolov et al. 2013, arXiv 1310.4546).

  score(a, b) = (count(ab) − δ) · N / (count(a) count(b)),   δ = min_count, N the number of words of the text,

equation 6 of the paper, times N as in its program word2phrase, so that one threshold serves texts of every size:
without δ the score is how many times more often the pair stands there than chance would put it. A second pass joins
longer ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

Sentences = list[list[str]]
JOINT = "_"


def find_phrases(sentences: Iterable[list[str]], min_count: int, threshold: float) -> set[str]:
    """The pairs, as `a_b`, that score above `threshold`.

    Args:
      sentences: words in order; no pair crosses their ends.
      min_count: words and pairs that occur less often are left alone; the δ of the score.
      threshold: 100 is word2phrase's; lower joins more.
    """
    words: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    for sentence in sentences:
        words.update(sentence)
        pairs.update(zip(sentence, sentence[1:], strict=False))
    total = words.total()

    def score(a: str, b: str) -> float:
        return (pairs[a, b] - min_count) * total / (words[a] * words[b])

    frequent = (pair for pair, count in pairs.items() if count >= min_count)
    return {f"{a}{JOINT}{b}" for a, b in frequent if score(a, b) > threshold}


def join_phrases(sentence: list[str], phrases: Collection[str]) -> list[str]:
    """The sentence with every pair in `phrases` as one word `a_b`, joined from left to right, no word twice."""
    joined: list[str] = []
    rest = iter(range(len(sentence)))
    for i in rest:
        pair = JOINT.join(sentence[i : i + 2])
        if i + 1 < len(sentence) and pair in phrases:
            joined.append(pair)
            next(rest)
        else:
            joined.append(sentence[i])
    return joined
