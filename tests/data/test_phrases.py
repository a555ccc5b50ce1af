import pytest

from jaxgen.data.phrases import find_phrases, join_phrases

SENTENCES = [["new", "york", "is", "big"], ["new", "york", "is", "old"], ["york", "is", "new"], ["big", "new", "york"]]


def test_score_by_hand():
    """new york: count 3 of new 4, york 4 in 14 words; (3 − 1) · 14 / 16 = 1.75. york is: (3 − 1) · 14 / 12 = 2.33."""
    assert find_phrases(SENTENCES, min_count=1, threshold=1.74) == {"new_york", "york_is"}
    assert find_phrases(SENTENCES, min_count=1, threshold=1.76) == {"york_is"}
    assert find_phrases(SENTENCES, min_count=1, threshold=2.34) == set()


def test_rare_pairs_and_sentence_ends_make_no_phrase():
    assert find_phrases(SENTENCES, min_count=4, threshold=-100) == set()
    assert "big_new" in find_phrases(SENTENCES, min_count=1, threshold=-1)
    assert "big_york" not in find_phrases([["big"], ["york"]] * 9, min_count=1, threshold=-1)


@pytest.mark.parametrize(
    "sentence, joined",
    [
        ("a b c", "a_b c"),  # from the left; b is taken
        ("b c", "b_c"),
        ("c a b a b", "c a_b a_b"),
        ("a", "a"),
        ("", ""),
    ],
)
def test_joining(sentence, joined):
    assert join_phrases(sentence.split(), {"a_b", "b_c"}) == joined.split()
