"""Options: the axes of an experiment and what each accepts. They know nothing of the command line that offers them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from minibng.names import choose


@dataclass(frozen=True)
class Axis:
    """One entry of an experiment's settings, and an option of the command line.

    Parameters
    ----------
    values
        What is compared by default, each value apart.
    accept
        ``accept(text)`` → a value, or ValueError with a message for who wrote the text.
    about
        One line of help, without the default.
    full
        What is compared with ``--full``; default the same.
    detail
        Where all settings have the same value it is told once, above the table.
    """

    values: tuple[Any, ...]
    accept: Callable[[str], Any]
    about: str
    full: tuple[Any, ...] = ()
    detail: bool = False

    def of(self, full: bool) -> tuple[Any, ...]:
        """Return the values of the short or the full comparison."""
        return self.full or self.values if full else self.values

    def told(self) -> str:
        """Return the help with the default.

        Examples
        --------
        >>> Axis((8, 20), int, "layers").told()
        'layers; default 8,20'
        """
        return f"{self.about}; default {','.join('none' if v is None else str(v) for v in self.values)}"


def last_of(axes: Mapping[str, Axis], **changed: tuple[Any, ...]) -> dict[str, Any]:
    """Return the setting that claims are about: the last value of every axis, which is the hardest."""
    return {name: changed.get(name, axis.values)[-1] for name, axis in axes.items()}


def one_of(table: Mapping[str, Any], what: str) -> Callable[[str], str]:
    """Return a function that accepts the names of a table, and offers the nearest for another.

    Examples
    --------
    >>> one_of({"relu": 0, "tanh": 1}, "activation")("rule")
    Traceback (most recent call last):
        ...
    minibng.names.UnknownNameError: unknown activation 'rule'; did you mean 'relu'? Known: relu, tanh
    """

    def accept(text: str) -> str:
        choose(table, text, what)
        return text

    return accept


def whole(least: int) -> Callable[[str], int]:
    """Return a function that accepts whole numbers from ``least`` on."""

    def accept(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise ValueError(f"a whole number of at least {least} is needed, got {text!r}")
        return number

    return accept


def rate(text: str) -> float:
    """Accept a finite number that is not negative, such as a learning rate or a weight decay."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"a finite rate of 0 or more is needed, got {text!r}")
    return value


def share(text: str) -> float:
    """Accept a number from 0 up to, but not, 1, such as a rate of dropout."""
    if (value := rate(text)) >= 1:
        raise ValueError(f"a share below 1 is needed, got {text!r}")
    return value


def or_none(accept: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a function that accepts also the word none, for None."""
    return lambda text: None if text == "none" else accept(text)
