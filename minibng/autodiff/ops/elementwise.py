"""Elementwise functions: arithmetic, powers and logarithms, trigonometry, choices between two values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minibng.autodiff.ops.table import composed, elementwise
from minibng.autodiff.tracer import Rule, TraceError, primitive, raw
from minibng.backend import Array

# Arithmetic

subtract = elementwise(np.subtract, lambda g, y, a, b: g, lambda g, y, a, b: -g)
multiply = elementwise(np.multiply, lambda g, y, a, b: g * b, lambda g, y, a, b: g * a)
divide = elementwise(np.divide, lambda g, y, a, b: g / b, lambda g, y, a, b: -g * y / b)
remainder = elementwise(np.remainder, lambda g, y, a, b: g, lambda g, y, a, b: -g * np.floor_divide(a, b))
negative = elementwise(np.negative, lambda g, y, x: -g)
positive = elementwise(np.positive, lambda g, y, x: g)
reciprocal = elementwise(np.reciprocal, lambda g, y, x: -g * y * y)
abs = elementwise(np.absolute, lambda g, y, x: g * sign(x), name="abs")
fabs = elementwise(np.fabs, lambda g, y, x: g * sign(x))
absolute = abs

# Powers, exponentials and logarithms

square = elementwise(np.square, lambda g, y, x: g * 2 * x)
sqrt = elementwise(np.sqrt, lambda g, y, x: g * 0.5 / y)
cbrt = elementwise(np.cbrt, lambda g, y, x: g / (3 * y * y))
power = elementwise(np.power, lambda g, y, x, p: g * _power_slope(x, p), lambda g, y, x, p: g * y * _safe_log(x))
exp = elementwise(np.exp, lambda g, y, x: g * y)
exp2 = elementwise(np.exp2, lambda g, y, x: g * y * math.log(2))
expm1 = elementwise(np.expm1, lambda g, y, x: g * exp(x))
log = elementwise(np.log, lambda g, y, x: g / x)
log2 = elementwise(np.log2, lambda g, y, x: g / (x * math.log(2)))
log10 = elementwise(np.log10, lambda g, y, x: g / (x * math.log(10)))
log1p = elementwise(np.log1p, lambda g, y, x: g / (1 + x))
logaddexp = elementwise(
    np.logaddexp, lambda g, y, a, b: g * exp(a - finite(y)), lambda g, y, a, b: g * exp(b - finite(y))
)
logaddexp2 = elementwise(
    np.logaddexp2, lambda g, y, a, b: g * exp2(a - finite(y)), lambda g, y, a, b: g * exp2(b - finite(y))
)


def _power_slope(x: Array, p: Any) -> Array:
    """Return p·x^(p−1), which is 0 for p = 0 even where x is 0."""
    if isinstance(p, (int, float)):
        return p * power(x, p - 1) if p else 0.0
    return p * power(x, where((raw(p) == 0) & (raw(x) == 0), 1, p - 1))


def _safe_log(x: Any) -> Any:
    """Return log x, and 0 where x ≤ 0: there the power's derivative in its exponent is 0 or undefined."""
    if isinstance(x, (int, float)):
        return math.log(x) if x > 0 else 0.0
    return log(where(raw(x) > 0, x, 1))


def finite(y: Array) -> Array:
    """Return y, and 0 where y is not finite: exp(a − finite(y)) is then 0 for a = y = −∞, not NaN."""
    return where(np.isfinite(raw(y)), y, 0)


# Trigonometry

