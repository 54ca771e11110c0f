"""The advice of the error messages, executed: what is offered in a NumPy function's place gives that one's numbers."""

import numpy as np
import pytest

import minibng as bng
from minibng import vjp
from minibng.autodiff.tracer import NUMPY_HINTS

X = np.array([0.4, 1.3, -2.2, 0.9, 1.7])
Y = np.array([2.5, -0.6, 1.1])
Z = np.array([1.2, 0.7, -0.5, 2.1, 0.3])
NAN = np.array([0.4, np.nan, -2.2, 0.9, np.nan])
M = np.array([[2.0, 0.3, -0.4], [0.3, 1.5, 0.2], [-0.1, 0.6, 1.8]])
INFINITE = np.array([0.4, np.nan, np.inf, -np.inf])
SIGNS = np.array([0.0, -0.0, 3.0, -2.0, -1.0])

CENTRED = {"c": "x - np.mean(x, axis=-1, keepdims=True)"}
CONVOLVED = {"w": "y", "p": "np.pad(x, len(w) - 1)", "n": "len(x) + len(w) - 1"}
CONVOLUTION = "sum(v * p[k : k + n] for k, v in enumerate(w[::-1]))"
QUANTILE = {"s": "np.sort(x)", "n": "len(x)", "i": "int(h)", "j": "min(i + 1, n - 1)"}
LINE = {"start": "x[0]", "stop": "x[1]", "n": "7"}
WAVES = {"n": "len(x)", "k": "np.arange(n)", "a": "2 * np.pi * np.outer(k, k) / n"}
PAIR = {"a": "x", "b": "z"}
MATRIX = {"a": "x", "b": "x[:, :1]", "n": "3"}

