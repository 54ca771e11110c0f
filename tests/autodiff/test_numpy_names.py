"""NumPy's whole namespace on a traced value: each function works, or says what to use instead."""

import inspect

import numpy as np
import pytest

from minibng import TraceError, ops, vjp
from minibng.autodiff import Traced, raw
from minibng.autodiff.tracer import NUMPY_HINTS, NUMPY_NAMES

X = np.array([[0.4, 1.3, 2.2], [0.9, 1.7, 0.6], [0.2, 0.8, 2.9]])
EDGES, FIRST = np.array([0.5, 1.5]), np.zeros((1, 3), int)
CONSTANTS = ("X", "EDGES", "FIRST")
"""What the calls below work with beside their argument: in a test on a device it is there."""
NOT_IN_CUPY = {"np.einsum_path"}
MODULES = {"np": np, "np.linalg": np.linalg, "np.fft": np.fft}
FALLBACK = "compose it from bng.ops"
pytestmark = pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.4.0", reason="this NumPy lacks some names")
KNOWN = np.lib.NumpyVersion(np.__version__) < "2.5.0"
"""Whether every function of this NumPy was there when the hints were written."""


def dispatched(f):
    """Whether NumPy asks its arguments before it works: for ufuncs, and what knows its undecorated form."""
    return isinstance(f, np.ufunc) or (callable(f) and not isinstance(f, type) and hasattr(f, "_implementation"))


NAMES = [
    f"{module}.{name}"
    for module, library in MODULES.items()
    for name in sorted(library.__all__)
    if dispatched(getattr(library, name))
]


def function(name):
    module, _, name = name.rpartition(".")
    return getattr(MODULES[module], name)


# How to call what does not take one matrix: x is traced
CALLS = {
    "np.allclose": lambda f, x: f(x, X),
    "np.append": lambda f, x: f(x, X),
    "np.apply_along_axis": lambda f, x: f(np.sum, 0, x),
    "np.apply_over_axes": lambda f, x: f(np.sum, x, 0),
    "np.argpartition": lambda f, x: f(x, 1),
    "np.array_split": lambda f, x: f(x, 2),
    "np.astype": lambda f, x: f(x, "float64"),
    "np.block": lambda f, x: f([x, x]),
    "np.broadcast_to": lambda f, x: f(x, (2, 3, 3)),
    "np.busday_offset": lambda f, x: f(x, 1),
    "np.busday_count": lambda f, x: f(x, x),
    "np.can_cast": lambda f, x: f(x, "float64"),
    "np.choose": lambda f, x: f(np.array([0, 1, 0]), [x[0], x[1]]),
    "np.clip": lambda f, x: f(x, 0.5, 1.5),
    "np.compress": lambda f, x: f([True, False, True], x),
    "np.concat": lambda f, x: f([x, X]),
    "np.copyto": lambda f, x: f(np.zeros((3, 3)), x),
    "np.delete": lambda f, x: f(x, 0, 0),
    "np.digitize": lambda f, x: f(x, EDGES),
    "np.dsplit": lambda f, x: f(x[None], 3),
    "np.einsum": lambda f, x: f("ij->j", x),
    "np.einsum_path": lambda f, x: f("ij->j", x),
    "np.expand_dims": lambda f, x: f(x, 0),
    "np.extract": lambda f, x: f(X > 1, x),
    "np.fill_diagonal": lambda f, x: f(x, 0.0),
    "np.full_like": lambda f, x: f(x, 1.5),
    "np.histogram2d": lambda f, x: f(x[0], x[1]),
    "np.hsplit": lambda f, x: f(x, 3),
    "np.insert": lambda f, x: f(x, 0, 1.0, 0),
    "np.interp": lambda f, x: f(x[0], [0.0, 3.0], [1.0, 2.0]),
    "np.isin": lambda f, x: f(x, [9.0]),
    "np.ix_": lambda f, x: f(x[0], x[1]),
    "np.lexsort": lambda f, x: f((x[0], x[1])),
    "np.moveaxis": lambda f, x: f(x, 0, 1),
    "np.partition": lambda f, x: f(x, 1),
    "np.pad": lambda f, x: f(x, 1),
    "np.percentile": lambda f, x: f(x, 50),
    "np.piecewise": lambda f, x: f(x, [X > 1], [1.0, 2.0]),
    "np.place": lambda f, x: f(x, X > 1, [1.0]),
    "np.polyfit": lambda f, x: f(x[0], x[1], 1),
    "np.put": lambda f, x: f(x, [0], [1.0]),
    "np.put_along_axis": lambda f, x: f(x, np.zeros((1, 3), int), 1.0, 0),
    "np.putmask": lambda f, x: f(x, X > 1, 1.0),
    "np.quantile": lambda f, x: f(x, 0.5),
    "np.nanpercentile": lambda f, x: f(x, 50),
    "np.nanquantile": lambda f, x: f(x, 0.5),
    "np.ravel_multi_index": lambda f, x: f((x[0], x[1]), (3, 3)),
    "np.repeat": lambda f, x: f(x, 2),
    "np.reshape": lambda f, x: f(x, (1, 9)),
    "np.resize": lambda f, x: f(x, (2, 2)),
    "np.roll": lambda f, x: f(x, 1),
    "np.rollaxis": lambda f, x: f(x, 1),
    "np.save": lambda f, x: f("x.npy", x),
    "np.savetxt": lambda f, x: f("x.txt", x),
    "np.savez": lambda f, x: f("x.npz", x),
    "np.savez_compressed": lambda f, x: f("x.npz", x),
    "np.searchsorted": lambda f, x: f(x[0], 1.0),
    "np.select": lambda f, x: f([X > 1], [x]),
    "np.split": lambda f, x: f(x, 3),
    "np.swapaxes": lambda f, x: f(x, 0, 1),
    "np.take": lambda f, x: f(x, [0, 1], 0),
    "np.take_along_axis": lambda f, x: f(x, FIRST, 0),
    "np.tile": lambda f, x: f(x, 2),
    "np.trim_zeros": lambda f, x: f(x[0]),
    "np.unravel_index": lambda f, x: f(x[0], (3, 3)),
    "np.vsplit": lambda f, x: f(x, 3),
    "np.where": lambda f, x: f(X > 1, x, X),
    "np.squeeze": lambda f, x: f(x[:1]),
    "np.linalg.matrix_power": lambda f, x: f(x, 2),
    "np.linalg.outer": lambda f, x: f(x[0], x[1]),
    "np.linalg.multi_dot": lambda f, x: f([x, x]),
    "np.linalg.cholesky": lambda f, x: f(x @ x.T),
    "np.arccosh": lambda f, x: f(x + 1),
    "np.array_equal": lambda f, x: f(x, x),
    **{f"np.{n}": lambda f, x: f(x / 4) for n in ("arcsin", "arccos", "arctanh", "acos", "asin", "atanh")},
    "np.acosh": lambda f, x: f(x + 1),
    **{
        f"np.{n}": lambda f, x: f([x, X])
        for n in ("concatenate", "stack", "hstack", "vstack", "dstack", "column_stack")
    },
    **{f"np.{n}": lambda f, x: f(x[0], X[1]) for n in ("convolve", "correlate", "cross", "polyval", "setdiff1d")},
    **{f"np.{n}": lambda f, x: f(x[0], X[1]) for n in ("polyadd", "polysub", "polymul", "polydiv", "trapezoid")},
    **{f"np.{n}": lambda f, x: f(x[0]) for n in ("poly", "polyder", "polyint", "roots", "vander", "ediff1d")},
    **{f"np.{n}": lambda f, x: f(x[0], x[1]) for n in ("linspace", "geomspace", "logspace")},
}


