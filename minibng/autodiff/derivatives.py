"""Derivatives of plain Python functions: grad, value_and_grad, vjp, jvp, hvp, jacobian, hessian."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minibng.autodiff import ops
from minibng.autodiff.tracer import Trace, Traced, raw, run, shape_of, top_trace
from minibng.backend import backend_of

_FLOATS = "f"


def flatten(tree: Any, whole: bool = False) -> tuple[list[Any], Callable[[Sequence[Any]], Any]]:
    """Take a container apart: return its leaves and the function that puts leaves of the same kind back.

    Lists, tuples and dicts are containers, and so is every object with the methods ``__leaves__()`` and
    ``__rebuild__(leaves)``, unless ``whole`` makes leaves of such objects; anything else is a leaf.

    Examples
    --------
    >>> leaves, rebuild = flatten({"a": 1.0, "b": [2.0, 3.0]})
    >>> leaves, rebuild([5.0, 6.0, 7.0])
    ([1.0, 2.0, 3.0], {'a': 5.0, 'b': [6.0, 7.0]})
    """
    if hasattr(tree, "__leaves__") and not whole:
        return list(tree.__leaves__()), tree.__rebuild__
    if not isinstance(tree, (list, tuple, dict)):
        return [tree], lambda leaves: leaves[0]
    parts = [flatten(t, whole) for t in (tree.values() if isinstance(tree, dict) else tree)]

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
        kind = f"{value.dtype} array of shape {value.shape}" if hasattr(value, "dtype") else f"{type(value).__name__}"
        place = where if len(leaves) == 1 else f"{where}, leaf {i}"
        raise TypeError(
            f"{place} is {_article(kind)}; derivatives need floating-point input: use .astype('float64'), or 3.0 for "
            "3, or name the arguments to differentiate with argnums"
        )


def _article(noun: str) -> str:
    return f"{'an' if noun.startswith(('a', 'e', 'i', 'o', 'nd')) else 'a'} {noun}"  # an int64, an ndarray, a uint8


class _Tracing:
    """One trace of ``f(*args)`` with respect to the leaves of some of its arguments."""

    def __init__(
        self,
        f: Callable[..., Any],
        args: Sequence[Any],
        argnums: Sequence[int],
        kwargs: dict[str, Any],
        apart: Callable[[Any], Any] = flatten,
    ) -> None:
        self.parts: list[tuple[int, int, Any, list[Any]]] = []
        for i in argnums:
            if not -len(args) <= i < len(args):
                named = ": give arguments to be differentiated by position" if kwargs else ""
                raise TypeError(f"argnums names argument {i}, but the function was called with {len(args)}{named}")
            if i % len(args) in [part[0] for part in self.parts]:
                raise ValueError(f"argnums names argument {i % len(args)} twice: {tuple(argnums)}")
            leaves, rebuild = apart(args[i])
            _check_floating(leaves, f"argument {i}")
            self.parts.append((i % len(args), len(leaves), rebuild, leaves))
        full = list(args)

        def of_leaves(*traced: Any) -> Any:
            for (i, _, _, _), value in zip(self.parts, self.rebuild(traced), strict=True):
                full[i] = value
            return f(*full, **kwargs)

        values = [leaf for part in self.parts for leaf in part[3]]
        self.out, self.pullback, self.trace = run(of_leaves, values)

    def rebuild(self, leaves: Sequence[Any]) -> list[Any]:
        """Put one flat list of leaves back into the arguments that they came from."""
        rest, made = list(leaves), []
        for _, count, build, _ in self.parts:
            made.append(build(rest[:count]))
            del rest[:count]
        return made


def _outside(tree: Any, trace: Trace) -> Any:
    """Return a result with the wrapping of the trace that has just ended taken off; refuse that of another."""
    leaves, rebuild = flatten(tree)
    if not any(type(x) is Traced for x in leaves):
        return tree
    plain = [x.value if type(x) is Traced and x.within is trace else x for x in leaves]
    top_trace(plain)
    return rebuild(plain)


def _own(grads: Sequence[Any], lent: Sequence[Any] = ()) -> list[Any]:
    """Return gradients that share no memory with each other or with what was lent, and can be written to."""
    seen, own = {id(g) for g in lent}, []
    for g in grads:
        shared = id(g) in seen or getattr(g, "base", None) is not None
        own.append(g.copy() if type(g) is not Traced and shared and hasattr(g, "copy") else g)
        seen.add(id(g))
    return own


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
    several, wanted = _wanted(argnums)

    def value_and_gradient(*args: Any, **kwargs: Any) -> Any:
        tracing = _Tracing(f, args, wanted, kwargs)
        if has_aux and not (isinstance(tracing.out, tuple) and len(tracing.out) == 2):
            raise TypeError(
                f"has_aux=True needs a function that returns (value, aux), got {type(tracing.out).__name__}"
            )
        value, aux = tracing.out if has_aux else (tracing.out, None)
        trace, tracing.out = tracing.trace, None
        _check_scalar(value)
        result = (_outside(value, trace), _outside(aux, trace)) if has_aux else _outside(value, trace)
        pairs = [(value, np.ones_like(raw(value)))]
        del value
        grads = tracing.rebuild(_own(tracing.pullback(pairs, consume=True)))
        return result, (tuple(grads) if several else grads[0])

    return value_and_gradient


def _wanted(argnums: int | Sequence[int]) -> tuple[bool, list[int]]:
    """Return whether several arguments are named, and their positions."""
    wanted = argnums if isinstance(argnums, (tuple, list)) else (argnums,)
    try:
        return wanted is argnums, [operator.index(i) for i in wanted]
    except TypeError:
        kind = _article(type(argnums).__name__)
        raise TypeError(f"argnums is the position of an argument, not {kind}; write bng.grad(f)(x)") from None


def _check_scalar(value: Any) -> None:
    if value is None:
        raise TypeError("the function returned None; does it lack a return statement?")
    if type(raw(value)) not in (float, int) and getattr(getattr(raw(value), "dtype", None), "kind", "") != _FLOATS:
        returned = type(raw(value)).__name__
        if isinstance(value, (tuple, list)):
            returned += "; with has_aux=True it may return (value, aux)"
        elif isinstance(value, bool) or getattr(getattr(raw(value), "dtype", None), "kind", "") in ("b", "i", "u"):
            returned = f"{getattr(raw(value), 'dtype', returned)}; comparisons and argmax carry no derivative"
        raise TypeError(f"a gradient needs a floating-point scalar, the function returned {returned}")
    if shape_of(value):
        raise ValueError(
            f"a gradient needs a scalar, the function returned an array of shape {shape_of(value)}: take np.mean or "
            "np.sum of it, or use vjp"
        )


def grad(f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable[..., Any]:
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
        Where a cotangent has another shape than the value, or is on another device.

    Notes
    -----
    The pullback reads the arrays of the forward pass again, which are not copied: write into none of them (b = b + 1,
    not b += 1) before it is called, and call it before an optimizer steps in place.

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
        cotangents = _leaves_like(tracing.out, g, "the cotangent", "the function's value")
        grads = tracing.pullback(list(zip(outs, cotangents, strict=True)))
        return tuple(tracing.rebuild(_own(grads, cotangents)))

    return _outside(tracing.out, tracing.trace), pullback


def jvp(f: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """Return f(*primals) and its derivative along ``tangents``, J v: how the value moves as the arguments do.

    The pullback g ↦ Jᵀg is linear in g, so its own pullback is v ↦ J v: reverse mode, taken twice, and no second set of
    rules. It costs about two gradients.

    Parameters
    ----------
    f
        A function whose result is an array or a container of arrays.
    primals, tangents
        The arguments, and for each of them a direction of the same structure and shapes.

    Returns
    -------
    value, tangent
        The tangent has the structure, shapes and dtypes of the value.

    Raises
    ------
    ValueError
        Where a tangent has another shape than its primal, or is on another device.

    Examples
    --------
    >>> import numpy as np
    >>> jvp(lambda x: x * x, [np.array([1.0, 2.0])], [np.array([1.0, 10.0])])
    (array([1., 4.]), array([ 2., 40.]))
    """
    for given in (primals, tangents):
        if not isinstance(given, (list, tuple)):
            raise TypeError(f"primals and tangents are lists: [x], [v]; one is {_article(type(given).__name__)}")
    directions = _leaves_like(list(primals), list(tangents), "the tangent", "the point")
    tracing = _Tracing(f, primals, range(len(primals)), {})
    outs, rebuild = flatten(tracing.out)
    pulled, push = _transposed(tracing, outs)
    value = _outside(tracing.out, tracing.trace)
    made = _own(push(list(zip(pulled, directions, strict=True))), directions)
    scalar = [isinstance(leaf, np.generic) for leaf in flatten(value)[0]]  # NumPy's scalars stay scalars
    return value, rebuild([t[()] if s else t for t, s in zip(made, scalar, strict=True)])


def _transposed(tracing: _Tracing, outs: Sequence[Any]) -> tuple[list[Any], Callable[..., list[Any]]]:
    """Trace the pullback itself; return its results and its own pullback, from them to the leaves of the value."""
    zeros = [_unit(y) for y in outs]
    pulled, push, _ = run(lambda *g: tracing.pullback(list(zip(outs, g, strict=True))), zeros)
    return pulled, push


def _unit(like: Any, index: tuple[int, ...] | None = None) -> Any:
    """Return zeros shaped like a leaf, but for a one at ``index``; floating, whatever the leaf is."""
    value = raw(like)
    floating = getattr(getattr(value, "dtype", None), "kind", "") == _FLOATS
    unit = np.zeros_like(value) if floating else backend_of(value).xp.zeros(shape_of(value))
    if index is not None:
        unit[index] = 1.0
    return unit


def _leaves_like(tree: Any, other: Any, what: str, whose: str) -> list[Any]:
    """Return the leaves of ``other`` in the order of ``tree``'s, whose structure and shapes it must have."""
    if isinstance(tree, dict) and isinstance(other, dict) and tree.keys() == other.keys():
        return [leaf for k in tree for leaf in _leaves_like(tree[k], other[k], what, whose)]
    if isinstance(tree, (list, tuple)) and isinstance(other, (list, tuple)) and len(tree) == len(other):
        return [leaf for a, b in zip(tree, other, strict=True) for leaf in _leaves_like(a, b, what, whose)]
    mine, theirs = flatten(tree)[0], flatten(other)[0]
    named = hasattr(tree, "__leaves__")
    same = type(tree) is type(other) and list(tree) == list(other) if named else len(theirs) == 1
    shapes, given = [shape_of(x) for x in mine], [shape_of(x) for x in theirs]
    if isinstance(tree, (dict, list, tuple)) or not same or shapes != given:
        raise ValueError(f"{what} has shapes {given}, {whose} {shapes}; structure, names and shapes must agree")
    for i, (x, y) in enumerate(zip(theirs, mine, strict=True)):
        here, there = backend_of(raw(x)), backend_of(raw(y))
        if here is not there and shape_of(x):
            at = repr(there.device)
            raise ValueError(f"{what} is on {here.device!r}, {whose} on {at}: use bng.asarray(x, device={at})")
        if here is not there and not there.on_host:  # a number
            theirs[i] = x * np.ones_like(raw(y))
    return theirs


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
        directions = _leaves_like(x, v, "the direction", "the point")

        def slope(x: Any) -> Any:
            return _inner(flatten(grad(f)(x, *args, **kwargs))[0], directions)

        return grad(slope)(x)

    return product


