"""Parameters as the theory sees them: one vector x = (x^1, …, x^B), cut into blocks.

A `Layout` owns names, shapes, offsets and the partition into blocks; a `Params` is a vector with a layout. Layers see
the vector through views, one a tensor, and differentiation is with respect to those views.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeAlias

import numpy as np

from minibng.backend import Array, Group, HostArray, asarray, backend_of, is_array
from minibng.names import choose


class Spec(NamedTuple):
    """A tensor that a layer asks for: its shape, and ``init(rng, shape)`` → its first values on the host.

    ``unit_axis`` is the axis that counts the layer's units: −1, the outputs, or 0, the rows of a table.
    """

    shape: tuple[int, ...]
    init: Callable[[np.random.Generator, tuple[int, ...]], HostArray]
    unit_axis: int = -1


def layer_of(name: str) -> str:
    """Return the layer that a tensor belongs to: its name up to the last dot; without a dot, ".".

    Examples
    --------
    >>> layer_of("3.conv.W"), layer_of("W")
    ('3.conv', '.')
    """
    return name.rpartition(".")[0] or "."


Partition: TypeAlias = str | Callable[[str], str] | Mapping[str, str] | re.Pattern[str]
"""How tensors are cut into blocks: a name of `PARTITIONS`, or which tensors go together (see `partition`)."""

PARTITIONS = ("layer", "tensor", "unit", "coordinate", "global")
"""All tensors of a layer together, as in the paper; each tensor; each neuron, filter or table row; each entry; all."""


def partition(
    shapes: Mapping[str, tuple[int, ...]],
    blocks: Partition,
    *,
    layer: Callable[[str], str] = layer_of,
    unit_axes: Mapping[str, int] | None = None,
) -> tuple[Group, ...]:
    """Group tensors into blocks, in the order in which the blocks first appear.

    Parameters
    ----------
    shapes
        Tensor name → shape.
    blocks
        A name of `PARTITIONS`; a function from a tensor's name to its block's; a mapping from names, or patterns such
        as ``"*.W"``, to block names, of which the first that fits holds; or a compiled regular expression: tensors in
        which it finds the same text (its first group, if it has groups) form a block.
    layer
        A tensor's layer, from its name.
    unit_axes
        Tensor name → the axis that counts its units, where that is not the last.

    Raises
    ------
    UnknownNameError
        For a partition that does not exist, with the nearest one.
    ValueError
        Where a mapping or an expression leaves a tensor out.
    TypeError
        For anything else.

    Examples
    --------
    >>> shapes = {"0.W": (2, 3), "0.b": (3,), "2.W": (3, 1)}
    >>> [group.label for group in partition(shapes, "layer")]
    ['0', '2']
    >>> [group.label for group in partition(shapes, "unit")]
    ['0[0…2]', '2']
    >>> [group.label for group in partition(shapes, {"*.b": "biases", "*": "weights"})]
    ['weights', 'biases']
    """
    names = list(shapes)
    sizes = list(shapes.values())
    if blocks == "unit":
        return _units(shapes, layer, unit_axes or {})
    if blocks == "coordinate":
        return tuple(Group(name, (i,), ((1, math.prod(sizes[i]), 1),)) for i, name in enumerate(names))
    groups: dict[str, list[int]] = {}
    for i, (name, block) in enumerate(zip(names, _block_names(names, blocks, layer), strict=True)):
        if not isinstance(block, str):
            raise TypeError(f"blocks are named by strings; tensor {name!r} was given {block!r}")
        groups.setdefault(block, []).append(i)
    return tuple(Group.whole(name, members, sizes) for name, members in groups.items())


def _block_names(names: Sequence[str], blocks: Any, layer: Callable[[str], str]) -> list[str]:
    """Return the block of each tensor, for partitions into whole tensors."""
    if isinstance(blocks, str):
        choose(dict.fromkeys(PARTITIONS), blocks, "partition")
        return {"layer": [layer(n) for n in names], "tensor": list(names), "global": ["all"] * len(names)}[blocks]
    if isinstance(blocks, Mapping):
        return match_patterns(blocks, names, "blocks")
    if isinstance(blocks, re.Pattern):
        found = {n: blocks.search(n) for n in names}
        texts = {n: m[1 if blocks.groups else 0] for n, m in found.items() if m is not None}
        if left := [n for n in names if texts.get(n) is None]:
            raise ValueError(f"the expression {blocks.pattern!r} finds nothing in {', '.join(left)}: no block for them")
        return list(texts.values())
    if callable(blocks):
        return [blocks(n) for n in names]
    known = f"{', '.join(PARTITIONS)}, a function, a mapping or a compiled regular expression"
    raise TypeError(f"blocks are {known}, got {blocks!r}")


def match_patterns(table: Mapping[str, Any], names: Sequence[str], what: str, default: Any = None) -> list[Any]:
    """Return for each name the value of the first pattern that fits it (``*`` stands for any text, ``?`` for a letter).

    Raises
    ------
    ValueError
        For a pattern that fits no name, and, where there is no default, a name that no pattern fits.
    """
    first = [next((pattern for pattern in table if fnmatchcase(name, pattern)), None) for name in names]
    for name, pattern in zip(names, first, strict=True):
        if pattern is None and default is None:
            raise ValueError(f"{what}: no pattern fits {name!r}; add '*' for the rest")
    for pattern in table:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"{what}: the pattern {pattern!r} fits none of {', '.join(names)}")
    return [default if pattern is None else table[pattern] for pattern in first]


def _units(
    shapes: Mapping[str, tuple[int, ...]], layer: Callable[[str], str], unit_axes: Mapping[str, int]
) -> tuple[Group, ...]:
    """Cut each layer into the entries that share an index of the unit axis: a neuron's weights with its bias.

    Tensors of a layer with different numbers of units are cut each by its own.
    """
    groups: dict[tuple[str, int], list[tuple[int, tuple[int, int, int]]]] = {}
    for i, (name, shape) in enumerate(shapes.items()):
        axis = unit_axes.get(name, -1)
        if axis not in (0, -1):
            raise ValueError(f"units are counted along the first axis, 0, or the last, -1; {name!r} has {axis}")
        n = shape[axis] if shape else 1
        rest = math.prod(shape[:-1] if axis else shape[1:])
        groups.setdefault((layer(name), n), []).append((i, (rest, n, 1) if axis else (1, n, rest)))
    names, several = list(shapes), Counter(key for key, _ in groups)
    made = []
    for (key, _), members in groups.items():
        name = key if several[key] == 1 else " + ".join(names[i] for i, _ in members)
        made.append(Group(name, tuple(i for i, _ in members), tuple(cut for _, cut in members)))
    return tuple(made)


class BlockNames(Sequence[str]):
    """The names of all blocks of some groups, made when asked for: there may be as many as numbers."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self._groups = groups
        self._ends = list(accumulate(group.count for group in groups))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        k = range(len(self))[i]
        g = bisect_right(self._ends, k)
        group = self._groups[g]
        return group.name if group.count == 1 else f"{group.name}[{k - self._ends[g] + group.count}]"

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    def __repr__(self) -> str:
        return f"({', '.join(group.label for group in self._groups)})"


