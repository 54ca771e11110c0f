"""What a data set is: samples with their targets, and three of them that belong together."""

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minibng.backend import Array, Backend

RESIDENT = 1 << 28
"""Most bytes of a data set that are put on a device as a whole, and kept there; larger ones go a batch at a time."""


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Dataset:
    """Samples and their targets, checked and read-only.

    No data are copied where the dtype is right already: ``x`` and ``y`` are views that refuse to be
    written through, so that nobody who is handed a data set can damage it for the others. Copy an array
    (``dataset.x.copy()``) to change it.

    Parameters
    ----------
    x
        The samples, numbers of any dtype, shape (N, ...); (N, D) for flat features.
    y
        The targets, shape (N,): whole numbers are labels and become int64; floats, for a regression,
        stay as they are, and then any shape (N, ...) will do.
    classes
        The number of classes K. Where it is given, ``y`` must hold labels from 0 to K - 1.

    Attributes
    ----------
    x
        The samples, shape (N, ...), read-only.
    y
        The targets, shape (N,), read-only.
    classes
        K, or None where it was not given.

    Raises
    ------
    ValueError
        Where there is no sample, the lengths differ, labels have another shape than (N,), or a label is
        out of range.
    TypeError
        Where ``x`` or ``y`` do not hold numbers, or ``classes`` is given and ``y`` holds no whole numbers.

    Examples
    --------
    >>> Dataset(np.zeros((3, 2), np.float32), [0, 1, 1], classes=2)
    Dataset(x (3, 2) float32, y (3,) int64, 2 classes)
    >>> Dataset(np.zeros((3, 2), np.float32), [0, 1, 2], classes=2)
    Traceback (most recent call last):
        ...
    ValueError: label 2 (sample 2) is out of range: 2 classes have the labels 0 to 1
    """

    x: NDArray[Any]
    y: NDArray[Any]
    classes: int | None

    def __init__(self, x: ArrayLike, y: ArrayLike, classes: int | None = None) -> None:
        samples, targets = np.asarray(x), np.asarray(y)
        _check_pair(samples, targets)
        if targets.dtype.kind in "iu":
            targets = targets.astype(np.int64, copy=False)
        if classes is not None:
            _check_labels(targets, classes)
        object.__setattr__(self, "x", _read_only(samples))
        object.__setattr__(self, "y", _read_only(targets))
        object.__setattr__(self, "classes", classes)

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        arrays = f"x {self.x.shape} {self.x.dtype}, y {self.y.shape} {self.y.dtype}"
        return f"Dataset({arrays})" if self.classes is None else f"Dataset({arrays}, {self.classes} classes)"

    def take(self, n: int) -> "Dataset":
        """Return the first ``n`` samples as a data set.

        The parts of a split that `load` returns are in random order, so there this is a random sample.

        Parameters
        ----------
        n
            How many, from 1 to N.

        Returns
        -------
        Dataset
            Views of the same arrays.

        Raises
        ------
        ValueError
            Where ``n`` is below 1 or above N.

        Examples
        --------
        >>> Dataset(np.zeros((3, 2), np.float32), [0, 1, 1], classes=2).take(2)
        Dataset(x (2, 2) float32, y (2,) int64, 2 classes)
        """
        if not 1 <= n <= len(self):
            raise ValueError(f"cannot take {n} samples of a data set of {len(self)}")
        return Dataset(self.x[:n], self.y[:n], self.classes)

    def arrays_for(self, backend: Backend) -> tuple[Array, Array]:
        """Return x and y from where batches for a device are best taken: to read from, not to write to.

        A data set of at most `RESIDENT` bytes is copied to the device once, when it is first asked for, and stays there
        as long as the data set lives. A larger one stays on the host.
        """
        if backend.on_host or self.x.nbytes + self.y.nbytes > RESIDENT:
            return self.x, self.y
        kept = _ON_DEVICES.setdefault(self, {})
        if backend.device not in kept:
            kept[backend.device] = backend.asarray(self.x), backend.asarray(self.y)
        return kept[backend.device]


_ON_DEVICES: WeakKeyDictionary[Dataset, dict[str, tuple[Array, Array]]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Split:
    """A data set in three disjoint parts: to train on, to choose by, and to report.

    Attributes
    ----------
    train, val, test
        The parts, each with ``x`` of shape (N, D) and ``y`` of shape (N,), or (N, 1) for a regression.
    name
        The name that `load` knows it by.
    classes
        The number of classes K; None for a regression.
    source
        One line: where the data come from and what was done to them.

    Examples
    --------
    >>> from minibng import data
    >>> split = data.load("digits")
    >>> len(split.train), len(split.val), len(split.test)
    (1259, 179, 359)
    """

    train: Dataset
    val: Dataset
    test: Dataset
    name: str
    classes: int | None
    source: str


def _check_pair(x: NDArray[Any], y: NDArray[Any]) -> None:
    for name, array in (("x", x), ("y", y)):
        if array.dtype.kind not in "biuf" or (name == "y" and array.dtype.kind == "b"):
            raise TypeError(f"{name} must hold real numbers; it is {array.dtype}, of shape {array.shape}")
        if array.ndim == 0:
            raise ValueError(f"{name} is a single number; it must have one row per sample")
    if len(x) != len(y):
        raise ValueError(
            f"x has shape {x.shape} and y has shape {y.shape}: {len(x)} samples, but {len(y)} targets; "
            "the first axes must be equal"
        )
    if len(x) == 0:
        raise ValueError(f"the data set is empty: x has shape {x.shape}; it needs at least one sample")


def _check_labels(y: NDArray[Any], classes: int) -> None:
    if y.dtype.kind != "i":
        raise TypeError(
            f"labels must be whole numbers, but y is {y.dtype}: convert it (y.astype(np.int64)), "
            "or leave classes out for a regression"
        )
    if y.ndim != 1:
        raise ValueError(
            f"labels must have shape (N,), but y has shape {y.shape}: "
            "use y.argmax(axis=1) on one-hot rows, y.ravel() on one column"
        )
    wrong = np.flatnonzero((y < 0) | (y >= classes))
    if wrong.size:
        first = int(wrong[0])
        raise ValueError(
            f"label {y[first]} (sample {first}) is out of range: {classes} classes have the labels 0 to {classes - 1}"
        )


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view
