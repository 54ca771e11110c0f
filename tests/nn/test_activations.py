import math

import numpy as np
import pytest

from minibng import check_grads, grad, hvp, nn, ops, vjp

NAMES = ["relu", "leaky_relu", "tanh", "sigmoid", "gelu"]
X = np.array([-3.0, -1.2, -0.1, 0.2, 0.9, 4.0])
EXTREME = [-1e38, -1e4, -800.0, -100.0, -0.0, 0.0, 100.0, 800.0, 1e4, 1e38]


def theirs_of(torch, name):
    others = {
        "leaky_relu": torch.nn.functional.leaky_relu,
        "gelu": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    }
    return others.get(name) or getattr(torch, name)


@pytest.mark.peer
@pytest.mark.parametrize("name", NAMES)
def test_value_and_two_derivatives_are_torch_s(torch, name):
    ours, theirs = nn.ACTIVATIONS[name], theirs_of(torch, name)
    x, v = torch.tensor(X, requires_grad=True), np.linspace(-1, 1, 6)
    y = theirs(x)
    (g,) = torch.autograd.grad((y * y).sum() / 2, x, create_graph=True)
    (h,) = torch.autograd.grad((g * torch.tensor(v)).sum(), x)
    np.testing.assert_allclose(ours(X), y.detach().numpy(), rtol=1e-14, atol=1e-15)
    loss = lambda x: np.sum(ours(x) ** 2) / 2  # noqa: E731
    np.testing.assert_allclose(grad(loss)(X), g.detach().numpy(), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(hvp(loss)(X, v), h.numpy(), rtol=1e-10, atol=1e-15)


@pytest.mark.peer
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_extreme_inputs_give_torch_s_numbers_and_no_warning(torch, name, dtype):
    x = np.array(EXTREME, dtype)
    t = torch.tensor(x, requires_grad=True)
    expected = theirs_of(torch, name)(t)
    expected.backward(torch.ones_like(expected))
    y, pull = vjp(nn.ACTIVATIONS[name], x)
    (g,) = pull(np.ones_like(x))
    assert y.dtype == g.dtype == dtype
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=4 * eps, atol=eps)
    told = np.isfinite(t.grad.numpy())  # where torch's own gelu overflows, ours does not
    np.testing.assert_allclose(g[told], t.grad.numpy()[told], rtol=4 * eps, atol=eps)
    assert np.isfinite(g).all() and told[1:-1].all()
    second = hvp(lambda x: np.sum(nn.ACTIVATIONS[name](x)))(x[1:-1], np.ones_like(x[1:-1]))
    assert np.isfinite(second).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(), (0,), (2, 3), (1, 2, 1)])
def test_shape_and_derivatives(name, shape):
    x = np.random.default_rng(0).uniform(0.2, 1.5, shape)
    assert np.shape(nn.ACTIVATIONS[name](x)) == shape
    check_grads(nn.ACTIVATIONS[name], x)


