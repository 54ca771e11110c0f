"""CuPy on one NVIDIA GPU: the kernels of `cuda`, compiled when they are first needed, and launched without waiting."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minibng.backend import cuda
from minibng.backend.base import Array, Backend, BlockNorms, Group, HostArray, Stepper
from minibng.backend.guard import DeviceGuard
from minibng.backend.kernel import Formula, parse

MOST_BLOCKS = 1 << 16
"""Thread blocks of one `map`; longer arrays are gone through in strides."""

_NOTHING = np.uint64(0)
"""A null pointer."""


def copied(g):  # type: ignore[no-untyped-def]
    """Direction: u = g, a step that only scales."""
    u = g
    return u


class CupyBackend(Backend):
    """CuPy arrays on one GPU: device "cuda:0", "cuda:1" and so on.

    Arrays are made, and kernels run, on this GPU, which becomes the calling thread's current one, and on the current
    stream. Nothing here waits for the device but `to_host` and `synchronize`. ``launches`` counts the launches of our
    own kernels.

    Parameters
    ----------
    index
        Number of the GPU among those that CuPy sees.
    cupy
        The library, where it is not to be imported: for tests without a GPU.
    """

    def __init__(self, index: int = 0, cupy: Any = None) -> None:
        cupy = cupy or importlib.import_module("cupy")
        self.device = f"cuda:{index}"
        self.xp, self.array_type = cupy, cupy.ndarray
        self.launches = 0
        self._gpu = cupy.cuda.Device(index)
        self._module = functools.cache(self._compiled)
        self.table = functools.lru_cache(maxsize=1024)(self._table)
        self._norm_tables = functools.lru_cache(maxsize=64)(self._made_norm_tables)
        self._copiers = functools.lru_cache(maxsize=64)(self._made_copier)

    # Arrays

    def asarray(self, x: Any, dtype: Any = None) -> Array:
        """Return x on this GPU; the host's memory may be used again at once."""
        self._gpu.use()
        return self.xp.asarray(x, dtype=dtype)

    def to_host(self, x: Array) -> HostArray:
        """Return a copy of x on the host, which waits for it."""
        host: HostArray = x.get()
        return host

    def address(self, x: Array) -> int:
        """Return where the memory of x begins, in bytes."""
        start: int = x.data.ptr
        return start

    def synchronize(self) -> None:
        """Wait for everything that was asked of the GPU on the current stream."""
        self._gpu.use()
        self.xp.cuda.get_current_stream().synchronize()

    def empty(self, shape: tuple[int, ...] | int, dtype: Any) -> Array:
        """Return an array on this GPU with anything in it."""
        self._gpu.use()
        return self.xp.empty(shape, dtype=dtype)

    def _table(self, values: tuple[float, ...], dtype: str) -> Array:
        """Return numbers on the GPU. ``table`` remembers them by value: a table that stays the same goes up once."""
        return self.asarray(np.array(values, dtype))

    def packed(self, x: Array) -> Array:
        """Return x, or, where its entries are not in C order, a copy."""
        return x if x.flags.c_contiguous else self.xp.ascontiguousarray(x)

    def offsets(self, tensors: Sequence[Array]) -> tuple[Any, tuple[int, ...]]:
        """Return one of some arrays, and how many bytes each lies behind it."""
        filled = next((t for t in tensors if t.size), None)
        if filled is None:
            return _NOTHING, (0,) * len(tensors)
        start = filled.data.ptr
        return filled, tuple([t.data.ptr - start if t.size else 0 for t in tensors])

    # Kernels

    def _compiled(self, source: str) -> Any:
        """Return a source as a module of kernels.

        RawModule would add the option -ftz=true, and with it every subnormal float would be 0.
        """
        code, _ = self.xp.cuda.compiler.compile_using_nvrtc(source, cuda.OPTIONS)
        module = self.xp.cuda.function.Module()
        module.load(code)
        return module

    def launch(self, source: str, name: str, blocks: int, *arguments: Any) -> None:
        """Launch a kernel of a source; nobody waits for it."""
        if blocks:
            self._gpu.use()
            self._module(source).get_function(name)((blocks, 1, 1), (cuda.BLOCK, 1, 1), arguments)
            self.launches += 1

    def scatter_add(self, target: Array, index: Any, values: Array) -> None:
        """Add values into target[index] in place; entries named twice receive both.

        With one array of integers over the first axis, as of an embedding, values are added in their order: the same
        bits every time, and NumPy's. With any other index, where entries are named twice, the order is not fixed.
        Indices that are out of range wrap around, as everywhere on a GPU.
        """
        xp = self.xp
        rows = isinstance(index, xp.ndarray) and index.dtype.kind in "iu" and target.dtype.kind == "f"
        if not (rows and target.flags.c_contiguous and target.size):
            xp.add.at(target, index, values)
            return
        shape = index.shape + target.shape[1:]
        values = self.packed(xp.broadcast_to(self.asarray(values, dtype=target.dtype), shape))
        index = index.reshape(-1).astype("int64") % len(target)
        order = xp.argsort(index, kind="stable").astype("int64")
        count, width = np.int64(index.size), np.int64(target.size // len(target))
        blocks = min(-(-values.size // cuda.BLOCK), MOST_BLOCKS)
        source = cuda.rows_source(target.dtype)
        self.launch(source, "add_rows", blocks, index[order], order, count, width, values, target)

    def _made_norm_tables(self, groups: tuple[Group, ...], norm: float) -> tuple[Array, Array, int]:
        tiles, blocks, partials = cuda.norm_tables(groups, norm)
        return self.asarray(tiles), self.asarray(blocks), partials

    def block_norms(self, tensors: Sequence[Array], groups: Sequence[Group], norm: float = 2) -> BlockNorms:
        """Return the 1-, 2- or ∞-norm of each block, (B,) in the order of the groups, in two launches.

        Sums are double and in a fixed order. Entries of float16 and float32 need no rescue: ``exponent`` is 0.
        """
        tensors, dtype = self._alike(tensors)
        tiles, blocks, partials = self._norm_tables(tuple(groups), norm)
        first, offsets = self.offsets(tensors)
        source, wide = cuda.norms_source(dtype), dtype == np.float64
        partial = self.empty(partials, "float64")
        powers = self.empty(partials, "int32") if wide else _NOTHING
        count = sum(group.count for group in groups)
        norms = BlockNorms(self.empty(count, "float64"), self.empty(count, "int32"), self.empty((), "int64"))
        table = self.table(offsets, "int64")
        self.launch(source, "partial_norms", len(tiles), tiles, first, table, partial, powers, norms.bad)
        self.launch(source, "block_norms", len(blocks), blocks, partial, powers, *norms)
        return norms

    def _alike(self, tensors: Sequence[Array]) -> tuple[list[Array], np.dtype[Any]]:
        """Return contiguous arrays of one dtype, the widest of theirs: usually what was given."""
        dtype = np.result_type(*{t.dtype for t in tensors} or ["float32"])
        return [self.packed(t.astype(dtype, copy=False)) for t in tensors], dtype

    def _made_copier(self, groups: tuple[Group, ...], dtype: np.dtype[Any]) -> CupyStepper:
        return CupyStepper(self, parse(copied, readonly=("g",), outputs=("u",)), dtype, groups)

    def scale_blocks(
        self, tensors: Sequence[Array], groups: Sequence[Group], norms: BlockNorms, lengths: Array
    ) -> list[Array]:
        """Return new arrays in which block i has the norm lengths[i] and the direction that it had, in one launch."""
        given = [t.dtype for t in tensors]
        tensors, dtype = self._alike(tensors)
        out = [self.empty(t.shape, dtype) for t in tensors]
        self._copiers(tuple(groups), dtype)({"g": tensors, "u": out}, {}, norms, lengths)
        return [t.astype(d, copy=False) for t, d in zip(out, given, strict=True)]

    def stepper(self, formula: Formula, like: Sequence[Array], groups: Sequence[Group]) -> CupyStepper:
        """Return the formula, rendered for CUDA, with its tables on the GPU."""
        return CupyStepper(self, formula, like[0].dtype, groups)

    def map(self, formula: Formula, arrays: Mapping[str, Array], scalars: Mapping[str, float]) -> tuple[Array, ...]:
        """Return what a formula writes, in new arrays, in one launch."""
        like = next(iter(arrays.values()))
        read = [self.packed(arrays[name]) for name in cuda.inputs(formula)]
        out = tuple([self.empty(like.shape, like.dtype) for _ in formula.written])
        constants = [np.array(value, like.dtype)[()] for value in formula.evaluate(**scalars)]
        blocks = min(-(-like.size // cuda.BLOCK), MOST_BLOCKS)
        source = _map_source(formula, like.dtype)
        self.launch(source, "map", blocks, np.int64(like.size), *read, *out, *constants)
        return out


_map_source = functools.cache(cuda.map_source)


class CupyStepper(Stepper):
    """A formula run over all tensors in one launch."""

    def __init__(self, backend: CupyBackend, formula: Formula, dtype: np.dtype[Any], groups: Sequence[Group]) -> None:
        self.backend, self.formula, self.dtype = backend, formula, dtype
        tiles, cuts = cuda.step_tables(groups)
        self.tiles, self.cuts = backend.asarray(tiles), backend.asarray(cuts)
        self.source = functools.cache(functools.partial(cuda.step_source, formula, dtype))

    def __call__(
        self,
        columns: Mapping[str, Sequence[Array]],
        scalars: Mapping[str, float | Sequence[float]],
        norms: BlockNorms | None = None,
        lengths: Array | None = None,
        guard: DeviceGuard | None = None,
    ) -> None:
        """Run the formula once over every tensor, in place, unless the guard forbids it; nobody waits."""
        backend, written = self.backend, self.formula.written
        count = len(self.cuts)
        offsets, firsts, kept = list[int](), list[Any](), list[Any]()
        for name in self.formula.arrays:
            column = columns[name] if name in written else [backend.packed(a) for a in columns[name]]
            first, behind = backend.offsets(column)
            offsets += behind
            firsts.append(first)
            kept.append(column)  # until they are launched
        shared, own, owned = self._constants(scalars, count)
        scaled = norms is not None and lengths is not None
        bad = None if guard is None or not len(self.tiles) else guard.bad
        record = None if bad is None or guard is None else guard.take_record()
        step = 0 if guard is None else guard.step
        arguments = [self.tiles, self.cuts, backend.table(tuple(offsets), "int64"), np.int32(count)]
        arguments += [_NOTHING if a is None else a for a in (bad, record)] + [np.int64(step)]
        if scaled and norms is not None:
            arguments += [norms.root, norms.exponent, lengths]
        arguments += firsts + shared + owned
        backend.launch(self.source(own, scaled), "step", len(self.tiles), *arguments)

    def _constants(
        self, scalars: Mapping[str, float | Sequence[float]], tensors: int
    ) -> tuple[list[Any], tuple[int, ...], list[Array]]:
        """Return the constants that all tensors share, the numbers of the others, and a table of those, if any."""
        several = {name: value for name, value in scalars.items() if isinstance(value, Sequence)}
        rows = list(zip(*several.values(), strict=True)) if several else [()]
        made: dict[tuple[float, ...], tuple[float, ...]] = {}
        for row in rows:
            if row not in made:
                made[row] = self.formula.evaluate(**{**scalars, **dict(zip(several, row, strict=True))})
        own = _own_constants(self.formula, tuple(several))
        shared = [np.array(v, self.dtype)[()] for k, v in enumerate(made[rows[0]]) if k not in own]
        table = tuple(made[row][k] for k in own for row in rows)
        return shared, own, [self.backend.table(table, self.dtype.name)] if own else []


_own_constants = functools.cache(cuda.own_constants)
