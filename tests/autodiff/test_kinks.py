"""Derivatives where none exists: what design.md and the docstrings promise, and PyTorch where they name it."""

import numpy as np
import pytest

from minibng import grad, hessian, hvp, jacobian, ops, vjp
from minibng.nn import relu

try:
    import torch
except ImportError:
    torch = None


def slope(f, x):
    return vjp(f, x)[1](np.ones_like(f(x)))[0]


@pytest.mark.parametrize("f", [ops.relu, relu, ops.abs, np.abs, abs, ops.sign, np.sign])
def test_relu_abs_and_sign_have_derivative_zero_at_zero(f, device):
    np.testing.assert_array_equal(device.host(slope(f, device.array([0.0, -0.0]))), [0.0, 0.0])
    assert grad(f)(0.0) == 0


@pytest.mark.parametrize("f", [ops.maximum, ops.minimum, np.maximum, np.minimum])
def test_equal_operands_share_equally(f, device):
    x = device.array([1.0, -2.0])
    for g in vjp(f, x, x.copy())[1](device.array([3.0, 5.0])):
        np.testing.assert_array_equal(device.host(g), [1.5, 2.5])
    np.testing.assert_array_equal(device.host(slope(lambda x: f(x, x), x)), [1.0, 1.0])


TIES = np.array([[1.0, 3.0, 3.0, 0.0], [2.0, 2.0, 2.0, 2.0], [0.0, -1.0, 5.0, -1.0]])


@pytest.mark.peer
@pytest.mark.parametrize("axis", [None, 0, 1, -1, (0, 1)])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("name", ["max", "min"])
def test_ties_share_as_torch_amax(name, axis, keepdims, device):
    f, reference = getattr(np, name), getattr(torch, "a" + name)
    y, pull = vjp(lambda x: f(x, axis=axis, keepdims=keepdims), device.array(TIES))
    g = np.random.default_rng(0).standard_normal(np.shape(y))
    x = torch.tensor(TIES, requires_grad=True)
    expected = reference(x, dim=(0, 1) if axis is None else axis, keepdim=keepdims)
    (theirs,) = torch.autograd.grad(expected, x, torch.tensor(g))
    (ours,) = pull(device.array(g))
    np.testing.assert_allclose(device.host(ours), theirs.numpy(), rtol=1e-14)


def test_shares_of_a_tie_add_up_to_one_in_float32(device):
    g = grad(np.max)(device.array(np.ones(7, dtype="float32")))
    assert g.dtype == np.float32
    np.testing.assert_allclose(device.host(g), np.full(7, 1 / 7), rtol=1e-6)


@pytest.mark.parametrize("p, expected", [(0, 0.0), (0.0, 0.0), (1, 1.0), (1.0, 1.0), (2, 0.0), (3, 0.0), (2.5, 0.0)])
def test_power_at_zero_has_the_slope_of_the_polynomial(p, expected, device):
    assert grad(lambda x: x**p)(0.0) == expected
    zeros, exponents = device.array(np.zeros(2)), device.array([p, p])
    np.testing.assert_array_equal(device.host(slope(lambda x: x**p, zeros)), [expected] * 2)
    np.testing.assert_array_equal(device.host(slope(lambda x: x**exponents, zeros)), [expected] * 2)


@pytest.mark.parametrize("p, order, expected", [(0, 2, 0), (1, 2, 0), (2, 2, 2), (3, 3, 6), (2, 3, 0), (1, 3, 0)])
def test_higher_derivatives_of_a_power_at_zero(p, order, expected, device):
    for q in (p, float(p)):
        f = lambda x, q=q: x**q  # noqa: E731
        for _ in range(order):
            f = grad(f)
        assert f(0.0) == expected
        assert f(device.array(0.0)) == expected


def test_the_exponent_has_derivative_zero_where_the_base_is_not_positive(device):
    base = device.array([0.0, -2.0, 3.0])
    g = slope(lambda p: base**p, device.array([2.0, 2.0, 2.0]))
    np.testing.assert_allclose(device.host(g), [0.0, 0.0, 9 * np.log(3.0)])


def test_square_root_at_zero_has_an_infinite_slope_and_warns_as_numpy_does():
    with pytest.warns(RuntimeWarning, match="divide by zero"):
        assert grad(np.sqrt)(np.array(0.0)) == np.inf


def test_a_cube_root_at_zero_has_an_infinite_slope_and_warns_as_numpy_does():
    with pytest.warns(RuntimeWarning, match="divide by zero"):
        assert grad(np.cbrt)(np.array(0.0)) == np.inf


LENGTHS = {
    "norm": np.linalg.norm,
    "norm 1": lambda x: np.linalg.norm(x, 1),
    "norm 3": lambda x: np.linalg.norm(x, 3),
    "norm inf": lambda x: np.linalg.norm(x, np.inf),
    "norm 1.5": lambda x: np.linalg.norm(x, 1.5),
    "norm 0.5": lambda x: np.linalg.norm(x, 0.5),
    "matrix norm": lambda x: np.linalg.norm(x[:, None]),
    "matrix norm 1": lambda x: np.linalg.norm(x[:, None], 1),
    "along an axis": lambda x: np.sum(np.linalg.norm(x[:, None], axis=1)),
    "std": np.std,
    "hypot": lambda x: np.hypot(x[0], x[1]),
    "arctan2": lambda x: np.arctan2(x[0], x[1]),
    "sqrt of squares by hand, safe": lambda x: 1.0 * np.linalg.norm(x),
}


