"""Reverse-mode differentiation over nested trace levels.

Differentiating a function starts a *trace*: its inputs are wrapped in `Traced` values, and every primitive that meets
one records a `Node`: what it was called with, and the rule that sends a cotangent (the derivative of the final result
with respect to the node's output) back to the node's inputs. A node keeps the values of ONE LEVEL DOWN. Where no other
trace is running these are plain arrays, so a rule, written in ordinary array operations, costs what those cost; inside
another trace they are that trace's `Traced` values, so the same rule is recorded there and can be differentiated in
turn. Derivatives of derivatives therefore need no flag and no second set of rules.

        level 2   Traced(Traced(array))      grad inside …
        level 1   Traced(array)              … grad
        level 0   array
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from minibng.backend import Array, backend_of, is_array

Rule: TypeAlias = Callable[..., Any]

COMPLEX = (
    "a complex value met a traced one: complex numbers have no derivative here; carry real and imaginary part as two "
    "arrays (np.cos, np.sin)"
)


class TraceError(TypeError):
    """A traced value was used where its derivative would be lost; the message says what to do instead."""


class Trace:
    """One differentiation in progress: inner ones have the higher level. It ends when its function returns."""

    __slots__ = ("alive", "level")

    def __init__(self) -> None:
        self.level, self.alive = next(_counter), True


class Node:
    """One recorded operation. It never points at the `Traced` value that it belongs to: no reference cycles."""

    __slots__ = ("argnums", "args", "index", "kwargs", "parents", "pull", "value")

    def __init__(
        self,
        parents: tuple[Port, ...] = (),
        argnums: tuple[int, ...] = (),
        pull: Rule | None = None,
        value: Any = None,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.index = next(_counter)
        self.parents, self.argnums, self.pull = parents, argnums, pull
        self.value, self.args, self.kwargs = value, args, kwargs

    def forget(self) -> None:
        """Drop everything that the backward pass no longer needs."""
        self.parents = self.args = ()
        self.pull = self.value = self.kwargs = None


Port: TypeAlias = tuple[Node, int]
_counter = itertools.count(1)

NUMPY_NAMES: dict[Any, Callable[..., Any]] = {}
"""NumPy's function → ours: what `np.exp(traced)` finds. Filled by the operation table."""

PRIMITIVES: dict[str, Callable[..., Any]] = {}
"""Name → primitive, for the tests that must cover every one."""

FUSED: dict[str, Callable[..., Any]] = {}
"""Name → fused primitive, for the test that holds each against its reference."""

NUMPY_HINTS: dict[str, str] = {}
"""What to use instead of a NumPy function, or of its ``keyword=``, that we lack; filled by the operation table."""


class Traced:
    """A value whose history is recorded. Use it as the array it stands for; comparisons give plain arrays.

    Operators, methods and NumPy's dispatch protocols are added where the operations are known, in ``ops/calls.py``.
    """

    __slots__ = ("port", "value", "within")

    def __init__(self, value: Any, trace: Trace, port: Port) -> None:
        self.value, self.within, self.port = value, trace, port

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return shape_of(self.value)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @property
    def dtype(self) -> Any:
        """Data type of the entries."""
        return np.result_type(raw(self))

    def __len__(self) -> int:
        return len(self.value)

    def __bool__(self) -> bool:
        return bool(self.value)

    def __repr__(self) -> str:
        return f"Traced(level {self.within.level}, {self.value!r})"


def raw(x: Any) -> Any:
    """Return the plain value under every trace level (what a buffer may keep)."""
    while type(x) is Traced:
        x = x.value
    return x


def shape_of(x: Any) -> tuple[int, ...]:
    """Return the shape of an array, a traced value or a number."""
    return x.shape if hasattr(x, "shape") else np.shape(x)


def top_trace(args: Sequence[Any]) -> Trace | None:
    """Return the innermost trace among the arguments, None if all are plain."""
    top: Trace | None = None
    for a in args:
        if type(a) is Traced:
            if not a.within.alive:
                raise TraceError("a stored traced value was used after its trace had ended: return it, has_aux=True")
            if top is None or a.within.level > top.level:
                top = a.within
    return top


