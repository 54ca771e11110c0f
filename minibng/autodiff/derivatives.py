"""Derivatives of plain Python functions: grad, value_and_grad, vjp, hvp, and a checker for them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minibng.autodiff import ops
from minibng.autodiff.tracer import Traced, raw, run, shape_of

_FLOATS = "f"


def flatten(tree: Any) -> tuple[list[Any], Callable[[Sequence[Any]], Any]]:
    """Take a container apart: return its leaves and the function that puts leaves of the same kind back.

    Lists, tuples and dicts are containers, and so is every object with the methods ``__leaves__()`` and
    ``__rebuild__(leaves)``; anything else is a leaf.

    Examples
    --------
    >>> leaves, rebuild = flatten({"a": 1.0, "b": [2.0, 3.0]})
    >>> leaves, rebuild([5.0, 6.0, 7.0])
    ([1.0, 2.0, 3.0], {'a': 5.0, 'b': [6.0, 7.0]})
    """
    if hasattr(tree, "__leaves__"):
        return list(tree.__leaves__()), tree.__rebuild__
    if not isinstance(tree, (list, tuple, dict)):
        return [tree], lambda leaves: leaves[0]
    parts = [flatten(t) for t in (tree.values() if isinstance(tree, dict) else tree)]

    def rebuild(leaves: Sequence[Any]) -> Any:
        rest, made = list(leaves), []
        for old, build in parts:
            made.append(build(rest[: len(old)]))
            del rest[: len(old)]
        if isinstance(tree, dict):
            return dict(zip(tree, made, strict=True))
        return type(tree)(*made) if hasattr(tree, "_fields") else type(tree)(made)

    return [leaf for old, _ in parts for leaf in old], rebuild


def _check_floating(leaves: Sequence[Any], where: str) -> None:
    for i, leaf in enumerate(leaves):
        value = raw(leaf)
        if isinstance(value, float) or getattr(getattr(value, "dtype", None), "kind", "") == _FLOATS:
            continue
        kind = (
            f"{value.dtype} array of shape {value.shape}"
            if hasattr(value, "dtype")
            else f"{type(value).__name__}"
        )
        place = where if len(leaves) == 1 else f"{where}, leaf {i}"
        raise TypeError(
            f"{place} is a {kind}; derivatives need floating-point input: use .astype('float64'), or 3.0 for 3, or "
            "name the arguments to differentiate with argnums"
        )


class _Tracing:
    """One trace of ``f(*args)`` with respect to the leaves of some arguments, at ``values`` if they are given."""

    def __init__(
        self,
        f: Callable[..., Any],
        args: Sequence[Any],
        argnums: Sequence[int],
        kwargs: dict[str, Any],
        values: Sequence[Any] | None = None,
    ) -> None:
        self.parts = []
        for i in argnums:
            if not -len(args) <= i < len(args):
                raise TypeError(f"argnums names argument {i}, but the function was called with {len(args)}")
            leaves, rebuild = flatten(args[i])
            _check_floating(leaves, f"argument {i}")
            self.parts.append((i % len(args), len(leaves), rebuild, leaves))
        full = list(args)

        def of_leaves(*traced: Any) -> Any:
            for (i, _, _, _), value in zip(self.parts, self.rebuild(traced), strict=True):
                full[i] = value
            return f(*full, **kwargs)

        own = [leaf for part in self.parts for leaf in part[3]]
        self.out, self.pullback = run(of_leaves, own if values is None else values)

    def rebuild(self, leaves: Sequence[Any]) -> list[Any]:
        """Put one flat list of leaves back into the arguments that they came from."""
        rest, made = list(leaves), []
        for _, count, build, _ in self.parts:
            made.append(build(rest[:count]))
            del rest[:count]
        return made


def _outside(tree: Any) -> Any:
    """Return a result with the wrapping of the trace that has just ended taken off."""
    leaves, rebuild = flatten(tree)
    if not any(type(x) is Traced for x in leaves):
        return tree
    return rebuild([x.value if type(x) is Traced and not x.trace.alive else x for x in leaves])


def value_and_grad(
    f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """Make a function that returns f's value and its gradient, ∂f/∂(argument ``argnums``).

    Parameters
    ----------
    f
        A function with a scalar result, of arrays, numbers, or lists, tuples, dicts and `Params` of them.
    argnums
        The argument to differentiate; for a sequence of them the gradient is a tuple.
    has_aux
        f returns ``(value, aux)``; aux is passed on, as plain values.

    Returns
    -------
    callable
        ``(value, gradient)``, or ``((value, aux), gradient)``. The gradient has the structure, shapes and dtypes of
        the argument. Leaves that the value does not depend on have gradient zero.

    Raises
    ------
    TypeError
        For integer input, and where f returns nothing.
    ValueError
        Where the value is not a scalar.

    Examples
    --------
    >>> import numpy as np
    >>> value_and_grad(lambda x: np.sum(x**2))(np.array([1.0, 2.0]))
    (np.float64(5.0), array([2., 4.]))
    """
    several = not isinstance(argnums, int)
    wanted: Sequence[int] = argnums if not isinstance(argnums, int) else (argnums,)

    def value_and_gradient(*args: Any, **kwargs: Any) -> Any:
        tracing = _Tracing(f, args, wanted, kwargs)
        if has_aux and not (isinstance(tracing.out, tuple) and len(tracing.out) == 2):
            raise TypeError(
                f"has_aux=True needs a function that returns (value, aux), got {type(tracing.out).__name__}"
            )
        value, aux = tracing.out if has_aux else (tracing.out, None)
        tracing.out = None
        _check_scalar(value)
        result = (_outside(value), _outside(aux)) if has_aux else _outside(value)
        pairs = [(value, np.ones_like(raw(value)))]
        del value
        grads = tracing.rebuild(tracing.pullback(pairs, consume=True))
        return result, (tuple(grads) if several else grads[0])

    return value_and_gradient


def _check_scalar(value: Any) -> None:
    if value is None:
        raise TypeError("the function returned None; does it lack a return statement?")
    if (
        not isinstance(raw(value), (float, int))
        and getattr(getattr(raw(value), "dtype", None), "kind", "") != _FLOATS
    ):
        raise TypeError(
            f"a gradient needs a floating-point scalar, the function returned {type(raw(value)).__name__}"
        )
    if shape_of(value):
        raise ValueError(
            f"a gradient needs a scalar, the function returned an array of shape {shape_of(value)}: take np.mean or "
            "np.sum of it, or use vjp"
        )


def grad(
    f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """Make a function that returns the gradient of f; with ``has_aux`` ``(gradient, aux)``. See `value_and_grad`.

    Examples
    --------
    >>> grad(grad(lambda x: x**3))(2.0)
    np.float64(12.0)
    """
    both = value_and_grad(f, argnums, has_aux)

    def gradient(*args: Any, **kwargs: Any) -> Any:
        value, g = both(*args, **kwargs)
        return (g, value[1]) if has_aux else g

    return gradient


def vjp(f: Callable[..., Any], *args: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """Return f(*args) and its pullback: cotangents of the result → cotangents of every argument, Jᵀg.

    Parameters
    ----------
    f
        A function whose result is an array or a container of arrays.
    *args
        Floating-point arrays, numbers or containers.

    Returns
    -------
    value, pullback
        ``pullback(g)``, with g of the structure and shapes of the value, returns a tuple with one entry an argument.
        It keeps the forward pass and may be called again.

    Raises
    ------
    ValueError
        Where a cotangent has another shape than the value.

    Examples
    --------
    >>> import numpy as np
    >>> y, pull = vjp(lambda x: x * x, np.array([1.0, 2.0]))
    >>> pull(np.array([1.0, 10.0]))
    (array([ 2., 40.]),)
    """
    tracing = _Tracing(f, args, range(len(args)), {})
    outs, _ = flatten(tracing.out)

    def pullback(g: Any) -> tuple[Any, ...]:
        cotangents, _ = flatten(g)
        shapes, given = [shape_of(y) for y in outs], [shape_of(c) for c in cotangents]
        if shapes != given:
            raise ValueError(f"the cotangent has shapes {given}, the function's value {shapes}")
        return tuple(tracing.rebuild(tracing.pullback(list(zip(outs, cotangents, strict=True)))))

    return _outside(tracing.out), pullback


def hvp(f: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function ``(x, v, *args)`` → ∇²f(x) v, the Hessian of f in its first argument times v.

    Computed as ∇ₓ⟨∇f(x), v⟩: two passes, no matrix. x and v are of one structure (arrays, containers or `Params`).

    Examples
    --------
    >>> import numpy as np
    >>> hvp(lambda x: np.sum(x**3))(np.array([1.0, 2.0]), np.array([1.0, 0.0]))
    array([6., 0.])
    """

    def product(x: Any, v: Any, *args: Any, **kwargs: Any) -> Any:
        directions, _ = flatten(v)
        shapes, given = [shape_of(leaf) for leaf in flatten(x)[0]], [shape_of(d) for d in directions]
        if shapes != given:
            raise ValueError(f"hvp needs a direction like its point: shapes {shapes}, got {given}")

        def slope(x: Any) -> Any:
            return _inner(flatten(grad(f)(x, *args, **kwargs))[0], directions)

        return grad(slope)(x)

    return product