# name → the expression in its hint, what its names stand for, the value of x, and NumPy's result
EXECUTED = {
    "copysign": (
        "np.where(np.signbit(b), -np.abs(a), np.abs(a))",
        {"a": "x", "b": "signs"},
        X,
        "np.copysign(x, signs)",
    ),
    "divmod": ("np.remainder(a, b)", PAIR, X, "np.divmod(x, z)[1]"),
    "fmod": ("a - np.trunc(a / b) * b", PAIR, X, "np.fmod(x, z)"),
    "fmax": ("np.where(np.isnan(b) | (a > b), a, b)", PAIR, NAN, "np.fmax(x, z)"),
    "fmin": ("np.where(np.isnan(b) | (a < b), a, b)", PAIR, NAN, "np.fmin(x, z)"),
    "float_power": ("np.power(a.astype('float64'), b)", {"a": "x**2", "b": "z"}, X, "np.float_power(x**2, z)"),
    "frexp": ("x / 2.0 ** np.frexp(bng.autodiff.raw(x))[1]", {}, X, "np.frexp(x)[0]"),
    "modf": ("x - np.trunc(x)", {}, X, "np.modf(x)[0]"),
    "ldexp": ("x * 2.0**n", {"n": "3"}, X, "np.ldexp(x, 3)"),
    "nan_to_num": (
        "np.where(np.isnan(x), 0.0, np.clip(x, -m, m))",
        {"m": "np.finfo(x.dtype).max"},
        INFINITE,
        "np.nan_to_num(x)",
    ),
    "sinc": ("np.sin(np.pi * x) / (np.pi * x)", {}, X, "np.sinc(x)"),
    "unwrap": ("x + (np.unwrap(bng.autodiff.raw(x)) - bng.autodiff.raw(x))", {}, 3 * X, "np.unwrap(x)"),
    "median": ("(s[(n - 1) // 2] + s[n // 2]) / 2", QUANTILE | {"i": "0"}, X[:4], "np.median(x)"),
    "quantile": ("s[i] + (h - i) * (s[j] - s[i])", {"q": "0.3", "h": "0.3 * 4"} | QUANTILE, X, "np.quantile(x, 0.3)"),
    "percentile": ("s[i] + (h - i) * (s[j] - s[i])", {"h": "99.0 * 4 / 100"} | QUANTILE, X, "np.percentile(x, 99)"),
    "nansum": ("np.sum(np.where(np.isnan(x), 0.0, x))", {}, NAN, "np.nansum(x)"),
    "nancumsum": ("np.cumsum(np.where(np.isnan(x), 0.0, x))", {}, NAN, "np.nancumsum(x)"),
    "nanprod": ("np.prod(np.where(np.isnan(x), 1.0, x))", {}, NAN, "np.nanprod(x)"),
    "nancumprod": ("np.cumprod(np.where(np.isnan(x), 1.0, x))", {}, NAN, "np.nancumprod(x)"),
    "nanmax": ("np.max(np.where(np.isnan(x), -np.inf, x))", {}, NAN, "np.nanmax(x)"),
    "nanmin": ("np.min(np.where(np.isnan(x), np.inf, x))", {}, NAN, "np.nanmin(x)"),
    "nanmean": ("np.mean(x[~np.isnan(x)])", {}, NAN, "np.nanmean(x)"),
    "nanstd": ("np.std(x[~np.isnan(x)])", {}, NAN, "np.nanstd(x)"),
    "cumulative_sum": ("np.cumsum(x)", {}, X, "np.cumulative_sum(x)"),
    "cumulative_prod": ("np.cumprod(x)", {}, X, "np.cumulative_prod(x)"),
    "ediff1d": ("np.diff(np.ravel(x))", {}, M, "np.ediff1d(x)"),
    "gradient": ("np.concatenate([x[1:2] - x[:1], (x[2:] - x[:-2]) / 2, x[-1:] - x[-2:-1]])", {}, X, "np.gradient(x)"),
    "trapezoid": ("np.sum((y[1:] + y[:-1]) / 2 * np.diff(x))", {"y": "z"}, X, "np.trapezoid(z, x)"),
    "cov": ("c @ c.T / (x.shape[-1] - 1)", CENTRED, M, "np.cov(x)"),
    "corrcoef": ("c @ c.T / np.outer(s, s)", CENTRED | {"s": "np.linalg.norm(c, axis=-1)"}, M, "np.corrcoef(x)"),
    "convolve": (CONVOLUTION, CONVOLVED, X, "np.convolve(x, y)"),
    "polymul": (CONVOLUTION, CONVOLVED, X, "np.polymul(x, y)"),
    "correlate": (
        "sum(w[k] * x[k : k + n] for k in range(len(w)))",
        {"w": "y", "n": "len(x) - len(w) + 1"},
        X,
        "np.correlate(x, y)",
    ),
    "cross": (
        "np.roll(a, -1, -1) * np.roll(b, 1, -1) - np.roll(a, 1, -1) * np.roll(b, -1, -1)",
        {"a": "x", "b": "y"},
        M,
        "np.cross(x, y)",
    ),
    "matvec": ("np.einsum('...ij,...j->...i', a, x)", {"a": "x", "x": "y"}, M, "x @ y"),
    "vecmat": ("np.einsum('...i,...ij->...j', x, a)", {"a": "x", "x": "y"}, M, "y @ x"),
    "vander": ("x[:, None] ** np.arange(n)[::-1]", {"n": "4"}, X, "np.vander(x, 4)"),
    "polyder": ("p[:-1] * np.arange(len(p) - 1, 0, -1)", {"p": "x"}, X, "np.polyder(x)"),
    "polyint": ("np.concatenate([p / np.arange(len(p), 0, -1), np.zeros(1)])", {"p": "x"}, X, "np.polyint(x)"),
    "polyfit": (
        "np.linalg.solve(a.T @ a, a.T @ y)",
        {"y": "z", "degree": "2", "a": "x[:, None] ** np.arange(degree, -1, -1)"},
        X,
        "np.polyfit(x, z, 2)",
    ),
    "resize": (
        "np.reshape(np.tile(np.ravel(x), times)[:n], shape)",
        {"times": "2", "n": "8", "shape": "(2, 4)"},
        X,
        "np.resize(x, (2, 4))",
    ),
    "rollaxis": ("np.moveaxis(x, axis, 0)", {"axis": "1"}, M, "np.rollaxis(x, 1)"),
    "meshgrid": ("np.broadcast_arrays(x[None, :], y[:, None])", {}, X, "np.meshgrid(x, y)"),
    "diagflat": ("np.diag(np.ravel(x))", {}, M, "np.diagflat(x)"),
    "sliding_window_view": (
        "x[np.arange(n - k + 1)[:, None] + np.arange(k)]",
        {"n": "5", "k": "2"},
        X,
        "np.lib.stride_tricks.sliding_window_view(x, 2)",
    ),
    "unique": ("x[np.unique(bng.autodiff.raw(x), return_index=True)[1]]", {}, X[[1, 0, 1, 2]], "np.unique(x)"),
    "linspace": ("start + (stop - start) * np.linspace(0, 1, n)", LINE, X, "np.linspace(x[0], x[1], 7)"),
    "logspace": ("10.0 ** (start + (stop - start) * np.linspace(0, 1, n))", LINE, X, "np.logspace(x[0], x[1], 7)"),
    "geomspace": ("start * (stop / start) ** np.linspace(0, 1, n)", LINE, X, "np.geomspace(x[0], x[1], 7)"),
    "lstsq": ("np.linalg.solve(a.T @ a, a.T @ b)", MATRIX, M, "np.linalg.lstsq(x, x[:, :1])[0]"),
    "qr": ("np.abs(np.linalg.cholesky(a.T @ a)).T", MATRIX, M, "np.abs(np.linalg.qr(x)[1])"),
    "fft": ("x @ np.cos(a)", WAVES, X, "np.fft.fft(x).real"),
    "ifft": ("-x @ np.sin(a)", WAVES, X, "np.fft.fft(x).imag"),
    "fftshift": ("np.roll(x, n // 2)", {"n": "5"}, X, "np.fft.fftshift(x)"),
    "ifftshift": ("np.roll(x, -(n // 2))", {"n": "5"}, X, "np.fft.ifftshift(x)"),
    "expit": ("bng.nn.sigmoid(x)", {}, X, "1 / (1 + np.exp(-x))"),
    "logsumexp": ("bng.ops.logsumexp(x)", {}, X, "np.log(np.sum(np.exp(x)))"),
}
NOT_WORD_FOR_WORD = {"qr", "logspace", "nanmean", "nanstd"}
"""Whose hints say it in words, or in parts."""
pytestmark = pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.4.0", reason="this NumPy lacks some names")


