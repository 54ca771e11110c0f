"""Tasks of memory: sequences whose answer depends on entries far apart, exact and made here.

How long is chosen, so that what a training does with long dependencies can be measured on its own (S. Hochreiter and
J. Schmidhuber, "Long short-term memory", 1997, section 5).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minibng.data.dataset import Dataset, Split, check_whole
from minibng.data.prepare import frozen

SYMBOLS, COPIED, BLANK, GO = 8, 10, 0, 9
"""Of `copying`: how many different symbols, how many of them are copied, the blank and the sign to begin."""


def adding(length: int = 50, samples: int = 10_000, *, seed: int = 0) -> Split:
    """Make sequences of numbers, two of them marked; to predict: the sum of the two.

    Each step holds a number, uniform in [0, 1), and a mark, 1 at one step of the first half and at one of the second,
    0 elsewhere. Always to say 1 costs a mean squared error of 1/6, the variance of the sum.

    Parameters
    ----------
    length
        Steps T, 2 or more.
    samples
        Sequences of the training part; a tenth of that each, at least one, are in the other two.
    seed
        Which sequences, 0 or more.

    Returns
    -------
    Split
        x (N, T, 2) float32, the numbers and the marks; y (N, 1) float32.

    Raises
    ------
    ValueError
        Where a number is too small.
    TypeError
        Where one is not a whole number.

    Examples
    --------
    >>> train = adding(length=6, samples=20).train
    >>> train
    Dataset(x (20, 6, 2) float32, y (20, 1) float32)
    >>> numbers, marks = train.x[0].T
    >>> float(marks.sum()), float((numbers * marks).sum() - train.y[0, 0])
    (2.0, 0.0)
    """
    check_whole("length", length, least=2)

    def draw(rng: np.random.Generator, n: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        x = np.zeros((n, length, 2), np.float32)
        x[..., 0] = rng.random((n, length), np.float32)
        rows, half = np.arange(n), length // 2
        first, second = rng.integers(0, half, n), rng.integers(half, length, n)
        x[rows, first, 1] = x[rows, second, 1] = 1
        return x, x[rows, first, :1] + x[rows, second, :1]

    source = f"the adding problem at length {length} (Hochreiter and Schmidhuber, 1997), made here, seed {seed}"
    return _made(draw, samples, seed, f"adding{length}", None, source)


def copying(length: int = 50, samples: int = 10_000, *, seed: int = 0) -> Split:
    """Make sequences of symbols to be repeated after a pause.

    Ten symbols of eight, 1 to 8, then T - 1 blanks (0), the sign to begin (9) and ten blanks; to predict: blanks until
    the sign, and from the step after it the ten symbols (M. Arjovsky, A. Shah and Y. Bengio, "Unitary evolution
    recurrent neural networks", 2016, section 4.1). To say blanks, and then any symbol with probability 1/8, costs a
    mean cross-entropy of 10 log 8/(T + 20).

    Parameters
    ----------
    length
        Steps T from the last symbol to the sign, 1 or more.
    samples
        Sequences of the training part; a tenth of that each, at least one, are in the other two.
    seed
        Which sequences, 0 or more.

    Returns
    -------
    Split
        x (N, T + 20) and y (N, T + 20), int64, with 10 classes.

    Raises
    ------
    ValueError
        Where a number is too small.
    TypeError
        Where one is not a whole number.

    Examples
    --------
    >>> train = copying(length=3, samples=20).train
    >>> train
    Dataset(x (20, 23) int64, y (20, 23) int64, 10 classes)
    >>> (train.x[0, :10] == train.y[0, -10:]).all(), train.x[0, 10:].tolist()
    (np.True_, [0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    """
    check_whole("length", length, least=1)

    def draw(rng: np.random.Generator, n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        x, y = (np.full((n, length + 2 * COPIED), BLANK, np.int64) for _ in range(2))
        x[:, :COPIED] = y[:, -COPIED:] = rng.integers(1, SYMBOLS + 1, (n, COPIED))
        x[:, -COPIED - 1] = GO
        return x, y

    source = f"the copying task at length {length} (Arjovsky, Shah and Bengio, 2016), made here, seed {seed}"
    return _made(draw, samples, seed, f"copying{length}", GO + 1, source)


def _made(
    draw: Callable[[np.random.Generator, int], tuple[NDArray[Any], NDArray[Any]]],
    samples: int,
    seed: int,
    name: str,
    classes: int | None,
    source: str,
) -> Split:
    """Return a split whose parts are drawn from streams of their own."""
    check_whole("samples", samples, least=1)
    check_whole("seed", seed, least=0)
    sizes = samples, max(1, samples // 10), max(1, samples // 10)
    drawn = (draw(np.random.default_rng([seed, part]), size) for part, size in enumerate(sizes))
    train, val, test = (Dataset(frozen(x), frozen(y), classes) for x, y in drawn)
    return Split(train, val, test, name, classes, source)
