"""HIPS autograd as a second oracle: another author's rules for the same NumPy calls, gradient and Hessian."""

import contextlib

import autograd
import autograd.numpy as anp
import numpy as np
import pytest

from minibng import grad, hvp, ops

RNG = np.random.default_rng(7)
X = RNG.uniform(0.3, 1.7, (3, 4)) * RNG.choice([-1.0, 1.0], (3, 4))
S = RNG.standard_normal((2, 3, 3)) * 0.3 + 2 * np.eye(3)
V = RNG.standard_normal(3)

# m is NumPy here and autograd's NumPy there; constants are brought to the device of the test
R3, R4, R9, R12, EYE = np.arange(3.0), np.arange(4.0), np.arange(9.0)[:, None], np.arange(12.0), np.eye(3)
FIRST, ONES = np.array([0, 0, 2]), np.array([1, 1])
CONSTANTS = ("S", "V", "R3", "R4", "R9", "R12", "EYE", "FIRST", "ONES")
SAME = {
    "elementary": lambda m, x: m.sin(x) * m.exp(x) + m.arctan(x) * m.cosh(x) - m.log1p(x * x) / m.sqrt(1 + x * x),
    "arctan2": lambda m, x: m.arctan2(x[0], x[1]),
    "logaddexp": lambda m, x: m.logaddexp(x[0], 2 * x[1]),
    "power": lambda m, x: m.abs(x) ** x,
    "var": lambda m, x: m.var(x, axis=1, ddof=1),
    "std": lambda m, x: m.std(x, axis=0, keepdims=True),
    "prod": lambda m, x: m.prod(x, axis=1),
    "max": lambda m, x: m.max(x, axis=0),
    "cumsum": lambda m, x: m.cumsum(x * x, axis=1),
    "cumsum flat": lambda m, x: m.cumsum(x * x),
    "sort": lambda m, x: m.sort(m.reshape(x, (-1,))) * R12,
    "diff": lambda m, x: m.diff(x, n=2, axis=1),
    "einsum": lambda m, x: m.einsum("ij,kj,i->ik", x, m.sin(x), V),
    "einsum ellipsis": lambda m, x: m.einsum("...ij,...j->...i", S, x[:, 0]),
    "tensordot": lambda m, x: m.tensordot(S, x, axes=([1], [0])),
    "dot": lambda m, x: m.dot(S, x),
    "outer": lambda m, x: m.outer(x[0], x[1] * x[2]),
    "inner": lambda m, x: m.inner(x, x * 2),
    "kron": lambda m, x: m.kron(x, m.sin(x[:2, :2])),
    "trace": lambda m, x: m.trace(m.dot(x, x.T)),
    "diagonal": lambda m, x: m.diagonal((x * x)[:, :3], 0, -1, -2),
    "tril": lambda m, x: m.tril(x * x, -1),
    "pad": lambda m, x: m.pad(x * x, ((1, 2), (0, 1)), "constant"),
    "tile": lambda m, x: m.tile(x * x, (2, 1)) * R4,
    "repeat": lambda m, x: m.repeat(x * x, 3, axis=0) * R9,
    "roll": lambda m, x: m.roll(x, 1, axis=1) * x,
    "flip": lambda m, x: m.flipud(x) * x,
    "rot90": lambda m, x: m.rot90(x, 1) * R3,
    "split": lambda m, x: m.split(x, 2, axis=1)[1] ** 3,
    "concatenate": lambda m, x: m.vstack([x, x * x]) * R4,
    "indexing": lambda m, x: x[FIRST][:, ONES] ** 2,
    "norm": lambda m, x: m.linalg.norm(x, axis=1),
    "norm 3": lambda m, x: m.linalg.norm(x, 3, axis=0),
    "frobenius": lambda m, x: m.linalg.norm(x),
    "inv": lambda m, x: m.linalg.inv(S + m.dot(x, x.T)),
    "det": lambda m, x: m.linalg.det(S + m.dot(x, x.T)),
    "slogdet": lambda m, x: m.linalg.slogdet(S + m.dot(x, x.T))[1],
    "solve": lambda m, x: m.linalg.solve(S[0] + m.dot(x, x.T), x),
    "cholesky": lambda m, x: m.linalg.cholesky(m.dot(x, x.T) + EYE),
}


@pytest.mark.parametrize("name", SAME)
def test_gradient_and_hessian_product_are_autograd_s(name, device, monkeypatch):
    f = SAME[name]
    w = np.random.default_rng(1).standard_normal(np.shape(f(np, X)))
    v = np.random.default_rng(2).standard_normal(X.shape)

    def theirs(x):
        return anp.sum(w * f(anp, x) ** 2)

    first = autograd.grad(theirs)
    value, gradient, second = theirs(X), first(X), autograd.grad(lambda x: anp.sum(first(x) * v))(X)
    for constant in CONSTANTS:
        monkeypatch.setitem(globals(), constant, device.array(globals()[constant]))
    x, direction, weights = device.arrays([X, v, w])

    def ours(x):
        return ops.sum(weights * f(np, x) ** 2)

    with contextlib.nullcontext() if name == "det" else device.no_sync():  # det looks whether a matrix is singular
        found = [ours(x), grad(ours)(x), hvp(ours)(x, direction)]
    np.testing.assert_allclose(device.host(found[0]), value, rtol=1e-13)
    np.testing.assert_allclose(device.host(found[1]), gradient, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(device.host(found[2]), second, rtol=1e-9, atol=1e-11)
