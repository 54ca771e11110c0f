"""Synchronizations: moments at which the host waits for a device, counted, and forbidden where they cost most.

A device works while the host goes on. Whoever looks at a value (``float(loss)``, ``if x > 0``, a boolean mask) makes
the host wait for everything that was asked of the device so far. A training step must not; `forbid_sync` finds out.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_FORBIDDEN = ContextVar("forbidden", default=False)
_DEBUGGING = ContextVar("debugging", default=False)
_SEEN: Counter[str] = Counter()


class SyncError(RuntimeError):
    """A value on a device was looked at where nobody may wait; the message names what did it."""


@contextmanager
def forbid_sync() -> Iterator[None]:
    """Make every synchronization of the strict device an error, except under `debug`.

    Examples
    --------
    >>> import minibng as bng
    >>> x = bng.asarray([3.0, 4.0], device="strict")
    >>> with forbid_sync():
    ...     float(x.sum())
    Traceback (most recent call last):
        ...
    minibng.backend.waiting.SyncError: float() of a device array waits for the device: keep the value there until ...
    """
    token = _FORBIDDEN.set(True)
    try:
        yield
    finally:
        _FORBIDDEN.reset(token)


@contextmanager
def debug() -> Iterator[None]:
    """Let values on a device be looked at: labels and indices are checked there too, at the price of waiting.

    Examples
    --------
    >>> import minibng as bng
    >>> logits, labels = (bng.asarray(x, device="strict") for x in ([[0.0, 1.0]], [7]))
    >>> with bng.debug():
    ...     bng.nn.cross_entropy(logits, labels)
    Traceback (most recent call last):
        ...
    IndexError: labels for 2 classes must lie in 0 … 1, got 7
    """
    token = _DEBUGGING.set(True)
    try:
        yield
    finally:
        _DEBUGGING.reset(token)


def debugging() -> bool:
    """Tell whether `debug` is on."""
    return _DEBUGGING.get()


def note_sync(what: str) -> None:
    """Count one synchronization; ``what`` is what asked for it.

    Raises
    ------
    SyncError
        Inside `forbid_sync`.
    """
    if _FORBIDDEN.get() and not _DEBUGGING.get():
        raise SyncError(
            f"{what} of a device array waits for the device: keep the value there until the step is over (bng.to_host "
            "brings it down), or look at it under bng.debug()"
        )
    _SEEN[what] += 1


def synchronizations() -> Counter[str]:
    """Return how often each kind of synchronization of the strict device has happened in this process."""
    return Counter(_SEEN)
