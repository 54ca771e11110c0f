"""Short texts and whether they are for or against: movie reviews in the files that their authors published."""

import io
import re
import unicodedata
import zipfile
import zlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from minibng.data.dataset import Dataset, Split
from minibng.data.download import Remote
from minibng.data.formats import damaged, members
from minibng.data.prepare import frozen, stratified
from minibng.data.published import Published
from minibng.data.text import decoded
from minibng.data.through_pip import SourceDistribution
from minibng.data.vocabulary import UNKNOWN, Vocabulary

CLASS_NAMES = ("negative", "positive")

SPECIAL = ("<pad>", UNKNOWN)
"""The words 0 and 1 of every vocabulary here."""

MIN_COUNT = 2
"""How often the training texts must have a word for it to be in the vocabulary, so that there are unknown ones too."""

LONGEST = 48
"""Most tokens of a text; what comes after is cut off. One published review in two hundred has more."""

NEUTRAL = 0.5
"""Snippets whose score lies no farther than this from zero are left out."""

_TOKEN = re.compile(r"n't\b|'(?:s|re|ve|ll|d|m)\b|(?:(?!n't\b)[^\W_])+|(_|[^\w\s])\1*")


def tokens(text: str) -> Iterator[str]:
    """Yield the words of a text, in lower case, and its marks of punctuation, several of the same as one.

    A contraction is two words, so that a negation is always the same one.

    Examples
    --------
    >>> list(tokens("It doesn't quite work... Don't go!"))
    ['it', 'does', "n't", 'quite', 'work', '...', 'do', "n't", 'go', '!']
    """
    text = unicodedata.normalize("NFC", text).lower().replace("’", "'")
    return (found.group() for found in _TOKEN.finditer(text))


def split_of_texts(
    texts: Sequence[Iterable[str]], labels: Sequence[int], *, name: str, source: str, val: int = 10, test: int = 10
) -> Split:
    """Divide texts into three parts, stratified by label, and number their words.

    A text without tokens is left out. Of several texts with the same tokens the first stays, so that none is in two
    parts; where their labels differ, none does. The vocabulary is that of the training part: words that it has
    `MIN_COUNT` times or more.

    Parameters
    ----------
    texts
        The tokens of each, of which the first `LONGEST` are read.
    labels
        0 or 1 for each.
    name, source
        See `Split`; the parts are told.
    val, test
        Per cent of either label for these parts.

    Returns
    -------
    Split
        x (N, T): numbers of words, 0 after the end of a text; T is the length of the longest. y (N,): 0 or 1.

    Raises
    ------
    ValueError
        Where a label has too few texts for three parts.
    """
    found: dict[tuple[str, ...], set[int]] = {}
    for text, label in zip(texts, labels, strict=True):
        found.setdefault(tuple(islice(text, LONGEST)), set()).add(label)
    found.pop((), None)
    clear = [words for words, kinds in found.items() if len(kinds) == 1]
    y = np.array([label for words in clear for label in found[words]], np.int64)
    parts = stratified(y, val, test)
    if len(parts[1]) == 0 or len(parts[2]) == 0:
        counts = np.bincount(y, minlength=2)
        raise ValueError(
            f"{name} has {counts[0]} negative and {counts[1]} positive texts, without empty and repeated ones: too few "
            "for a training, a validation and a test part; 5 of one of them is the least"
        )
    vocabulary = Vocabulary.of((word for i in parts[0] for word in clear[i]), min_count=MIN_COUNT, special=SPECIAL)
    x = np.zeros((len(clear), max(map(len, clear))), np.int64)
    for row, words in zip(x, clear, strict=True):
        row[: len(words)] = vocabulary.encode(words)
    first, second, third = (Dataset(frozen(x[part]), frozen(y[part]), 2) for part in parts)
    source = f"{source}; {100 - val - test} % training, {val} % validation, {test} % test of either label"
    return Split(first, second, third, name, 2, source, class_names=CLASS_NAMES, vocabulary=vocabulary)


@dataclass(frozen=True)
class _Reviews(Published):
    """Reviews, without a published division into parts."""

    @abstractmethod
    def read(self, paths: list[Path]) -> tuple[list[str], list[int]]:
        """Return the texts and their labels."""

    def load(self, folder: Path) -> Split:
        """Read the texts and divide them."""
        texts, labels = self.read(self.locate(folder))
        source = f"{self.source}; none twice"
        return split_of_texts([tokens(text) for text in texts], labels, name=self.name, source=source)


