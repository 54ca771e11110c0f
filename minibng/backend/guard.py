"""A guard keeps a step from being taken where a number is not finite, without the host waiting to see."""

from __future__ import annotations

from typing import NamedTuple

from minibng.backend.base import Array, Backend

NONE = 2**62
"""The number of the first bad block where there is none."""


class Trouble(NamedTuple):
    """What a guard has kept back: the first bad step, which check failed, in which block, and the number of steps."""

    step: int
    check: int
    block: int
    suppressed: int


class DeviceGuard:
    """Gathers, on the device, the first bad block of each check of a step; the host learns of it at `fetch`.

    Check k notes the number of its first bad block, or `NONE`; what the step goes by is ``bad``, the least of block +
    B·k. ``record`` (3,) int64 lives on the device: the first bad step or −1, its ``bad``, and the number of suppressed
    steps. A kernel that takes the step writes the record itself (`take_record`); where none did, `commit` does.
    """

    def __init__(self, backend: Backend, blocks: int) -> None:
        self._backend, self.blocks = backend, blocks
        self._bad: Array = None
        self._forget()
        self.begin(0)

    def _forget(self) -> None:
        self.record = self._backend.asarray([-1, -1, 0], dtype="int64")

    def begin(self, step: int) -> None:
        """Start a step: nothing is known to be bad."""
        self.step, self._bad, self._checks, self._recorded = step, None, 0, False

    def note(self, per_block: Array, bad: Array | None = None) -> None:
        """Take the result of one check: a number a block, (B,), or already the first bad block, () int64."""
        xp = self._backend.xp
        if bad is None:
            if not self.blocks:
                return
            finite = xp.isfinite(per_block)
            bad = xp.where(xp.all(finite), NONE, xp.argmin(finite))
        self._bad = bad if self._bad is None else xp.minimum(self._bad, bad + self.blocks * self._checks)
        self._checks += 1

    @property
    def bad(self) -> Array:
        """What the step goes by, () int64 on the device."""
        return self._bad

    def keep(self, new: Array, old: Array) -> Array:
        """Return ``new`` where the step is taken, else ``old``."""
        return self._backend.xp.where(self._bad >= NONE, new, old)

    def take_record(self) -> Array | None:
        """Return the record for a kernel to write, the first time in a step; after that None: it is written once."""
        if self._recorded:
            return None
        self._recorded = True
        return self.record

    def commit(self) -> None:
        """End the step: write the record where no kernel did."""
        if (record := self.take_record()) is None:
            return
        xp = self._backend.xp
        failed = self._bad < NONE
        first = failed & (record[0] < 0)
        record[0] = xp.where(first, self.step, record[0])
        record[1] = xp.where(first, self._bad, record[1])
        record[2] += failed

    def fetch(self) -> Trouble | None:
        """Return what was kept back since the last time, and forget it; this synchronizes."""
        step, code, suppressed = self._backend.to_host(self.record).tolist()
        if not suppressed:
            return None
        self._forget()
        check, block = divmod(code, max(self.blocks, 1))
        return Trouble(step, check, block, suppressed)
