"""The operation table: every function that can be differentiated, under NumPy's name, with its rule beside it.

A rule reads ``lambda g, y, *args``: g is the cotangent of the result y. Rules are written in ordinary array operations,
which are these very operations when their operands are traced, and need not undo broadcasting (the tracer does, once).
An operation without a rule is composed of others. They stand by kind in the modules beside this one; what NumPy calls
``np.linalg.solve`` is ``bng.ops.linalg.solve``, everything else has NumPy's name here.

Kinks: relu'(0) = abs'(0) = 0; ties in max, min, maximum and minimum share the gradient equally; norms, hypot, std and
arctan2 have derivative 0 where all they are made of is 0; sort leaves equal entries in their order.
"""

from minibng.autodiff.ops import calls, hints, linalg  # noqa: F401 (the first two fill the tracer's tables)

# fmt: off
# isort: off
from minibng.autodiff.ops.elementwise import (
    abs, absolute, arccos, arccosh, arcsin, arcsinh, arctan, arctan2, arctanh, cbrt, clip, cos, cosh, deg2rad,
    divide, exp, exp2, expm1, fabs, hypot, log, log1p, log2, log10, logaddexp, logaddexp2, maximum, minimum,
    multiply, negative, positive, power, rad2deg, reciprocal, relu, remainder, sign, sin, sinh, sqrt, square,
    subtract, tan, tanh, where,
)
from minibng.autodiff.ops.indexing import (
    gather, getitem, scatter, scatter_add, sort, take, take_along_axis,
)
from minibng.autodiff.ops.products import (
    dot, einsum, inner, kron, matmul, outer, tensordot, trace, vdot, vecdot,
)
from minibng.autodiff.ops.reductions import (
    average, cumprod, cumsum, diff, logsumexp, max, mean, min, prod, ptp, std, sum, var,
)
from minibng.autodiff.ops.shapes import (
    array_split, atleast_1d, atleast_2d, atleast_3d, broadcast_arrays, column_stack, concatenate, diag,
    diagonal, dsplit, dstack, expand_dims, flip, fliplr, flipud, hsplit, hstack, matrix_transpose, moveaxis,
    pad, ravel, repeat, reshape, roll, rot90, split, squeeze, stack, swapaxes, tile, transpose, tril, triu,
    unstack, vsplit, vstack,
)
from minibng.autodiff.tracer import add, broadcast_to, cast, sum_to

__all__ = [
    "abs", "absolute", "add", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh",
    "array_split", "atleast_1d", "atleast_2d", "atleast_3d", "average", "broadcast_arrays", "broadcast_to",
    "cast", "cbrt", "clip", "column_stack", "concatenate", "cos", "cosh", "cumprod", "cumsum", "deg2rad",
    "diag", "diagonal", "diff", "divide", "dot", "dsplit", "dstack", "einsum", "exp", "exp2", "expand_dims",
    "expm1", "fabs", "flip", "fliplr", "flipud", "gather", "getitem", "hsplit", "hstack", "hypot", "inner",
    "kron", "linalg", "log", "log1p", "log2", "log10", "logaddexp", "logaddexp2", "logsumexp", "matmul",
    "matrix_transpose", "max", "maximum", "mean", "min", "minimum", "moveaxis", "multiply", "negative", "outer",
    "pad", "positive", "power", "prod", "ptp", "rad2deg", "ravel", "reciprocal", "relu", "remainder", "repeat",
    "reshape", "roll", "rot90", "scatter", "scatter_add", "sign", "sin", "sinh", "sort", "split", "sqrt",
    "square", "squeeze", "stack", "std", "subtract", "sum", "sum_to", "swapaxes", "take", "take_along_axis",
    "tan", "tanh", "tensordot", "tile", "trace", "transpose", "tril", "triu", "unstack", "var", "vdot",
    "vecdot", "vsplit", "vstack", "where",
]
