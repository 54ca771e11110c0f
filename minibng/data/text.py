"""Text for language models: one sequence of words or characters, to predict the next one of each.

A part of a text has ``x`` (M,), its tokens, and ``y`` (M,), the token that follows each. `batches` cuts it into windows
(``length=``). The vocabulary is made of the training part alone.
"""

import os
import platform
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from minibng.data.dataset import Dataset, Split
from minibng.data.download import Remote
from minibng.data.prepare import frozen
from minibng.data.published import Published
from minibng.data.vocabulary import END, Vocabulary
from minibng.names import choose

SHORTEST = 1000
"""Least characters of a text that is dealt out to three parts."""

_WORD = re.compile(r"\w+(?:['’]\w+)*|([^\w\s()\[\]{}])\1*|[()\[\]{}]|\n\s*")
_FORMS = (
    ("ptb.train.txt", "ptb.valid.txt", "ptb.test.txt"),
    ("train.txt", "valid.txt", "test.txt"),
    ("wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens"),
)


def words(text: str) -> Iterator[str]:
    r"""Yield the words of a text, in small letters.

    A word is a run of letters, digits and underscores, with apostrophes inside (``don't``). Punctuation marks are words
    of their own: a mark that is repeated is one word, of three marks at most, brackets are single. The end of a line
    that is not empty is ``<eos>``. (What is no space, letter or digit counts as punctuation.)

    Parameters
    ----------
    text
        Any text, with ``\n`` at the ends of lines.

    Yields
    ------
    str
        A word.

    Examples
    --------
    >>> list(words("It isn't f(x) == 2.\n\n======\n"))
    ['it', "isn't", 'f', '(', 'x', ')', '==', '2', '.', '<eos>', '===', '<eos>']
    """
    text = unicodedata.normalize("NFC", text).lower().strip()
    for match in _WORD.finditer(text + "\n" if text else ""):
        token = match[0]
        yield END if token[0] == "\n" else token[:3] if match[1] else token


def _spaced(text: str) -> Iterator[str]:
    """Yield what stands between spaces, as it stands, and ``<eos>`` for every end of a line: the form of PTB."""
    for line in text.removesuffix("\n").split("\n"):
        yield from line.split()
        yield END


LEVELS = {"word": words, "character": iter}
"""What a text can be cut into."""


