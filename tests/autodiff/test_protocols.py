"""NumPy's own functions, Python's operators and array methods on traced values, against the same call on arrays."""

import contextlib
import math
import operator

import numpy as np
import pytest

from minibng import grad, ops, value_and_grad, vjp
from minibng.autodiff import Traced
from minibng.backend import SyncError

X = np.array([[0.4, 1.3, 2.2], [0.9, 1.7, 0.6]])
ROW = np.array([0.5, 1.5, 2.5])
NUMBER = np.array(2.0)
ROWS, COLUMNS, COLUMN = np.array([0, 1]), np.array([2, 2]), np.array([[0], [2]])
LIST = [1, 1, 0]
CONSTANTS = ("X", "ROW", "NUMBER", "ROWS", "COLUMNS", "COLUMN", "LIST")
"""What the functions below work with beside their argument: in a test on a device it is there."""
F32 = np.float32(1.5)

FUNCTIONS = {
    "np.exp": np.exp,
    "np.log": np.log,
    "np.sqrt": np.sqrt,
    "np.square": np.square,
    "np.tanh": np.tanh,
    "np.negative": np.negative,
    "np.abs": np.abs,
    "np.absolute": np.absolute,
    "np.add": lambda x: np.add(x, ROW),
    "np.add reversed": lambda x: np.add(ROW, x),
    "np.subtract": lambda x: np.subtract(ROW, x),
    "np.multiply": lambda x: np.multiply(ROW, x),
    "np.divide": lambda x: np.divide(ROW, x),
    "np.true_divide": lambda x: np.true_divide(x, ROW),
    "np.power": lambda x: np.power(x, ROW),
    "np.power base": lambda x: np.power(ROW, x),
    "np.maximum": lambda x: np.maximum(x, 1.0),
    "np.minimum": lambda x: np.minimum(1.0, x),
    "np.where": lambda x: np.where(x > 1, x, -x),
    "np.clip": lambda x: np.clip(x, 0.5, 1.5),
    "np.clip keywords": lambda x: np.clip(x, a_min=0.5, a_max=1.5),
    "np.sum": np.sum,
    "np.sum axis": lambda x: np.sum(x, axis=0),
    "np.sum positional": lambda x: np.sum(x, 1),
    "np.sum keepdims": lambda x: np.sum(x, axis=-1, keepdims=True),
    "np.mean": lambda x: np.mean(x, axis=1),
    "np.var": lambda x: np.var(x, axis=0, ddof=1),
    "np.max": lambda x: np.max(x, axis=1),
    "np.amax": np.amax,
    "np.min": lambda x: np.min(x, axis=0, keepdims=True),
    "np.amin": np.amin,
    "np.matmul": lambda x: np.matmul(x, ROW),
    "np.matmul reversed": lambda x: np.matmul(ROW[:2], x),
    "np.dot": lambda x: np.dot(x, ROW),
    "np.reshape": lambda x: np.reshape(x, (3, 2)),
    "np.reshape -1": lambda x: np.reshape(x, -1),
    "np.transpose": np.transpose,
    "np.transpose axes": lambda x: np.transpose(x, axes=(1, 0)),
    "np.swapaxes": lambda x: np.swapaxes(x, 0, 1),
    "np.swapaxes keywords": lambda x: np.swapaxes(x, axis1=0, axis2=1),
    "np.moveaxis": lambda x: np.moveaxis(x, 0, -1),
    "np.expand_dims": lambda x: np.expand_dims(x, axis=1),
    "np.squeeze": lambda x: np.squeeze(x[:1], axis=0),
    "np.ravel": np.ravel,
    "np.broadcast_to": lambda x: np.broadcast_to(x, (4, 2, 3)),
    "np.concatenate": lambda x: np.concatenate([x, X, x[:1]]),
    "np.concatenate axis": lambda x: np.concatenate((X, x), axis=1),
    "np.concatenate axis=None": lambda x: np.concatenate((X, x), axis=None),
    "np.stack": lambda x: np.stack([x, X], axis=1),
    "np.stack of entries": lambda x: np.stack([x[0, 0], x[1, 2]]),
    "np.std": lambda x: np.std(x, axis=0, ddof=1, keepdims=True),
    "np.prod": lambda x: np.prod(x, axis=1),
    "np.prod axes": lambda x: np.prod(x, axis=(0, -1), keepdims=True),
    "np.cumsum": lambda x: np.cumsum(x, axis=1),
    "np.cumprod": lambda x: np.cumprod(x),
    "np.average": lambda x: np.average(x, axis=1, weights=ROW),
    "np.average traced weights": lambda x: np.average(ROW, weights=x[0]),
    "np.sort": lambda x: np.sort(x, axis=0, kind="stable"),
    "np.sort axis=None": lambda x: np.sort(x, axis=None),
    "np.diff": lambda x: np.diff(x, n=2, prepend=0.5),
    "np.ptp": lambda x: np.ptp(x, axis=0),
    **({"np.clip min max": lambda x: np.clip(x, min=0.5, max=1.5)} if np.__version__ >= "2.1" else {}),
    "np.einsum": lambda x: np.einsum("ij,kj->ik", x, X, optimize=True),
    "np.einsum lists": lambda x: np.einsum(x, [0, 1], [1]),
    "np.tensordot": lambda x: np.tensordot(x, X, axes=([1], [1])),
    "np.outer": lambda x: np.outer(x, ROW),
    "np.inner": lambda x: np.inner(X, x),
    "np.vdot": lambda x: np.vdot(X, x),
    "np.kron": lambda x: np.kron(X, x),
    "np.trace": lambda x: np.trace(x, offset=1),
    "np.diag": lambda x: np.diag(x[0], k=-1),
    "np.tril": lambda x: np.tril(x, k=-1),
    "np.pad": lambda x: np.pad(x, ((1, 0), (2, 1)), constant_values=3.0),
    "np.pad reflect": lambda x: np.pad(x, 1, mode="reflect"),
    "np.hstack": lambda x: np.hstack([x, X]),
    "np.vstack": lambda x: np.vstack((ROW, x)),
    "np.column_stack": lambda x: np.column_stack([x, X[:, 0]]),
    "np.split": lambda x: np.split(x, [1], axis=1)[1],
    "np.array_split": lambda x: np.stack([p.sum() for p in np.array_split(x, 2, axis=-1)]),
    "np.flip": lambda x: np.flip(x, axis=(0, 1)),
    "np.roll": lambda x: np.roll(x, shift=1, axis=1),
    "np.tile": lambda x: np.tile(x, reps=(2, 1)),
    "np.repeat": lambda x: np.repeat(x, repeats=[1, 2, 0], axis=1),
    "np.rot90": lambda x: np.rot90(x, k=3),
    "np.broadcast_arrays": lambda x: np.broadcast_arrays(x[0], X)[0],
    "np.atleast_3d": lambda x: np.atleast_3d(x),
    "np.take": lambda x: np.take(x, indices=[2, 0], axis=1),
    "np.take_along_axis": lambda x: np.take_along_axis(x, COLUMN, axis=1),
    "np.linalg.norm": lambda x: np.linalg.norm(x, axis=-1, keepdims=True),
    "np.linalg.norm ord": lambda x: np.linalg.norm(x, ord=1, axis=0),
    "np.linalg.vector_norm": lambda x: np.linalg.vector_norm(x, axis=1, ord=3),
    "np.linalg.solve": lambda x: np.linalg.solve(x[:, :2], X),
    "np.linalg.inv": lambda x: np.linalg.inv(x[:, 1:]),
    "np.linalg.det": lambda x: np.linalg.det(x[:, 1:]),
    "np.linalg.slogdet": lambda x: np.linalg.slogdet(x[:, :2]).logabsdet * np.linalg.slogdet(x[:, :2]).sign,
    "np.linalg.cholesky": lambda x: np.linalg.cholesky(x @ x.T, upper=True),
    "np.linalg.trace": lambda x: np.linalg.trace(np.stack([x, X]), offset=1),
    "np.linalg.diagonal": lambda x: np.linalg.diagonal(np.stack([x, X])),
    "np.copy": lambda x: np.copy(x) * 2,
    "np.astype": lambda x: np.astype(x, np.float64),
    "traced % number": lambda x: x % 0.7,
    "number % traced": lambda x: 7.5 % x,
    "traced // number": lambda x: x // 0.7 * x,
    ".std(axis=0, ddof=1)": lambda x: x.std(axis=0, ddof=1),
    ".prod(axis=1)": lambda x: x.prod(axis=1),
    ".cumsum()": lambda x: x.cumsum(),
    ".cumprod(axis=0)": lambda x: x.cumprod(axis=0),
    ".clip(0.5, max=1.5)": lambda x: x.clip(0.5, max=1.5),
    ".take([1, 0], axis=1)": lambda x: x.take([1, 0], axis=1),
    ".repeat(2, axis=0)": lambda x: x.repeat(2, axis=0),
    ".trace(1)": lambda x: x.trace(1),
    ".diagonal()": lambda x: x.diagonal(),
    ".mT": lambda x: x.mT,
    ".copy()": lambda x: x.copy() * x.conj() * x.real,
    ".flat": lambda x: sum(v * i for i, v in enumerate(x.flat)),
    ".argmax, .round, .any": lambda x: x * x.argmax(axis=None) + x.round() * x + x.any(),
    "traced + number": lambda x: x + 2,
    "number + traced": lambda x: 2.5 + x,
    "traced - array": lambda x: x - ROW,
    "array - traced": lambda x: ROW - x,
    "number - traced": lambda x: 1 - x,
    "array * traced": lambda x: ROW * x,
    "traced * array": lambda x: x * ROW,
    "np.float64 * traced": lambda x: np.float64(1.5) * x,
    "np.float32 * traced": lambda x: F32 * x,
    "traced * np.float32": lambda x: x * F32,
    "np.int64 * traced": lambda x: np.int64(3) * x,
    "0-d array * traced": lambda x: NUMBER * x,
    "number / traced": lambda x: 1.0 / x,
    "array / traced": lambda x: ROW / x,
    "traced ** 2": lambda x: x**2,
    "traced ** 0.5": lambda x: x**0.5,
    "traced ** -1": lambda x: x**-1,
    "traced ** array": lambda x: x**ROW,
    "traced ** traced": lambda x: x**x,
    "2 ** traced": lambda x: 2**x,
    "array ** traced": lambda x: ROW**x,
    "np.float64 ** traced": lambda x: np.float64(2.0) ** x,
    "traced @ array": lambda x: x @ X.T,
    "array @ traced": lambda x: X.T @ x,
    "array @ traced vector": lambda x: X @ x[0],
    "traced @ traced": lambda x: x @ x.T,
    "-traced": operator.neg,
    "+traced": operator.pos,
    "abs(traced)": abs,
    "built-in sum": sum,
    "augmented": lambda x: _augmented(x),
    "x[0]": lambda x: x[0],
    "x[-1, 1:]": lambda x: x[-1, 1:],
    "x[:, None]": lambda x: x[:, None],
    "x[..., 0]": lambda x: x[..., 0],
    "x[mask]": lambda x: x[x > 1],
    "x[list]": lambda x: x[LIST],
    "x[arrays]": lambda x: x[ROWS, COLUMNS],
    "iteration": lambda x: np.stack([row * i for i, row in enumerate(x)]),
    "unpacking": lambda x: _unpacked(x),
    "zip": lambda x: sum(a * b for a, b in zip(x[0], x[1], strict=True)),
    ".sum()": lambda x: x.sum(),
    ".sum(0)": lambda x: x.sum(0),
    ".sum(axis=(0, 1))": lambda x: x.sum(axis=(0, 1), keepdims=True),
    ".mean(axis=1)": lambda x: x.mean(axis=1),
    ".var(axis=1, ddof=1)": lambda x: x.var(axis=1, ddof=1),
    ".max(axis=0)": lambda x: x.max(axis=0),
    ".min()": lambda x: x.min(),
    ".dot": lambda x: x.dot(ROW),
    ".T": lambda x: x.T,
    ".transpose()": lambda x: x.transpose(),
    ".transpose(1, 0)": lambda x: x.transpose(1, 0),
    ".transpose((1, 0))": lambda x: x.transpose((1, 0)),
    ".transpose(-1, 0)": lambda x: x.transpose(-1, 0),
    ".reshape(3, 2)": lambda x: x.reshape(3, 2),
    ".reshape((3, 2))": lambda x: x.reshape((3, 2)),
    ".reshape([3, 2])": lambda x: x.reshape([3, 2]),
    ".reshape(-1)": lambda x: x.reshape(-1),
    ".reshape(2, -1, 1)": lambda x: x.reshape(2, -1, 1),
    ".ravel()": lambda x: x.ravel(),
    ".flatten()": lambda x: x.flatten(),
    ".squeeze()": lambda x: x[:1].squeeze(),
    ".squeeze(axis=0)": lambda x: x[:1].squeeze(axis=0),
    ".swapaxes(0, 1)": lambda x: x.swapaxes(0, 1),
    ".astype": lambda x: x.astype("float64"),
    "functions of its shape": lambda x: x * len(x) / x.size + x.ndim * x.shape[1] + np.size(x) * np.ndim(x),
    "plain helpers": lambda x: x * np.argmax(x) + np.floor(x) * x + np.zeros_like(x) + np.sign(x),
    "np.isfinite": lambda x: np.where(np.isfinite(x), x, 0.0),
}