def _inner(a: Sequence[Any], b: Sequence[Any]) -> Any:
    total: Any = 0.0
    for x, y in zip(a, b, strict=True):
        total = total + ops.sum(x * y)
    return total


def check_grads(f: Callable[..., Any], *args: Any, order: int = 2, rtol: float = 1e-6, seed: int = 0) -> None:
    """Check f's derivatives, up to ``order``, against central differences along random directions.

    With unit directions v, u drawn from ``seed``, ⟨u, f⟩'s slope along v is compared with its difference quotient,
    (φ(h) − φ(−h)) / 2h with one Richardson step (error of order h⁴); then the gradient itself is checked in the same
    way, which checks second derivatives, and so on.

    Parameters
    ----------
    f
        A function of floating-point arguments; its result may be an array or a container.
    *args
        The point, in float64 and away from kinks; containers are copied before each call, so that dropout repeats.
    order
        How many derivatives to check.
    rtol
        Largest difference allowed, relative to the larger of the slope and the size of the terms that make it up.

    Raises
    ------
    AssertionError
        Where they differ, with both numbers.
    TypeError
        For anything but float64.

    Examples
    --------
    >>> import numpy as np
    >>> check_grads(np.tanh, np.array([0.3, -1.2]))
    """
    leaves = [raw(leaf) for leaf in flatten(list(args))[0]]
    if any(np.result_type(leaf) != np.float64 for leaf in leaves):
        kinds = sorted({str(np.result_type(leaf)) for leaf in leaves})
        raise TypeError(
            f"check_grads needs float64 input (differences in less would measure rounding), got {kinds}"
        )
    _check_order(f, args, np.random.default_rng(seed), order, rtol, "derivative")


