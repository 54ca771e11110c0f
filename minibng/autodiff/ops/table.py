"""How an operation enters the table: with rules of its own, or composed of operations that have them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from minibng.autodiff.tracer import NUMPY_NAMES, Rule, primitive

Function = TypeVar("Function", bound=Callable[..., Any])


def elementwise(function: Any, *rules: Rule, name: str = "") -> Callable[..., Any]:
    """Make an operation of one of NumPy's elementwise functions."""

    def call(*args: Any) -> Any:
        return function(*args)

    call.__name__ = name or function.__name__
    call.__doc__ = f"Return np.{call.__name__}, elementwise."
    return primitive(*map(_of_arrays, rules), numpy=function)(call)


def _of_arrays(rule: Rule) -> Rule:
    """Let a rule see arrays where the function was called with lists."""
    return lambda g, y, *args: rule(g, y, *[np.asarray(a) if isinstance(a, list) else a for a in args])


def composed(*names: Any) -> Callable[[Function], Function]:
    """Let NumPy's functions find a function that is composed of operations and so needs no rule."""

    def register(function: Function) -> Function:
        NUMPY_NAMES.update((name, function) for name in names if name is not None)  # None: newer than this NumPy
        return function

    return register
