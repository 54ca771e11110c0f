"""What a data set is: samples with their targets, and three of them that belong together."""

import math
import operator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minibng.backend import Array, Backend, backend_of
from minibng.data.resize import resize

if TYPE_CHECKING:
    from minibng.data.vocabulary import Vocabulary

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
        stay as they are, and then any shape (N, ...) will do. A label for every token of x (N, T), whole numbers too,
        has the shape (N, T).
    classes
        The number of classes K. Where it is given, ``y`` must hold labels from 0 to K - 1.
    scale
        A mean and a deviation, numbers or (C,), one for each channel, the innermost index of a sample: what `batches`
        and `train.score` deliver is then (x - mean)/deviation in float32. So pixels may stay bytes, which take a
        quarter of the memory.

    Attributes
    ----------
    x
        The samples, shape (N, ...), read-only.
    y
        The targets, shape (N,), read-only.
    classes
        K, or None where it was not given.
    scale
        The pair of float32 arrays, read-only, or None: samples are delivered as they are.

    Raises
    ------
    ValueError
        Where there is no sample, the lengths differ, labels have another shape than (N,), a label is out of range, or
        the scale does not fit the samples or holds a deviation that is not positive.
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
    scale: tuple[NDArray[np.float32], NDArray[np.float32]] | None

    def __init__(
        self, x: ArrayLike, y: ArrayLike, classes: int | None = None, scale: tuple[ArrayLike, ArrayLike] | None = None
    ) -> None:
        samples, targets = np.asarray(x), np.asarray(y)
        _check_pair(samples, targets)
        if targets.dtype.kind in "iu":
            targets = targets.astype(np.int64, copy=False)
        if classes is not None:
            _check_labels(targets, classes, samples)
        object.__setattr__(self, "x", _read_only(samples))
        object.__setattr__(self, "y", _read_only(targets))
        object.__setattr__(self, "classes", classes)
        object.__setattr__(self, "scale", None if scale is None else _checked_scale(scale, samples.shape))

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy, and pickle, as a data set that is read-only too."""
        return Dataset, (self.x, self.y, self.classes, self.scale)

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
        return Dataset(self.x[:n], self.y[:n], self.classes, self.scale)

    def scaled(self, x: Array) -> Array:
        """Return some of the samples as a model takes them, on the device that they are on.

        Parameters
        ----------
        x
            Samples of this data set, shape (n, ...), such as ``dataset.x[:1]``.

        Returns
        -------
        Array
            (x - mean)/deviation, a new float32 array; x itself where the data set has no ``scale``.

        Examples
        --------
        >>> grey = Dataset(np.array([[0, 255]], np.uint8), [0], scale=(127.5, 127.5))
        >>> grey.scaled(grey.x)
        array([[-1.,  1.]], dtype=float32)
        """
        if self.scale is None:
            return x
        backend = backend_of(x)
        kept = _SCALES.setdefault(self, {})
        entries = math.prod(self.x.shape[1:])
        if backend.device not in kept:  # repeated for every pixel: three numbers in the inner loop would be slow
            mean, deviation = (backend.asarray(np.tile(part, entries // len(part))) for part in self.scale)
            kept[backend.device] = mean, deviation
        mean, deviation = kept[backend.device]
        new = x.astype("float32", order="C")
        rows = new.reshape(-1, entries)  # a view
        rows -= mean
        rows /= deviation
        return new

    def arrays_for(self, backend: Backend) -> tuple[Array, Array]:
        """Return x and y from where batches for a device are best taken: to read from, not to write to.

        A data set of at most `RESIDENT` bytes is copied to the device once, when it is first asked for, and stays there
        as long as the data set lives. A larger one stays on the host. Samples are not `scaled` yet.
        """
        if backend.on_host or self.x.nbytes + self.y.nbytes > RESIDENT:
            return self.x, self.y
        kept = _ON_DEVICES.setdefault(self, {})
        if backend.device not in kept:
            kept[backend.device] = backend.asarray(self.x), backend.asarray(self.y)
        return kept[backend.device]


_ON_DEVICES: WeakKeyDictionary[Dataset, dict[str, tuple[Array, Array]]] = WeakKeyDictionary()
_SCALES: WeakKeyDictionary[Dataset, dict[str, tuple[Array, Array]]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Split:
    """A data set in three disjoint parts: to train on, to choose by, and to report.

    Attributes
    ----------
    train, val, test
        The parts, each with ``x`` of shape (N, D), or (N, H, W, C) for images, and ``y`` of shape (N,), or (N, 1) for a
        regression. Of a text, ``x`` (M,) are its tokens and ``y`` (M,) the next ones; documents are tokens (N, T).
    name
        The name that `load` knows it by.
    classes
        The number of classes K; None for a regression.
    source
        One line: where the data come from and what was done to them.
    image_shape
        (H, W, C) where the samples are images, whether ``x`` holds them as such or as rows of H·W·C numbers; else None.
    class_names
        What the classes are called, K names in the order of the labels, or None.
    vocabulary
        The words that the tokens stand for, where ``x`` are tokens; else None.

    Raises
    ------
    ValueError
        Where ``image_shape`` does not fit the samples, or the number of names the classes.

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
    image_shape: tuple[int, int, int] | None = None
    class_names: tuple[str, ...] | None = None
    vocabulary: "Vocabulary | None" = None

    def __post_init__(self) -> None:
        if self.image_shape is None:
            if self.train.x.ndim == 4:
                object.__setattr__(self, "image_shape", self.train.x.shape[1:])
        elif len(self.image_shape) != 3 or any(
            part.x.shape[1:] not in (tuple(self.image_shape), (math.prod(self.image_shape),)) for part in self._parts
        ):
            shapes = ", ".join(str(part.x.shape) for part in self._parts)
            raise ValueError(f"images (H, W, C) = {self.image_shape} do not fit samples of shapes {shapes}")
        if self.class_names is not None and len(self.class_names) != self.classes:
            raise ValueError(f"{len(self.class_names)} names for {self.classes} classes")

    @property
    def _parts(self) -> tuple[Dataset, Dataset, Dataset]:
        return self.train, self.val, self.test

    def as_images(self, size: int | None = None) -> "Split":
        """Return the same samples as images, (N, H, W, C).

        Parameters
        ----------
        size
            None: H and W stay. Otherwise images become size × size: each new pixel is the average over the area that it
            covers of the old image, so that the mean of an image stays what it was, and twice the size repeats pixels.
            The values are not standardized anew.

        Returns
        -------
        Split
            Made once and kept as long as this one: a second call costs nothing. Views of the same arrays where the
            size stays; new ones of the same dtype, bytes rounded to the nearest, where it changes.

        Raises
        ------
        ValueError
            Where the samples are no images, or ``size`` is below 1.
        TypeError
            Where ``size`` is not a whole number.

        Examples
        --------
        >>> from minibng import data
        >>> split = data.load("mnist5k")
        >>> split.as_images().train.x.shape, split.as_images(size=16).train.x.shape
        ((3500, 28, 28, 1), (3500, 16, 16, 1))
        """
        if self.image_shape is None:
            raise ValueError(
                f"the samples of data set {self.name!r}, of shape {self.train.x.shape[1:]}, are no images: "
                "name one that has an image_shape, such as digits or textures"
            )
        if size is not None:
            check_whole("size", size, least=1)
        h, w, c = self.image_shape
        return self._shaped((h, w, c) if size is None else (size, size, c), flat=False)

    def flat(self) -> "Split":
        """Return the same samples as rows, (N, D), for models that know nothing of space: views, made once and kept.

        Examples
        --------
        >>> from minibng import data
        >>> data.load("digits").as_images().flat().train.x.shape
        (1259, 64)
        """
        return self._shaped(self.image_shape, flat=True)

    def _shaped(self, image: tuple[int, int, int] | None, flat: bool) -> "Split":
        """Return the split with images of this shape, as rows or not; itself where that is what it has."""
        if self.image_shape == image and (self.train.x.ndim == 2 if flat else self.train.x.ndim == 4):
            return self
        kept = _SHAPED.setdefault(self, {})
        if (image, flat) not in kept:
            source = self.source
            if image is not None and image != self.image_shape:
                source += f"; averaged to {image[0]}×{image[1]} pixels"
            parts = [_shaped(part, self.image_shape, image, flat) for part in self._parts]
            kept[image, flat] = replace(
                self, train=parts[0], val=parts[1], test=parts[2], source=source, image_shape=image
            )
        return kept[image, flat]


