"""Convolutions of images and of sequences: three operations that are each other's derivatives, and two layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from minibng.autodiff import ops, primitive
from minibng.autodiff.tracer import shape_of
from minibng.backend import Array, backend_of
from minibng.backend.convolution import Geometry
from minibng.names import choose
from minibng.nn.init import INITIALIZERS, zeros
from minibng.nn.layer import Layer, ParamsLike, called, check_array, check_input, check_whole
from minibng.params import Spec

Padding = Any
"""What a layer takes as padding: "same", "valid", a number, or a number for each axis."""


@primitive(
    lambda g, y, x, w, b, geometry: conv2d_input(g, w, geometry, shape_of(x)),
    lambda g, y, x, w, b, geometry: conv2d_weight(x, g, geometry, shape_of(w)),
    lambda g, y, x, w, b, geometry: ops.sum(ops.sum(g, axis=(0, 1)), axis=0),
)
def conv2d(x: Array, w: Array, b: Array | None, geometry: Geometry) -> Array:
    """Return the convolution of x (N, H, W, C) with w (kh, kw, C/groups, K), plus b (K,) or None: (N, oh, ow, K)."""
    return backend_of(x).convolve(x, w, b, geometry)


@primitive(
    lambda h, x, g, w, geometry, shape: conv2d(h, w, None, geometry),
    lambda h, x, g, w, geometry, shape: conv2d_weight(h, g, geometry, shape_of(w)),
)
def conv2d_input(g: Array, w: Array, geometry: Geometry, shape: tuple[int, ...]) -> Array:
    """Return the adjoint of `conv2d` in x: g (N, oh, ow, K) → (N, H, W, C), the given shape."""
    return backend_of(g).convolve_input(g, w, geometry, shape)


@primitive(
    lambda h, w, x, g, geometry, shape: conv2d_input(g, h, geometry, shape_of(x)),
    lambda h, w, x, g, geometry, shape: conv2d(x, h, None, geometry),
)
def conv2d_weight(x: Array, g: Array, geometry: Geometry, shape: tuple[int, ...]) -> Array:
    """Return the adjoint of `conv2d` in w: g (N, oh, ow, K) → (kh, kw, C/groups, K), the given shape."""
    return backend_of(x).convolve_weight(x, g, geometry, shape)


class Conv2d(Layer):
    """Convolution of images, (N, H, W, C) → (N, oh, ow, K).

    y[n, p, q, k] = Σ x[n, p·sh + i − top, q·sw + j − left, c] · W[i, j, c, k] + b[k], where x is zero outside the
    image, and the window is not turned around (LeCun et al., 1989, as written in every library since). With groups,
    run r of the K outputs sees run r of the C inputs alone (Krizhevsky et al., 2012).

    Parameters
    ----------
    inputs, outputs
        C and K.
    kernel
        k, or (kh, kw).
    stride
        s, or (sh, sw): pixels from one window to the next.
    padding
        Zeros around the image: "same", "valid" (none), a number, or one for each of the two axes; one may itself be
        a pair (before, after). "same" makes oh = ⌈H/sh⌉: (k−1)//2 zeros before and k//2 after, for an odd kernel
        (k−1)//2 on both sides, at every stride, as residual networks do; TensorFlow's zeros lie otherwise where the
        stride is more than 1.
    groups
        Divides C and K.
    bias
        Whether there is a b. Before a batch norm it does nothing: leave it out.
    init
        Of W: a name in `nn.init.INITIALIZERS` ("he" is the default) or a function (rng, shape) → array. The fan-in is
        kh·kw·C/groups. b starts at zero.

    Raises
    ------
    ValueError
        When called on what is not (N, H, W, C), or on images smaller than the window; the message names the layer.

    Examples
    --------
    >>> import numpy as np
    >>> layer = Conv2d(3, 8, kernel=5, stride=2)
    >>> layer(layer.init(), np.ones((10, 32, 32, 3), "float32")).shape
    (10, 16, 16, 8)
    """

    axes: ClassVar[tuple[str, ...]] = ("N", "H", "W", "C")

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, ...] = 3,
        stride: int | tuple[int, ...] = 1,
        padding: Padding = "same",
        groups: int = 1,
        bias: bool = True,
        init: str | Callable[..., Any] = "he",
    ) -> None:
        name, spatial = type(self).__name__, len(self.axes) - 2
        check_whole(name, inputs, outputs, groups)
        self.kernel, self.stride = _each(name, "kernel", kernel, spatial), _each(name, "stride", stride, spatial)
        if min(inputs, outputs, groups) < 1:
            raise ValueError(f"{name} needs at least one input, output and group, got {inputs}, {outputs} and {groups}")
        if inputs % groups or outputs % groups:
            raise ValueError(f"{name}: {groups} groups must divide the {inputs} inputs and the {outputs} outputs")
        self.inputs, self.outputs, self.bias, self.padding = inputs, outputs, bias, padding
        self.weight_init = init if callable(init) else choose(INITIALIZERS, init, "initializer")
        pads = _pads(name, padding, self.kernel)
        self.geometry = Geometry((1, *self.stride)[-2:], ((0, 0), *pads)[-2:], groups)  # type: ignore[arg-type]

    def tensors(self) -> Mapping[str, Spec]:
        """Return W (*kernel, C/groups, K) and b (K,)."""
        shape = (*self.kernel, self.inputs // self.geometry.groups, self.outputs)
        own = {"W": Spec(shape, self.weight_init)}
        return {**own, "b": Spec((self.outputs,), zeros)} if self.bias else own

    def __call__(self, p: ParamsLike, x: Array, *, train: bool = False) -> Array:
        """Return the convolution of the images x with W, plus b."""
        self.check(p, x)
        return conv2d(x, p["W"], p["b"] if self.bias else None, self.geometry)

    def check(self, p: ParamsLike, x: Array) -> None:
        """Refuse an input that does not fit, by the layer's name."""
        axes = f"({', '.join(self.axes)})"
        check_array(self, p, x, axes)
        told = self._misfit(tuple(x.shape))
        if told is not None:
            raise ValueError(f"{called(self, p)} takes {axes} with C = {self.inputs}, got shape {tuple(x.shape)}{told}")
        check_input(self, p, x, -1, self.inputs, axes, like="W")

    def _misfit(self, shape: tuple[int, ...]) -> str | None:
        """Return what to do about a shape that does not fit, which may be nothing to say; None if it does."""
        if len(shape) != len(self.axes):
            if len(shape) == 2 and len(self.axes) == 4:
                return "; rows of pixels become images by split.as_images(), or by x.reshape(-1, H, W, C)"
            one = len(shape) == len(self.axes) - 1
            return f"; one sample alone is a batch, x[np.newaxis]{'; gray images have C = 1' * (len(shape) == 3)}" * one
        if shape[-1] != self.inputs:
            return "; the channels come last: np.moveaxis(x, 1, -1)" if shape[1] == self.inputs else ""
        pads = self.geometry.pads[-len(self.kernel) :]
        small = any(n + sum(pad) < k for n, pad, k in zip(shape[1:-1], pads, self.kernel, strict=True))
        return f", smaller than its window of {'×'.join(map(str, self.kernel))}" if small else None

    def __repr__(self) -> str:
        def brief(sizes: tuple[int, ...]) -> Any:
            return sizes[0] if len(set(sizes)) == 1 else sizes

        told = {"kernel": brief(self.kernel), "stride": brief(self.stride), "padding": self.padding}
        told |= {"groups": self.geometry.groups, "bias": self.bias}
        usual = {"stride": 1, "padding": "same", "groups": 1, "bias": True}
        settings = [f"{k}={v!r}" for k, v in told.items() if k not in usual or v != usual[k]]
        return f"{type(self).__name__}({', '.join([str(self.inputs), str(self.outputs), *settings])})"