def _inner(a: Sequence[Any], b: Sequence[Any]) -> Any:
    total: Any = 0.0
    for x, y in zip(a, b, strict=True):
        total = total + ops.sum(x * y)
    return total


def jacobian(f: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """Make a function that returns the Jacobian of f, all derivatives ∂f/∂(argument ``argnums``).

    One pass backward for each entry of the result, or, where these are more, one forward for each of the argument.

    Parameters
    ----------
    f
        A function of arrays, numbers or containers, with such a result.
    argnums
        The argument to differentiate; for a sequence of them a tuple takes the argument's place.

    Returns
    -------
    callable
        For an array in and an array out, an array with the axes of the result, then those of the argument. Containers
        nest: the structure of the result, and in the place of each of its arrays the structure of the argument. A
        `Params` counts as one vector, ``params.flat``: loss → (size,), output (N, K) → (N, K, size).

    Examples
    --------
    >>> import numpy as np
    >>> jacobian(lambda x: np.stack([x[0] * x[1], x[1] ** 2]))(np.array([2.0, 3.0]))
    array([[3., 2.],
           [0., 6.]])
    """
    several, wanted = _wanted(argnums)

    def matrix(*args: Any, **kwargs: Any) -> Any:
        results: list[Any] = []

        def of_vectors(*args: Any, **kwargs: Any) -> list[Any]:
            results[:] = [flatten(f(*args, **kwargs), whole=True)]
            return [_vector(part) for part in results[0][0]]

        tracing = _Tracing(of_vectors, args, wanted, kwargs, _apart)
        inputs = [leaf for part in tracing.parts for leaf in part[3]]
        blocks = _blocks(tracing, tracing.out, inputs)
        rows = []
        for row in blocks:
            made = [flatten(args[i], whole=True)[1]([row.pop(0) for _ in range(n)]) for i, n, _, _ in tracing.parts]
            rows.append(tuple(made) if several else made[0])
        return results[0][1](rows)

    return matrix


def _blocks(tracing: _Tracing, outs: Sequence[Any], inputs: Sequence[Any]) -> list[list[Any]]:
    """Return ∂(result j)/∂(input k) for all j and k, from the side that has fewer entries."""
    entries = [sum(math.prod(shape_of(x)) for x in side) for side in (outs, inputs)]
    if entries[0] <= entries[1]:
        return [_slopes(tracing.pullback, y, inputs) for y in outs]
    pulled, push = _transposed(tracing, outs)
    columns = [_slopes(push, x, outs) for x in pulled]
    ndims = [len(shape_of(x)) for x in inputs]
    return [
        [ops.moveaxis(c[j], range(n), range(-n, 0)) for c, n in zip(columns, ndims, strict=True)]
        for j in range(len(outs))
    ]


def _slopes(pullback: Callable[..., list[Any]], y: Any, inputs: Sequence[Any]) -> list[Any]:
    """Return the derivative of one array y by each input, with y's axes first: one pass for each entry of y."""
    shape = tuple(shape_of(y))
    passes = [pullback([(y, _unit(y, index))]) for index in np.ndindex(shape)]
    if not passes:
        return [np.zeros_like(raw(x), shape=shape + tuple(shape_of(x))) for x in inputs]
    return [
        ops.reshape(ops.stack(entries), shape + tuple(shape_of(entries[0]))) for entries in zip(*passes, strict=True)
    ]


def _apart(tree: Any) -> tuple[list[Any], Callable[[Sequence[Any]], Any]]:
    """Take a container apart as `flatten` does, with each object of leaves as one vector, its leaves in a row."""
    parts, rebuild = flatten(tree, whole=True)
    return [_vector(p) for p in parts], lambda made: rebuild(
        [_restored(p, v) for p, v in zip(parts, made, strict=True)]
    )


def _vector(part: Any) -> Any:
    return ops.concatenate(part.__leaves__(), axis=None) if hasattr(part, "__leaves__") else part


def _restored(part: Any, vector: Any) -> Any:
    """Return an object of leaves like ``part`` with the entries of a vector; any other leaf is the vector itself."""
    if not hasattr(part, "__leaves__"):
        return vector
    shapes = [shape_of(leaf) for leaf in part.__leaves__()]
    ends = list(itertools.accumulate(map(math.prod, shapes)))
    pieces = ops.array_split(vector, ends[:-1])
    return part.__rebuild__([ops.reshape(p, s) for p, s in zip(pieces, shapes, strict=True)])


def hessian(f: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """Make a function that returns the matrix of second derivatives of a scalar f: the `jacobian` of its gradient.

    An array of shape s gives the axes of s twice, a `Params` (size, size) in the order of ``params.flat``, a container
    or several arguments the blocks of both structures, one inside the other. It takes as many passes as there are
    entries; `hvp` needs one for a product with a vector.

    Examples
    --------
    >>> import numpy as np
    >>> hessian(lambda x: x[0] ** 2 * x[1])(np.array([1.0, 3.0]))
    array([[6., 2.],
           [2., 0.]])
    """
    return jacobian(grad(f, argnums), argnums)
