"""Images of another size, by averaging over areas."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 1 << 22
"""Most entries that are worked on at once, in double precision."""


def areas(old: int, new: int) -> NDArray[np.float64]:
    """Return the weights, (new, old), with which the pixels of a line of ``new`` average those of a line of ``old``.

    Pixel i covers the stretch from i·old/new to (i + 1)·old/new; its weights are the parts of that stretch that lie in
    each old pixel. Their sum is 1.

    Examples
    --------
    >>> areas(3, 2)
    array([[0.66666667, 0.33333333, 0.        ],
           [0.        , 0.33333333, 0.66666667]])
    """
    i, j = np.arange(new)[:, None], np.arange(old)  # in units of 1/new old pixels all edges are whole numbers
    overlap = np.minimum((i + 1) * old, (j + 1) * new) - np.maximum(i * old, j * new)
    return np.asarray(np.maximum(overlap, 0) / old)


def resize(x: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Resize images: each new pixel is the mean of the old image over the area that it covers.

    Parameters
    ----------
    x
        Images, shape (N, H, W, C).
    height, width
        The new H and W; where they are larger than the old ones, pixels are repeated.

    Returns
    -------
    array
        New images (N, height, width, C) of the same dtype, computed in double precision; whole numbers are rounded.

    Examples
    --------
    >>> resize(np.arange(4.0).reshape(1, 2, 2, 1), 1, 1)
    array([[[[1.5]]]])
    """
    n, h, w, c = x.shape
    down, across = areas(h, height), areas(w, width)
    new = np.empty((n, height, width, c), x.dtype)
    step = max(1, _AT_ONCE // (h * w * c))
    for start in range(0, n, step):
        part = x[start : start + step].astype(np.float64)
        part = (across @ (down @ part.reshape(-1, h, w * c)).reshape(-1, w, c)).reshape(-1, height, width, c)
        new[start : start + step] = np.rint(part) if x.dtype.kind in "iu" else part
    return new