def _check_keywords(name: str, kwargs: dict[str, Any]) -> None:
    """Refuse traced values given by name: rules see arrays by position only."""
    for key, value in kwargs.items():
        if type(value) is Traced:
            raise TraceError(f"{name}({key}=…) would lose a derivative: pass arrays by position")


def _note_devices(error: TypeError, args: Sequence[Any]) -> None:
    """Tell which devices met, beside what their libraries say to each other's arrays."""
    met = {backend_of(a).device for a in args if is_array(a) and not isinstance(a, np.generic)}
    if len(met) > 1:
        error.add_note(f"arrays on {' and '.join(sorted(met))} met: bring them to one by bng.asarray(x, device=…)")


def _lower(args: Sequence[Any], top: Trace) -> tuple[list[Any], tuple[int, ...], tuple[Port, ...]]:
    """Unwrap the arguments of the innermost trace by one level; tell which they were and where they come from."""
    lower, argnums, parents = list(args), [], []
    for i, a in enumerate(args):
        if type(a) is Traced and a.within is top:
            lower[i] = a.value
            argnums.append(i)
            parents.append(a.port)
    return lower, tuple(argnums), tuple(parents)


def _wrap(value: Any, trace: Trace, node: Node, aux: int) -> Any:
    """Wrap a result, or each entry of a tuple of results but the last ``aux``, in the trace's level."""
    if not isinstance(value, tuple):
        return Traced(value, trace, (node, 0))
    carried = len(value) - aux
    return tuple(Traced(v, trace, (node, i)) if i < carried else raw(v) for i, v in enumerate(value))


