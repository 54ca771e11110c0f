"""From raw arrays to a split: which sample goes where, and the scale of the features."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple
from numpy.typing import ArrayLike, NDArray

from minibng.data.dataset import Dataset, Split

SEED = 20190717
"""What every split is drawn from. A constant: all results of the project are on the same samples."""


def stratified(
    y: ArrayLike, val: int = 10, test: int = 20
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Divide samples into 70 % training, 10 % validation, 20 % test, class by class.

    Of a class with n samples, n/5 go to the test set and n/10 to the validation set, each rounded to the
    nearest whole number (halves up), and the rest to the training set. The parts depend on ``y`` and the shares alone:
    samples are sorted by the raw stream of a PCG64 generator with a constant seed, which NumPy keeps the same
    in all versions (it does not promise that of ``Generator.permutation``).

    Parameters
    ----------
    y
        Labels, shape (N,).
    val, test
        Per cent of each class for these parts; 0 where one of them is a set of its own.

    Returns
    -------
    train, val, test
        Indices into ``y``, each part in random order, all classes mixed. Together they are each of
        0 ... N - 1 once.

    Examples
    --------
    >>> train, val, test = stratified([0] * 50 + [1] * 10)
    >>> np.bincount(np.repeat([0, 1], [50, 10])[test])
    array([10,  2])
    """
    labels = np.asarray(y)
    # Two independent orders: were parts listed in the order that filled them, the training set would begin
    # with the classes whose other quotas were full first.
    keys = np.random.PCG64(SEED).random_raw((2, len(labels)))
    draw, order = np.argsort(keys, kind="stable").astype(np.int64)
    part = np.zeros(len(labels), np.int8)  # 0 training, 1 validation, 2 test
    for label in np.unique(labels):
        members = draw[labels[draw] == label]
        tests, vals = ((share * len(members) + 50) // 100 for share in (test, val))
        part[members[:tests]] = 2
        part[members[tests : tests + vals]] = 1
    train_part, val_part, test_part = (order[part[order] == i] for i in range(3))
    return train_part, val_part, test_part


def standardize(
    train: ArrayLike, *others: ArrayLike, axis: int | Sequence[int] | None = None
) -> tuple[NDArray[np.float32], ...]:
    """Shift and scale so that the training samples have mean 0 and standard deviation 1.

    Mean and standard deviation (dividing by the number of entries) are those of ``train`` alone, so that
    nothing about the other parts leaks into training; all parts are then changed alike. The arithmetic is
    done in float64.

    Parameters
    ----------
    train
        The training samples, shape (N, ...).
    *others
        Any further parts, of shapes (M, ...) with the same last axes.
    axis
        The axes to take statistics over, the samples (axis 0) among them. None, the default: all of them,
        one scalar mean and one scalar standard deviation, right for images, whose pixels share a unit.
        0: per feature, right for tables, whose columns have a unit each.

    Returns
    -------
    tuple of arrays
        ``train`` and the others, float32, of the shapes given. Entries that are constant over the training
        samples become exactly 0 there, and are only shifted in the others.

    Raises
    ------
    ValueError
        Where ``train`` is empty or holds NaN or infinity, ``axis`` leaves out axis 0, or the last axes of
        the parts differ.

    Examples
    --------
    >>> standardize([[0.0, 5.0], [2.0, 5.0]], [[4.0, 6.0]], axis=0)
    (array([[-1., 0.], [ 1., 0.]], dtype=float32), array([[3., 1.]], dtype=float32))
    """
    x = np.asarray(train)
    if x.size == 0:
        raise ValueError(f"the training samples have shape {x.shape}: there is nothing to take a mean of")
    axes = normalize_axis_tuple(range(x.ndim) if axis is None else axis, x.ndim, "axis")
    if 0 not in axes:
        raise ValueError(f"axis is {axis!r}, but statistics must be taken over the samples too, axis 0")
    lowest, highest = x.min(axis=axes, keepdims=True), x.max(axis=axes, keepdims=True)
    if not (np.isfinite(lowest).all() and np.isfinite(highest).all()):
        raise ValueError("the training samples hold NaN or infinity; clean them first")
    parts = [np.asarray(part) for part in (x, *others)]
    for part in parts:
        if part.shape[1:] != x.shape[1:]:
            raise ValueError(
                f"the training samples have shape {x.shape}, another part {part.shape}: "
                "all but the first axis must be equal"
            )
    # A rounded mean of equal numbers may differ from them: constants are told by their values, not by std.
    constant = lowest == highest
    mean = np.where(constant, lowest, x.mean(axis=axes, dtype=np.float64, keepdims=True))
    std = np.where(constant, 1.0, x.std(axis=axes, dtype=np.float64, keepdims=True))
    return tuple(((part - mean) / std).astype(np.float32) for part in parts)


def make_split(
    x: NDArray[Any],
    y: NDArray[Any],
    *,
    name: str,
    classes: int | None,
    source: str,
    axis: int | Sequence[int] | None = None,
    image_shape: tuple[int, int, int] | None = None,
) -> Split:
    """Divide samples into three parts and standardize them by the first.

    Parameters
    ----------
    x
        Flat samples, shape (N, D).
    y
        Classes from 0 to K - 1, shape (N,); for a regression real numbers, shape (N, ...).
    name, classes, source, image_shape
        See `Split`. With ``classes`` the parts are stratified. Without, they are a plain random division, and the
        targets are standardized too, each column by itself.
    axis
        See `standardize`: None for images, 0 for tables.

    Returns
    -------
    Split
        Float32 samples; nobody can write to the arrays.

    Raises
    ------
    ValueError
        Where lengths differ, a label is out of range, or a part would be empty.
    """
    whole = Dataset(x, y, classes)
    parts = stratified(whole.y if classes is not None else np.zeros(len(whole)))
    samples = standardize(*(whole.x[part] for part in parts), axis=axis)
    targets = tuple(whole.y[part] for part in parts)
    if classes is None:
        targets = standardize(*targets, axis=0)
    train, val, test = (Dataset(frozen(a), frozen(b), classes) for a, b in zip(samples, targets, strict=True))
    return Split(train, val, test, name, classes, source, image_shape)


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array, read-only from now on: as it owns its memory, no view of it can be made writable again."""
    array.flags.writeable = False
    return array
