"""What a law is, and how a check becomes one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minibng.verify.strategies import Dice, Example
from minibng.verify.target import Target

PAPER = "arXiv:1707.04822, eq. 1"
DERIVED = "derived"

Posed = Callable[[Target], str]


def always(target: Target) -> str:
    """Say nothing against trying a law."""
    return ""


@dataclass(frozen=True)
class Law:
    """One law.

    Parameters
    ----------
    name
        Its name, such as "unit-norm".
    number
        Its number in the documentation, such as "I1"; laws that are parts of one have the same.
    statement
        What it says, in words, on one line.
    formula
        What it says, as a formula.
    source
        The paper and equation that it is taken from, or "derived".
    check
        ``check(target, *example)`` raises `Violation` where the law does not hold.
    examples
        ``examples(dice, target)`` → the arguments of ``check`` after the target.
    tolerance
        The bound that rounding is given, a function of `bounds`; None where equality is bit for bit.
    steps
        Whether it needs an optimizer that takes steps; if not, a bare normalizer will do.
    proof
        Why it holds, in a few sentences.
    posed
        ``posed(target)`` → "" where the law can be tried on a target, else what is missing, in words.
    """

    name: str
    number: str
    statement: str
    formula: str
    source: str
    check: Callable[..., None]
    examples: Callable[[Dice, Target], Example]
    tolerance: Callable[..., Any] | None
    steps: bool
    proof: str = ""
    posed: Posed = always

    def arguments(self) -> tuple[str, ...]:
        """Return the names of an example's parts."""
        return tuple(inspect.signature(self.check).parameters)[1:]


ENTERED: dict[str, Law] = {}


def law(
    number: str,
    formula: str,
    source: str,
    examples: Callable[[Dice, Target], Example],
    tolerance: Callable[..., Any] | None = None,
    *,
    proof: str,
    steps: bool = False,
    posed: Posed = always,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Enter a check into `LAWS` under its own name, with its first line as the statement."""

    def can_be(target: Target) -> str:
        return "it takes no steps" if steps and target.make is None else posed(target)

    def enter(check: Callable[..., None]) -> Callable[..., None]:
        name = check.__name__.replace("_", "-")
        statement = (inspect.getdoc(check) or "").partition("\n")[0]
        ENTERED[name] = Law(
            name, number, statement, formula, source, check, examples, tolerance, steps, " ".join(proof.split()), can_be
        )
        return check

    return enter


# What a law may need of a target


def many_blocks(target: Target) -> str:
    """Require that there can be more than one block."""
    return "all its tensors are one block" if target.partition == "global" else ""


def joined_blocks(target: Target) -> str:
    """Require that a block can have several tensors."""
    alone = target.make is None or target.partition == "tensor"
    return "each of its tensors is a block of its own" if alone else ""


def adaptive(target: Target) -> str:
    """Require steps as long as the parameters."""
    return "nothing says that its steps are as long as its parameters: floor=" if target.floor is None else ""


def clipping(target: Target) -> str:
    """Require a threshold."""
    return "no threshold of clipping was given: clip=" if target.clip is None else ""


def stateful(target: Target) -> str:
    """Require a state that can be saved."""
    return "" if target.keeps_state else "it keeps no state that could be saved"


def several_devices(target: Target) -> str:
    """Require more than one device."""
    return "" if len(target.devices) > 1 else "it works on one device only: devices="


def accumulating(target: Target) -> str:
    """Require a way to put micro-batches together."""
    return "no way to put micro-batches together was given: accumulate=" if target.accumulate is None else ""


def distributed(target: Target) -> str:
    """Require a way to average over processes."""
    return "no way to average the gradients of several processes was given: workers=" if target.workers is None else ""
