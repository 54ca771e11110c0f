"""Automatic differentiation of plain Python functions of arrays."""

from minibng.autodiff import ops
from minibng.autodiff.checking import check_grads
from minibng.autodiff.derivatives import flatten, grad, hessian, hvp, jacobian, jvp, value_and_grad, vjp
from minibng.autodiff.tracer import Traced, TraceError, fused, primitive, raw

__all__ = [
    "TraceError",
    "Traced",
    "check_grads",
    "flatten",
    "fused",
    "grad",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "ops",
    "primitive",
    "raw",
    "value_and_grad",
    "vjp",
]