@pytest.mark.parametrize("name", LENGTHS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_lengths_have_derivatives_zero_at_zero(name, dtype, device):
    f, x, v = LENGTHS[name], *device.arrays([np.zeros(3, dtype), np.ones(3, dtype)])
    with device.no_sync():
        g, product = grad(f)(x), hvp(f)(x, v)
    assert g.dtype == dtype
    np.testing.assert_array_equal(device.host(g), np.zeros(3))
    np.testing.assert_array_equal(device.host(product), np.zeros(3))


def test_a_length_beside_zero_is_a_unit_vector(device):
    def at(f, *x):
        return device.host(grad(f)(device.array(x)))

    for x in ((0.0, 3.0, 4.0), (0.0, 3e-150, 4e-150)):
        np.testing.assert_allclose(at(np.linalg.norm, *x), [0.0, 0.6, 0.8], rtol=1e-12)
    np.testing.assert_allclose(at(lambda x: np.hypot(x[0], x[1]), 3e-300, 4e-300), [0.6, 0.8])
    np.testing.assert_allclose(at(lambda x: np.arctan2(x[0], x[1]), 3e-200, 4e-200), [1.6e199, -1.2e199])


def test_a_constant_column_among_others_has_std_with_derivative_zero(device):
    x = device.array([[1.0, 2.0], [1.0, 5.0]])
    np.testing.assert_allclose(device.host(grad(lambda x: np.sum(np.std(x, axis=0)))(x)), [[0.0, -0.5], [0.0, 0.5]])


@pytest.mark.parametrize("function", [np.logaddexp, np.logaddexp2])
def test_the_sum_of_two_vanishing_probabilities_has_a_finite_gradient(function, device):
    none = -np.inf
    a, b, g = device.array([none, none, 0.0]), device.array([none, 0.0, none]), device.array(np.ones(3))
    y, pull = vjp(function, a, b)
    np.testing.assert_array_equal(device.host(y), [none, 0.0, 0.0])
    np.testing.assert_array_equal(device.host(pull(g)), [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])


def test_logsumexp_of_vanishing_probabilities_has_a_finite_gradient(device):
    x = device.array([[-np.inf, -np.inf], [-np.inf, 0.0]])
    y, pull = vjp(lambda x: ops.logsumexp(x, axis=1), x)
    np.testing.assert_array_equal(device.host(y), [-np.inf, 0.0])
    np.testing.assert_array_equal(device.host(pull(np.ones_like(y))[0]), [[0.0, 0.0], [0.0, 1.0]])


def test_sort_leaves_equal_entries_in_their_order(device):
    y, pull = vjp(np.sort, device.array([2.0, 1.0, 2.0, 1.0]))
    np.testing.assert_array_equal(device.host(y), [1.0, 1.0, 2.0, 2.0])
    (g,) = pull(device.array([1.0, 10.0, 100.0, 1000.0]))
    np.testing.assert_array_equal(device.host(g), [100.0, 1.0, 1000.0, 10.0])


def test_the_range_of_equal_entries_has_derivative_zero(device):
    np.testing.assert_array_equal(device.host(grad(np.ptp)(device.array(np.ones(4)))), np.zeros(4))


def test_products_with_zeros_have_the_derivatives_of_the_polynomial(device):
    x = device.array([2.0, 0.0, 3.0, 0.0])
    np.testing.assert_array_equal(device.host(grad(np.prod)(x)), np.zeros(4))
    np.testing.assert_array_equal(device.host(grad(np.prod)(x[:3])), [0.0, 6.0, 0.0])
    expected = np.zeros((4, 4))
    expected[1, 3] = expected[3, 1] = 6.0
    np.testing.assert_array_equal(device.host(hessian(np.prod)(x)), expected)
    expected = [[1, 0, 0, 0], [0, 2, 0, 0], [0, 6, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(device.host(jacobian(np.cumprod)(x)), expected)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 17])
def test_the_determinant_of_a_singular_matrix_has_its_cofactors_as_derivative(n, device):
    a = device.array(np.diag(np.arange(float(n))))  # of rank n − 1
    if n <= 16:
        expected = np.zeros((n, n))
        expected[0, 0] = np.prod(np.arange(1.0, n))
        np.testing.assert_allclose(device.host(grad(np.linalg.det)(a)), expected, atol=1e-12)
    elif device.name == "cuda":  # nobody looks whether a is singular
        assert not np.isfinite(device.host(grad(np.linalg.det)(a))).all()
    else:
        with pytest.raises(np.linalg.LinAlgError, match="Singular"):
            grad(np.linalg.det)(a)


@pytest.mark.parametrize("f", [np.floor, np.ceil, np.round, np.trunc, np.rint, np.fix, np.heaviside])
def test_steps_have_derivative_zero(f, device):
    x = np.array([-1.5, 0.0, 0.3, 2.0])
    step = (lambda x: f(x, 0.5)) if f is np.heaviside else f
    y, pull = vjp(lambda x: step(x) * x, device.array(x))
    np.testing.assert_array_equal(device.host(y), step(x) * x)
    np.testing.assert_array_equal(device.host(pull(np.ones_like(y))[0]), step(x))


def test_a_remainder_at_a_multiple_has_the_slopes_of_the_piece_that_it_begins():
    np.testing.assert_array_equal(np.stack(vjp(np.remainder, 6.0, 3.0)[1](1.0)), [1.0, -2.0])


@pytest.mark.parametrize("x, expected", [(-2.0, 0.0), (0.3, 1.0), (7.0, 0.0)])
def test_clip_passes_the_gradient_inside_only(x, expected, device):
    assert grad(lambda x: np.clip(x, -1.0, 1.0))(x) == expected
    assert grad(lambda x: np.clip(x, -1.0, 1.0))(device.array(x)) == expected
