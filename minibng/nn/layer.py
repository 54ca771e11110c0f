"""What a layer is, and what every layer of ours can do: make its parameters and describe itself.

A layer is an immutable description: any object with ``tensors()`` → {name: Spec}, optional ``buffers()`` →
{name: init(rng)}, and ``__call__(p, x, *, train=False)``, where ``p["W"]`` and ``p.buffers`` are its own. A plain
function of x is a layer without tensors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np

from minibng.autodiff import raw
from minibng.backend import Array, backend_of, get_backend, is_array
from minibng.params import Layout, Params, Partition, Scope, Spec

ParamsLike: TypeAlias = Params | Scope
BufferInit: TypeAlias = Callable[[np.random.Generator], Any]


def tensors_of(layer: Any) -> Mapping[str, Spec]:
    """Return the tensors that a layer asks for; a plain function asks for none."""
    return layer.tensors() if hasattr(layer, "tensors") else {}


def buffers_of(layer: Any) -> Mapping[str, BufferInit]:
    """Return the buffers that a layer asks for."""
    return layer.buffers() if hasattr(layer, "buffers") else {}


def apply(layer: Any, p: ParamsLike, x: Array, train: bool) -> Array:
    """Call a layer, or a plain function of x."""
    has_parts = hasattr(layer, "tensors") or hasattr(layer, "buffers")
    return layer(p, x, train=train) if has_parts else layer(x)


def name_of(layer: Any) -> str:
    """Return how a layer is called in tables and messages."""
    return repr(layer) if isinstance(layer, Layer) else getattr(layer, "__name__", repr(layer))


def check_layer(layer: Any, where: str) -> None:
    """Refuse, when a container is made, a part that is no layer or still the class of one."""
    if isinstance(layer, type):
        raise TypeError(f"{where} is the class {layer.__name__}: make a layer of it, {layer.__name__}(…)")
    if not callable(layer):
        raise TypeError(f"{where} is a {type(layer).__name__}, which cannot be called")


def check_order(p: Any) -> None:
    """Refuse a first argument that holds no parameters; for calls that have failed."""
    if not hasattr(p, "scope"):
        raise TypeError(f"call model(params, x), in this order: params is a {type(p).__name__}, not a Params") from None


def check_whole(layer: str, *sizes: Any) -> None:
    """Refuse sizes that are no whole numbers."""
    if not all(isinstance(n, (int, np.integer)) for n in sizes):
        raise TypeError(f"{layer} takes whole numbers, got {' and '.join(map(repr, sizes))}")


class Layer(ABC):
    """Base of our layers; a layer of your own need not derive from it unless it wants `init` and `summary`."""

    def tensors(self) -> Mapping[str, Spec]:
        """Return {name: Spec(shape, init)}."""
        return {}

    def buffers(self) -> Mapping[str, BufferInit]:
        """Return {name: init(rng) → number or array}."""
        return {}

    @abstractmethod
    def __call__(self, p: ParamsLike, x: Array, *, train: bool = False) -> Array:
        """Return the layer's output for a batch x; with ``train`` dropout drops and running statistics move."""

    def steps(self) -> Mapping[str, Any]:
        """Return the layers that act one after another, by name: for `summary`, a line each, theirs in their place."""
        return {"": self}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def init(
        self,
        seed: int = 0,
        *,
        device: str = "cpu",
        dtype: str | np.dtype[Any] = "float32",
        blocks: Partition = "layer",
    ) -> Params:
        """Make the parameters x = (x^1, …, x^B), drawn on the host: the same on every device.

        Parameters
        ----------
        seed
            Of the generator that draws tensors and buffers in the order of the layout.
        device, dtype
            Where they live; "float32" or "float64".
        blocks
            The partition: "layer", "tensor", "unit", "coordinate", "global", or one of your own (`params.partition`).

        Raises
        ------
        TypeError
            For another dtype, and a tensor that is no `Spec`, by name.
        ValueError
            Where a tensor's first values have another shape, by name.

        Examples
        --------
        >>> from minibng import nn
        >>> nn.Linear(3, 2).init(seed=0)
        block  tensor  shape   size
        .      W       (3, 2)     6
               b       (2,)       2
        1 block, 2 tensors, 8 numbers
        """
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise TypeError(f"parameters are float32 or float64, got {dtype}")
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,)))
        specs = self.tensors()
        for name, spec in specs.items():
            if not isinstance(spec, Spec):
                raise TypeError(f"tensor {name!r} is told as a {type(spec).__name__}: tell it as nn.Spec(shape, init)")
        axes = {name: spec.unit_axis for name, spec in specs.items()}
        layout = Layout({name: spec.shape for name, spec in specs.items()}, blocks, axes)
        flat = np.empty(layout.size, dtype=dtype)
        for (name, view), spec in zip(layout.views(flat).items(), specs.values(), strict=True):
            values = spec.init(rng, spec.shape)
            if np.shape(values) not in ((), view.shape):
                raise ValueError(f"tensor {name!r} has shape {view.shape}, its init returned {np.shape(values)}")
            view[...] = values
        backend = get_backend(device)
        buffers = {name: make(rng) for name, make in self.buffers().items()}
        placed = {n: backend.asarray(v, dtype=dtype) if is_array(v) else v for n, v in buffers.items()}
        return Params(layout, backend.asarray(flat), placed)

    def summary(self, x: Any = None) -> str:
        """Return a table of the layers: what each is, its parameters and, for an input x, the shape of its output.

        A sequence inside a sequence is told by its own layers; whatever has branches is one line.

        Examples
        --------
        >>> from minibng import nn
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.relu, nn.Linear(3, 2))
        >>> print(model.summary(np.zeros((5, 4), dtype="float32")))
        name  layer         output  parameters
        0     Linear(4, 3)  (5, 3)          15
        1     relu          (5, 3)           0
        2     Linear(3, 2)  (5, 2)           8
        23 parameters in 2 blocks
        """
        params = self.init()
        rows = [("name", "layer", "output" if x is not None else "", "parameters")]
        for name, layer in _steps_of(self):
            count = sum(int(np.prod(s.shape)) for s in tensors_of(layer).values())
            shape = ""
            if x is not None:
                x = apply(layer, params.scope(name) if name else params, x, False)
                shape = str(raw(x).shape)
            rows.append((name, name_of(layer), shape, f"{count:,}"))
        w = [max(len(r[c]) for r in rows) for c in range(4)]
        cells = [[f"{a:<{w[0]}}", f"{b:<{w[1]}}", f"{c:<{w[2]}}", f"{d:>{w[3]}}"] for a, b, c, d in rows]
        table = ["  ".join(c for c, width in zip(row, w, strict=True) if width) for row in cells]
        blocks = len(params.layout.block_names)
        total = f"{params.layout.size:,} parameters in {blocks} block" + "s" * (blocks != 1)
        return "\n".join([*table, total])


