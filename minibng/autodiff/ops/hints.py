"""What to use instead of NumPy's functions, and of its keywords, that have no place in the operation table."""

from __future__ import annotations

from minibng.autodiff.tracer import COMPLEX, NUMPY_HINTS

_IN_PLACE = "traced values are not written to in place: use np.where, np.concatenate or bng.ops.scatter_add"
_NOT_NAN = "x[~np.isnan(x)], a vector without the NaN, then the ordinary function"
_SVD = "it needs singular values: np.linalg.norm(x) is the Frobenius norm; a.T @ a and np.linalg.solve often do"
_EIGEN = "for the largest eigenvalue iterate v = a @ v; v = v / np.linalg.norm(v)"
_FOURIER = (
    "complex numbers have no derivative here: with k = np.arange(n) and a = 2 * np.pi * np.outer(k, k) / n, "
    "x @ np.cos(a) is the real part and -x @ np.sin(a) the imaginary one (the inverse has + and / n)"
)
_INTEGERS = "it works on integers, which carry no derivative: use it on plain arrays"
_SET = "np.sort(x) is differentiated, and x[index] with an index found from plain values, bng.autodiff.raw(x)"
_UNIQUE = "x[np.unique(bng.autodiff.raw(x), return_index=True)[1]], for a vector x"
_LINE = "start + (stop - start) * np.linspace(0, 1, n)"
_PLAIN_ONLY = "use it on plain values: return them with has_aux=True, or take bng.autodiff.raw(x)"
_POLYNOMIAL = "Horner's rule: y = y * x + c for each coefficient c, highest first"
_QUANTILE = "with s = np.sort(x), h = q * (n - 1){}, i = int(h), j = min(i + 1, n - 1): s[i] + (h - i) * (s[j] - s[i])"
_CENTRED = "with c = x - np.mean(x, axis=-1, keepdims=True)"
_CONVOLVE = (
    "with p = np.pad(x, len(w) - 1) and n = len(x) + len(w) - 1: sum(v * p[k : k + n] for k, v in enumerate(w[::-1]))"
)
_DATES = "dates carry no derivative"

