"""Trying a law on a target: Hypothesis looks for a counterexample, shrinks it, and it is told in words."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import pickle
import shutil
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from minibng.backend import HostArray
from minibng.extras import require
from minibng.verify import strategies
from minibng.verify.example import Batch, Gradient, Walk
from minibng.verify.laws import Law
from minibng.verify.strategies import Example
from minibng.verify.target import Target

SHRINKS = 60
"""Examples that are tried, after the first that breaks a law, to find a simpler one: a bound on the time it takes."""

HEAVY = 1000
"""Entries that count as one more example there; a bound in seconds would find another counterexample every time."""

BITS = (0, 1, 2, 4, 8)
"""Bits behind the leading one that the entries of a counterexample are cut to, if it remains one."""

FEW = (1, 2, 3, 4, 6)
"""Entries that the tensors of a counterexample are cut to."""

Before: TypeAlias = Callable[[Law, Example], None]

HERE = os.path.dirname(os.path.dirname(__file__))


@dataclass(frozen=True)
class Counterexample:
    """A law that does not hold: the simplest example found, and what went wrong there.

    ``error`` is a `Violation`, or whatever else the target raised.
    """

    law: Law
    target: str
    example: Example
    error: Exception

    def __str__(self) -> str:
        first = f"law {self.law.name} ({self.law.number}, {self.law.source}): {self.law.formula}"
        return "\n  ".join(
            [self.law.statement, first, f"broken by {self.target}{self._what()}", *_told(self.law, self.example)]
        )

    def told(self) -> str:
        """Tell what was measured and on which example, without the law."""
        return "\n".join([self._what().removeprefix(": ").removeprefix(" "), *_told(self.law, self.example)])

    def _what(self) -> str:
        if isinstance(self.error, AssertionError):
            return f": {self.error}"
        try:
            told = str(self.error)
        except Exception:  # it is the subject's own
            told = "(which cannot be told)"
        return f" raised {type(self.error).__name__}: {told}{_place(self.error)}"


def told_example(law: Law, example: Example) -> str:
    """Tell an example of a law, one line a part and block."""
    return "\n".join(_told(law, example))


def _told(law: Law, example: Example) -> Iterator[str]:
    yield "on this example:"
    for name, part in zip(law.arguments(), example, strict=True):
        if isinstance(part, (Gradient, Walk, Batch)):
            yield from (
                f"  {'' if name in ('gradient', 'walk', 'batch') else name + ', '}{line}" for line in part.lines()
            )
        else:
            yield f"  {name} = {part}"


def _place(error: Exception) -> str:
    """Tell the last line of the subject's own code that an error came through."""
    outside = [f for f in traceback.extract_tb(error.__traceback__) if not _known(f.filename)]
    return f" ({os.path.basename(outside[-1].filename)}, line {outside[-1].lineno})" if outside else ""


def _known(file: str) -> bool:
    return file.startswith((HERE, "<")) or "site-packages" in file or f"{os.sep}lib{os.sep}python" in file


@dataclass(frozen=True)
class Trial:
    """How trying a law came out: ``examples`` that were tried, until it was broken or ``error`` ended it."""

    counterexample: Counterexample | None
    examples: int
    error: str = ""


class _Broken(Exception):
    """What Hypothesis sees of any counterexample: one exception, raised at one place."""


class _Ended(BaseException):
    """Ends a search from inside; Hypothesis lets it pass."""


def search(
    law: Law, target: Target, examples: int = 100, seed: int = 0, *, shrink: bool = True
) -> Counterexample | None:
    """Look for an example that breaks a law; the same arguments always find the same one.

    Parameters
    ----------
    law
        One of `LAWS`.
    target
        What it is tried on.
    examples
        How many examples are tried.
    seed
        Other seeds try other examples.
    shrink
        Whether to look for a simpler counterexample once there is one.

    Returns
    -------
    Counterexample or None
        The simplest one that was found, within `SHRINKS` further examples.

    Raises
    ------
    MissingExtraError
        Where Hypothesis is not installed.
    TypeError
        For a law that cannot be posed to the target.
    """
    return attempt(law, target, examples, seed, shrink=shrink).counterexample