def call(name, x):
    f = function(name)
    if name in CALLS:
        return CALLS[name](f, x)
    if isinstance(f, np.ufunc):
        return f(*[x, X + 0.5][: f.nin])
    needed = [p for p in inspect.signature(f).parameters.values() if p.default is p.empty and p.kind < p.VAR_POSITIONAL]
    return f(x, *[X + 0.5] * (len(needed) - 1))


def leaves(y):
    return [leaf for part in y for leaf in leaves(part)] if isinstance(y, (list, tuple)) else [y]


@pytest.mark.parametrize("name", NAMES)
def test_a_function_of_numpy_works_on_a_traced_value_or_says_what_to_use(name, device, monkeypatch):
    def f(x):
        seen.append(call(name, x))
        return [y for y in leaves(seen[0]) if isinstance(y, Traced)]

    seen = []
    try:
        with monkeypatch.context() as there:
            for constant in CONSTANTS:
                there.setitem(globals(), constant, device.array(globals()[constant]))
            values, pull = vjp(f, X)
    except TraceError as error:
        assert name.rpartition(".")[2] in str(error) or name in str(error) or function(name).__name__ in str(error)
        assert FALLBACK not in str(error) or not KNOWN
        return
    except TypeError as error:
        assert name in NOT_IN_CUPY and device.name != "cpu" and "no implementation found" in str(error)
        return
    expected = leaves(call(name, X))
    for ours, theirs in zip(leaves(seen[0]), expected, strict=True):
        value = ours if isinstance(ours, type) else device.host(raw(ours))
        assert type(value) is type(theirs) or np.shape(value) == np.shape(theirs)
        if isinstance(theirs, (str, type, np.dtype)):
            assert value == theirs
        elif name != "np.empty_like":
            np.testing.assert_allclose(np.asarray(value, dtype=float), np.asarray(theirs, dtype=float), rtol=1e-12)
    if not values:  # a plain result says that the derivative is 0 wherever there is one: so it is beside this point
        beside = leaves(call(name, X + 1e-9))
        for a, b in zip(expected, beside, strict=True):
            assert name in ("np.empty_like", "np.array_repr", "np.array_str", "np.array2string") or np.array_equal(a, b)
        return
    (gradient,) = pull([np.ones_like(v) for v in values])
    direction = np.random.default_rng(0).standard_normal(X.shape)

    def total(h):
        moved = leaves(call(name, X + h * direction))
        return sum(np.sum(y) for y, s in zip(moved, leaves(seen[0]), strict=True) if isinstance(s, Traced))

    measured = (total(1e-5) - total(-1e-5)) / 2e-5
    np.testing.assert_allclose(np.sum(device.host(gradient) * direction), measured, rtol=1e-5, atol=1e-7)