sin = elementwise(np.sin, lambda g, y, x: g * cos(x))
cos: Rule = elementwise(np.cos, lambda g, y, x: -g * sin(x))
tan = elementwise(np.tan, lambda g, y, x: g * (1 + y * y))
arcsin = elementwise(np.arcsin, lambda g, y, x: g / sqrt((1 - x) * (1 + x)))
arccos = elementwise(np.arccos, lambda g, y, x: -g / sqrt((1 - x) * (1 + x)))
arctan = elementwise(np.arctan, lambda g, y, x: g / (1 + x * x))
arctan2 = elementwise(np.arctan2, lambda g, y, a, b: g * _turn(b, a), lambda g, y, a, b: -g * _turn(a, b))
hypot = elementwise(np.hypot, lambda g, y, a, b: g * a * over(y), lambda g, y, a, b: g * b * over(y))
sinh = elementwise(np.sinh, lambda g, y, x: g * cosh(x))
cosh: Rule = elementwise(np.cosh, lambda g, y, x: g * sinh(x))
tanh = elementwise(np.tanh, lambda g, y, x: g * (1 - y * y))
arcsinh = elementwise(np.arcsinh, lambda g, y, x: g / sqrt(x * x + 1))
arccosh = elementwise(np.arccosh, lambda g, y, x: g / sqrt((x - 1) * (x + 1)))
arctanh = elementwise(np.arctanh, lambda g, y, x: g / ((1 - x) * (1 + x)))
deg2rad = elementwise(np.deg2rad, lambda g, y, x: g * (math.pi / 180))
rad2deg = elementwise(np.rad2deg, lambda g, y, x: g * (180 / math.pi))
composed(np.radians)(deg2rad)
composed(np.degrees)(rad2deg)


def _turn(across: Array, along: Array) -> Array:
    """Return across / (across² + along²) without squares that overflow, and 0 where both are 0."""
    h = over(hypot(across, along))
    return across * h * h


def over(y: Array) -> Array:
    """Return 1/y, and 0 where y is 0: with it the derivative of a length at 0 is 0, to every order."""
    zero = np.equal(raw(y), 0)
    return where(zero, 0, 1 / where(zero, 1, y))


@primitive(lambda g, y, x: g * 0.5 * over(y))
def root(x: Array) -> Array:
    """Return √x as sqrt does, with derivative 0 at 0: the root for a norm or a standard deviation."""
    return np.sqrt(x)


# Choices between two values

maximum = elementwise(np.maximum, lambda g, y, a, b: g * _share(a, b), lambda g, y, a, b: g * _share(b, a))
minimum = elementwise(np.minimum, lambda g, y, a, b: g * _share(b, a), lambda g, y, a, b: g * _share(a, b))


def _share(winner: Array, loser: Array) -> Array:
    """Return 1 where the first is greater, ½ where they are equal, else 0, in the dtype of the two."""
    a, b = raw(winner), raw(loser)
    dtype = np.result_type(a, b)
    return (np.greater(a, b).astype(dtype) + np.greater_equal(a, b).astype(dtype)) * 0.5


@primitive(lambda g, y, x: g * (raw(x) > 0))
def relu(x: Array) -> Array:
    """Return max(x, 0), elementwise; its derivative at 0 is 0."""
    return np.maximum(x, 0)


@primitive(lambda g, y, x: np.zeros_like(raw(x)), numpy=np.sign)
def sign(x: Array) -> Array:
    """Return −1, 0 or 1, elementwise; its derivative is 0."""
    return np.sign(x)


def _condition(*args: Any) -> Any:
    raise TraceError("np.where has no derivative with respect to its condition: write x != 0 for a traced x")


@primitive(
    _condition,
    lambda g, y, c, a, b: where(c, g, 0),
    lambda g, y, c, a, b: where(c, 0, g),
    numpy=np.where,
)
def where(condition: Array, a: Array, b: Array) -> Array:
    """Return a where the condition (not differentiated) holds, else b."""
    return np.where(condition, a, b)


@composed(np.clip)
def clip(x: Array, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Array:
    """Return x limited to [a_min, a_max]; None leaves a side open, and min and max are NumPy's newer names."""
    low, high = a_min if min is None else min, a_max if max is None else max
    x = x if low is None else maximum(x, low)
    return x if high is None else minimum(x, high)
