import dataclasses

import numpy as np
import pytest

from jaxgen.data import Images, tokenizer
from jaxgen.data.condition import encode, open_condition, parse, spread, words

FACES, FASHION = Images("faces").load().spec, Images("fashion").load().spec


def test_a_condition_that_asks_for_nothing():
    cond = open_condition(FACES, ("attribute", "tokens"), 2)
    np.testing.assert_array_equal(cond["attribute"], np.full((2, 10), -1))
    assert not cond["tokens"].any() and cond["tokens"].shape == (2, *FACES.shape("tokens"))


def test_attributes_by_name_leave_the_others_open():
    asked = parse(FACES, ("attribute",), "smiling=1, hair_color=light brown")["attribute"]
    names = FACES.names["attribute"]
    expected = {"smiling": 1, "hair_color": FACES.names["hair_color"].index("light brown")}
    np.testing.assert_array_equal(asked, [expected.get(name, -1) for name in names])


@pytest.mark.parametrize("text", ["label=Ankle boot", "label=ankle_boot", "label=9"])
def test_labels_by_name_and_number(text):
    assert parse(FASHION, ("label",), text)["label"] == 9


def test_a_caption_becomes_the_tokens_of_the_bundled_one():
    data = Images("faces").load()
    from jaxgen.data.bundled import captions

    text = captions("faces", "test")[7]
    expected = data.read("test", np.array([7]), ("tokens",))["tokens"][0]
    np.testing.assert_array_equal(parse(FACES, ("tokens",), text.upper() + "!")["tokens"], expected)
    vocabulary = FACES.names["tokens"]
    assert [vocabulary[token] for token in expected if token] == words(text)


def test_captions_are_cut_padded_and_unknown_words_marked():
    np.testing.assert_array_equal(
        encode(["Cat, dog!", "a cat a cat", ""], ("<pad>", "<unk>", "cat", "dog"), 3), [[2, 3, 0], [1, 2, 1], [0, 0, 0]]
    )


USERS = ("12", "7", "Mary Ann", "Smith, John", "1,234.50", "a+b", "a-b")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("user=7", 1),
        ("user=12", 0),
        ("user=Mary Ann", 2),
        ("user=mary_ann", 2),
        ("user=Smith, John", 3),
        ("user = 1,234.50", 4),
        ("user=a+b", 5),
    ],
)
def test_users_go_by_name_even_where_it_is_a_number(text, expected):
    spec = dataclasses.replace(FASHION, names={"user": USERS}, sizes={"user": (len(USERS),)})
    assert parse(spec, ("user",), text) == {"user": expected}
    for wrong in ("1", "-7", "12, 7", "a_b"):  # two names are like the last
        with pytest.raises(ValueError, match=f"user has no value '{wrong}'"):
            parse(spec, ("user",), f"user={wrong}")


def test_several_conditions_share_the_rows():
    two = [parse(FASHION, ("label",), f"label={i}") for i in (3, 5)]
    np.testing.assert_array_equal(spread(two, 5)["label"], [3, 3, 3, 5, 5])
    assert spread([], 5) == {}
    with pytest.raises(ValueError, match="2 conditions need as many samples or more, not 1"):
        spread(two, 1)


@pytest.mark.parametrize(
    ("spec", "keys", "text", "message"),
    [
        (FACES, ("attribute",), "smilling=1", r"did you mean smiling\?"),
        (FACES, ("attribute",), "smiling=2", r"values 0 … 1, not 2"),
        (FACES, ("attribute",), "smiling", "NAME=VALUE"),
        (FACES, ("attribute",), "hair_color=gren", r"did you mean green\?"),
        (FASHION, ("label",), "label=shoe", "t-shirt, trouser"),
        (FACES, ("tokens",), "ein lächelnder Mensch", "in the vocabulary"),
    ],
)
def test_mistakes_name_what_there_is(spec, keys, text, message):
    with pytest.raises(ValueError, match=message):
        parse(spec, keys, text)


def test_texts_with_blanks_begin_at_the_left():
    """A prompt ends at the right end of its row, one with blanks begins at the left; [MASK] stands for itself."""
    saved = tokenizer.train("wordpiece", 100, ["the cat sat on the mat"]).saved
    spec = dataclasses.replace(FASHION, tokenizer=saved)
    texts = "the [MASK] sat", "the cat"
    the, cat, sat = tokenizer.Tokenizer(saved).encode("the cat sat")
    blanks = spread([parse(spec, ("masked",), text) for text in texts], 2)["masked"]
    assert blanks.tolist() == [[2, the, 4, sat, 3], [2, the, cat, 3, -1]]
    prompts = spread([parse(spec, ("prompt",), text) for text in ("the cat sat", "cat")], 2)["prompt"]
    assert prompts.tolist() == [[2, the, cat, sat], [-1, -1, 2, cat]]
