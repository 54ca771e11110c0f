"""Derivatives where none exists: what design.md and the docstrings promise, and PyTorch where they name it."""

import numpy as np
import pytest

from minibng import grad, ops, vjp
from minibng.nn import relu

try:
    import torch
except ImportError:
    torch = None


def slope(f, x):
    return vjp(f, x)[1](np.ones_like(f(x)))[0]


@pytest.mark.parametrize("f", [ops.relu, relu, ops.abs, np.abs, abs, ops.sign, np.sign])
def test_relu_abs_and_sign_have_derivative_zero_at_zero(f):
    np.testing.assert_array_equal(slope(f, np.array([0.0, -0.0])), [0.0, 0.0])
    assert grad(f)(0.0) == 0


@pytest.mark.parametrize("f", [ops.maximum, ops.minimum, np.maximum, np.minimum])
def test_equal_operands_share_equally(f):
    x = np.array([1.0, -2.0])
    for g in vjp(f, x, x.copy())[1](np.array([3.0, 5.0])):
        np.testing.assert_array_equal(g, [1.5, 2.5])
    np.testing.assert_array_equal(slope(lambda x: f(x, x), x), [1.0, 1.0])


TIES = np.array([[1.0, 3.0, 3.0, 0.0], [2.0, 2.0, 2.0, 2.0], [0.0, -1.0, 5.0, -1.0]])


@pytest.mark.peer
@pytest.mark.parametrize("axis", [None, 0, 1, -1, (0, 1)])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("name", ["max", "min"])
def test_ties_share_as_torch_amax(name, axis, keepdims):
    f, reference = getattr(np, name), getattr(torch, "a" + name)
    y, pull = vjp(lambda x: f(x, axis=axis, keepdims=keepdims), TIES)
    g = np.random.default_rng(0).standard_normal(np.shape(y))
    x = torch.tensor(TIES, requires_grad=True)
    expected = reference(x, dim=(0, 1) if axis is None else axis, keepdim=keepdims)
    (theirs,) = torch.autograd.grad(expected, x, torch.tensor(g))
    np.testing.assert_allclose(pull(g)[0], theirs.numpy(), rtol=1e-14)


def test_shares_of_a_tie_add_up_to_one_in_float32():
    g = grad(np.max)(np.ones(7, dtype="float32"))
    assert g.dtype == np.float32
    np.testing.assert_allclose(g, np.full(7, 1 / 7), rtol=1e-6)


@pytest.mark.parametrize("p, expected", [(0, 0.0), (0.0, 0.0), (1, 1.0), (1.0, 1.0), (2, 0.0), (3, 0.0), (2.5, 0.0)])
def test_power_at_zero_has_the_slope_of_the_polynomial(p, expected):
    assert grad(lambda x: x**p)(0.0) == expected
    np.testing.assert_array_equal(slope(lambda x: x**p, np.zeros(2)), [expected] * 2)
    np.testing.assert_array_equal(slope(lambda x: x ** np.array([p, p]), np.zeros(2)), [expected] * 2)


@pytest.mark.parametrize("p, order, expected", [(0, 2, 0), (1, 2, 0), (2, 2, 2), (3, 3, 6), (2, 3, 0), (1, 3, 0)])
def test_higher_derivatives_of_a_power_at_zero(p, order, expected):
    for q in (p, float(p)):
        f = lambda x, q=q: x**q  # noqa: E731
        for _ in range(order):
            f = grad(f)
        assert f(0.0) == expected


def test_the_exponent_has_derivative_zero_where_the_base_is_not_positive():
    g = slope(lambda p: np.array([0.0, -2.0, 3.0]) ** p, np.array([2.0, 2.0, 2.0]))
    np.testing.assert_allclose(g, [0.0, 0.0, 9 * np.log(3.0)])


def test_square_root_at_zero_has_an_infinite_slope_and_warns_as_numpy_does():
    with pytest.warns(RuntimeWarning, match="divide by zero"):
        assert grad(np.sqrt)(np.array(0.0)) == np.inf


@pytest.mark.parametrize("x, expected", [(-2.0, 0.0), (0.3, 1.0), (7.0, 0.0)])
def test_clip_passes_the_gradient_inside_only(x, expected):
    assert grad(lambda x: np.clip(x, -1.0, 1.0))(x) == expected