class Layout:
    """Where each tensor lies in the vector, and which block it belongs to.

    Parameters
    ----------
    shapes
        Tensor name → shape, in the order of the vector.
    blocks
        The partition: "layer" (default), "tensor", "unit", "coordinate", "global", or one of your own (`partition`).
    unit_axes
        Tensor name → the axis that counts its units, where that is not the last.

    Attributes
    ----------
    groups
        The blocks, those that are cut alike together.

    Examples
    --------
    >>> Layout({"0.W": (2, 3), "0.b": (3,), "1.W": (3, 1)})
    block  tensor  shape   size
    0      0.W     (2, 3)     6
           0.b     (3,)       3
    1      1.W     (3, 1)     3
    2 blocks, 3 tensors, 12 numbers
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        blocks: Partition = "layer",
        unit_axes: Mapping[str, int] | None = None,
    ) -> None:
        self.names = tuple(shapes)
        self.shapes = tuple(tuple(s) for s in shapes.values())
        self.sizes = tuple(math.prod(s) for s in self.shapes)
        self.offsets = tuple(int(n) for n in np.cumsum([0, *self.sizes])[:-1])
        self.size = sum(self.sizes)
        self.unit_axes = dict(unit_axes or {})
        self.groups = partition(dict(zip(self.names, self.shapes, strict=True)), blocks, unit_axes=self.unit_axes)

    @property
    def block_names(self) -> BlockNames:
        """The names of the B blocks, in their order."""
        return BlockNames(self.groups)

    def with_blocks(self, blocks: Partition) -> Layout:
        """Return a layout of the same tensors under another partition."""
        return Layout(dict(zip(self.names, self.shapes, strict=True)), blocks, self.unit_axes)

    def views(self, flat: Array) -> dict[str, Array]:
        """Return one view of ``flat`` (P,) a tensor; nothing is copied."""
        parts = zip(self.names, self.offsets, self.sizes, self.shapes, strict=True)
        return {name: flat[o : o + n].reshape(shape) for name, o, n, shape in parts}

    def ranges(self, group: Group) -> list[tuple[int, int]]:
        """Return the stretches [start, stop) of the vector that a group covers; neighbours are joined."""
        found: list[tuple[int, int]] = []
        for i in group.tensors:
            start, stop = self.offsets[i], self.offsets[i] + self.sizes[i]
            if found and found[-1][1] == start:
                found[-1] = (found[-1][0], stop)
            else:
                found.append((start, stop))
        return found

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Layout):
            return NotImplemented
        return (self.names, self.shapes, self.groups) == (other.names, other.shapes, other.groups)

    def __hash__(self) -> int:
        return hash((self.names, self.shapes, self.groups))

    def difference(self, other: Layout) -> str | None:
        """Say in words where the tensors of another layout differ from this one's; None where they agree."""
        for i, (mine, theirs) in enumerate(zip(self.names, other.names, strict=False)):
            if mine != theirs:
                return f"tensor {i} is {mine!r} in one and {theirs!r} in the other"
            if self.shapes[i] != other.shapes[i]:
                return f"{mine!r} has shape {self.shapes[i]} in one and {other.shapes[i]} in the other"
        if len(self.names) != len(other.names):
            return f"one has {len(self.names)} tensors and the other {len(other.names)}"
        return None

    def __repr__(self) -> str:
        rows = [("block", "tensor", "shape", "size")]
        for group in self.groups:
            for k, i in enumerate(group.tensors):
                rows.append(("" if k else group.label, self.names[i], str(self.shapes[i]), f"{self.sizes[i]:,}"))
        w = [max(len(r[c]) for r in rows) for c in range(4)]
        lines = [f"{a:<{w[0]}}  {b:<{w[1]}}  {c:<{w[2]}}  {d:>{w[3]}}" for a, b, c, d in rows]
        total = f"{_count(len(self.block_names), 'block')}, {_count(len(self.names), 'tensor')}, {self.size:,} numbers"
        return "\n".join([*lines, total])


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + "s" * (n != 1)


