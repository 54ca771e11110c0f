"""MNIST-1D: ten digits as one-dimensional signals, made from a recipe instead of downloaded.

The recipe is that of S. Greydanus and D. Kobak, "Scaling down deep learning with MNIST-1D" (arXiv:2011.14439): a
template of 12 points a digit, padded, stretched, scaled, shifted and sheared at random, with noise. It draws from
NumPy's legacy generator, whose stream is frozen, in the order of the authors' package, so that the same seed gives
the samples of the paper.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from minibng.data.dataset import Dataset, Split

Signal = NDArray[np.float64]

_HEIGHTS = """
5   6    6.5  6.75 7    7    7   7    6.75 6.5 6   5
5   3    3    3.4  3.8  4.2  4.6 5    5.4  5.8 5   5
5   6    6.5  6.5  6    5.25 4.75 4   3.5  3.5 4   5
5   6    6.5  6.5  6    5    5   6    6.5  6.5 6   5
5   4.4  3.8  3.2  2.6  2.6  5   5    5    5   5   5
5   3    3    3    3    5    6   6.5  6.5  6   4.5 5
5   4    3.5  3.25 3    3    3   3    3.25 3.5 4   5
5   7    7    6.6  6.2  5.8  5.4 5    4.6  4.2 5   5
5   4    3.5  3.5  4    5    5   4    3.5  3.5 4   5
5   4    3.5  3.5  4    5    5   5    5    4.7 4.3 5
"""
"""The paper's drawings of the digits 0 to 9, a row each: heights at 12 equally spaced points."""


def templates() -> Signal:
    """Return the ten templates, (10, 12): each of standard deviation 1/6, starting at 0.

    Examples
    --------
    >>> templates().shape, float(templates()[:, 0].max())
    ((10, 12), 0.0)
    """
    drawn = np.array([line.split() for line in _HEIGHTS.split("\n") if line], dtype=np.float64)
    drawn -= drawn.mean(axis=1, keepdims=True)
    drawn /= drawn.std(axis=1, keepdims=True)
    drawn -= drawn[:, :1]
    return drawn / 6


@cache
def _grid(n: int) -> Signal:
    return np.linspace(0, 1, n)


def _resample(signal: Signal, n: int) -> Signal:
    """Return n equally spaced points of the line through a signal's points."""
    return np.interp(_grid(n), _grid(len(signal)), signal)


def _blur(rows: Signal, sigma: float = 2.0) -> Signal:
    """Convolve each row (N, T) with a Gaussian, cut off at 4σ; beyond its ends a row is mirrored."""
    reach = int(4 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    wide = np.pad(rows, ((0, 0), (reach, reach)), mode="symmetric")
    blurred = np.zeros_like(rows)
    for k, w in enumerate(weights / weights.sum()):
        blurred += w * wide[:, k : k + rows.shape[1]]
    return blurred


def signals(
    samples: int = 5000,
    seed: int = 42,
    *,
    length: int = 40,
    padding: tuple[int, int] = (36, 60),
    scale: float = 0.4,
    translation: int = 48,
    correlated: float = 0.25,
    noise: float = 0.02,
    shear: float = 0.75,
) -> tuple[Signal, NDArray[np.int64]]:
    """Make MNIST-1D: as many signals of each digit, in random order, of mean 0 and standard deviation 1 together.

    Parameters
    ----------
    samples
        N, rounded down to a multiple of ten.
    seed
        What everything is drawn from; 42 is the published data set.
    length
        T, the number of points of a signal.
    padding
        Least and largest number of zeros that are appended to a template before it is stretched.
    scale
        The signal is multiplied by a number within scale/2 of 1.
    translation
        The signal is rotated by less than this, of 12 + padding[1] points.
    correlated
        Standard deviation, before it is blurred, of the noise that stands where the signal does not.
    noise
        Standard deviation of the noise that is added everywhere, independently at each point.
    shear
        A line is added whose rise from end to end is at most shear/2.

    Returns
    -------
    x, y
        Signals (N, T) and digits (N,).

    Raises
    ------
    ValueError
        Where ``samples`` is below ten, so that there is nothing of a digit.

    Examples
    --------
    >>> x, y = signals(samples=20, seed=0)
    >>> x.shape, np.bincount(y)
    ((20, 40), array([2, 2, 2, 2, 2, 2, 2, 2, 2, 2]))
    """
    if samples < 10:
        raise ValueError(f"mnist1d needs at least one sample of each of the ten digits, got {samples} in all")
    rng = np.random.RandomState(seed)  # not the global generator, and its stream is frozen
    width, (least, most) = 12 + padding[1], padding

    def draw(template: Signal) -> tuple[Signal, Signal, Signal, float]:
        pad = least + int(rng.random_sample() * (most - least + 1))
        x = _resample(np.concatenate([template + 1e-8, np.zeros(pad)]), width)  # 1e-8: only the padding is exactly 0
        x *= 1 + scale * (rng.random_sample() - 0.5)
        x = np.roll(x, rng.randint(translation))
        return x, rng.standard_normal(width), rng.standard_normal(width), rng.random_sample() - 0.5

    each = samples // 10
    drawn = [draw(template) for template in templates() for _ in range(each)]
    x, between, everywhere, slope = (np.array(part) for part in zip(*drawn, strict=True))
    x = np.where(x != 0, x, _blur(correlated * between)) + noise * everywhere
    x -= shear * slope[:, None] * (_grid(width) - 0.5)
    x = np.stack([_resample(row, length) for row in x])
    order = rng.permutation(len(x))
    return (x[order] - x.mean()) / x.std(), np.repeat(np.arange(10), each)[order]


def mnist1d() -> Split:
    """Make 5000 signals of 40 points, 10 classes: MNIST-1D, as published.

    Source: the recipe of S. Greydanus and D. Kobak (arXiv:2011.14439) with its own seed, see `signals`; synthetic
    data. The test set is theirs, the last 1000 samples. Of their 4000 training samples the last 500 are the
    validation set here. As in the original, one scalar mean and one scalar standard deviation are those of all 5000
    signals.

    Returns
    -------
    Split
        3500 training, 500 validation and 1000 test samples; x (N, 40) float32, y (N,) int64.

    Examples
    --------
    >>> mnist1d().test
    Dataset(x (1000, 40) float32, y (1000,) int64, 10 classes)
    """
    x, y = signals()
    x = x.astype(np.float32)
    for array in (x, y):
        array.flags.writeable = False
    train, val, test = (Dataset(x[a:b], y[a:b], 10) for a, b in ((0, 3500), (3500, 4000), (4000, 5000)))
    source = (
        "made by the recipe of MNIST-1D (arXiv:2011.14439), the published samples; "
        "validation set taken from the training set"
    )
    return Split(train, val, test, "mnist1d", 10, source)
