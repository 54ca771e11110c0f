"""Vocabularies: which word has which number."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minibng.data.dataset import check_whole

UNKNOWN, END = "<unk>", "<eos>"
"""The word for all words that a vocabulary does not have, and the one that ends a line."""


@dataclass(frozen=True)
class Vocabulary:
    """Words by number, and back.

    Attributes
    ----------
    words
        All words, V of them, each once: word i has the number i.
    joint
        What `decode` puts between words: a space, or nothing where the words are characters.

    Raises
    ------
    ValueError
        Where there is no word, or a word is there twice.

    Examples
    --------
    >>> known = Vocabulary.of("a rose is a rose".split())
    >>> known.words, len(known)
    (('<unk>', 'a', 'rose', 'is'), 4)
    >>> known.encode(["a", "tulip", "is"])
    array([1, 0, 3])
    >>> known.decode([1, 2])
    'a rose'
    """

    words: tuple[str, ...]
    joint: str = " "

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", tuple(self.words))
        if not self.words:
            raise ValueError("a vocabulary needs at least one word")
        if len(self._numbers) < len(self.words):
            twice = next(word for word, count in Counter(self.words).items() if count > 1)
            raise ValueError(f"{twice!r} is in the vocabulary twice; each word has one number")

    @classmethod
    def of(
        cls, tokens: Iterable[str], min_count: int = 1, special: Sequence[str] = (UNKNOWN,), joint: str = " "
    ) -> "Vocabulary":
        """Collect the words of a text: the frequent ones first, those of the same count by alphabet.

        Parameters
        ----------
        tokens
            The words as they follow one another, of the training part only: what the other parts hold is not known.
        min_count
            Words that occur less often are left out, and so unknown.
        special
            Words that get the first numbers, whether they occur or not.
        joint
            See above.

        Returns
        -------
        Vocabulary
            The same for the same words in any order.

        Raises
        ------
        ValueError
            Where ``min_count`` is below 1, or no word is left.
        TypeError
            Where ``min_count`` is not a whole number, or a whole text is given, unless the words are characters.
        """
        check_whole("min_count", min_count, least=1)
        if isinstance(special, str) or (isinstance(tokens, str) and joint):
            raise TypeError("tokens and special are words, not a text: data.words cuts one up")
        counts = Counter(tokens)
        frequent = (word for word, count in counts.items() if count >= min_count and word not in special)
        return cls((*special, *sorted(frequent, key=lambda word: (-counts[word], word))), joint)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}

    @property
    def unknown(self) -> int | None:
        """The number of ``<unk>``, or None where there is none."""
        return self._numbers.get(UNKNOWN)

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self._numbers

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} words: {self.joint.join(self.words[:8])!r}{' …' * (len(self) > 8)})"

    def encode(self, words: Iterable[str]) -> NDArray[np.int64]:
        """Return the numbers of words, shape (M,); that of ``<unk>`` for words that are not known.

        Raises
        ------
        TypeError
            Where a whole text is given, unless the words are characters.
        ValueError
            Where a word is not known and the vocabulary has no ``<unk>``.

        Examples
        --------
        >>> Vocabulary(("<unk>", "b", "a"), joint="").encode("abc")
        array([2, 1, 0])
        """
        if isinstance(words, str) and self.joint:
            raise TypeError(f"encode takes words, not a text: data.words({words[:20]!r}) cuts it up")
        numbers, unknown = self._numbers, self.unknown
        if unknown is not None:
            return np.fromiter((numbers.get(word, unknown) for word in words), np.int64)
        try:
            return np.fromiter((numbers[word] for word in words), np.int64)
        except KeyError as error:
            raise ValueError(f"{error} is not in the vocabulary, which has no {UNKNOWN}") from None

    def decode(self, numbers: ArrayLike) -> str:
        r"""Return the text of numbers, shape (M,): words with what joins them, ``<eos>`` as the end of a line.

        Raises
        ------
        TypeError
            Where the numbers are no whole ones.
        IndexError
            Where a number is below 0, or V or more.

        Examples
        --------
        >>> Vocabulary(("<eos>", "yes", "no")).decode([1, 0, 2, 1])
        'yes\nno yes'
        """
        chosen = np.asarray(numbers).ravel()
        if chosen.size and chosen.dtype.kind not in "iu":
            raise TypeError(f"decode takes the numbers of words, whole ones, got {chosen.dtype}")
        if wrong := [int(i) for i in chosen if not 0 <= i < len(self)]:
            raise IndexError(f"no word has the number {wrong[0]}: the vocabulary has the numbers 0 to {len(self) - 1}")
        text = self.joint.join("\n" if self.words[i] == END else self.words[i] for i in chosen)
        return text.replace(f"{self.joint}\n", "\n").replace(f"\n{self.joint}", "\n") if self.joint else text