class Conv1d(Conv2d):
    """Convolution of sequences, (N, T, C) → (N, ot, K): y[n, t, k] = Σ x[n, t·s + i − before, c] · W[i, c, k] + b[k].

    As `Conv2d` with one axis less: W is (k, C/groups, K), ``kernel``, ``stride`` and ``padding`` are numbers, and
    padding may be a pair (before, after). A sum over c of vectors of embedded words makes it the text convolution of
    Kim (2014).

    Examples
    --------
    >>> import numpy as np
    >>> layer = Conv1d(128, 100, kernel=3, padding="valid")
    >>> layer(layer.init(), np.ones((20, 50, 128), "float32")).shape
    (20, 48, 100)
    """

    axes = ("N", "T", "C")

    def __call__(self, p: ParamsLike, x: Array, *, train: bool = False) -> Array:
        """Return the convolution of the sequences x with W, plus b."""
        self.check(p, x)
        w = ops.expand_dims(p["W"], 0)
        y = conv2d(ops.expand_dims(x, 1), w, p["b"] if self.bias else None, self.geometry)
        return ops.squeeze(y, axis=1)


def _each(layer: str, what: str, sizes: Any, axes: int) -> tuple[int, ...]:
    """Return a size of each axis: the same for all, if one number is given."""
    told = tuple(sizes) if isinstance(sizes, (tuple, list)) else (sizes,) * axes
    check_whole(layer, *told)
    if len(told) != axes or min(told) < 1:
        raise ValueError(f"{layer}: {what} is a positive number{', or one for each of two axes' * (axes > 1)}: {sizes}")
    return tuple(int(n) for n in told)


def _pads(layer: str, padding: Padding, kernel: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Return the zeros (before, after) of each axis."""
    if isinstance(padding, str):
        choose({"same": 0, "valid": 0}, padding, "padding")
        return tuple(((k - 1) // 2, k // 2) if padding == "same" else (0, 0) for k in kernel)
    each = tuple(padding) if isinstance(padding, (tuple, list)) else (padding,) * len(kernel)
    if len(kernel) == 1 and len(each) == 2:
        each = (each,)
    pairs = [tuple(p) if isinstance(p, (tuple, list)) else (p, p) for p in each]
    if len(pairs) != len(kernel) or any(len(p) != 2 for p in pairs):
        raise ValueError(f"{layer}: padding is 'same', 'valid', a number, or one for each axis, got {padding!r}")
    check_whole(layer, *[n for p in pairs for n in p])
    if min(n for p in pairs for n in p) < 0:
        raise ValueError(f"{layer}: padding cannot be negative, got {padding!r}")
    return tuple((int(a), int(b)) for a, b in pairs)