def attempt(
    law: Law,
    target: Target,
    examples: int = 100,
    seed: int = 0,
    *,
    shrink: bool = True,
    timeout: float | None = None,
    before: Before | None = None,
) -> Trial:
    """Look for an example that breaks a law, as `search`; tell how it came out.

    Parameters
    ----------
    law, target, examples, seed, shrink
        As of `search`.
    timeout
        Seconds after which no further example is tried, and after which one that has not come to an end is
        interrupted: in the main thread of a Unix process. Elsewhere only the first is done.
    before
        Called with each example before it is tried.
    """
    if why := law.posed(target):
        raise TypeError(f"law {law.name!r} cannot be posed to {target.name}: {why}")
    hypothesis = require("hypothesis", "verify", f"law {law.name!r}")
    hunt = _Hunt(law, target, timeout, before)
    settings = hypothesis.settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        print_blob=False,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=(hypothesis.Phase.generate, *([hypothesis.Phase.shrink] if shrink else [])),
        verbosity=hypothesis.Verbosity.quiet,
        backend="hypothesis",
    )

    def one(example: Example) -> None:  # a function, as Hypothesis wants one
        hunt.look(example)

    given = hypothesis.given(strategies.strategy(law.examples, target))
    with contextlib.suppress(_Broken, _Ended), _nothing_kept():
        hypothesis.seed(seed)(settings(given(one)))()
    return hunt.trial(shrink=shrink)


@contextlib.contextmanager
def _nothing_kept() -> Iterator[None]:
    """Let Hypothesis keep what it keeps, even without a database, out of the current folder, until the process ends."""
    configuration = require("hypothesis.configuration", "verify")
    before = vars(configuration).get("__hypothesis_home_directory")
    configuration.set_hypothesis_home_dir(_scratch())
    try:
        yield
    finally:
        configuration.set_hypothesis_home_dir(before)