def _augmented(x):
    x += 1
    x *= ROW
    x -= 0.5
    x /= 2
    return x


def _unpacked(x):
    (a, b, c), (d, e, f) = x
    return a * f + b * e - c / d


LOOK = {"x[mask]", "np.linalg.det"}
"""What waits for a device: a mask decides upon a shape, det upon its rule."""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_of_a_traced_value_equals_that_of_the_array(name, device, monkeypatch):
    f, x = FUNCTIONS[name], X.copy()
    expected = f(x.copy())
    rng = np.random.default_rng(0)
    v, g = rng.standard_normal(x.shape), rng.standard_normal(np.shape(expected))
    h = 1e-4
    measured = np.sum(g * (f(x + h * v) - f(x - h * v))) / (2 * h)
    for constant in CONSTANTS if device.name != "cpu" else ():
        monkeypatch.setitem(globals(), constant, device.array(globals()[constant]))
    given, cotangent = device.arrays([x, g])
    with contextlib.nullcontext() if name in LOOK else device.no_sync():
        y, pull = vjp(f, given)
        (slope,) = pull(cotangent)
    assert np.shape(y) == np.shape(expected)
    assert np.result_type(y) == np.result_type(expected)
    np.testing.assert_allclose(device.host(y), expected, rtol=1e-13)
    np.testing.assert_allclose(np.sum(device.host(slope) * v), measured, rtol=1e-6, atol=1e-8)
    np.testing.assert_array_equal(device.host(given), x)


