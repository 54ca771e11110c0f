"""Augmentation: other images that show the same thing, drawn anew in every epoch."""

import operator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from minibng.backend import Array, backend_of


class Augmentation(Protocol):
    """What `batches` needs: a draw on the host, a number for each sample of an epoch, and what it does to images.

    So the draw is the same on every device, goes there at once for a whole epoch, and says all about a sample.
    """

    def draw(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return n whole numbers, one for each sample."""

    def apply(self, x: Array, drawn: Array) -> Array:
        """Return new images for those of a batch (N, ...), as their numbers (N,) say, on the same device."""


@dataclass(frozen=True)
class CropMirror:
    """Shift each image by up to ``pad`` pixels either way, zeros coming in at the edges, and mirror every second one.

    The image is given an edge of ``pad`` zeros (the mean, as samples are standardized), and its own size is cut out of
    that at one of (2·pad + 1)² places, then turned left to right or not: 2·(2·pad + 1)² outcomes, all equally likely.
    Source: K. He et al., "Deep Residual Learning for Image Recognition" (2016), section 4.2, for CIFAR-10 with pad 4.

    Parameters
    ----------
    pad
        Pixels of the edge, 0 or more.
    mirror
        False: never turn an image. Right for digits and letters, which mean something else in a mirror.

    Raises
    ------
    ValueError
        Where ``pad`` is negative, and for samples that are not (N, H, W, C).
    TypeError
        Where ``pad`` is not a whole number.

    Examples
    --------
    >>> from minibng import data
    >>> train = data.load("mnist5k").as_images().train
    >>> for x, y in data.batches(train, 128, augment=data.CropMirror(pad=4, mirror=False)):
    ...     pass
    """

    pad: int = 4
    mirror: bool = True

    def __post_init__(self) -> None:
        try:
            if operator.index(self.pad) < 0:
                raise ValueError(f"pad must be 0 or more, got {self.pad}")
        except TypeError:
            raise TypeError(f"pad must be a whole number of pixels, got {self.pad!r}") from None

    @property
    def outcomes(self) -> int:
        """How many different images may come of one."""
        return (2 * self.pad + 1) ** 2 * (2 if self.mirror else 1)

    def draw(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return n numbers from 0 to ``outcomes`` - 1."""
        return rng.integers(self.outcomes, size=n)

    def apply(self, x: Array, drawn: Array) -> Array:
        """Return the images (N, H, W, C) cut and turned as the numbers (N,) say.

        Number (turned·(2·pad + 1) + i)·(2·pad + 1) + j: pixel (0, 0) is that of row i and column j of the image with
        its edge, before it is turned.
        """
        if len(x.shape) != 4:
            raise ValueError(
                f"augmentation by crop and mirror needs images (N, H, W, C), got samples of shape {x.shape}: "
                "take them from split.as_images()"
            )
        xp = backend_of(x).xp
        n, h, w, c = x.shape
        p, places = self.pad, 2 * self.pad + 1
        wide, high = w + 2 * p, h + 2 * p
        framed = xp.zeros((n, high, wide, c), x.dtype)
        framed[:, p : p + h, p : p + w] = x
        turned, place = drawn // places**2, drawn % places**2
        row, column = (k[:, None] for k in (place // places, place % places))
        along = xp.arange(w)
        columns = column + xp.where(turned[:, None] > 0, w - 1 - along, along)  # (N, W)
        rows = row + xp.arange(h) + high * xp.arange(n)[:, None]  # (N, H), counted through all images
        return xp.take(framed.reshape(-1, c), rows[:, :, None] * wide + columns[:, None, :], axis=0)
