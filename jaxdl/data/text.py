"""Texts as integer ids: of words, and of characters."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Int32, Integer

PADDING = 0
UNKNOWN = 1
"""The first two ids of a vocabulary."""

_WORD = r"[^\W_]+(?:'[^\W_]+)*"
_AT_ONCE = 1024


@dataclass(frozen=True, repr=False)
class Vocabulary:
    """The words that a model knows, each by its id, an index of `words`.

    A word is a sequence of letters and digits in lower case, with the apostrophes inside it
    (`don't`); `<br />`, punctuation and white space only separate words. Id 0 is the padding behind
    a text, and id 1 stands for every unknown word.

    Args:
        words: all words by their ids; the first two are names for padding and for the unknown.

    Raises:
        ValueError: a word is there twice, or there are fewer than two.

    >>> vocabulary = Vocabulary.of(["A good film.<br />Good!", "a bad one"], size=4)
    >>> vocabulary.words
    ('[padding]', '[unknown]', 'a', 'good')
    >>> vocabulary.encode(["A good, good idea", ""])
    [array([2, 3, 3, 1], dtype=int32), array([], dtype=int32)]
    >>> vocabulary.decode([2, 3, 1, 0])
    'a good [unknown]'
    """

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.words) < 2 or len(set(self.words)) != len(self.words):
            raise ValueError(
                "Vocabulary: expected distinct words behind two names, for padding and for the "
                "unknown."
            )

    @classmethod
    def of(cls, texts: Iterable[str], size: int) -> "Vocabulary":
        """The vocabulary of the most frequent words of some texts.

        Args:
            texts: those for training, without those for testing.
            size: the largest size of the vocabulary, padding and unknown included. Of words that
                are equally frequent, the alphabet's first is taken.

        Raises:
            ModuleNotFoundError: if the package tokenizers is not installed.
            ValueError: if there is no room for a word.
        """
        if size < 3:
            raise ValueError(
                "Vocabulary: padding and unknown are two of its words, so size is at least 3, got "
                f"{size}."
            )
        counter = _tokenizer({}, "[unknown]")
        trainer = _tokenizers().trainers.WordLevelTrainer(
            vocab_size=size - 2, min_frequency=1, show_progress=False, special_tokens=[]
        )
        counter.train_from_iterator(_each_text(texts), trainer)
        ids = counter.get_vocab()
        words = sorted(ids, key=ids.__getitem__)
        return cls(("[padding]", "[unknown]", *words))

    def __len__(self) -> int:
        return len(self.words)

    def __repr__(self) -> str:
        return f"<Vocabulary of {len(self)} words>"

    def encode(self, texts: Iterable[str]) -> list[Int32[np.ndarray, " _"]]:
        """The ids of the words of each text.

        A text of unknown words alone gives as many 1s; a text without a word, such as an empty one,
        an array of length 0, which `Padded` allows: recurrent layers and pooling return zeros for
        it.

        Args:
            texts: n texts.

        Returns:
            n arrays [words] int32, each as long as its text has words.

        Raises:
            ModuleNotFoundError: if the package tokenizers is not installed.
        """
        return [
            np.array(found.ids, np.int32)
            for chunk in _chunks(texts)
            for found in self._encoder.encode_batch_fast(chunk)
        ]

    def decode(self, ids: Sequence[int] | Integer[np.ndarray, " words"]) -> str:
        """The words of some ids, with spaces between them and without padding.

        Args:
            ids: [words], integers.

        Raises:
            ValueError: the vocabulary has no such id.
        """
        known = _checked("Vocabulary", ids, len(self))
        return " ".join(self.words[index] for index in known if index != PADDING)

    @cached_property
    def _encoder(self) -> Any:
        ids = {word: index for index, word in enumerate(self.words)}
        return _tokenizer(ids, self.words[UNKNOWN])


@dataclass(frozen=True)
class Characters:
    """The characters of a language model, each by its id, an index of `characters`.

    Args:
        characters: all of them, each once.

    Raises:
        ValueError: a character is there twice, or there is none.

    >>> characters = Characters.of("to be or not")
    >>> characters
    Characters(characters=' benort')
    >>> characters.encode("bet")
    array([1, 2, 6], dtype=int32)
    >>> characters.decode([1, 2, 6])
    'bet'
    """

    characters: str

    def __post_init__(self) -> None:
        if not self.characters or len(set(self.characters)) != len(self.characters):
            raise ValueError(
                "Characters: expected at least one character, and each once — use "
                "Characters.of(text)."
            )

    @classmethod
    def of(cls, text: str) -> "Characters":
        """The characters of a text, in the order of Unicode."""
        return cls("".join(sorted(set(text))))

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> Int32[np.ndarray, " characters"]:
        """The ids of a text's characters.

        Args:
            text: of n characters.

        Returns:
            [n] int32.

        Raises:
            ValueError: the text has a character that is not known.
        """
        codes = _codes(self.characters)
        wanted = _codes(text)
        order = np.argsort(codes)
        ranks = np.searchsorted(codes, wanted, sorter=order)
        found = order[ranks.clip(max=len(codes) - 1)]
        unknown = codes[found] != wanted
        if unknown.any():
            position = int(unknown.argmax())
            raise ValueError(
                f"Characters: {text[position]!r} at position {position} is none of the {len(self)} "
                "that are known — replace it, or make Characters.of a text that has it."
            )
        return found.astype(np.int32)

    def decode(self, ids: Sequence[int] | Integer[np.ndarray, " characters"]) -> str:
        """The text of some ids.

        Args:
            ids: [characters], integers.

        Raises:
            ValueError: there is no such id.
        """
        known = _checked("Characters", ids, len(self))
        return "".join(self.characters[index] for index in known)


def _codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _checked(owner: str, ids: object, size: int) -> list[int]:
    """The ids to decode, as integers of Python's.

    Raises:
        ValueError: they are not integers of one dimension, or not ids of the vocabulary.
    """
    array = np.asarray(ids)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(
            f"{owner}: decode expects integers [ids], got {array.dtype}{list(array.shape)}."
        )
    if not array.size:
        return []
    least = array.min()
    greatest = array.max()
    if least < 0 or greatest >= size:
        raise ValueError(
            f"{owner}: ids are 0 to {size - 1}, got {least} to {greatest} — is it another "
            "vocabulary's?"
        )
    return array.tolist()


def _each_text(texts: Iterable[str]) -> Iterable[str]:
    if isinstance(texts, str):
        raise TypeError(
            "Vocabulary: expected several texts, got one string, whose characters would be taken "
            "for texts — put it into a list."
        )
    return texts


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    iterator = iter(_each_text(texts))
    while chunk := list(islice(iterator, _AT_ONCE)):
        yield chunk


def _tokenizer(ids: dict[str, int], unknown: str) -> Any:
    """A tokenizer of words as `Vocabulary` defines them, with their ids."""
    tokenizers = _tokenizers()
    model = tokenizers.models.WordLevel(ids, unk_token=unknown)
    tokenizer = tokenizers.Tokenizer(model)
    normalizers = tokenizers.normalizers
    line_break = tokenizers.Regex(r"<br\s*/?>")
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(line_break, " "),
            normalizers.Replace("’", "'"),
            normalizers.NFC(),
            normalizers.Lowercase(),
        ]
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split(
        tokenizers.Regex(_WORD), behavior="removed", invert=True
    )
    return tokenizer


def _tokenizers() -> ModuleType:
    try:
        import tokenizers
    except ModuleNotFoundError as error:
        if error.name != "tokenizers":
            raise
        raise ModuleNotFoundError(
            "data.Vocabulary: texts are cut into words by the package tokenizers, which is not "
            'installed — pip install "jaxdl[text]" brings it.',
            name="tokenizers",
        ) from error
    return tokenizers
