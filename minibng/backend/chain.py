"""Chains of elementwise operations, written once as a formula: one pass over memory, on a device one kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minibng.backend import Array, Backend, backend_of, is_array
from minibng.backend.kernel import Expression, parse_map

CHAINS: list[Chain] = []
"""Every chain that was defined, for those who compile them all."""


class Chain:
    """A formula function called on arrays: it returns new ones.

    Parameters
    ----------
    function
        A formula (see `kernel.parse`) that returns names of its own, never an input. Positional parameters are arrays
        of one dtype, keyword-only ones numbers.

    Examples
    --------
    >>> from numpy import tanh
    >>> @Chain
    ... def damped(x, *, rate):
    ...     y = tanh(rate * x) + 0.5
    ...     return y
    >>> damped(np.array([0.0, 1.0]), rate=0.0)
    array([0.5, 0.5])
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.__doc__, self.__name__ = function.__doc__, function.__name__
        self.formula = parse_map(function)
        bits = any(_works_on_bits(s.expression) for s in self.formula.statements)
        self.kind = "u" if bits else "f"
        self.least: Any = np.uint32 if bits else 0.0
        self.inputs = tuple(a for a in self.formula.arrays if a not in self.formula.written)
        CHAINS.append(self)

    def __call__(self, *arrays: Array, **scalars: float) -> Any:
        """Return the formula's results: an array, or a tuple of several.

        Shapes that differ are broadcast, dtypes that differ promoted as NumPy does, whole numbers to float64.

        Raises
        ------
        TypeError
            For what are no real numbers, or, where the formula works on bits, no unsigned integers.
        """
        backend = backend_of(*arrays)
        if not self._fit(arrays, backend.array_type):
            arrays = self._fitted(arrays, backend)
        made = backend.map(self.formula, dict(zip(self.inputs, arrays, strict=True)), scalars)
        return made[0] if len(made) == 1 else made

    def _fit(self, arrays: tuple[Any, ...], array_type: type[Any]) -> bool:
        """Tell whether these are arrays of one shape and one dtype, of the right kind."""
        first = arrays[0]
        for a in arrays:
            if not isinstance(a, array_type) or a.shape != first.shape or a.dtype != first.dtype:
                return False
        return bool(first.dtype.kind == self.kind)

    def _fitted(self, arrays: tuple[Any, ...], backend: Backend) -> tuple[Array, ...]:
        """Return arrays of one shape and one dtype; plain numbers are brought to where the arrays are."""
        arrays = tuple(np.asarray(a) if isinstance(a, (list, tuple)) else a for a in arrays)
        for a in arrays:
            if is_array(a) and a.ndim and backend_of(a) is not backend:
                told = f"arrays on {backend.device!r} and {backend_of(a).device!r} met"
                raise TypeError(f"{self.__name__}: {told}: bring them to one by bng.asarray(x, device=…)")
        dtype = np.result_type(*arrays, self.least)
        if dtype.kind != self.kind:
            kind = "real numbers" if self.kind == "f" else "unsigned integers"
            raise TypeError(f"{self.__name__} takes {kind}, got {dtype}")
        numbers = [isinstance(a, np.generic) or not is_array(a) for a in arrays]
        pairs = zip(arrays, numbers, strict=True)
        made = [backend.asarray(a, dtype) if number else a.astype(dtype, copy=False) for a, number in pairs]
        return tuple(np.broadcast_arrays(*made))

    def __repr__(self) -> str:
        return f"<chain {self.__name__}>"


def _works_on_bits(expression: Expression) -> bool:
    if isinstance(expression, str):
        return False
    return expression[0] in ("bitwise_xor", "right_shift") or any(map(_works_on_bits, expression[1:]))
