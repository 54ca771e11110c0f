"""What to use instead of NumPy's functions, and of its keywords, that have no place in the operation table."""

from __future__ import annotations

from minibng.autodiff.tracer import NUMPY_HINTS

_IN_PLACE = "traced values are not written to in place: use np.where, np.concatenate or bng.ops.scatter_add"
_NAN = "put 0 in the place of NaN: np.where(np.isnan(x), 0.0, x), then take the ordinary function"
_SVD = "it needs singular values: np.linalg.norm(x) is the Frobenius norm; a.T @ a and np.linalg.solve often do"
_EIGEN = "for the largest eigenvalue iterate v = a @ v; v = v / np.linalg.norm(v)"
_FOURIER = "complex numbers have no derivative here: multiply by the matrices np.cos and np.sin of 2π·j·k/n"
_COMPLEX = "complex numbers have no derivative here: carry real and imaginary part as two arrays"
_INTEGERS = "it works on integers, which carry no derivative: use it on plain arrays"
_SET = "np.sort(x) is differentiated, and x[index] with an index found from plain values, bng.autodiff.raw(x)"
_LINE = "start + (stop - start) * np.linspace(0, 1, n)"
_PLAIN_ONLY = "use it on plain values: return them with has_aux=True, or take bng.autodiff.raw(x)"
_POLYNOMIAL = "Horner's rule: y = y * x + c for each coefficient c, highest first"
_QUANTILE = "s = np.sort(x), then the entry that is asked for (two of them averaged): s[n // 2]"
_DATES = "dates carry no derivative"

_INSTEAD = [
    ("array", "use np.stack"),
    # elementwise
    ("copysign", "np.abs(a) * np.sign(b)"),
    ("divmod", "np.floor_divide(a, b) and np.remainder(a, b)"),
    ("fmod", "np.remainder (which has the divisor's sign), or a - np.trunc(a / b) * b"),
    ("fmax fmin", "np.maximum and np.minimum, which pass NaN on; or np.where(np.isnan(b), a, …)"),
    ("float_power", "np.power, of x.astype('float64') if need be"),
    ("frexp modf", "x - np.trunc(x) is the fractional part"),
    ("ldexp", "x * 2.0**n"),
    ("nextafter spacing", _PLAIN_ONLY),
    ("bitwise_and bitwise_or bitwise_xor bitwise_count invert bitwise_invert bitwise_not gcd lcm", _INTEGERS),
    ("left_shift right_shift bitwise_left_shift bitwise_right_shift packbits unpackbits", _INTEGERS),
    ("ravel_multi_index unravel_index bincount", _INTEGERS + "; weights are added up by bng.ops.scatter_add"),
    ("nan_to_num", "np.where(np.isnan(x), 0.0, x)"),
    ("sinc", "np.sin(np.pi * x) / (np.pi * x), away from 0"),
    ("i0", "a series, or scipy.special.i0 with bng.primitive (its derivative is i1)"),
    ("angle imag real_if_close sort_complex", _COMPLEX),
    ("unwrap", "add the plain multiples of 2π: x + (np.unwrap(bng.autodiff.raw(x)) - bng.autodiff.raw(x))"),
    ("interp", "find the interval by np.searchsorted, then interpolate: y0 + (x - x0) / (x1 - x0) * (y1 - y0)"),
    ("select piecewise choose", "np.where, one inside the other"),
    ("isnat datetime_as_string busday_count busday_offset is_busday", _DATES),
    # reductions
    ("median percentile quantile", _QUANTILE),
    ("nansum nanmean nanprod nanstd nanvar nanmax nanmin nanmedian nanpercentile nanquantile", _NAN),
    ("nancumsum nancumprod", _NAN),
    ("cumulative_sum", "np.cumsum"),
    ("cumulative_prod", "np.cumprod"),
    ("ediff1d", "np.diff"),
    ("gradient", "np.diff, or (x[2:] - x[:-2]) / 2 inside"),
    ("trapezoid", "np.sum((y[1:] + y[:-1]) / 2 * np.diff(x))"),
    ("cov corrcoef", "centre the rows: c = x - np.mean(x, axis=1, keepdims=True), then c @ c.T / (n - 1)"),
    ("histogram histogram2d histogramdd histogram_bin_edges", "counts have no derivative: " + _PLAIN_ONLY),
    # products
    ("convolve correlate", "pad, then add up shifted products: sum(w[k] * x[k : k + n] for k in range(len(w)))"),
    ("cross", "a1 * b2 - a2 * b1 …: np.roll(a, -1, -1) * np.roll(b, 1, -1) - np.roll(a, 1, -1) * np.roll(b, -1, -1)"),
    ("matvec", "np.einsum('...ij,...j->...i', a, x)"),
    ("vecmat", "np.einsum('...i,...ij->...j', x, a)"),
    ("vander", "x[:, None] ** np.arange(n)"),
    ("polyval", _POLYNOMIAL),
    ("polyadd polysub", "pad the shorter one with np.pad, then + or -"),
    ("polyder", "p[:-1] * np.arange(len(p) - 1, 0, -1)"),
    ("polyint", "np.concatenate([p / np.arange(len(p), 0, -1), np.zeros(1)])"),
    ("polymul", "np.outer(p, q), its antidiagonals added up by bng.ops.scatter_add"),
    ("polydiv poly roots", _PLAIN_ONLY),
    ("polyfit", "least squares: np.linalg.solve(a.T @ a, a.T @ y) with a = x[:, None] ** np.arange(n)"),
    # shapes and indexing
    ("append insert block", "np.concatenate of the parts"),
    ("delete trim_zeros compress extract", "x[index] or x[mask] with what is to stay"),
    ("resize", "np.tile, then x[:n]"),
    ("rollaxis", "np.moveaxis"),
    ("meshgrid ix_", "np.broadcast_arrays(x[:, None], y[None, :])"),
    ("diagflat", "np.diag(np.ravel(x))"),
    ("partition", "np.sort"),
    ("sliding_window_view", "x[np.arange(n - k + 1)[:, None] + np.arange(k)]"),
    ("copyto put put_along_axis place putmask fill_diagonal", _IN_PLACE),
    ("unique unique_all unique_counts unique_inverse unique_values", _SET),
    ("union1d intersect1d setdiff1d setxor1d", _SET),
    ("linspace", _LINE),
    ("geomspace logspace", f"np.exp of {_LINE}, of logarithms"),
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
    ("fftshift ifftshift", "np.roll"),
    # keywords
    ("dtype=", "use x.astype(…) before"),
    ("where=", "use np.where(mask, x, …) before, with 0 for a sum and 1 for a product"),
    ("initial=", "combine with it afterwards: np.maximum(np.max(x), initial), np.sum(x) + initial"),
    ("order=", "entries are in C order; use np.transpose before and after"),
    ("mode=", "np.clip the indices, or take their remainder, before"),
    ("casting= subok= signature= copy= like= device=", "leave it out"),
    ("returned=", "the sum of the weights is np.sum(weights)"),
    ("reflect_type=", "only the even reflection is known"),
    ("stat_length= end_values=", "pad with the modes constant, edge, reflect, symmetric or wrap"),
    ("rtol= hermitian= full_matrices=", "leave it out"),
]
for _names, _hint in _INSTEAD:
    NUMPY_HINTS.update(dict.fromkeys(_names.split(), _hint))
