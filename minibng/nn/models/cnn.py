"""A small convolutional network."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from minibng.nn.activations import relu
from minibng.nn.containers import Flatten, Sequential
from minibng.nn.convolution import Conv2d
from minibng.nn.layer import check_whole
from minibng.nn.linear import Linear
from minibng.nn.pooling import MaxPool2d


def cnn(
    inputs: Sequence[int] = (28, 28, 1), classes: int = 10, maps: Sequence[int] = (16, 32), kernel: int = 3
) -> Sequential:
    """Return convolution, relu, 2×2 max pooling, as often as ``maps`` has entries, and a linear layer.

    The order of layers of LeCun, Bottou, Bengio, Haffner (1998), with what is usual now in place of its activations
    and averages. There is no batch norm in it: the depth at which gradients need one is a matter for `resnet`.

    Parameters
    ----------
    inputs
        (H, W, C) of the images: (N, H, W, C) → (N, classes).
    classes
        K.
    maps
        The channels of each convolution.
    kernel
        The convolutions' height and width.

    Raises
    ------
    TypeError
        Where ``maps`` is a number, or ``inputs`` are not three.
    ValueError
        For images that have no pixel left after the last pooling.

    Examples
    --------
    >>> cnn((28, 28, 1), 10).init()
    block  tensor  shape            size
    0      0.W     (3, 3, 1, 16)     144
           0.b     (16,)              16
    3      3.W     (3, 3, 16, 32)  4,608
           3.b     (32,)              32
    7      7.W     (1568, 10)     15,680
           7.b     (10,)              10
    3 blocks, 6 tensors, 20,490 numbers
    """
    if not isinstance(maps, Iterable):
        raise TypeError(f"maps is a list of channels, one for each convolution, such as [16, 32], got {maps!r}")
    if not isinstance(inputs, Iterable) or len(inputs) != 3:
        raise TypeError(f"inputs are (H, W, C) of the images, such as (28, 28, 1), got {inputs!r}")
    height, width, channels = inputs
    check_whole("cnn", height, width, classes)
    side = 2 ** len(maps)
    if min(height, width) < side:
        raise ValueError(f"{len(maps)} poolings need images of {side} × {side} pixels or more, got {height} × {width}")
    layers: list[Any] = []
    for a, b in pairwise([channels, *maps]):
        layers += [Conv2d(a, b, kernel), relu, MaxPool2d(2)]
    last = [channels, *maps][-1]
    return Sequential(*layers, Flatten(), Linear(height // side * (width // side) * last, classes))