def primitive(
    *rules: Rule | None, every: Rule | None = None, aux: int = 0, numpy: Any = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a function of plain arrays its derivative: the decorator that makes an operation.

    Parameters
    ----------
    *rules
        One per array argument, ``rule(g, y, *args, **kwargs)`` → cotangent of that argument, where g is the cotangent
        of the result y (a tuple of them for a function that returns a tuple). Written in ordinary array operations,
        it is differentiated in its turn. It need not undo broadcasting. None: no derivative for that argument.
    every
        Instead of rules, one ``every(g, y, argnums, *args, **kwargs)`` → list of cotangents, for functions of any
        number of arrays.
    aux
        How many trailing outputs of a tuple come out plain and carry no gradient.
    numpy
        The NumPy function, or functions, that reach this operation when called on a traced value.

    Examples
    --------
    >>> import numpy as np, minibng as bng
    >>> @bng.primitive(lambda g, y, x: g * 3 * x**2)
    ... def cube(x):
    ...     return x**3
    >>> bng.grad(lambda x: np.sum(cube(x)))(np.array([1.0, 2.0]))
    array([ 3., 12.])
    """

    def pull(g: Any, node: Node) -> list[Any]:
        if every is not None:
            return list(every(g, node.value, node.argnums, *node.args, **(node.kwargs or {})))
        return [_rule_of(i)(g, node.value, *node.args, **(node.kwargs or {})) for i in node.argnums]

    def _rule_of(i: int) -> Rule:
        rule = rules[i] if i < len(rules) else None
        if rule is None:
            raise TraceError(f"{pull.__name__} has no derivative with respect to argument {i}")
        return rule

    def decorate(function: Callable[..., Any], *more: Any) -> Any:
        if more or not callable(function):
            raise TraceError("a primitive needs its derivative: write @bng.primitive(rule, …) above the function")

        def operation(*args: Any, **kwargs: Any) -> Any:
            top = top_trace(args)
            if kwargs:
                _check_keywords(function.__name__, kwargs)
            if top is None:
                try:
                    return function(*args, **kwargs)
                except TypeError as error:
                    _note_devices(error, args)
                    raise
            lower, argnums, parents = _lower(args, top)
            value = operation(*lower, **kwargs)
            return _wrap(value, top, Node(parents, argnums, pull, value, lower, kwargs), aux)

        pull.__name__ = function.__name__
        return _register(operation, function, PRIMITIVES, numpy)

    return decorate


def fused(forward: Rule, backward: Rule) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a reference, written in our operations, a fast twin that is used at first order.

    Parameters
    ----------
    forward
        ``forward(*args, **kwargs)`` → (y, residual), on plain arrays.
    backward
        ``backward(g, y, residual, argnums, *args, **kwargs)`` → one cotangent an argument (None where the argument's
        position is not in argnums), on plain arrays.

    Notes
    -----
    Where a second derivative is asked for, the reference itself is traced, so that it alone owns correctness at every
    order. The residual never reaches it. One generic test holds every fused primitive against its reference.
    """

    def decorate(reference: Callable[..., Any]) -> Any:
        def operation(*args: Any, **kwargs: Any) -> Any:
            top = top_trace(args)
            if kwargs:
                _check_keywords(reference.__name__, kwargs)
            if top is None:
                return _pair(forward(*args, **kwargs))[0]
            lower, argnums, parents = _lower(args, top)
            if any(type(a) is Traced for a in lower):
                return reference(*args, **kwargs)
            y, residual = _pair(forward(*lower, **kwargs))

            def pull(g: Any, node: Node) -> list[Any]:
                if top_trace(g if isinstance(g, tuple) else (g,)) is not None:
                    return _pull_reference(reference, g, node)
                every = backward(g, node.value, residual, node.argnums, *node.args, **kwargs)
                return [every[i] for i in node.argnums]

            return _wrap(y, top, Node(parents, argnums, pull, y, lower, kwargs), 0)

        operation.reference = reference  # type: ignore[attr-defined]
        return _register(operation, reference, FUSED, ())

    return decorate


def _pair(made: Any) -> tuple[Any, Any]:
    if type(made) is not tuple or len(made) != 2:
        raise TraceError(f"a fused primitive's forward returns (y, residual), this one returned {type(made).__name__}")
    return made


def _pull_reference(reference: Callable[..., Any], g: Any, node: Node) -> list[Any]:
    """Pull a traced cotangent through the reference of a fused primitive."""

    def of_traced(*values: Any) -> Any:
        args = list(node.args)
        for i, v in zip(node.argnums, values, strict=True):
            args[i] = v
        return reference(*args, **(node.kwargs or {}))

    out, pullback, _ = run(of_traced, [node.args[i] for i in node.argnums])
    outs = out if isinstance(out, tuple) else (out,)
    return pullback(list(zip(outs, g if isinstance(g, tuple) else (g,), strict=True)))


def _register(operation: Any, function: Any, table: dict[str, Any], numpy: Any) -> Any:
    functools.update_wrapper(operation, function)
    if (getattr(function, "__module__", None) or "").startswith("minibng."):  # SciPy's ufuncs have none
        table[function.__name__] = operation
    NUMPY_NAMES.update(dict.fromkeys(numpy if isinstance(numpy, tuple) else (numpy,), operation))
    return operation


def run(function: Callable[..., Any], values: Sequence[Any]) -> tuple[Any, Callable[..., list[Any]], Trace]:
    """Trace ``function(*values)``; return its result, still wrapped, the pullback, and the trace, which has ended.

    ``pullback(pairs, consume=False)`` takes (wrapped output, cotangent) pairs and returns one cotangent a value.
    """
    trace = Trace()
    leaves = [Node() for _ in values]
    try:
        out = function(*[Traced(v, trace, (n, 0)) for v, n in zip(values, leaves, strict=True)])
    finally:
        trace.alive = False

    def pullback(pairs: list[tuple[Any, Any]], consume: bool = False) -> list[Any]:
        grads: dict[Port, Any] = {}
        for y, g in pairs:
            if type(y) is Traced and y.within is trace:
                _accumulate(grads, y.port, _match(g, y.value))
        _backward(grads, consume)
        return [grads[n, 0] if (n, 0) in grads else _zeros(v) for v, n in zip(values, leaves, strict=True)]

    return out, pullback, trace


def _backward(grads: dict[Port, Any], consume: bool) -> None:
    """Send the cotangents in ``grads`` back to the leaves, latest node first."""
    order = _reachable([node for node, _ in grads])
    while order:
        node = order.pop()
        if node.pull is None:  # a leaf
            continue
        if isinstance(node.value, tuple):
            ports = [(node, i) for i in range(len(node.value))]
            g = tuple(grads.pop(p) if p in grads else _zeros(v) for p, v in zip(ports, node.value, strict=True))
        else:
            g = grads.pop((node, 0))
        for port, i, g_i in zip(node.parents, node.argnums, node.pull(g, node), strict=True):
            _accumulate(grads, port, _match(g_i, node.args[i]))
        if consume:
            node.forget()


def _reachable(starts: list[Node]) -> list[Node]:
    """Return the nodes above ``starts`` in the order in which they were recorded."""
    seen: set[Node] = set()
    stack = starts
    while stack:
        if (node := stack.pop()) not in seen:
            seen.add(node)
            stack.extend(parent for parent, _ in node.parents)
    return sorted(seen, key=lambda n: n.index)


def _accumulate(grads: dict[Port, Any], port: Port, g: Any) -> None:
    grads[port] = add(grads[port], g) if port in grads else g


def _match(g: Any, like: Any) -> Any:
    """Undo broadcasting and promotion: give g the shape and dtype of the value that it is the cotangent of."""
    shape = shape_of(like)
    if shape_of(g) != shape:
        g = sum_to(g, shape)
    dtype = getattr(like, "dtype", None)
    if dtype is None:  # a Python number, whose cotangent may be of any floating dtype
        check_real(raw(g))
        return g
    return g if hasattr(g, "dtype") and g.dtype == dtype else cast(g, dtype)


def check_real(x: Any) -> None:
    """Refuse a plain value that is complex, or None where a rule should have returned a cotangent."""
    if x is None:
        raise TraceError("a rule returned None: return a cotangent, np.zeros_like(x) where the derivative is 0")
    if np.result_type(x).kind == "c":
        raise TraceError(COMPLEX)


def _zeros(like: Any) -> Any:
    value = raw(like)
    return np.zeros_like(value) if hasattr(value, "shape") else 0.0


# The linear operations that the loop itself needs; all others stand in the operation table.


@primitive(lambda g, y, a, b: g, lambda g, y, a, b: g, numpy=np.add)
def add(a: Array, b: Array) -> Array:
    """Return a + b."""
    return np.add(a, b)


@primitive(lambda g, y, x, shape: broadcast_to(g, shape_of(x)))
def sum_to(x: Array, shape: tuple[int, ...]) -> Array:
    """Sum x over the axes along which ``shape`` was broadcast to x's: the adjoint of broadcasting."""
    lead = len(have := np.shape(x)) - len(shape)
    if lead < 0 or any(n not in (1, m) for n, m in zip(shape, have[lead:], strict=True)):
        check_real(x)
        raise ValueError(f"a rule returned a cotangent of shape {have} for an argument of shape {shape}")
    axes = tuple(range(lead)) + tuple(i + lead for i, n in enumerate(shape) if n == 1 != have[i + lead])
    total = np.sum(x, axis=axes)
    return total.reshape(shape) if shape else total


@primitive(lambda g, y, x, shape: g, numpy=np.broadcast_to)
def broadcast_to(x: Array, shape: tuple[int, ...]) -> Array:
    """Return x repeated, without a copy, to ``shape``."""
    return np.broadcast_to(x, shape)


@primitive(lambda g, y, x, dtype: g)
def cast(x: Array, dtype: Any) -> Array:
    """Return x in another floating dtype (no derivative passes through integers or complex numbers: refused)."""
    check_real(x)
    if np.dtype(dtype).kind == "c":
        raise TraceError(COMPLEX)
    if np.dtype(dtype).kind != "f":
        raise TraceError(f"astype({np.dtype(dtype)}) of a traced value would lose its derivative")
    return backend_of(x).xp.asarray(x, dtype=dtype)