def _check_order(f: Any, args: Any, rng: np.random.Generator, order: int, rtol: float, what: str) -> None:
    """Compare f's slope along one random direction with differences; then do the same for its pullback."""
    leaves = [leaf for a in args for leaf in flatten(a)[0]]
    direction = _unit(rng, leaves)
    value, pull = vjp(f, *copy.deepcopy(list(args)))
    outs, make = flatten(value)
    weights = [rng.standard_normal(shape_of(y)) for y in outs]

    def along(h: float) -> float:
        shifted = [x + h * v for x, v in zip(leaves, direction, strict=True)]
        tracing = _Tracing(f, copy.deepcopy(args), range(len(args)), {}, shifted)
        return float(sum(np.sum(w * raw(y)) for w, y in zip(weights, flatten(tracing.out)[0], strict=True)))

    slopes, _ = flatten(list(pull(make(weights))))
    terms = [v * s for v, s in zip(direction, slopes, strict=True)]
    exact = float(sum(np.sum(t) for t in terms))
    h = 1e-3
    coarse, fine = (along(h) - along(-h)) / (2 * h), (along(h / 2) - along(-h / 2)) / h
    measured = (4 * fine - coarse) / 3
    scale = max(abs(exact), abs(measured), float(sum(np.sum(np.abs(t)) for t in terms)), 1e-8)
    if not abs(exact - measured) <= rtol * scale:
        raise AssertionError(
            f"{what} along a random direction is {exact:.12g}, differences give {measured:.12g}"
        )
    if order > 1:

        def pulled(*xs: Any) -> Any:
            return list(vjp(f, *xs)[1](make(weights)))

        _check_order(pulled, args, rng, order - 1, rtol, f"derivative of the {what}")


def _unit(rng: np.random.Generator, leaves: Sequence[Any]) -> list[Any]:
    """Draw a random direction of length 1 with no entry near zero."""
    draws = [rng.uniform(0.5, 1.0, shape_of(x)) * rng.choice([-1.0, 1.0], shape_of(x)) for x in leaves]
    length = float(np.sqrt(sum(np.sum(d * d) for d in draws))) or 1.0
    return [d / length for d in draws]