def test_the_logistic_function_is_symmetric():
    np.testing.assert_allclose(nn.sigmoid(X) + nn.sigmoid(-X), 1.0, rtol=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_nan_is_not_hidden(name):
    assert np.isnan(nn.ACTIVATIONS[name](np.array([np.nan, 1.0]))[0])


def test_they_are_known_by_name():
    assert {name: f.__name__ for name, f in nn.ACTIVATIONS.items()} == {n: n for n in NAMES}
    assert [nn.ACTIVATIONS[n] for n in NAMES] == [nn.relu, nn.leaky_relu, nn.tanh, nn.sigmoid, nn.gelu]


@pytest.mark.parametrize("slope", [0.0, 0.01, 0.5, 1.0, 2.0])
def test_leaky_relu_has_its_slope_at_and_below_zero(slope):
    x = np.array([-2.0, -0.0, 0.0, 3.0])
    y, pull = vjp(lambda x: nn.leaky_relu(x, slope), x)
    np.testing.assert_array_equal(y, [-2 * slope, 0, 0, 3])
    np.testing.assert_array_equal(pull(np.ones(4))[0], [slope, slope, slope, 1])
    np.testing.assert_array_equal(nn.leaky_relu(x, slope=slope), y)


def test_gelu_is_near_the_gaussian_it_stands_for():
    """The tanh form differs from x·Φ(x) by less than 5e-4 (Hendrycks, Gimpel, 2016); far out it is x or 0."""
    x = np.linspace(-6, 6, 1001)
    exact = x * 0.5 * (1 + np.array([math.erf(v / math.sqrt(2)) for v in x]))
    assert 1e-4 < np.abs(nn.gelu(x) - exact).max() < 5e-4
    np.testing.assert_allclose(nn.gelu(x) - nn.gelu(-x), x, atol=1e-15)
    np.testing.assert_array_equal(nn.gelu(np.array([-50.0, -1e300, 50.0, 1e300])), [0, 0, 50, 1e300])


# softmax


@pytest.mark.peer
@pytest.mark.parametrize(
    "shape, axis", [((5,), -1), ((3, 4), 0), ((3, 4), 1), ((2, 3, 4), 1), ((0, 3), -1), ((3, 1), 1)]
)
def test_softmax_and_two_derivatives_are_torch_s(torch, shape, axis):
    rng = np.random.default_rng(0)
    x, w, v = rng.standard_normal((3, *shape)) * 3
    t = torch.tensor(x, requires_grad=True)
    y = torch.softmax(t, axis)
    (g,) = torch.autograd.grad((torch.tensor(w) * y * y).sum(), t, create_graph=True)
    (h,) = torch.autograd.grad((g * torch.tensor(v)).sum(), t)
    np.testing.assert_allclose(nn.softmax(x, axis=axis), y.detach().numpy(), rtol=1e-14)
    loss = lambda x: np.sum(w * nn.softmax(x, axis) ** 2)  # noqa: E731
    np.testing.assert_allclose(grad(loss)(x), g.detach().numpy(), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(hvp(loss)(x, v), h.numpy(), rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("dtype, big", [("float32", 1e4), ("float32", 3e38), ("float64", 1e4), ("float64", 1.7e308)])
def test_softmax_of_any_finite_logits_is_a_distribution(dtype, big):
    x = np.array([[big, -big, 0.0], [-big, -big, -big], [big, big, -big]], dtype)
    y, pull = vjp(nn.softmax, x)
    np.testing.assert_allclose(y, np.array([[1, 0, 0], [1 / 3] * 3, [0.5, 0.5, 0]]), rtol=1e-6)
    (g,) = pull(np.arange(9.0).reshape(3, 3).astype(dtype))
    assert y.dtype == g.dtype == dtype and np.isfinite(g).all()
    assert np.isfinite(hvp(lambda x: np.sum(nn.softmax(x) ** 2))(x, np.ones_like(x))).all()


def test_softmax_does_not_change_with_a_shift_and_minus_infinity_is_probability_zero():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 5))
    np.testing.assert_allclose(nn.softmax(x + 100), nn.softmax(x), rtol=1e-12)
    np.testing.assert_allclose(nn.softmax(x).sum(axis=1), 1, rtol=1e-15)
    masked = np.concatenate([x, np.full((4, 2), -np.inf)], axis=1)
    y, pull = vjp(nn.softmax, masked)
    np.testing.assert_array_equal(y, np.concatenate([nn.softmax(x), np.zeros((4, 2))], axis=1))
    np.testing.assert_array_equal(pull(np.ones((4, 7)))[0][:, 5:], 0)


@pytest.mark.parametrize("shape, axis", [((), -1), ((3, 0), 1), ((3,), 1), ((3, 2), -3)])
def test_softmax_over_nothing_is_refused(shape, axis):
    with pytest.raises(ValueError, match=rf"softmax over axis {axis} needs at least one entry there, got shape \("):
        nn.softmax(np.zeros(shape), axis)


def test_softmax_is_the_gradient_of_logsumexp():
    x = np.random.default_rng(0).standard_normal(6)
    np.testing.assert_allclose(nn.softmax(x), grad(lambda x: ops.logsumexp(x))(x), rtol=1e-14)
    check_grads(nn.softmax, x, order=3)
