"""Texts as numbers: by words, and by characters."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
from jaxtyping import Int32, Integer

PADDING, UNKNOWN = 0, 1
"""The first two places of a vocabulary."""

_WORD = r"[^\W_]+(?:'[^\W_]+)*"
_AT_ONCE = 1024


@dataclass(frozen=True, repr=False)
class Vocabulary:
    """The words that a model knows, each by its place.

    A word is a run of letters and digits in lower case, with the apostrophes inside it (`don't`);
    `<br />`, punctuation and white space only separate words. Place 0 is the padding behind a text,
    and place 1 stands for every unknown word.

    Args:
        words: all words by their places; the first two are names for padding and for the unknown.

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
        """The words that are most frequent in some texts, which should be those of the training
        part alone.

        Args:
            texts: the texts.
            size: the most places that the vocabulary may have, padding and unknown among them. Of
                words that are equally frequent, the alphabet's first is taken.

        Raises:
            ModuleNotFoundError: if the package tokenizers is not installed.
            ValueError: if there is no room for a word.
        """
        if size < 3:
            raise ValueError(
                f"Vocabulary: padding and unknown take two places, so size is at least 3, got "
                f"{size}."
            )
        counter = _tokenizer({}, "[unknown]")
        trainer = _tokenizers().trainers.WordLevelTrainer(
            vocab_size=size - 2, min_frequency=1, show_progress=False, special_tokens=[]
        )
        counter.train_from_iterator(_each_text(texts), trainer)
        places = counter.get_vocab()
        return cls(("[padding]", "[unknown]", *sorted(places, key=places.__getitem__)))

    def __len__(self) -> int:
        return len(self.words)

    def __repr__(self) -> str:
        return f"<Vocabulary of {len(self)} places>"

    def encode(self, texts: Iterable[str]) -> list[Int32[np.ndarray, " _"]]:
        """The places of the words of each text.

        A text of unknown words alone gives as many 1s; a text without a word, such as an empty one,
        an array of length 0,
        which `Padded` allows: recurrent layers and pooling give zeros for it.

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

    def decode(self, places: Sequence[int] | Integer[np.ndarray, " words"]) -> str:
        """The words at some places, with spaces between them and without padding.

        Raises:
            ValueError: if the vocabulary has no such place.
        """
        places = _checked("Vocabulary", places, len(self))
        return " ".join(self.words[place] for place in places if place != PADDING)

    @cached_property
    def _encoder(self) -> Any:
        return _tokenizer(
            {word: place for place, word in enumerate(self.words)}, self.words[UNKNOWN]
        )


@dataclass(frozen=True)
class Characters:
    """The characters of a language model, each by its place.

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
        """The places of a text's characters: [characters] int32.

        Raises:
            ValueError: if the text has one that is not known.
        """
        codes, wanted = _codes(self.characters), _codes(text)
        order = np.argsort(codes)
        found = order[np.searchsorted(codes, wanted, sorter=order).clip(max=len(codes) - 1)]
        if (unknown := codes[found] != wanted).any():
            place = int(unknown.argmax())
            raise ValueError(
                f"Characters: {text[place]!r} at place {place} is none of the {len(self)} that are "
                f"known — replace it, or "
                "make Characters.of a text that has it."
            )
        return found.astype(np.int32)

    def decode(self, places: Sequence[int] | Integer[np.ndarray, " characters"]) -> str:
        """The text whose characters have some places.

        Raises:
            ValueError: if there is no such place.
        """
        return "".join(
            self.characters[place] for place in _checked("Characters", places, len(self))
        )


def _codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _checked(owner: str, places: Any, size: int) -> list[int]:
    array = np.asarray(places)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(
            f"{owner}: decode expects whole numbers in a row, got {array.dtype}{list(array.shape)}."
        )
    if array.size and not (array.min() >= 0 and array.max() < size):
        raise ValueError(
            f"{owner}: places are 0 to {size - 1}, got {array.min()} to {array.max()} — is it "
            f"another vocabulary's?"
        )
    return array.tolist()


def _each_text(texts: Iterable[str]) -> Iterable[str]:
    if isinstance(texts, str):
        raise TypeError(
            "Vocabulary: expected several texts, got one string, whose characters would be taken "
            "for texts — "
            "put it into a list."
        )
    return texts


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    iterator = iter(_each_text(texts))
    while chunk := list(islice(iterator, _AT_ONCE)):
        yield chunk


def _tokenizer(places: dict[str, int], unknown: str) -> Any:
    """Cuts texts into words as `Vocabulary` says, and gives each its place."""
    tokenizers = _tokenizers()
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(places, unk_token=unknown))
    replace, pattern = tokenizers.normalizers.Replace, tokenizers.Regex
    tokenizer.normalizer = tokenizers.normalizers.Sequence(
        [
            replace(pattern(r"<br\s*/?>"), " "),
            replace("’", "'"),
            tokenizers.normalizers.NFC(),
            tokenizers.normalizers.Lowercase(),
        ]
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split(
        pattern(_WORD), behavior="removed", invert=True
    )
    return tokenizer


def _tokenizers() -> Any:
    try:
        import tokenizers
    except ModuleNotFoundError as error:
        if error.name != "tokenizers":
            raise
        raise ModuleNotFoundError(
            "data.Vocabulary: texts are cut into words by the package tokenizers, which is not "
            "installed — pip install "
            '"jaxdl[text]" brings it.',
            name="tokenizers",
        ) from error
    return tokenizers
