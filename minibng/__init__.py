"""minibng: block-normalized gradients, in pure NumPy, with an autodiff small enough to read."""

from minibng import data, nn, optim, train
from minibng.autodiff import (
    TraceError,
    check_grads,
    fused,
    grad,
    hessian,
    hvp,
    jacobian,
    jvp,
    ops,
    primitive,
    value_and_grad,
    vjp,
)
from minibng.backend import asarray, debug, to_host
from minibng.params import Layout, Params

__version__ = "0.1.0"

__all__ = [
    "Layout",
    "Params",
    "TraceError",
    "asarray",
    "check_grads",
    "data",
    "debug",
    "fused",
    "grad",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "nn",
    "ops",
    "optim",
    "primitive",
    "to_host",
    "train",
    "value_and_grad",
    "vjp",
]
