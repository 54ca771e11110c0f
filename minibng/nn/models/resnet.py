"""Residual networks (He, Zhang, Ren, Sun, 2016, "Deep residual learning for image recognition")."""

from __future__ import annotations

from typing import Any

from minibng.autodiff import primitive
from minibng.autodiff.tracer import shape_of
from minibng.backend import Array, backend_of
from minibng.names import choose
from minibng.nn.batchnorm import BatchNorm
from minibng.nn.containers import Composite, Sequential
from minibng.nn.convolution import Conv2d
from minibng.nn.layer import Layer, ParamsLike, apply, check_order, check_whole
from minibng.nn.linear import Linear
from minibng.nn.pooling import GlobalAvgPool, MaxPool2d
from minibng.params import layer_of

IMAGENET = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Depth → blocks a stage (the paper's table 1); from 50 on they are bottlenecks."""

EXPANSION = 4
"""Channels that a bottleneck gives for each of its narrow ones."""


@primitive(lambda g, y, x, stride, channels: _spread(g, stride, shape_of(x)))
def _subsample(x: Array, stride: int, channels: int) -> Array:
    """Return every stride-th pixel of x (N, H, W, C), with zeros behind its channels, as many as are lacking."""
    n, h, w, c = x.shape
    y = backend_of(x).xp.zeros((n, -(-h // stride), -(-w // stride), channels), dtype=x.dtype)
    y[..., :c] = x[:, ::stride, ::stride]
    return y


@primitive(lambda g, y, x, stride, shape: _subsample(g, stride, shape_of(x)[3]))
def _spread(x: Array, stride: int, shape: tuple[int, ...]) -> Array:
    """Return the adjoint of `_subsample`: x's first channels where they came from, in zeros of a ``shape``."""
    y = backend_of(x).xp.zeros(shape, dtype=x.dtype)
    y[:, ::stride, ::stride] = x[..., : shape[3]]
    return y


class Identity(Layer):
    """The shortcut without parameters: (N, H, W, inputs) → (N, ⌈H/stride⌉, ⌈W/stride⌉, outputs) (option A).

    Every stride-th pixel is taken, and the channels that are lacking are zeros behind the others.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        if inputs > outputs:
            raise ValueError(f"an identity shortcut can add channels, not take them away: {inputs} → {outputs}")
        self.inputs, self.outputs, self.stride = inputs, outputs, stride

    def __call__(self, p: ParamsLike, x: Array, *, train: bool = False) -> Array:
        """Return every stride-th pixel, with zeros behind its channels."""
        return _subsample(x, self.stride, self.outputs)

    def __repr__(self) -> str:
        return f"Identity({self.inputs}, {self.outputs}, stride={self.stride})"


def _projection(inputs: int, outputs: int, stride: int) -> Layer:
    """Return the shortcut with parameters: a 1×1 convolution and its batch norm (option B)."""
    return Sequential(conv=Conv2d(inputs, outputs, 1, stride, bias=False), norm=BatchNorm(outputs))


class Block(Composite):
    """y = relu(body(x) + shortcut(x)): (N, H, W, C) → (N, ⌈H/stride⌉, ⌈W/stride⌉, outputs).

    The body is conv1, norm1, relu, conv2, norm2: two 3×3 convolutions, the first with the stride. A bottleneck has
    three, 1×1, 3×3 (with the stride, as PyTorch's) and 1×1, of which the first two have a quarter of the outputs. The
    last batch norm adds the shortcut and takes relu as one operation.

    Parameters
    ----------
    inputs, outputs
        Channels.
    stride
        Of the block.
    bottleneck
        Whether it is one; ``outputs`` is then a multiple of 4.
    shortcut
        "identity" or "projection", where the shapes differ; where they are equal it is x.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int = 1, *, bottleneck: bool = False, shortcut: str = "projection"
    ) -> None:
        self.inputs, self.outputs, self.stride = inputs, outputs, stride
        narrow, rest = divmod(outputs, EXPANSION)
        if bottleneck and rest:
            raise ValueError(f"a bottleneck has a multiple of {EXPANSION} outputs, got {outputs}")
        basic = [(outputs, 3, stride), (outputs, 3, 1)]
        body = [(narrow, 1, 1), (narrow, 3, stride), (outputs, 1, 1)] if bottleneck else basic
        self.count = len(body)
        self.layers, last = {}, inputs
        for i, (width, kernel, step) in enumerate(body, 1):
            self.layers[f"conv{i}"] = Conv2d(last, width, kernel, step, bias=False)
            self.layers[f"norm{i}"] = BatchNorm(width, activation="relu")
            last = width
        make: Any = choose({"identity": Identity, "projection": _projection}, shortcut, "shortcut")
        if (stride, inputs) != (1, outputs):
            self.layers["shortcut"] = make(inputs, outputs, stride)

    def __call__(self, p: ParamsLike, x: Array, *, train: bool = False) -> Array:
        """Return relu(body(x) + shortcut(x))."""
        try:
            skip = apply(self.layers["shortcut"], p.scope("shortcut"), x, train) if "shortcut" in self.layers else x
            for i in range(1, self.count + 1):
                x = self.layers[f"conv{i}"](p.scope(f"conv{i}"), x)
                added = skip if i == self.count else None
                x = self.layers[f"norm{i}"](p.scope(f"norm{i}"), x, skip=added, train=train)
        except AttributeError:
            check_order(p)
            raise
        return x

    def __repr__(self) -> str:
        told = [f"{self.inputs}, {self.outputs}"] + [f"stride={self.stride}"] * (self.stride != 1)
        told += ["bottleneck=True"] * (self.count == 3)
        told += ["shortcut='identity'"] * isinstance(self.layers.get("shortcut"), Identity)
        return f"Block({', '.join(told)})"


class ResNet(Sequential):
    """A residual network; `resnet` makes it."""

    @property
    def pairs(self) -> dict[str, str]:
        """Batch norm → the convolution in front of it, as layers are named: {"stem.norm": "stem.conv", …}."""
        layers = dict.fromkeys(layer_of(name) for name in self.tensors())
        return {name: name.replace("norm", "conv") for name in layers if "norm" in name}


def resnet(
    depth: int,
    classes: int = 10,
    width: int | None = None,
    *,
    channels: int = 3,
    style: str = "auto",
    shortcut: str = "auto",
) -> ResNet:
    """Return a residual network: images (N, H, W, channels) → logits (N, classes).

    There are two families. The one for CIFAR has 6n + 2 layers: a 3×3 convolution, three stages of n blocks with
    width, 2·width and 4·width channels, and a linear layer. The one for ImageNet has 18, 34, 50, 101 or 152: a 7×7
    convolution of stride 2, max pooling of stride 2, four stages of width, … 8·width channels (four times as many
    from depth 50 on, where blocks are bottlenecks), and a linear layer. In both each stage but the first halves the
    image, the linear layer sees the mean over all pixels, and every convolution is followed by a batch norm and has
    no bias.

    Its tensors are called "stem.conv.W", "stem.norm.gamma", "stem.norm.beta", "stage1.0.conv1.W",
    "stage1.0.norm1.gamma", …, "stage2.0.shortcut.conv.W", …, "head.W", "head.b". The batch norm behind a convolution
    is called as that is, with "norm" for "conv"; `ResNet.pairs` lists them.

    Convolutions are drawn with variance 2/fan_in, as everywhere here. In front of a batch norm the size of W does not
    change the function; under this choice a weight of K filters has ‖W‖² ≈ 2K, whatever its kernel and inputs.

    Parameters
    ----------
    depth
        Layers with weights, shortcuts not counted.
    classes, channels
        Of the output, and of the images.
    width
        Channels of the first stage; default 16 for CIFAR and 64 for ImageNet, as in the paper.
    style
        "cifar", "imagenet", or "auto": "imagenet" for the five depths of that family. 50 = 6·8 + 2 is in both.
    shortcut
        Where a block changes the shape: "identity", each second pixel and zeros for new channels (the paper's option
        A, without parameters), "projection", a 1×1 convolution with a batch norm (B), or "auto", the paper's choice:
        "identity" for CIFAR, "projection" for ImageNet.

    Raises
    ------
    ValueError
        For a depth that the family does not have, and unknown names.

    Examples
    --------
    >>> model = resnet(20)
    >>> model.init().layout.size
    269722
    >>> model.pairs["stage1.0.norm1"]
    'stage1.0.conv1'
    """
    check_whole("resnet", depth, classes, channels)
    style = choose({"auto": _family(depth), "cifar": "cifar", "imagenet": "imagenet"}, style, "style")
    small = style == "cifar"
    counts = ((depth - 2) // 6,) * 3 if small else IMAGENET.get(depth, ())
    if not counts or counts[0] < 1 or (small and depth % 6 != 2):
        known = "6n + 2: 8, 14, 20, 26, 32, …" if small else ", ".join(map(str, IMAGENET))
        raise ValueError(f"a resnet of style {style!r} has a depth of {known}; got {depth}")
    own = {"identity": "identity", "projection": "projection", "auto": "identity" if small else "projection"}
    shortcut = choose(own, shortcut, "shortcut")
    width = (16 if small else 64) if width is None else width
    check_whole("resnet", width)
    bottleneck = not small and depth >= 50
    parts: dict[str, Any] = {"stem": _stem(channels, width, small)}
    if not small:
        parts["pool"] = MaxPool2d(3, 2, padding=1)
    inputs = width
    for i, count in enumerate(counts):
        outputs = width * 2**i * (EXPANSION if bottleneck else 1)
        blocks = []
        for k in range(count):
            stride = 2 if i and not k else 1
            blocks.append(Block(inputs, outputs, stride, bottleneck=bottleneck, shortcut=shortcut))
            inputs = outputs
        parts[f"stage{i + 1}"] = Sequential(*blocks)
    return ResNet(**parts, mean=GlobalAvgPool(), head=Linear(inputs, classes))


def _family(depth: int) -> str:
    """Return the family that a depth belongs to."""
    return "imagenet" if depth in IMAGENET else "cifar"


def _stem(channels: int, width: int, small: bool) -> Sequential:
    """Return the first convolution, with its batch norm."""
    conv = Conv2d(channels, width, 3, bias=False) if small else Conv2d(channels, width, 7, 2, bias=False)
    return Sequential(conv=conv, norm=BatchNorm(width, activation="relu"))
