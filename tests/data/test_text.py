"""Words and characters as numbers, against scikit-learn's counts and Python's own strings."""

import pickle
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdl.data import Characters, Vocabulary

TEXTS = [
    "A good film. A GOOD one!<br /><br />Don't miss it.",
    "good? <br>it isn’t: it's a bad, bad film/movie (8/10)",
    "_Really_ café CAFÉ cafe\u0301 it's it's",
    "",
]


def counted(texts: list[str]) -> dict[str, int]:
    """How often each word is there, as scikit-learn cuts and counts them."""
    from sklearn.feature_extraction.text import CountVectorizer

    plain = [
        text.replace("<br />", " ")
        .replace("<br>", " ")
        .replace("’", "'")
        .replace("e\u0301", "é")
        for text in texts
    ]
    counter = CountVectorizer(token_pattern=r"[^\W_]+(?:'[^\W_]+)*")
    counts = np.asarray(counter.fit_transform(plain).sum(0))[0]
    return dict(zip(counter.get_feature_names_out(), counts.tolist(), strict=True))


def test_the_most_frequent_words_are_taken_and_of_equals_the_first():
    counts = counted(TEXTS)
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    for size in (3, 5, 9, 12, 100):
        assert Vocabulary.of(TEXTS, size).words == (
            "[padding]",
            "[unknown]",
            *ranked[: size - 2],
        )


def test_words_are_cut_as_promised():
    words = set(Vocabulary.of(TEXTS, 100).words[2:])
    assert words == {
        *(
            "a",
            "good",
            "film",
            "one",
            "don't",
            "miss",
            "it",
            "isn't",
            "it's",
            "bad",
            "movie",
            "8",
            "10",
            "really",
            "café",
        )
    }


def test_texts_become_the_places_of_their_words():
    vocabulary = Vocabulary(("", "?", "good", "film", "it's"))
    ids = vocabulary.encode(["Good film, GOOD<br />film?", "It’s good", "bad film"])
    assert [array.tolist() for array in ids] == [[2, 3, 2, 3], [4, 2], [1, 3]]
    assert {array.dtype for array in ids} == {np.dtype(np.int32)}


def test_a_text_without_a_known_word_is_as_many_unknown_ones():
    assert Vocabulary(("", "?", "good")).encode(["nothing here, at all"])[0].tolist() == [
        1,
        1,
        1,
        1,
    ]


@pytest.mark.parametrize("text", ["", "  \n", "<br /><br />", "... !?", "__"])
def test_a_text_without_a_word_is_an_empty_array(text: str):
    (ids,) = Vocabulary(("", "?", "good")).encode([text])
    assert (ids.shape, ids.dtype) == ((0,), np.int32)


def test_the_names_of_padding_and_unknown_are_no_words_of_a_text():
    vocabulary = Vocabulary.of(["unknown unknown padding"], 10)
    assert vocabulary.words == ("[padding]", "[unknown]", "unknown", "padding")
    assert vocabulary.encode(["[unknown] [padding] [UNK]"])[0].tolist() == [2, 3, 1]


def test_the_order_of_texts_survives_more_of_them_than_are_encoded_at_once():
    vocabulary = Vocabulary(("", "?", *map(str, range(2500))))
    ids = vocabulary.encode(str(number) for number in range(2500))
    np.testing.assert_array_equal(np.concatenate(ids), np.arange(2500) + 2)


def test_decoding_undoes_encoding_of_plain_words():
    vocabulary = Vocabulary.of(TEXTS, 100)
    text = "it isn't a good film"
    assert vocabulary.decode(vocabulary.encode([text])[0]) == text
    assert vocabulary.decode([]) == ""


def test_vocabularies_are_values():
    first, second = Vocabulary.of(TEXTS, 10), Vocabulary.of(list(TEXTS), 10)
    first.encode(["good"])
    assert first == second
    assert hash(first) == hash(second)
    assert first != Vocabulary.of(TEXTS, 9)
    assert (
        pickle.loads(pickle.dumps(first)).encode(["good film"])[0].tolist()
        == second.encode(["good film"])[0].tolist()
    )
    assert (len(first), repr(first)) == (10, "<Vocabulary of 10 words>")


def test_misuse_of_a_vocabulary_is_refused(unchecked: None):
    with pytest.raises(ValueError, match="size is at least 3, got 2"):
        Vocabulary.of(TEXTS, 2)
    for use in (
        lambda: Vocabulary.of("one text", 10),
        lambda: Vocabulary(("", "?")).encode("one text"),
    ):
        with pytest.raises(TypeError, match="expected several texts, got one string"):
            use()
    for words in (("",), ("", "?", "a", "a")):
        with pytest.raises(ValueError, match="expected distinct words behind two names"):
            Vocabulary(words)
    for ids in ([3], [-1], np.array([0, 100])):
        with pytest.raises(
            ValueError, match=r"^Vocabulary: ids are 0 to 2, got .* another vocabulary's\?$"
        ):
            Vocabulary(("", "?", "a")).decode(ids)
    with pytest.raises(ValueError, match=r"decode expects integers \[ids\], got float64\[1\]"):
        Vocabulary(("", "?", "a")).decode(np.array([0.5]))


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    for use in (
        lambda: Vocabulary.of(TEXTS, 10),
        lambda: Vocabulary(("", "?")).encode(["good"]),
    ):
        with pytest.raises(
            ModuleNotFoundError, match=r'not installed — pip install "jaxdl\[text\]" brings it'
        ):
            use()


@pytest.mark.slow
@given(st.text(min_size=1))
def test_characters_come_back(text: str):
    characters = Characters.of(text)
    ids = characters.encode(text)
    assert ids.dtype == np.int32
    assert ids.tolist() == [sorted(set(text)).index(character) for character in text]
    assert characters.decode(ids) == text


def test_characters_are_in_the_order_that_they_are_given_in():
    characters = Characters("cab")
    assert characters.encode("abc").tolist() == [1, 2, 0]
    assert characters.encode("").shape == (0,)
    assert characters.decode(np.array([1, 2, 0])) == "abc"
    assert (len(characters), hash(characters)) == (3, hash(Characters("cab")))


def test_unknown_characters_and_places_are_refused():
    with pytest.raises(
        ValueError, match=r"^Characters: 'z' at position 2 is none of the 3 that are known"
    ):
        Characters("abc").encode("abz~")
    with pytest.raises(ValueError, match=r"^Characters: ids are 0 to 2, got 0 to 3"):
        Characters("abc").decode([0, 3])
    for characters in ("", "aa"):
        with pytest.raises(ValueError, match="at least one character, and each once"):
            Characters(characters)