def evaluated(expression, names, x):
    space = {"np": np, "bng": bng, "x": x, "y": Y, "z": Z, "signs": SIGNS}
    for name, meaning in names.items():
        space[name] = eval(meaning, space)
    return eval(expression, space)


@pytest.mark.parametrize("name", EXECUTED)
def test_what_a_hint_offers_gives_numpy_s_numbers(name):
    expression, names, x, theirs = EXECUTED[name]
    assert name in NOT_WORD_FOR_WORD or expression in NUMPY_HINTS[name]
    expected = evaluated(theirs, {}, x)
    given = evaluated(expression, names, x)
    traced, _ = vjp(lambda x: evaluated(expression, names, x), x)
    parts = (expected, given, traced) if isinstance(expected, tuple) else ((expected,), (given,), (traced,))
    for want, plain, recorded in zip(*parts, strict=True):
        assert np.shape(plain) == np.shape(recorded) == np.shape(want)
        np.testing.assert_allclose(plain, want, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(recorded, want, rtol=1e-11, atol=1e-13)


def test_horner_s_rule_is_polyval():
    y = 0.0
    for c in X:
        y = y * Y + c
    np.testing.assert_allclose(y, np.polyval(X, Y), rtol=1e-13)
    assert "y = y * x + c for each coefficient c, highest first" in NUMPY_HINTS["polyval"]


def test_the_open_mesh_is_ix_s():
    for ours, theirs in zip((X[:, None], Y[None, :]), np.ix_(X, Y), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert "x[:, None] and y[None, :]" in NUMPY_HINTS["ix_"]
    for ours, theirs in zip(np.broadcast_arrays(X[:, None], Y[None, :]), np.meshgrid(X, Y, indexing="ij"), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.peer
def test_scipy_s_error_function_is_defined_as_the_hint_says():
    scipy = pytest.importorskip("scipy")
    pytest.importorskip("scipy.special")
    erf = eval(NUMPY_HINTS["erf"], {"np": np, "bng": bng, "scipy": scipy})
    np.testing.assert_array_equal(vjp(erf, X)[0], scipy.special.erf(X))
    bng.check_grads(erf, X, order=2)
    for name, hint in (("expit", "bng.nn.sigmoid"), ("erf", "bng.primitive")):
        with pytest.raises(bng.TraceError, match=f"known for scipy.special.{name}: .*{hint}"):
            vjp(getattr(scipy.special, name), X)
    with pytest.raises(bng.TraceError, match=r"bng.ops.logsumexp"):
        vjp(scipy.special.logsumexp, X)


UFUNC_METHODS = {
    "np.add.reduce(m)": "np.sum(x, axis=0)",
    "np.multiply.reduce(m)": "np.prod(x, axis=0)",
    "np.maximum.reduce(m)": "np.max(x, axis=0)",
    "np.minimum.reduce(m)": "np.min(x, axis=0)",
    "np.logaddexp.reduce(m)": "bng.ops.logsumexp(x, axis=0)",
    "np.add.accumulate(m)": "np.cumsum(x, axis=0)",
    "np.multiply.accumulate(m)": "np.cumprod(x, axis=0)",
    "np.subtract.outer(m[0], m[1])": "np.subtract(a[:, None], b)",
}


@pytest.mark.parametrize("method", UFUNC_METHODS)
def test_what_is_offered_for_a_ufunc_s_method_gives_its_numbers(method):
    with pytest.raises(bng.TraceError, match="no derivative here; use") as error:
        vjp(lambda m: eval(method, {"np": np, "m": m}), M)
    assert str(error.value).endswith(f"use {UFUNC_METHODS[method]}")
    ours = eval(UFUNC_METHODS[method], {"np": np, "bng": bng, "x": M, "a": M[0], "b": M[1]})
    np.testing.assert_allclose(ours, eval(method, {"np": np, "m": M}), rtol=1e-13)


def test_what_is_offered_for_add_at_gives_its_numbers():
    index, values, theirs = np.array([0, 2, 2]), Y, X.copy()
    np.add.at(theirs, index, values)
    np.testing.assert_array_equal(bng.ops.scatter_add(X, index, values), theirs)
    with pytest.raises(bng.TraceError, match=r"use a = bng.ops.scatter_add\(a, index, values\)"):
        vjp(lambda v: np.add.at(X, index, v), Y)
