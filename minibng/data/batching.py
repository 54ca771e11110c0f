"""Batches: a data set in pieces, in an order that depends on nothing but the seed and the epoch."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from minibng.backend import Array, backend_of, get_backend
from minibng.data.augment import Augmentation
from minibng.data.dataset import Dataset, check_whole


@dataclass(frozen=True, eq=False)
class Batches:
    """The batches of one epoch, made by `batches`, where the fields are explained.

    ``len()`` is the number of batches. To iterate again gives the same batches in the same order.
    """

    dataset: Dataset
    size: int
    seed: int = 0
    epoch: int = 0
    shuffle: bool = True
    drop_last: bool = False
    device: str = "cpu"
    augment: Augmentation | None = None
    length: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.dataset, Dataset):
            kind = type(self.dataset).__name__
            hint = "one of its parts, such as split.train" if kind == "Split" else "data.Dataset(x, y)"
            raise TypeError(f"batches are made of a Dataset, not of a {kind}; pass {hint}")
        check_whole("batch size", self.size, least=1)
        check_whole("seed", self.seed, least=0)
        check_whole("epoch", self.epoch, least=0)
        get_backend(self.device)  # one that does not work is told here, not at the first batch
        if self.size > len(self.dataset):
            raise ValueError(
                f"batch size {self.size} is more than the {len(self.dataset)} samples of the data set; "
                f"choose at most {len(self.dataset)}"
            )
        if self.length is not None:
            self._check_windows(self.length)
        elif self.augment is not None:  # one that does not fit is told here too
            self.augment.apply(self.dataset.scaled(self.dataset.x[:1]), self.augment.draw(1, np.random.default_rng(0)))

    def _check_windows(self, length: int) -> None:
        check_whole("length", length, least=1)
        if self.augment is not None:
            raise ValueError("augment changes single samples: leave it out where length cuts one sequence into windows")
        if self.drop_last and len(self) == 0:
            n, size = len(self.dataset), self.size
            raise ValueError(
                f"{n} samples in {size} rows are {n // size} a row: no window of length {length} is full; "
                "choose a smaller length or batch size"
            )

    def __len__(self) -> int:
        n, size = len(self.dataset), self.size
        if self.length is not None:
            n, size = n // size, self.length
        return n // size if self.drop_last else -(-n // size)

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        return self._samples() if self.length is None else self._windows(self.length)

    def _windows(self, length: int) -> Iterator[tuple[Array, Array]]:
        """Yield the windows of the sequence, which is laid out in rows."""
        backend = get_backend(self.device)
        steps = len(self.dataset) // self.size
        x, y = (
            a[: self.size * steps].reshape(self.size, steps, *a.shape[1:]) for a in self.dataset.arrays_for(backend)
        )
        for i in range(len(self)):
            places = slice(i * length, (i + 1) * length)
            window = backend.asarray(x[:, places].copy()), backend.asarray(y[:, places].copy())
            yield self.dataset.scaled(window[0]), window[1]

    def _samples(self) -> Iterator[tuple[Array, Array]]:
        """Yield samples in the order of the epoch."""
        n, backend = len(self.dataset), get_backend(self.device)
        drawn = None
        if self.augment is not None:  # from a stream that the order knows nothing of
            stream = np.random.SeedSequence([self.seed, self.epoch], spawn_key=(0,))
            drawn = backend.asarray(self.augment.draw(n, np.random.default_rng(stream)))
        order = np.arange(n)
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(n)
        x, y = self.dataset.arrays_for(backend)
        source = backend_of(x)
        order = source.asarray(order)  # the order of a whole epoch goes up at once
        for i in range(len(self)):
            places = slice(i * self.size, (i + 1) * self.size)
            chosen = order[places]
            batch = source.xp.take(x, chosen, axis=0), source.xp.take(y, chosen, axis=0)
            samples = self.dataset.scaled(backend.asarray(batch[0]))
            if self.augment is not None and drawn is not None:
                samples = self.augment.apply(samples, drawn[places])
            yield samples, backend.asarray(batch[1])


def batches(
    dataset: Dataset,
    size: int,
    seed: int = 0,
    epoch: int = 0,
    *,
    shuffle: bool = True,
    drop_last: bool = False,
    device: str = "cpu",
    augment: Augmentation | None = None,
    length: int | None = None,
) -> Batches:
    """Divide a data set into batches, shuffled anew in every epoch, or one sequence into windows, in order.

    The order depends on the seed, the epoch and the number of samples only; it is drawn on the host, so it
    is the same on every device. (NumPy keeps its generator's permutations within a version and rarely changes
    them between versions.)

    Parameters
    ----------
    dataset
        The samples, such as ``split.train``.
    size
        Samples per batch, from 1 to N.
    seed
        Which sequence of orders, 0 or more.
    epoch
        Which pass over the data, 0 for the first; each has an order of its own.
    shuffle
        False: the order of the data set, for evaluation.
    drop_last
        True: leave out the last batch where it is not full.
    device
        Where the batches are wanted: the same batches, bit for bit. A data set of up to 256 MB is copied there once and
        its batches are gathered on the device; of a larger one each batch is gathered on the host and then copied. Do
        not change the arrays that the data set was made of: the copy would not know.
    augment
        What is done to the images, such as ``CropMirror()``; for training only. What happens to a sample depends on
        the seed, the epoch and its place in the epoch, and is drawn on the host: it too is the same on every device.
        The order is the same with and without.
    length
        T, for a data set that is one sequence, such as a text. Its M samples are laid out in ``size`` rows, one below
        the other, each a stretch of M // size samples; what is left over at the end, fewer than ``size`` samples, is
        left out. A batch is a window of T columns, and row r of a batch goes on where row r of the batch before ended.
        The last window is shorter where T does not divide the rows (``drop_last`` leaves it out). Nothing is shuffled,
        so that the seed and the epoch have no effect.

    Returns
    -------
    Batches
        An iterable of pairs x (size, ...) and y (size,), or x and y (size, T) with ``length``, each a fresh contiguous
        array on ``device`` that the caller may write to; it has a ``len()``. Samples of a data set with a ``scale`` are
        standardized, float32.

    Raises
    ------
    TypeError
        Where ``size``, ``seed``, ``epoch`` or ``length`` is not a whole number, or ``dataset`` is no `Dataset`; at
        the call, not when the first batch is asked for.
    ValueError
        Where ``size`` is below 1 or above N, ``seed`` or ``epoch`` is negative, or ``augment`` refuses the samples;
        where ``length`` is below 1, leaves no window, or comes with ``augment``.
    UnknownNameError, DeviceError
        For a device that there is not, or that cannot be used here.

    Examples
    --------
    >>> from minibng import data
    >>> train = data.load("digits").train
    >>> epoch = data.batches(train, 500, seed=0, epoch=0)
    >>> len(epoch), [x.shape for x, y in epoch]
    (3, [(500, 64), (500, 64), (259, 64)])

    A sequence of 11 in two rows of five, in windows of up to three:

    >>> sequence = data.Dataset(range(11), range(1, 12))
    >>> for x, y in data.batches(sequence, 2, length=3):
    ...     print(x.tolist(), y.tolist())
    [[0, 1, 2], [5, 6, 7]] [[1, 2, 3], [6, 7, 8]]
    [[3, 4], [8, 9]] [[4, 5], [9, 10]]
    """
    return Batches(dataset, size, seed, epoch, shuffle, drop_last, device, augment, length)