class Params:
    """The parameters of a model: one contiguous vector, the layout that cuts it, and the model's buffers.

    ``params["0.W"]`` is a view of ``params.flat``: writing into one is seen in the other. Buffers (running statistics,
    dropout's counter) lie outside the vector and outside every block; gradients have none.

    Parameters
    ----------
    layout
        Names, shapes and blocks.
    flat
        The vector (P,), C-contiguous, floating; optimizers step float32 and float64.
    buffers
        Name → array or number.

    Raises
    ------
    ValueError
        Where the vector does not fit the layout.
    TypeError
        Where it is not of a floating dtype.

    Examples
    --------
    >>> p = Params.of({"0.W": np.ones((2, 1)), "0.b": np.zeros(1)})
    >>> p["0.W"] *= 3
    >>> p.flat
    array([3., 3., 0.])
    """

    def __init__(self, layout: Layout, flat: Array, buffers: Mapping[str, Any] | None = None) -> None:
        if flat.shape != (layout.size,):
            raise ValueError(f"the layout holds {layout.size} numbers, the vector has shape {flat.shape}")
        if flat.dtype.kind != "f":
            raise TypeError(f"parameters are floating-point numbers, got {flat.dtype}")
        if not flat.flags.c_contiguous:
            raise ValueError("the vector of parameters must be contiguous in memory: pass np.ascontiguousarray(flat)")
        self.layout = layout
        self.buffers: dict[str, Any] = dict(buffers or {})
        self._flat: Array | None = flat
        self._tensors = layout.views(flat)

    @classmethod
    def of(cls, tensors: Mapping[str, Array], blocks: Partition = "layer") -> Params:
        """Copy arrays of one dtype and device into a new Params.

        Raises
        ------
        TypeError
            Where dtypes or devices differ; the message names both tensors.
        """
        arrays = {name: t if is_array(t) else np.asarray(t) for name, t in tensors.items()}
        first, dtype = next(((name, t.dtype) for name, t in arrays.items()), ("", np.dtype("float64")))
        backend = backend_of(*list(arrays.values())[:1])
        for name, t in arrays.items():
            if t.dtype != dtype:
                raise TypeError(f"one vector has one dtype: {first!r} is {dtype}, {name!r} is {t.dtype}; use .astype")
            if (there := backend_of(t)) is not backend:
                told = f"{first!r} is on {backend.device!r}, {name!r} on {there.device!r}; use bng.asarray"
                raise TypeError(f"one vector is on one device: {told}")
        layout = Layout({name: t.shape for name, t in arrays.items()}, blocks)
        flat = backend.xp.empty(layout.size, dtype=dtype)
        made = cls(layout, flat)
        made._fill(arrays.values())
        return made

    def _fill(self, arrays: Iterable[Array]) -> None:
        for view, a in zip(self._tensors.values(), arrays, strict=True):
            view[...] = a

    # The vector and its parts

    @property
    def flat(self) -> Array:
        """The whole vector x, (P,); inside a trace a traced concatenation, made on demand."""
        if self._flat is None:
            return np.concatenate([np.reshape(t, -1) for t in self._tensors.values()])
        return self._flat

    @flat.setter
    def flat(self, value: Array) -> None:
        """Write into the vector in place, which is what ``total.flat += grad.flat`` does."""
        if self._flat is None:
            raise TypeError("params.flat cannot be written to while it is being differentiated")
        if value is not self._flat:
            _check_value("flat", value, self._flat)
            self._flat[...] = value

    @property
    def dtype(self) -> Any:
        """Data type of the vector."""
        return next(iter(self._tensors.values())).dtype if self._flat is None else self._flat.dtype

    def __getitem__(self, name: str) -> Array:
        return self._tensors[name] if name in self._tensors else choose(self._tensors, name, "tensor")

    def __setitem__(self, name: str, value: Array) -> None:
        """Write into a tensor in place, so that the vector and every view of it see the change."""
        if self._flat is None:
            raise TypeError(f"params[{name!r}] cannot be written to while it is being differentiated")
        _check_value(name, value, self[name])
        self[name][...] = value

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def items(self) -> Iterable[tuple[str, Array]]:
        """Return (name, view) pairs in the order of the vector."""
        return self._tensors.items()

    def blocks(self) -> Iterator[tuple[str, list[Array]]]:
        """Yield (name, views) a block: one 1-D view where it is contiguous, else one a stretch; strided for units."""
        flat, names = self.flat, iter(self.layout.block_names)
        for group in self.layout.groups:
            if group.count == 1:
                yield next(names), [flat[a:b] for a, b in self.layout.ranges(group)]
                continue
            units = []
            for i, (before, n, after) in zip(group.tensors, group.cuts, strict=True):
                whole = flat[self.layout.offsets[i] :][: self.layout.sizes[i]]
                units.append(whole.reshape((n, after)) if before == 1 else whole.reshape((before, n)).T)
            for j in range(group.count):
                yield next(names), [unit[j] for unit in units]

    def scope(self, prefix: str) -> Scope:
        """Return what one layer sees: its own tensors and buffers, by their short names."""
        return Scope(self, prefix + ".")

    def __repr__(self) -> str:
        return repr(self.layout)

    # What it is not

    def _no_array(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(_NO_ARRAY)

    __array__ = __array_ufunc__ = __neg__ = __pow__ = __matmul__ = __rmatmul__ = _no_array
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _no_array

    if not TYPE_CHECKING:  # a type checker is to find a name that does not exist

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(f"no attribute {name!r}: {_NO_ARRAY}", name=name, obj=self)

    # What autodiff knows of a container

    def __leaves__(self) -> list[Array]:
        return list(self._tensors.values())

    def __rebuild__(self, leaves: Sequence[Any]) -> Params:
        """Return a Params on this layout: of arrays, in a vector of its own; of traced tensors, for one trace."""
        new = object.__new__(Params)
        new.layout = self.layout
        if all(is_array(leaf) for leaf in leaves):
            backend = backend_of(*leaves)
            new.buffers = {}
            new._flat = backend.xp.empty(self.layout.size, dtype=leaves[0].dtype if leaves else self.dtype)
            new._tensors = self.layout.views(new._flat)
            new._fill(leaves)
        else:
            new.buffers = self.buffers  # a layer called with train=True writes into the model's own
            new._flat = None
            new._tensors = dict(zip(self.layout.names, leaves, strict=True))
        return new

    # Copies, devices, files

    def copy(self) -> Params:
        """Return an independent copy, buffers included: the same dropout masks come again from it."""
        if self._flat is None:
            raise TypeError("copy the parameters before differentiating; inside a loss they need no copy")
        buffers = {k: v.copy() if is_array(v) else v for k, v in self.buffers.items()}
        return Params(self.layout, self.flat.copy(), buffers)

    def __deepcopy__(self, memo: Any) -> Params:
        return self.copy()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle layout, vector and buffers; the views are cut anew, so that they are views again."""
        return Params, (self.layout, self.flat, self.buffers)

    def to(self, device: str) -> Params:
        """Return a copy on another device; make the optimizer after moving."""
        new = self.copy()
        buffers = {k: asarray(v, device=device) if is_array(v) else v for k, v in new.buffers.items()}
        return Params(self.layout, asarray(new.flat, device=device), buffers)

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and buffers by name, as NumPy copies: ``{"tensors": …, "buffers": …}``."""
        host = backend_of(self.flat).to_host
        return {
            "tensors": {k: np.array(host(v)) for k, v in self.items()},
            "buffers": {k: np.array(host(v)) if is_array(v) else v for k, v in self.buffers.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy a state dict into these parameters; nothing changes unless all of it fits.

        Raises
        ------
        ValueError
            Where names, shapes or dtypes differ.
        """
        if missing := [key for key in ("tensors", "buffers") if key not in state]:
            raise ValueError(f"the saved parameters are not whole: they lack {' and '.join(missing)}; {_STATE}")
        if (lost := set(self.layout.names) ^ set(state["tensors"])) != set():
            raise ValueError(f"the saved parameters do not fit: {sorted(lost)} are not in both")
        tensors = {name: state["tensors"][name] for name in self.layout.names}
        if (wrong := self.layout.difference(Layout({k: v.shape for k, v in tensors.items()}))) is not None:
            raise ValueError(f"the saved parameters do not fit: {wrong}")
        if set(state["buffers"]) != set(self.buffers):
            raise ValueError(f"the saved buffers are {sorted(state['buffers'])}, these {sorted(self.buffers)}")
        for name, value in state["buffers"].items():
            if is_array(value) != is_array(self.buffers[name]) or np.shape(value) != np.shape(self.buffers[name]):
                raise ValueError(
                    f"the saved buffer {name!r} has shape {np.shape(value)}, here {np.shape(self.buffers[name])}"
                )
            if is_array(value) and value.dtype != self.buffers[name].dtype:
                raise ValueError(f"the saved buffer {name!r} is {value.dtype}, here {self.buffers[name].dtype}")
        for name, value in tensors.items():
            if value.dtype != self.dtype:
                raise ValueError(f"{name!r} was saved as {value.dtype}, these parameters are {self.dtype}")
        backend = backend_of(self.flat)
        self._fill(backend.asarray(v) for v in tensors.values())
        self.buffers.update({k: backend.asarray(v.copy()) if is_array(v) else v for k, v in state["buffers"].items()})


_NO_ARRAY = "a Params is no array: use p.flat, its vector, as in p.flat -= 0.1 * grad.flat, or a tensor, p['0.W']"
_STATE = 'pass {"tensors": {name: array, …}, "buffers": {}}, as state_dict() gives it'


def _check_value(name: str, value: Any, view: Array) -> None:
    """Refuse to broadcast anything but a number into a tensor, and to move arrays from device to device."""
    if np.shape(value) not in ((), view.shape):
        raise ValueError(f"{name} has shape {view.shape}, the value written to it {np.shape(value)}")
    if np.ndim(value) and (there := backend_of(value).device) != (here := backend_of(view).device):
        raise TypeError(f"{name} is on {here!r}, the value written to it on {there!r}: use bng.asarray")


class Scope:
    """One layer's view of the parameters: ``p["W"]`` is the model's ``params["3.W"]``; `buffers` likewise."""

    __slots__ = ("_params", "buffers", "prefix")

    def __init__(self, params: Params, prefix: str) -> None:
        self._params, self.prefix = params, prefix
        self.buffers = _ScopedBuffers(params.buffers, prefix)

    def __getitem__(self, name: str) -> Array:
        return self._params[self.prefix + name]

    def scope(self, prefix: str) -> Scope:
        """Return what a layer inside this one sees."""
        return Scope(self._params, f"{self.prefix}{prefix}.")


class _ScopedBuffers(MutableMapping[str, Any]):
    """The buffers under one prefix, by their short names; writes go to the model's."""

    __slots__ = ("_all", "_prefix")

    def __init__(self, every: dict[str, Any], prefix: str) -> None:
        self._all, self._prefix = every, prefix

    def __getitem__(self, name: str) -> Any:
        return self._all[self._prefix + name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._all[self._prefix + name] = value

    def __delitem__(self, name: str) -> None:
        raise TypeError("a layer's buffers are made by init and cannot be removed")

    def __iter__(self) -> Iterator[str]:
        return (name.removeprefix(self._prefix) for name in self._all if name.startswith(self._prefix))

    def __len__(self) -> int:
        return sum(1 for _ in self)
