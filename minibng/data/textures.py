"""Textures: small images cut out of three photographs that come inside a Python package."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from minibng.data.dataset import Dataset, Split
from minibng.data.prepare import frozen, standardize, stratified
from minibng.extras import require

NAMES = ("brick", "grass", "gravel")
"""The photographs, and so the classes."""

SIDE, STEP = 32, 16
"""Pixels along the side of a patch, and from one patch to the next."""

BANDS = {"train": (0, 352), "val": (352, 416), "test": (416, 512)}
"""The columns of every photograph that the patches of a part come from. Bands share no column."""


def patches(photograph: NDArray[np.uint8], first: int, last: int) -> NDArray[np.uint8]:
    """Return all patches of the grid inside the columns ``first`` to ``last`` - 1, row by row, (N, 32, 32, 1)."""
    windows = sliding_window_view(photograph[:, first:last], (SIDE, SIDE))[::STEP, ::STEP]
    return windows.reshape(-1, SIDE, SIDE, 1)


def textures() -> Split:
    """Load 2697 patches of 32×32 grey pixels, 3 classes: brick, grass and gravel.

    Source: the photographs `skimage.data.brick`, `grass` and `gravel` inside scikit-image (512×512 pixels, CC0). Each
    is cut into three bands of columns, 352 wide for training, 64 for validation, 96 for the test, and patches are taken
    inside a band only, from a grid with 16 pixels between neighbours. So patches of one part overlap, and no pixel
    belongs to two parts. Upright bands, because the photographs look into the distance: each band holds near and far.
    Pixels are standardized by one mean and deviation over all patches of the training part.

    A linear model gets 3 of 5 test patches right, a small residual network nearly all of them. All patches come from
    three photographs: what is measured here tells how well one training went compared with another, and nothing of how
    well bricks are known in other photographs. Intervals over seeds are about the noise of training.

    Returns
    -------
    Split
        1953 training, 279 validation and 465 test samples, a third of each class; x (N, 32, 32, 1) float32, y (N,)
        int64.

    Raises
    ------
    MissingExtraError
        Where scikit-image is not installed.

    Examples
    --------
    >>> textures().train
    Dataset(x (1953, 32, 32, 1) float32, y (1953,) int64, 3 classes)
    """
    photographs = require("skimage.data", "experiments", "data set 'textures'")
    images = [getattr(photographs, name)() for name in NAMES]
    pixels, labels = [], []
    for band in BANDS.values():
        cut = [patches(image, *band) for image in images]
        y = np.repeat(np.arange(len(NAMES)), [len(part) for part in cut])
        order, _, _ = stratified(y, val=0, test=0)
        pixels.append(np.concatenate(cut)[order])
        labels.append(y[order])
    samples = standardize(*pixels)
    train, val, test = (Dataset(frozen(x), frozen(y), len(NAMES)) for x, y in zip(samples, labels, strict=True))
    source = (
        "patches of three CC0 photographs, from scikit-image; 32×32 pixels, each part from bands of its own, "
        "standardized by one mean and deviation of the training part"
    )
    return Split(train, val, test, "textures", len(NAMES), source, class_names=NAMES)