def read_text(path: str | os.PathLike[str], encoding: str | None = None) -> str:
    r"""Read a text file.

    Parameters
    ----------
    path
        The file.
    encoding
        Its encoding; None: UTF-8, with or without a byte order mark.

    Returns
    -------
    str
        The text, ``\n`` at the end of every line whatever the file has there.

    Raises
    ------
    FileNotFoundError
        Where there is no such file.
    ValueError
        Where the file is not in this encoding, with the line and the byte, or holds what no text holds, or Python does
        not know the encoding.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        raise ValueError(f"{place} is a folder; name a text file")
    return decoded(place.read_bytes(), place, encoding)


def decoded(raw: bytes, where: object, encoding: str | None = None) -> str:
    """Return the text that bytes hold; ``where`` they are from is for messages. The rest is as in `read_text`."""
    try:
        text = raw.decode(encoding or "utf-8-sig")
    except UnicodeDecodeError as error:
        line, byte = raw.count(b"\n", 0, error.start) + 1, raw[error.start]
        raise ValueError(
            f"{where} is not in {encoding or 'UTF-8'}: byte 0x{byte:02x} in line {line} ({error.reason}); save it in "
            "UTF-8, or in Python name its encoding, such as encoding='latin-1'"
        ) from None
    except LookupError as error:
        raise ValueError(f"{where} cannot be read: {error}; UTF-8 and Latin-1 are 'utf-8' and 'latin-1'") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(f"{where} is no text: there is a NUL in line {line}; or it is UTF-16: encoding='utf-16'")
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def interleaved(text: str) -> tuple[str, str, str]:
    """Deal a text out to training, validation and test: 80 %, 10 % and 10 % of it.

    It is cut into 100 stretches of nearly the same length (a short one into fewer, down to 10), at the ends of
    paragraphs (empty lines) where there are any, else of lines, else of words, else anywhere. Of every ten in a row the
    fifth is for validation and the tenth for the test, so that each part holds something of the beginning, the middle
    and the end.

    Examples
    --------
    >>> [len(part) for part in interleaved("ten signs " * 1000)]
    [8004, 1000, 996]
    """
    parts: tuple[list[str], list[str], list[str]] = ([], [], [])
    start, stretches = 0, 10 * min(10, max(1, len(text) // (2 * SHORTEST)))
    for i in range(stretches):
        least, most = (len(text) * (i + k) // stretches for k in (1, 2))
        found = ((text.find(mark, least, most), mark) for mark in ("\n\n", "\n", " "))
        end = next((at + len(mark) for at, mark in found if at >= 0), least)
        parts[{4: 1, 9: 2}.get(i % 10, 0)].append(text[start:end])
        start = end
    train, val, test = ("".join(part) for part in parts)
    return train, val, test


def language(
    texts: tuple[str, str, str],
    tokens: Callable[[str], Iterable[str]] = words,
    *,
    name: str,
    source: str,
    min_count: int = 2,
    joint: str = " ",
) -> Split:
    """Make three texts a data set for a language model.

    Parameters
    ----------
    texts
        Training, validation and test part.
    tokens
        What cuts a text into words: `words`, ``iter`` for characters, or a function of yours.
    name, source
        See `Split`.
    min_count
        Words that are rarer in the training part are ``<unk>``. With 2, which is the default, there are some in the
        training part too, so that a model learns what to expect after one.
    joint
        What joins words in `Vocabulary.decode`: nothing for characters.

    Returns
    -------
    Split
        Parts with x (M,) and y (M,), y[i] = x[i + 1], int64; ``classes`` is the size V of the vocabulary.

    Raises
    ------
    ValueError
        Where a part has fewer than two words, or none is frequent enough.
    """
    vocabulary = Vocabulary.of(tokens(texts[0]), min_count, joint=joint)
    parts = []
    for what, text in zip(("training", "validation", "test"), texts, strict=True):
        numbers = frozen(vocabulary.encode(tokens(text)))
        if len(numbers) < 2:
            raise ValueError(f"{name} is too short: its {what} part has {len(numbers)} words or characters, not even 2")
        parts.append(Dataset(numbers[:-1], numbers[1:], len(vocabulary)))
    if len(vocabulary) == 1:
        raise ValueError(f"no word of {name} occurs {min_count} times in its training part: lower min_count")
    what = "words" if joint else "characters"
    rare = f", those that the training part has at least {min_count} times" if min_count > 1 else ""
    source += f"; V = {len(vocabulary)} {what}{rare}"
    return Split(parts[0], parts[1], parts[2], name, len(vocabulary), source, vocabulary=vocabulary)


def text_file(
    path: str | os.PathLike[str], *, level: str = "word", min_count: int | None = None, encoding: str | None = None
) -> Split:
    """Read a text as a data set for a language model: one file, or a folder with three.

    A file is dealt out to the parts in stretches, see `interleaved`, and cut into `words`, or characters. What the text
    says twice may so be in two parts.

    A folder has the form of PTB: ``ptb.train.txt``, ``ptb.valid.txt`` and ``ptb.test.txt``, the same without ``ptb.``,
    or ``wiki.train.tokens`` and so on (WikiText). Words are what stands between spaces, as it stands, and every end of
    a line is ``<eos>``.

    Parameters
    ----------
    path
        The file or the folder.
    level
        ``"word"`` or ``"character"``.
    min_count
        Words or characters that are rarer in the training part are ``<unk>``, and so are those that are not in it.
        Default: 2 for a file, 1 for a folder, whose authors have done this already.
    encoding
        That of the file; default: UTF-8.

    Returns
    -------
    Split
        Parts with x (M,) and y (M,), y[i] = x[i + 1], int64; ``classes`` is V.

    Raises
    ------
    FileNotFoundError
        Where there is no such file, or not all three of them.
    ValueError
        Where the file is empty or too short, or not in this encoding.
    UnknownNameError
        For another level.

    Examples
    --------
    >>> import pathlib
    >>> split = text_file(pathlib.__file__)
    >>> split.name, split.classes == len(split.vocabulary), split.train.y[:2].tolist() == split.train.x[1:3].tolist()
    ('pathlib.py', True, True)
    """
    place = Path(os.path.abspath(Path(path).expanduser()))  # "." has no name
    choose(LEVELS, level, "level")
    if place.is_dir():
        return _folder(place, level, 1 if min_count is None else min_count, encoding)
    if len(text := read_text(place, encoding)) < SHORTEST:
        raise ValueError(f"{place.name} has {len(text)} characters: for three parts it takes at least {SHORTEST}")
    return _at(level)(
        interleaved(text),
        name=place.name,
        source=f"{place.name}, every tenth of its stretches for validation, and for the test",
        min_count=2 if min_count is None else min_count,
    )


def _at(level: str, tokens: Callable[[str], Iterable[str]] = words) -> Callable[..., Split]:
    """Return `language` for a level."""
    return partial(language, tokens=iter, joint="") if level == "character" else partial(language, tokens=tokens)


def _three(folder: Path) -> list[Path]:
    """Return the three files of a folder; raise FileNotFoundError where they are not there."""
    for names in _FORMS:
        if all((folder / name).is_file() for name in names):
            return [folder / name for name in names]
    there = {names: [name for name in names if (folder / name).is_file()] for names in _FORMS}
    best = max(_FORMS, key=lambda names: len(there[names]))
    if there[best]:
        missing = " and ".join(name for name in best if name not in there[best])
        raise FileNotFoundError(f"there are not all three texts in {folder}: {' and '.join(there[best])}, no {missing}")
    forms = "; or ".join(", ".join(names) for names in _FORMS)
    raise FileNotFoundError(f"there are no three texts in {folder}; they are called {forms}")


def _folder(folder: Path, level: str, min_count: int, encoding: str | None) -> Split:
    train, val, test = (read_text(path, encoding) for path in _three(folder))
    make = _at(level, _spaced)
    return make((train, val, test), name=folder.name, source=f"three texts in {folder.name}", min_count=min_count)


def pydoc(level: str = "word") -> Split:
    """Load the Python language reference, as Python's help has it: some 80 topics, 370,000 characters of English.

    Source: the module `pydoc_data.topics` of the Python that runs, so that the text differs a little between versions.
    Many topics hold others (the one on compound statements holds the ones on ``if``, ``for`` and ``try``): a paragraph
    that occurs again is left out, so that nothing is in two parts. Whole topics are dealt out, the largest first, each
    to the part that lacks most of its share (80 %, 10 %, 10 %). Words and characters that occur once in the training
    part are ``<unk>``.

    Parameters
    ----------
    level
        ``"word"`` or ``"character"``.

    Returns
    -------
    Split
        Some 68,000, 9,000 and 8,000 words and V = 2,150, or 300,000, 37,000 and 37,000 characters and V = 100.

    Examples
    --------
    >>> split = pydoc()
    >>> split.train.x.shape == split.train.y.shape, split.classes == len(split.vocabulary)
    (True, True)
    """
    from pydoc_data.topics import topics

    return _at(level)(
        _dealt(_apart(topics)),
        name="pydoc" if level == "word" else "pydoc_chars",
        source=f"the language reference of Python {platform.python_version()} (pydoc_data), without repeated "
        "paragraphs, in parts of whole topics",
    )


def _apart(topics: dict[str, str]) -> dict[str, str]:
    """Return the topics, by name, each without the paragraphs that one before it has."""
    seen: set[str] = set()
    kept: dict[str, str] = {}
    for name in sorted(topics):
        fresh = []
        for paragraph in re.split(r"\n\s*\n", topics[name]):
            if (bare := " ".join(paragraph.split())) and bare not in seen:
                seen.add(bare)
                fresh.append(paragraph.strip("\n") + "\n")
        kept[name] = "\n".join(fresh) + "\n" * bool(fresh)
    return kept


def _dealt(topics: dict[str, str]) -> tuple[str, str, str]:
    """Return the parts: topics by name in each, the lengths of the parts as 8 to 1 to 1."""
    chosen: tuple[list[str], list[str], list[str]] = ([], [], [])
    total, lengths = 0, [0, 0, 0]
    for name in sorted(topics, key=lambda name: (-len(topics[name]), name)):
        total += len(topics[name])
        lacking = [share * total - 10 * length for share, length in zip((8, 1, 1), lengths, strict=True)]
        part = lacking.index(max(lacking))
        lengths[part] += len(topics[name])
        chosen[part].append(name)
    train, val, test = ("".join(topics[name] for name in sorted(names)) for names in chosen)
    return train, val, test


@dataclass(frozen=True)
class _Texts(Published):
    """Three texts."""

    def locate(self, folder: Path) -> list[Path]:
        """Return the three files."""
        for base in (folder, folder / self.name):
            if base.is_dir() and any((base / names[0]).is_file() for names in _FORMS):
                return _three(base)
        raise self.nothing(folder, "ptb.train.txt, train.txt or wiki.train.tokens")

    def load(self, folder: Path) -> Split:
        """Read the three files."""
        train, val, test = (read_text(path) for path in self.locate(folder))
        return language((train, val, test), _spaced, name=self.name, source=self.source, min_count=1)


def _ptb(name: str, size: int, sha256: str) -> Remote:
    bases = ("wojzaremba", "tomsercu")
    return Remote(
        name, size, sha256, tuple(f"https://raw.githubusercontent.com/{base}/lstm/master/data/{name}" for base in bases)
    )


PTB = _Texts(
    "ptb",
    "PTB",
    10_000,
    (929_588 + 73_759, 82_429),
    (
        _ptb("ptb.train.txt", 5_101_618, "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf"),
        _ptb("ptb.valid.txt", 399_782, "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2"),
        _ptb("ptb.test.txt", 449_945, "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0"),
    ),
    "the Penn Treebank's articles of the Wall Street Journal (M. Marcus, B. Santorini and M. Marcinkiewicz, 1993) in "
    "the form of T. Mikolov and others (2010)",
)