_INSTEAD = [
    ("array", "use np.stack"),
    # elementwise
    ("copysign", "np.where(np.signbit(b), -np.abs(a), np.abs(a))"),
    ("divmod", "np.floor_divide(a, b) and np.remainder(a, b)"),
    ("fmod", "a - np.trunc(a / b) * b; np.remainder has the divisor's sign"),
    ("fmax", "np.where(np.isnan(b) | (a > b), a, b); np.maximum passes NaN on"),
    ("fmin", "np.where(np.isnan(b) | (a < b), a, b); np.minimum passes NaN on"),
    ("float_power", "np.power(a.astype('float64'), b)"),
    ("frexp", "x / 2.0 ** np.frexp(bng.autodiff.raw(x))[1] is the mantissa"),
    ("modf", "x - np.trunc(x) is the fractional part"),
    ("ldexp", "x * 2.0**n"),
    ("nextafter spacing", _PLAIN_ONLY),
    ("bitwise_and bitwise_or bitwise_xor bitwise_count invert bitwise_invert bitwise_not gcd lcm", _INTEGERS),
    ("left_shift right_shift bitwise_left_shift bitwise_right_shift packbits unpackbits", _INTEGERS),
    ("ravel_multi_index unravel_index bincount", _INTEGERS + "; weights are added up by bng.ops.scatter_add"),
    ("nan_to_num", "np.where(np.isnan(x), 0.0, np.clip(x, -m, m)) with m = np.finfo(x.dtype).max"),
    ("sinc", "np.sin(np.pi * x) / (np.pi * x), away from 0"),
    ("i0", "a series, or scipy.special.i0 with bng.primitive (its derivative is i1)"),
    ("angle imag real_if_close sort_complex", COMPLEX),
    ("unwrap", "add the plain multiples of 2π: x + (np.unwrap(bng.autodiff.raw(x)) - bng.autodiff.raw(x))"),
    ("interp", "find the interval by np.searchsorted, then interpolate: y0 + (x - x0) / (x1 - x0) * (y1 - y0)"),
    ("select piecewise choose", "np.where, one inside the other"),
    ("isnat datetime_as_string busday_count busday_offset is_busday", _DATES),
    # reductions
    ("median", "with s = np.sort(x) and n = len(x): (s[(n - 1) // 2] + s[n // 2]) / 2"),
    ("quantile", _QUANTILE.format("")),
    ("percentile", _QUANTILE.format(" / 100")),
    ("nansum", "np.sum(np.where(np.isnan(x), 0.0, x))"),
    ("nancumsum", "np.cumsum(np.where(np.isnan(x), 0.0, x))"),
    ("nanprod", "np.prod(np.where(np.isnan(x), 1.0, x))"),
    ("nancumprod", "np.cumprod(np.where(np.isnan(x), 1.0, x))"),
    ("nanmax", "np.max(np.where(np.isnan(x), -np.inf, x))"),
    ("nanmin", "np.min(np.where(np.isnan(x), np.inf, x))"),
    ("nanmean nanstd nanvar nanmedian nanpercentile nanquantile", _NOT_NAN),
    ("cumulative_sum", "np.cumsum(x)"),
    ("cumulative_prod", "np.cumprod(x)"),
    ("ediff1d", "np.diff(np.ravel(x))"),
    ("gradient", "np.concatenate([x[1:2] - x[:1], (x[2:] - x[:-2]) / 2, x[-1:] - x[-2:-1]])"),
    ("trapezoid", "np.sum((y[1:] + y[:-1]) / 2 * np.diff(x))"),
    ("cov", f"{_CENTRED}: c @ c.T / (x.shape[-1] - 1)"),
    ("corrcoef", f"{_CENTRED} and s = np.linalg.norm(c, axis=-1): c @ c.T / np.outer(s, s)"),
    ("histogram histogram2d histogramdd histogram_bin_edges", "counts have no derivative: " + _PLAIN_ONLY),
    # products
    ("convolve", _CONVOLVE),
    ("correlate", "with n = len(x) - len(w) + 1: sum(w[k] * x[k : k + n] for k in range(len(w)))"),
    ("cross", "a1 * b2 - a2 * b1 …: np.roll(a, -1, -1) * np.roll(b, 1, -1) - np.roll(a, 1, -1) * np.roll(b, -1, -1)"),
    ("matvec", "np.einsum('...ij,...j->...i', a, x)"),
    ("vecmat", "np.einsum('...i,...ij->...j', x, a)"),
    ("vander", "x[:, None] ** np.arange(n)[::-1]"),
    ("polyval", _POLYNOMIAL),
    ("polyadd polysub", "pad the shorter one with np.pad, then + or -"),
    ("polyder", "p[:-1] * np.arange(len(p) - 1, 0, -1)"),
    ("polyint", "np.concatenate([p / np.arange(len(p), 0, -1), np.zeros(1)])"),
    ("polymul", f"the coefficients are convolved: {_CONVOLVE}"),
    ("polydiv poly roots", _PLAIN_ONLY),
    ("polyfit", "least squares: np.linalg.solve(a.T @ a, a.T @ y) with a = x[:, None] ** np.arange(degree, -1, -1)"),
    # shapes and indexing
    ("append insert block", "np.concatenate of the parts (append without an axis flattens: axis=None)"),
    ("delete trim_zeros compress extract", "x[index] or x[mask] with what is to stay"),
    ("resize", "np.reshape(np.tile(np.ravel(x), times)[:n], shape)"),
    ("rollaxis", "np.moveaxis(x, axis, 0)"),
    ("meshgrid", "np.broadcast_arrays(x[None, :], y[:, None]); with indexing='ij' x[:, None] and y[None, :]"),
    ("ix_", "x[:, None] and y[None, :]; as indices use plain integers"),
    ("diagflat", "np.diag(np.ravel(x))"),
    ("partition", "np.sort"),
    ("sliding_window_view", "x[np.arange(n - k + 1)[:, None] + np.arange(k)]"),
    ("copyto put put_along_axis place putmask fill_diagonal", _IN_PLACE),
    ("unique unique_all unique_counts unique_inverse unique_values", _UNIQUE),
    ("union1d intersect1d setdiff1d setxor1d", _SET),
    ("linspace", _LINE),
    ("logspace", f"10.0 ** ({_LINE})"),
    ("geomspace", "start * (stop / start) ** np.linspace(0, 1, n)"),
    ("apply_along_axis apply_over_axes", "most functions take axis=; or a loop over x, and np.stack of the results"),
    ("save savez savez_compressed savetxt", _PLAIN_ONLY),
    # linalg and fft
    ("cond svd svdvals pinv", _SVD),
    ("lstsq", "np.linalg.solve(a.T @ a, a.T @ b), where a has full column rank"),
    ("qr", "np.linalg.cholesky(a.T @ a) is the transpose of r, up to signs; q = a r⁻¹"),
    ("eig eigh eigvals eigvalsh", _EIGEN),
    ("matrix_power multi_dot", "a @ a @ …"),
    ("tensorinv tensorsolve", "np.reshape to a matrix, then np.linalg.inv or np.linalg.solve"),
    ("fft fft2 fftn hfft ifft ifft2 ifftn ihfft irfft irfft2 irfftn rfft rfft2 rfftn", _FOURIER),
    ("fftshift", "np.roll(x, n // 2)"),
    ("ifftshift", "np.roll(x, -(n // 2))"),
    # scipy.special
    ("expit", "use bng.nn.sigmoid(x)"),
    ("erf", "bng.primitive(lambda g, y, x: g * 2 / np.sqrt(np.pi) * np.exp(-(x**2)))(scipy.special.erf)"),
    ("logsumexp", "use bng.ops.logsumexp(x)"),
    # keywords
    ("dtype=", "use x.astype(…) before"),
    ("where=", "use np.where(mask, x, …) before, with 0 for a sum and 1 for a product; for a mean x[mask]"),
    ("initial=", "combine with it afterwards: np.maximum(np.max(x), initial), np.sum(x) + initial"),
    ("order=", "entries are in C order; use np.transpose before and after"),
    ("mode=", "np.clip the indices, or take their remainder, before"),
    ("newshape=", "give the shape as the first argument: x.reshape(shape), np.reshape(x, shape)"),
    ("out=", "a traced value is not written to an array: use the result"),
    ("casting= subok= signature= copy= like= device=", "leave it out"),
    ("returned=", "the sum of the weights is np.sum(weights)"),
    ("reflect_type=", "only the even reflection is known"),
    ("stat_length= end_values=", "pad with the modes constant, edge, reflect, symmetric or wrap"),
    ("rtol= hermitian= full_matrices=", "leave it out"),
]
for _names, _hint in _INSTEAD:
    NUMPY_HINTS.update(dict.fromkeys(_names.split(), _hint))
