"""What an optimizer steps: tensors by name, and the blocks that they form."""

from __future__ import annotations

import operator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from minibng.backend import Array, Group, backend_of, is_array
from minibng.params import Layout, Params, partition


class Target(NamedTuple):
    """What is stepped: tensors by name, and the blocks that they form, those that are cut alike together."""

    names: tuple[str, ...]
    tensors: tuple[Array, ...]
    groups: tuple[Group, ...]
    layout: Layout | None


def target_of(params: Any, blocks: Any) -> Target:
    """Read what the user passed as parameters: a `Params`, or a list of arrays."""
    if isinstance(params, Params):
        if not is_array(params.flat):
            raise TypeError("these parameters are being differentiated; make the optimizer outside the loss")
        layout = params.layout if blocks is None else params.layout.with_blocks(blocks)
        target = Target(layout.names, tuple(params.__leaves__()), layout.groups, layout)
    elif isinstance(params, (list, tuple)):
        names = tuple(f"array {i}" for i in range(len(params)))
        shapes = {name: np.shape(a) for name, a in zip(names, params, strict=True)}
        target = Target(names, tuple(params), _array_groups(blocks, shapes), None)
    else:
        hint = "list(d.values())" if isinstance(params, dict) else "[x] for one array"
        raise TypeError(f"an optimizer steps a Params or a list of arrays, got {type(params).__name__}; write {hint}")
    _check_tensors(target)
    return target


_ARRAY_PARTITIONS = ("tensor", "unit", "coordinate", "global")


def _array_groups(blocks: Any, shapes: dict[str, tuple[int, ...]]) -> tuple[Group, ...]:
    """Return the partition of plain arrays: one block each, a partition's name, or lists of indices."""
    names, sizes = list(shapes), list(shapes.values())
    if blocks is None or isinstance(blocks, str):
        if blocks is not None and blocks not in _ARRAY_PARTITIONS:
            known = ", ".join(map(repr, _ARRAY_PARTITIONS))
            raise ValueError(f"blocks of plain arrays are {known} or lists of indices, got {blocks!r}")
        return partition(shapes, blocks or "tensor", layer=lambda name: name)
    try:
        members = [[operator.index(i) for i in block] for block in blocks]
    except TypeError:
        raise TypeError(f"blocks of plain arrays are lists of indices, such as [[0, 1], [2]], got {blocks!r}") from None
    if sorted(i for block in members for i in block) != list(range(len(names))) or not all(members):
        raise ValueError(f"blocks must name each of the {len(names)} arrays exactly once, got {members}")
    return tuple(Group.whole(" + ".join(names[i] for i in block), block, sizes) for block in members)


def _check_tensors(target: Target) -> None:
    """Refuse, by name, what cannot be stepped in place."""
    if not target.tensors:
        raise ValueError("there is nothing to optimize: the list of parameters is empty")
    first = target.tensors[0]
    for name, t in zip(target.names, target.tensors, strict=True):
        if not is_array(t) or not hasattr(t, "flags"):
            raise TypeError(f"{name} is a {type(t).__name__}, not an array")
        if backend_of(t) is not backend_of(first):
            here, there = backend_of(t).device, backend_of(first).device
            raise TypeError(f"{name} is on {here!r}, {target.names[0]} on {there!r}: parameters are on one device")
        if t.dtype == np.float16:
            raise TypeError(f"{name} is float16, too coarse to add small steps to: keep a float32 copy and step that")
        if t.dtype not in (np.float32, np.float64):
            raise TypeError(f"{name} is {t.dtype}; parameters are float32 or float64: use .astype")
        if t.dtype != first.dtype:
            raise TypeError(f"{name} is {t.dtype}, {target.names[0]} is {first.dtype}: parameters have one dtype")
        if not t.flags.c_contiguous:
            raise ValueError(f"{name} is not C-contiguous, so it cannot be stepped in place: pass np.ascontiguousarray")
        if not getattr(t.flags, "writeable", True):
            raise ValueError(f"{name} is read-only, so it cannot be stepped in place: pass a copy")
    if target.layout is None:
        _check_apart(target)


def _check_apart(target: Target) -> None:
    """Refuse plain arrays that share memory: it would be stepped twice."""
    address = backend_of(target.tensors[0]).address
    filled = [(address(t), t.nbytes, name) for t, name in zip(target.tensors, target.names, strict=True) if t.size]
    for (start, size, one), (following, _, other) in pairwise(sorted(filled)):
        if following < start + size:
            raise ValueError(f"{one} and {other} share memory: it would be stepped twice")


def owner(a: Array) -> Any:
    """Return the array whose memory a view shows."""
    base = getattr(a, "base", None)
    return a if base is None else base