@functools.cache
def _scratch() -> str:
    folder = tempfile.mkdtemp(prefix="minibng-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@dataclass
class _Hunt:
    """One search: what was tried, what was found, and how much time there is."""

    law: Law
    target: Target
    timeout: float | None
    before: Before | None = None
    seen: int = 0
    tried: int = 0
    found: dict[bytes, Counterexample] = field(default_factory=dict)
    last: Counterexample | None = None
    error: str = ""

    def __post_init__(self) -> None:
        self.start = time.monotonic()

    def look(self, example: Example) -> None:
        """Try an example; raise `_Broken` where it breaks the law, always the same where it did once."""
        if self.timeout is not None and time.monotonic() - self.start > self.timeout and self.seen:
            self.error = f"no verdict: {self.seen} examples held, and {self.timeout:g} s were over"
            raise _Ended
        key = pickle.dumps(example) if self.found else b""
        if self.found and key not in self.found:
            self.tried += 1 + sum(map(_entries, example)) // HEAVY
        if self.tried > SHRINKS:
            raise _Ended  # Hypothesis would go on for long
        if key not in self.found:
            self.seen += not self.found
            if error := self._error(example):
                self.found[key or pickle.dumps(example)] = self._counterexample(example, error)
        if broken := self.found.get(key or pickle.dumps(example)):
            self.last = broken
            raise _Broken

    def _counterexample(self, example: Example, error: Exception) -> Counterexample:
        return Counterexample(self.law, self.target.name, example, error)

    def _error(self, example: Example) -> Exception | None:
        """Return what the law's check raises on an example; end the search where there is no coming back from it."""
        if self.before:
            self.before(self.law, example)
        try:
            with np.errstate(all="ignore"), _alarm(self.timeout):
                self.law.check(self.target, *example)
        except Exception as error:
            return error
        except _NoAnswer:
            self.error = f"no answer within {self.timeout:g} s"
        except SystemExit as error:
            self.error = f"it called sys.exit({error.code!r})"
        else:
            return None
        if not self.last:  # while shrinking, what is known already counts
            self.error += f" {told_example(self.law, example)}"
        raise _Ended

    def trial(self, *, shrink: bool) -> Trial:
        """Return how it came out, the counterexample without what it does not need."""
        if self.last is None:
            return Trial(None, self.seen, self.error)
        late = self.timeout is not None and time.monotonic() - self.start > self.timeout
        simplest = self.last
        with contextlib.suppress(_Ended):
            for simpler in () if late or self.error or not shrink else (_fewer_blocks, _fewer_entries, _fewer_bits):
                for example in simpler(simplest.example):
                    error = self._error(example)
                    if error and type(error) is type(simplest.error):
                        simplest = self._counterexample(example, error)
                        break
        return Trial(simplest, self.seen)


def _fewer_blocks(example: Example) -> Iterator[Example]:
    """Yield examples with one block only, then with one block less."""
    first = next((part.parts[0] if isinstance(part, Batch) else part for part in example), None)
    count = len(first.blocks) if isinstance(first, (Gradient, Walk)) else 0
    kept = [(i,) for i in range(count)] + [tuple(j for j in range(count) if j != i) for i in range(count)]
    for blocks in dict.fromkeys(kept):
        if 0 < len(blocks) < count:
            yield tuple(_only(part, blocks, count) for part in example)


def _only(part: Any, kept: Sequence[int], count: int) -> Any:
    """Return a part of an example with these blocks only: of a tuple of one item a block, these items."""
    if isinstance(part, Walk):
        start = _only(Gradient(part.start, part.blocks), kept, count).tensors
        return Walk(start, tuple(_only(g, kept, count) for g in part.gradients))
    if isinstance(part, Batch):
        return Batch(tuple(_only(g, kept, count) for g in part.parts), part.weights)
    if isinstance(part, Gradient):
        tensors = sorted(i for b in kept for i in part.blocks[b])
        place = {i: k for k, i in enumerate(tensors)}
        blocks = tuple(tuple(place[i] for i in part.blocks[b]) for b in kept)
        return Gradient(tuple(part.tensors[i] for i in tensors), blocks)
    if isinstance(part, tuple) and part and all(isinstance(p, tuple) for p in part):
        return tuple(_only(p, kept, count) for p in part)
    return tuple(part[b] for b in kept) if isinstance(part, tuple) and len(part) == count else part


def _fewer_entries(example: Example) -> Iterator[Example]:
    """Yield examples with the first, or the last, few entries of each tensor."""
    for most in FEW:
        for cut in (slice(None, most), slice(-most, None)):
            yield tuple(_mapped(part, functools.partial(_few, cut=cut)) for part in example)


def _fewer_bits(example: Example) -> Iterator[Example]:
    """Yield examples with entries of fewer digits."""
    for bits in BITS:
        yield tuple(_mapped(part, functools.partial(_cut, bits=bits)) for part in example)


def _mapped(part: Any, change: Callable[[HostArray], HostArray]) -> Any:
    """Return a part of an example with each of its tensors changed."""
    if isinstance(part, Walk):
        return Walk(tuple(map(change, part.start)), tuple(_mapped(g, change) for g in part.gradients))
    if isinstance(part, Batch):
        return Batch(tuple(_mapped(g, change) for g in part.parts), part.weights)
    return Gradient(tuple(map(change, part.tensors)), part.blocks) if isinstance(part, Gradient) else part


def _entries(part: Any) -> int:
    """Return how many entries a part of an example has."""
    parts = part.gradients if isinstance(part, Walk) else part.parts if isinstance(part, Batch) else (part,)
    return sum(t.size for g in parts if isinstance(g, Gradient) for t in g.tensors)


def _few(a: HostArray, cut: slice) -> HostArray:
    return a.reshape(-1)[cut]


def _cut(a: HostArray, bits: int) -> HostArray:
    """Return the array with entries cut, towards 0, to so many bits behind the leading one."""
    mantissa, exponent = np.frexp(a.astype(np.longdouble))
    cut = np.ldexp(np.trunc(np.ldexp(mantissa, bits + 1)), exponent - bits - 1)
    return np.asarray(cut, a.dtype).reshape(a.shape)


class _NoAnswer(BaseException):
    """Raised in the midst of a subject that does not come to an end; no ``except Exception`` catches it."""


@contextlib.contextmanager
def _alarm(seconds: float | None) -> Iterator[None]:
    """Raise `_NoAnswer` inside after so many seconds, and again each second, where a signal can."""
    if seconds is None or not hasattr(signal, "setitimer") or threading.current_thread() != threading.main_thread():
        yield
        return

    def ring(number: int, frame: Any) -> None:
        raise _NoAnswer

    before: Any = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def answered(act: Callable[[], Any], timeout: float | None) -> Any:
    """Return what a function returns; TimeoutError where it takes longer and can be interrupted."""
    try:
        with _alarm(timeout):
            return act()
    except _NoAnswer:
        raise TimeoutError(f"no answer within {timeout:g} s") from None


def run(law: Law, target: Target, examples: int = 100, seed: int = 0) -> None:
    """Try a law on a target.

    Raises
    ------
    AssertionError
        Where the law does not hold; its message begins with the law's statement and tells the simplest counterexample.

    Examples
    --------
    >>> from minibng import optim
    >>> from minibng.verify import LAWS, Target, run
    >>> run(LAWS["unit-norm"], Target.of(optim.normalize_blocks), examples=20)
    >>> def halved(blocks):
    ...     return [u / 2 for u in optim.normalize_blocks(blocks)]
    >>> run(LAWS["unit-norm"], Target.of(halved, dtypes=("float32",)), examples=20)
    Traceback (most recent call last):
        ...
    AssertionError: Blocks that are not zero have a direction of length 1, blocks of one entry exactly ±1.
      law unit-norm (I1, arXiv:1707.04822, eq. 1): g^i ≠ 0 ⇒ ‖N(g)^i‖₂ = 1
      broken by halved: | ‖u^0‖ − 1 | is 0.5, allowed 0
        g = [1.0] → u = [0.5] (float32, 1 entry)
      on this example:
        block 0, of shape (1,): g = [1.0] (float32, 1 entry)
    """
    if (counterexample := search(law, target, examples, seed)) is not None:
        raise AssertionError(str(counterexample)) from None