@pytest.mark.parametrize("scalar", [np.float32(2), np.float64(2), 2, 2.0])
def test_scalars_of_every_kind_on_either_side_of_float32(scalar, device):
    x = device.array([1.0, 3.0], "float32")
    for f in (lambda x: scalar * x, lambda x: x * scalar, lambda x: scalar / x, lambda x: scalar**x):
        y, pull = vjp(f, x)
        assert y.dtype == f(x).dtype
        assert pull(np.ones_like(y))[0].dtype == np.float32


COMPARISONS = [operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne]
COMPARISONS += [np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal]


@pytest.mark.parametrize("compare", COMPARISONS)
@pytest.mark.parametrize("other", [1.3, ROW, np.float64(0.9)], ids=["float", "array", "numpy scalar"])
def test_comparisons_give_the_plain_arrays_of_numpy(compare, other, device):
    seen = []
    beside = device.array(other) if other is ROW else other

    def f(x):
        seen.extend([compare(x, beside), compare(beside, x), compare(x, x * 1.0)])
        return np.sum(x)

    grad(f)(device.array(X))
    assert not any(isinstance(s, Traced) for s in seen)
    for s, expected in zip(seen, [compare(X, other), compare(other, X), compare(X, X)], strict=True):
        assert s.dtype == bool
        np.testing.assert_array_equal(device.host(s), expected)