def _steps_of(layer: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what acts one after another in a layer, and in those that it consists of, by name."""
    steps = layer.steps() if isinstance(layer, Layer) else {"": layer}
    for name, part in steps.items():
        if part is layer:
            yield prefix, part
        else:
            yield from _steps_of(part, f"{prefix}.{name}" if prefix else name)


def called(layer: Layer, p: ParamsLike) -> str:
    """Return how messages call a layer: in a model by its name too."""
    return f"layer {p.prefix[:-1]!r}, {layer!r}" if isinstance(p, Scope) else repr(layer)


def check_array(layer: Layer, p: ParamsLike, x: Array, axes: str, what: str = "the input") -> None:
    """Refuse an input that is no array."""
    if not hasattr(x, "shape"):
        check_order(p)
        raise TypeError(f"{called(layer, p)}: {what} is a {type(x).__name__}, not an array {axes}")


def check_input(
    layer: Layer, p: ParamsLike, x: Array, axis: int, size: int, axes: str, like: str, hint: str = ""
) -> None:
    """Refuse an input whose shape, dtype or device (those of the tensor ``like``) does not fit, and say what to do.

    ``hint`` is what to do about an input of more than two axes and another size.
    """
    check_array(layer, p, x, axes)
    given, own, shape = raw(x), raw(p[like]), tuple(x.shape)
    here, there = backend_of(given), backend_of(own)
    if shape and shape[axis] == size and given.dtype == own.dtype and here is there:
        return
    where = called(layer, p)
    if not shape or shape[axis] != size:
        told = hint if len(shape) > 2 else ""
        raise ValueError(f"{where} takes {axes} with {size} in axis {axis}, got shape {shape}{told}")
    if here is not there:
        told = f"the input is on {here.device!r}, the parameters are on {there.device!r}"
        raise TypeError(f"{where}: {told}: use bng.asarray(x, device={there.device!r})")
    dtype = own.dtype
    hint = "; a NumPy scalar such as np.sqrt(3) promotes: write math.sqrt(3)" if x.dtype == "float64" else ""
    if x.dtype == "uint8":
        hint = " / 255, or, of a data set that says how it is scaled, its scaled(x)"
    raise TypeError(f"{where}: the input is {x.dtype}, the parameters are {dtype}: use x.astype('{dtype}'){hint}")
