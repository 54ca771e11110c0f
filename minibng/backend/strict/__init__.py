"""The strict device: NumPy's numbers behind CuPy's rules.

What would fail on a GPU fails here, and what would make the host wait for it is counted, and refused inside
`minibng.backend.waiting.forbid_sync`. The arithmetic is NumPy's, so results have the bits of device "cpu", but for
convolutions and the cross-entropy of many logits: there the host has a way of its own, and this device goes the way of
a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from minibng.backend.base import Array, Backend, BlockNorms, Group, HostArray, Stepper
from minibng.backend.guard import NONE
from minibng.backend.kernel import Formula
from minibng.backend.numpy import NumpyBackend
from minibng.backend.strict.array import StrictArray, memory_of, wrap
from minibng.backend.strict.namespace import LIBRARY
from minibng.backend.waiting import forbid_sync, note_sync

if TYPE_CHECKING:
    from minibng.backend.guard import DeviceGuard

__all__ = ["StrictArray", "StrictBackend"]


class StrictBackend(Backend):
    """Strict arrays, device "strict". Block norms and formulas are its kernels: they see the memory and do not wait.

    As on a GPU, no floating-point operation warns.
    """

    device = "strict"
    xp = LIBRARY
    array_type = StrictArray

    def __init__(self) -> None:
        self._host = NumpyBackend()

    def asarray(self, x: Any, dtype: Any = None) -> StrictArray:
        """Return x as a strict array: a copy of what the host has, but an array of this device and dtype as it is."""
        return LIBRARY.asarray(x, dtype=dtype)  # type: ignore[no-any-return]

    def to_host(self, x: Array) -> HostArray:
        """Return a copy of x in host memory; this synchronizes."""
        if type(x) is not StrictArray:
            return np.asarray(x)
        note_sync("to_host()")
        return x._host.copy()

    def address(self, x: StrictArray) -> int:
        """Return where the memory of x begins, in bytes."""
        return self._host.address(memory_of(x))

    def scatter_add(self, target: StrictArray, index: Any, values: Array) -> None:
        """Add values into target[index] in place, one after another."""
        LIBRARY.add.at(target, index, values)

    @np.errstate(all="ignore")
    def block_norms(self, tensors: Sequence[StrictArray], groups: Sequence[Group], norm: float = 2) -> BlockNorms:
        """Return the 1-, 2- or ∞-norm of each block, (B,), and the number of the first that is not finite."""
        root, exponent, _ = self._host.block_norms(_memories(tensors), groups, norm)
        bad = np.flatnonzero(~np.isfinite(root))
        first = np.int64(bad[0] if bad.size else NONE)
        return BlockNorms(wrap(root), wrap(exponent), wrap(first))

    @np.errstate(all="ignore")
    def scale_blocks(
        self, tensors: Sequence[StrictArray], groups: Sequence[Group], norms: BlockNorms, lengths: StrictArray
    ) -> list[StrictArray]:
        """Return new arrays in which block i has the norm lengths[i] and the direction that it had."""
        return [wrap(a) for a in self._host.scale_blocks(_memories(tensors), groups, *_lowered(norms, lengths))]

    def stepper(self, formula: Formula, like: Sequence[StrictArray], groups: Sequence[Group]) -> StrictStepper:
        """Return the formula, rendered for NumPy, to run on the memory of strict arrays."""
        return StrictStepper(self._host.stepper(formula, _memories(like), groups))

    @np.errstate(all="ignore")
    def map(self, formula: Formula, arrays: Mapping[str, Array], scalars: Mapping[str, float]) -> tuple[Array, ...]:
        """Return what a formula writes, in new arrays."""
        made = self._host.map(formula, {name: memory_of(a) for name, a in arrays.items()}, scalars)
        return tuple(wrap(a) for a in made)

    def training_step(self) -> AbstractContextManager[None]:
        """Return the context of one training step, in which a synchronization is an error."""
        return forbid_sync()

    def synchronize(self) -> None:
        """Count a synchronization; nothing is ever left to be done."""
        note_sync("synchronize()")


class StrictStepper(Stepper):
    """The host's stepper on the memory of strict arrays; a guard that found something bad keeps it from writing."""

    def __init__(self, host: Stepper) -> None:
        self._host = host

    @np.errstate(all="ignore")
    def __call__(
        self,
        columns: Mapping[str, Sequence[StrictArray]],
        scalars: Mapping[str, float | Sequence[float]],
        norms: BlockNorms | None = None,
        lengths: StrictArray | None = None,
        guard: DeviceGuard | None = None,
    ) -> None:
        """Run the formula once over every tensor, in place, or write what was bad to the guard's record."""
        if guard is not None and _suppressed(guard):
            return
        host = {name: _memories(arrays) for name, arrays in columns.items()}
        if norms is None or lengths is None:
            self._host(host, scalars)
        else:
            self._host(host, scalars, *_lowered(norms, lengths))


def _suppressed(guard: DeviceGuard) -> bool:
    """Tell whether the step is not taken; if so, record it, once a step, as the kernel of a GPU does."""
    record = guard.take_record()
    if guard.bad is None or (bad := memory_of(guard.bad)) >= NONE:
        return False
    if record is not None:
        entries = memory_of(record)
        if entries[0] < 0:
            entries[:2] = guard.step, bad
        entries[2] += 1
    return True


def _memories(arrays: Sequence[StrictArray]) -> list[HostArray]:
    return [memory_of(a) for a in arrays]


def _lowered(norms: BlockNorms, lengths: StrictArray) -> tuple[BlockNorms, HostArray]:
    return BlockNorms(memory_of(norms.root), memory_of(norms.exponent)), memory_of(lengths)