@pytest.mark.parametrize("x, expected", [(3.0, 6.0), (-3.0, -1.0)])
def test_the_branch_taken_is_differentiated(x, expected, device):
    assert grad(lambda x: x * x if x > 0 else -x)(x) == expected
    assert grad(lambda x: np.sum(x * x if np.all(raw_positive(x)) else -x))(device.array([x])) == expected


def test_a_branch_on_a_value_waits_for_the_device(device):
    x = device.array(3.0)
    with device.no_sync():
        if device.name == "strict":
            with pytest.raises(SyncError, match="bool"):
                grad(lambda x: x * x if x > 0 else -x)(x)
        gradient = grad(lambda x: np.where(x > 0, x * x, -x))(x)
    assert gradient == 6.0


def raw_positive(x):
    return x > 0


def test_a_while_loop_on_values_is_differentiated(device):
    def halved(x):
        while x > 1:
            x = x / 2
        return x * x

    for start in (5.0, device.array(5.0)):
        value, slope = value_and_grad(halved)(start)
        assert (value, slope) == (0.625**2, 2 * 0.625 / 8)


def test_truth_value_is_the_array_s(device):
    assert grad(lambda x: x if x else -x)(2.0) == 1.0
    assert grad(lambda x: x if x else -x)(device.array(2.0)) == 1.0
    with pytest.raises(ValueError, match="ambiguous"):
        grad(lambda x: np.sum(x) if x else 0.0)(device.array(ROW))