_SHAPED: WeakKeyDictionary[Split, dict[Any, Split]] = WeakKeyDictionary()


def _shaped(
    part: Dataset, before: tuple[int, int, int] | None, after: tuple[int, int, int] | None, flat: bool
) -> Dataset:
    """Return a part with its images (H, W, C) brought from one shape to another, then as rows or not."""
    x = part.x
    if before is not None:
        x = x.reshape(-1, *before)
        if after is not None and after != before:
            x = resize(x, *after[:2])
            x.flags.writeable = False  # before any view of it is made
    x = x.reshape(len(x), -1) if flat else x
    return Dataset(x, part.y, part.classes, part.scale)


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


def _check_labels(y: NDArray[Any], classes: int, x: NDArray[Any]) -> None:
    if y.dtype.kind != "i":
        raise TypeError(
            f"labels must be whole numbers, but y is {y.dtype}: convert it (y.astype(np.int64)), "
            "or leave classes out for a regression"
        )
    if y.ndim != 1 and not (y.shape == x.shape and x.dtype.kind in "iu"):
        raise ValueError(
            f"labels must have shape (N,), but y has shape {y.shape}: "
            "use y.argmax(axis=1) on one-hot rows, y.ravel() on one column"
        )
    wrong = np.flatnonzero((y < 0) | (y >= classes))
    if wrong.size:
        first, label = int(wrong[0]) * len(y) // y.size, y.ravel()[wrong[0]]
        raise ValueError(
            f"label {label} (sample {first}) is out of range: {classes} classes have the labels 0 to {classes - 1}"
        )


def _checked_scale(
    scale: tuple[ArrayLike, ArrayLike], shape: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    mean, deviation = (np.atleast_1d(np.array(part, np.float32)) for part in scale)
    if mean.shape != deviation.shape or mean.ndim > 1 or (1, *shape[1:])[-1] % len(mean):
        raise ValueError(
            f"a mean of shape {mean.shape} and a deviation of shape {deviation.shape} do not fit samples of shape "
            f"{shape[1:]}: they must be numbers, or one for each channel, the last axis"
        )
    if not (np.isfinite(mean).all() and np.isfinite(deviation).all() and (deviation > 0).all()):
        raise ValueError(f"the scale must be finite and its deviation positive; got mean {mean}, deviation {deviation}")
    return _read_only(mean), _read_only(deviation)


def check_whole(what: str, value: object, least: int) -> None:
    """Raise TypeError where a setting is no whole number, ValueError where it is too small."""
    try:
        number = None if isinstance(value, (bool, np.bool_)) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None:
        raise TypeError(f"{what} must be a whole number; got {value!r}")
    if number < least:
        raise ValueError(f"{what} must be at least {least}; got {number}")


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view