@dataclass(frozen=True)
class _Polarity(_Reviews):
    """Two files with a text on each line, or the archive with them."""

    members = ("rt-polarity.neg", "rt-polarity.pos")

    def locate(self, folder: Path) -> list[Path]:
        """Find the two files, which may be in the archive's folder, or else the archive."""
        archive = self.files[0].name
        for base in (folder / self.name, folder):
            for inner in ("", archive.partition(".")[0]):
                found = [base / inner / name for name in self.members]
                there = [path for path in found if path.is_file()]
                if len(there) == len(found):
                    return found
                if there:
                    (absent,) = set(found) - set(there)
                    raise FileNotFoundError(f"{self.title} in {base / inner} is incomplete: {absent.name} is missing")
            if (base / archive).is_file():
                return [base / archive]
        raise self.nothing(folder, f"{archive}, {self.members[0]} or {self.members[1]}")

    def read(self, paths: list[Path]) -> tuple[list[str], list[int]]:
        """Read the lines: in UTF-8 where that is what they are, as in some copies; else in Latin-1, as published."""
        packed = len(paths) == 1
        inside = members(paths[0], self.members) if packed else {path.name: path.read_bytes() for path in paths}
        texts: list[str] = []
        labels: list[int] = []
        for label, name in enumerate(self.members):
            try:
                text = inside[name].decode("utf-8-sig")
            except UnicodeDecodeError:
                text = inside[name].decode("latin-1")
            lines = text.split("\n")  # not splitlines, to which 0x85 is the end of a line, here it is an ellipsis
            texts += lines
            labels += [label] * len(lines)
        return texts, labels


@dataclass(frozen=True)
class _Snippets(_Reviews):
    """One file with number, score and text on a line, or either of the archives that it comes in.

    Attributes
    ----------
    archives
        The source distribution, and the archive in it.
    """

    archives: tuple[str, str]

    @property
    def known(self) -> tuple[Remote, ...]:
        """The text file and the source distribution."""
        return *self.files, Remote(VADER.name, VADER.size, VADER.sha256)

    def locate(self, folder: Path) -> list[Path]:
        """Find the text file, or else an archive."""
        names = (self.files[0].name, *self.archives)
        for base in (folder / self.name, folder):
            for path in (base / name for name in names):
                if path.is_file():
                    return [path]
        raise self.nothing(folder, ", ".join(names[:-1]) + f" or {names[-1]}")

    def read(self, paths: list[Path]) -> tuple[list[str], list[int]]:
        """Read the lines: the label is the sign of the score, and scores near zero are left out."""
        (path,) = paths
        raw = path.read_bytes()
        if path.name in self.archives:
            raw = snippets(raw, path)
        texts, labels = [], []
        for number, line in enumerate(decoded(raw, path).split("\n"), 1):
            if not line.strip():
                continue
            _, score, text = (*line.split("\t", 2), "", "")[:3]
            try:
                value = float(score)
                if value != value:
                    raise ValueError(score)
            except ValueError:
                told = f"line {number} is not number, score and text with tabs between them: {line[:60]!r}"
                raise damaged(path, told) from None
            if abs(value) > NEUTRAL:
                texts.append(text)
                labels.append(int(value > 0))
        return texts, labels


VADER = SourceDistribution(
    "vaderSentiment",
    "0.5",
    "vaderSentiment-0.5.zip",
    2_448_964,
    "5d97c37f3ef6e24eef331122e055dbedafeb6a56abfce0608b326701116ea49a",
)
_ARCHIVE, _SNIPPETS = "hutto_ICWSM_2014.tar.gz", "movieReviewSnippets_GroundTruth.txt"


def snippets(raw: bytes, path: Path) -> bytes:
    """Return the file of snippets from the source distribution, a zip archive, or from the tar archive in that.

    Raises
    ------
    ValueError
        Where an archive is damaged, or the file is not in it.
    """
    if raw.startswith(b"PK"):
        try:
            with zipfile.ZipFile(io.BytesIO(raw)) as outer:
                names = [name for name in outer.namelist() if name.endswith(f"/{_ARCHIVE}")]
                raw = outer.read(names[0]) if names else b""
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise damaged(path, f"zip cannot unpack it ({error})") from error
        if not names:
            raise damaged(path, f"there is no {_ARCHIVE} in it")
    return members(path, (_SNIPPETS,), raw=raw)[_SNIPPETS]


def _bring_snippets(path: Path) -> None:
    path.write_bytes(snippets(VADER.download(), Path(VADER.name)))


SNIPPETS = _Snippets(
    "sentiment",
    "the movie-review snippets",
    2,
    (9037, 1004),
    (
        Remote(
            _SNIPPETS,
            1_383_098,
            "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350",
            bring=_bring_snippets,
        ),
    ),
    "movie-review snippets (B. Pang and L. Lee, 2005) with the mean scores of twenty readers (C. J. Hutto and E. "
    f"Gilbert, 2014), from {VADER.project} {VADER.version}; label: the sign of the score; scores within ±{NEUTRAL} "
    "left out",
    (VADER.name, _ARCHIVE),
)

RT_POLARITY = _Polarity(
    "rt_polarity",
    "the sentence polarity data set",
    2,
    None,
    (
        Remote(
            "rt-polaritydata.tar.gz",
            487_770,
            "a05befe52aafda71d458d188a1c54506a998b1308613ba76bbda2e5029409ce9",
            (
                "https://www.cs.cornell.edu/people/pabo/movie-review-data/rt-polaritydata.tar.gz",
                "https://storage.googleapis.com/seldon-datasets/sentence_polarity_v1/rt-polaritydata.tar.gz",
            ),
        ),
    ),
    "sentences of movie reviews (B. Pang and L. Lee, 2005, sentence polarity data set 1.0)",
)