def test_len_and_iteration_of_a_scalar_fail_as_numpy_s(device):
    for f in (len, list):
        with pytest.raises(TypeError):
            grad(f)(device.array(1.0))


def test_built_in_max_and_min_choose_by_value(device):
    gradient = grad(lambda x: max(*x) * 2 + min(x))(device.array(ROW))
    np.testing.assert_array_equal(device.host(gradient), [1.0, 0.0, 2.0])


def test_shape_and_dtype_are_those_of_the_array(device):
    seen = []

    def f(x):
        seen.append((x.shape, x.ndim, x.size, len(x), x.dtype, np.shape(x), np.ndim(x), np.size(x)))
        return x.sum()

    grad(f)(device.array(X, "float32"))
    assert seen == [((2, 3), 2, 6, 2, np.dtype("float32"), (2, 3), 2, 6)]


def test_the_value_is_shown_when_printed(device):
    seen = []
    grad(lambda x: seen.append(repr(x)) or x.sum())(device.array(ROW))
    assert "0.5" in seen[0] and "Traced" in seen[0]


def test_two_routes_to_one_operation_agree(device):
    x = device.array(X)
    for a, b in ((np.exp, ops.exp), (np.sum, ops.sum), (np.transpose, ops.transpose), (np.mean, ops.mean)):
        one, other = grad(lambda x, a=a: np.sum(a(x) ** 2))(x), grad(lambda x, b=b: np.sum(b(x) ** 2))(x)
        np.testing.assert_array_equal(device.host(one), device.host(other))


def test_functions_of_python_floats_are_differentiated():
    assert math.isclose(grad(lambda x: np.exp(x) * x)(0.5), math.exp(0.5) * 1.5, rel_tol=1e-15)