def test_no_hint_is_for_a_function_that_works():
    working = {f.__name__ for f in NUMPY_NAMES}
    assert not working & {n for n in NUMPY_HINTS if not n.endswith("=")}


def test_hints_are_for_names_that_numpy_has():
    names = {n for module in MODULES.values() for n in dir(module)} | {"sliding_window_view"}
    names |= {"expit", "erf", "logsumexp"}  # scipy.special's
    newer = {"cumulative_sum", "cumulative_prod", "matvec", "vecmat"}
    assert {n for n in NUMPY_HINTS if not n.endswith("=")} <= names | newer


def test_our_names_are_numpy_s():
    ours_alone = {"relu", "logsumexp", "getitem", "gather", "scatter", "scatter_add", "sum_to", "cast", "linalg"}
    assert {n for n in ops.__all__ if not hasattr(np, n)} == ours_alone - {"linalg"}
    assert all(hasattr(np.linalg, n) for n in ops.linalg.__all__)


@pytest.mark.parametrize(
    "name", [n for n in dir(np.ndarray) if not n.startswith("_") and callable(getattr(np.ndarray, n))]
)
def test_a_method_of_arrays_works_on_a_traced_value_or_says_what_to_use(name, device):
    arguments = {
        **{"astype": ("float64",), "clip": (0.5, 1.5), "dot": (X,), "repeat": (2,), "reshape": (9,), "take": ([0],)},
        **{"swapaxes": (0, 1), "argpartition": (1,), "searchsorted": (0.7,), "to_device": ("cpu",)},
    }.get(name, ())
    seen = []

    def f(x):
        x = x[0] if name == "searchsorted" else x
        seen.append(getattr(x, name)(*[device.array(a) if a is X else a for a in arguments]))
        return seen[0] if isinstance(seen[0], Traced) else np.sum(x)

    try:
        vjp(f, device.array(X))
    except TraceError as error:
        assert len(str(error)) > 10
        return
    expected = getattr(X[0] if name == "searchsorted" else X, name)(*arguments)
    for ours, theirs in zip(leaves(seen[0]), leaves(expected), strict=True):
        np.testing.assert_allclose(device.host(raw(ours)), theirs, rtol=1e-12)


def test_plain_results_serve_as_indices_and_conditions(device):
    def f(x):
        order = np.argsort(x, axis=None)
        whole = np.floor(x).astype(int)
        nonzero = np.nonzero(x > 1)
        return np.ravel(x)[order[-1]] + np.sum(x[nonzero]) + np.sum(x[np.minimum(whole, 2)]) + x.argmax() + x // 1

    y, pull = vjp(f, device.array(X))
    np.testing.assert_allclose(device.host(y), f(X))
    assert np.all(np.isfinite(pull(np.ones_like(y))[0]))


def test_traced_values_by_name_reach_plain_functions():
    assert vjp(lambda x: x[np.argmax(a=x)], X[0])[0] == 2.2
    assert vjp(lambda x: x[0] * np.array_equal(a1=x, a2=[0.4, 1.3, 2.2]), X[0])[0] == 0.4


def test_full_like_keeps_the_derivative_of_its_value_or_is_refused(device):
    y, pull = vjp(lambda x: np.full_like(x, x[1]), device.array(X[0]))
    np.testing.assert_array_equal(device.host(y), [1.3, 1.3, 1.3])
    np.testing.assert_array_equal(device.host(pull(np.ones_like(y))[0]), [0.0, 3.0, 0.0])
    with pytest.raises(TraceError):
        vjp(lambda x: np.full_like(X, x), 2.0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_modulo_and_floor_division_are_python_s_operators(dtype, device):
    x = X.astype(dtype)
    y, pull = vjp(lambda x: x % 0.7 + 5.0 % x + x // 0.7 + 5.0 // x, device.array(x))
    assert y.dtype == dtype
    np.testing.assert_array_equal(device.host(y), x % 0.7 + 5.0 % x + x // 0.7 + 5.0 // x)
    np.testing.assert_allclose(device.host(pull(np.ones_like(y))[0]), 1 - 5.0 // x)
