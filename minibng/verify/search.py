"""Trying a law on a target: Hypothesis looks for a counterexample, shrinks it, and it is told in words."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from minibng.extras import require
from minibng.verify import strategies
from minibng.verify.example import Gradient, Walk
from minibng.verify.laws import Law
from minibng.verify.strategies import Example
from minibng.verify.target import Target

SHRINKS = 200
"""Examples that are tried, after the first that breaks a law, to find a simpler one: a bound on the time it takes."""


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
        return "\n  ".join([self.law.statement, *self._lines()])

    def _lines(self) -> Iterator[str]:
        yield f"law {self.law.name} ({self.law.number}, {self.law.source}): {self.law.formula}"
        kind = "" if isinstance(self.error, AssertionError) else f" raised {type(self.error).__name__}"
        yield f"broken by {self.target}{kind}: {self.error}"
        yield "on this example:"
        for name, part in zip(self.law.arguments(), self.example, strict=True):
            if isinstance(part, (Gradient, Walk)):
                yield from (f"  {'' if name in ('gradient', 'walk') else name + ', '}{line}" for line in part.lines())
            else:
                yield f"  {name} = {part}"


class _Broken(Exception):
    """What Hypothesis sees of any counterexample: one exception, raised at one place."""


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
        For a law about steps and a bare normalizer.
    """
    if law.steps and target.make is None:
        raise TypeError(f"law {law.name!r} is about steps; {target.name} is a normalizer, which takes none")
    hypothesis = require("hypothesis", "verify", f"law {law.name!r}")
    found: dict[bytes, Counterexample] = {}
    last: list[Counterexample] = []
    tried = 0

    def attempt(example: Example) -> None:
        nonlocal tried
        key = pickle.dumps(example) if found else b""
        if found and key not in found:
            tried += 1
        if key not in found and tried <= SHRINKS and (error := _error(law, target, example)):
            found[key or pickle.dumps(example)] = Counterexample(law, target.name, example, error)
        if broken := found.get(key or pickle.dumps(example)):
            last[:] = [broken]
            raise _Broken

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
    given = hypothesis.given(strategies.strategy(law.examples, target))
    try:
        hypothesis.seed(seed)(settings(given(attempt)))()
    except _Broken:
        return last[0]
    return None


def _error(law: Law, target: Target, example: Example) -> Exception | None:
    """Return what a law's check raises on an example."""
    try:
        with np.errstate(all="ignore"):
            law.check(target, *example)
    except Exception as error:
        return error
    return None


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
      broken by halved: | ‖N(g)^0‖ − 1 | is 0.5, allowed 0
        g = [1.0] (float32, 1 entry)
        N = [0.5] (float32, 1 entry)
      on this example:
        block 0, of shape (1,): g = [1.0] (float32, 1 entry)
    """
    if (counterexample := search(law, target, examples, seed)) is not None:
        raise AssertionError(str(counterexample)) from None
