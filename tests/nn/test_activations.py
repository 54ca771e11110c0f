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
def test_value_and_two_derivatives_are_torch_s(torch, name, device):
    ours, theirs = nn.ACTIVATIONS[name], theirs_of(torch, name)
    x, v = torch.tensor(X, requires_grad=True), np.linspace(-1, 1, 6)
    y = theirs(x)
    (g,) = torch.autograd.grad((y * y).sum() / 2, x, create_graph=True)
    (h,) = torch.autograd.grad((g * torch.tensor(v)).sum(), x)
    loss = lambda x: np.sum(ours(x) ** 2) / 2  # noqa: E731
    x, v = device.array(X), device.array(v)
    with device.no_sync():
        found = [ours(x), grad(loss)(x), hvp(loss)(x, v)]
    value, gradient, product = device.host(found)
    np.testing.assert_allclose(value, y.detach().numpy(), rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(gradient, g.detach().numpy(), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(product, h.numpy(), rtol=1e-10, atol=1e-15)


@pytest.mark.peer
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_extreme_inputs_give_torch_s_numbers_and_no_warning(torch, name, dtype, device):
    x = np.array(EXTREME, dtype)
    t = torch.tensor(x, requires_grad=True)
    x = device.array(x)
    expected = theirs_of(torch, name)(t)
    expected.backward(torch.ones_like(expected))
    y, pull = vjp(nn.ACTIVATIONS[name], x)
    y, g = device.host([y, *pull(np.ones_like(x))])
    assert y.dtype == g.dtype == dtype
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=4 * eps, atol=eps)
    told = np.isfinite(t.grad.numpy())  # where torch's own gelu overflows, ours does not
    np.testing.assert_allclose(g[told], t.grad.numpy()[told], rtol=4 * eps, atol=eps)
    assert np.isfinite(g).all() and told[1:-1].all()
    second = hvp(lambda x: np.sum(nn.ACTIVATIONS[name](x)))(x[1:-1], np.ones_like(x[1:-1]))
    assert np.isfinite(device.host(second)).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(), (0,), (2, 3), (1, 2, 1)])
def test_shape_and_derivatives(name, shape, device):
    x = device.array(np.random.default_rng(0).uniform(0.2, 1.5, shape))
    assert np.shape(nn.ACTIVATIONS[name](x)) == shape
    check_grads(nn.ACTIVATIONS[name], x)


def test_the_logistic_function_is_symmetric(device):
    x = device.array(X)
    np.testing.assert_allclose(device.host(nn.sigmoid(x) + nn.sigmoid(-x)), 1.0, rtol=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_nan_is_not_hidden(name, device):
    y, pull = vjp(nn.ACTIVATIONS[name], device.array([np.nan, 1.0]))
    y, g = device.host([y, *pull(device.array([np.nan, 1.0]))])
    assert np.isnan([y[0], g[0]]).all() and np.isfinite([y[1], g[1]]).all()


@pytest.mark.parametrize("name", NAMES)
def test_bits_are_the_host_s(name, device):
    """Basic arithmetic rounds alike everywhere; of tanh a GPU has its own."""
    x = np.random.default_rng(0).standard_normal((3, 1000)).astype("float32") * 4
    found = []
    for to in (np.asarray, device.array):
        y, pull = vjp(nn.ACTIVATIONS[name], to(x))
        found.append(device.host([y, *pull(to(x[::-1]))]))
    for here, there in zip(*found, strict=True):
        if device.name in ("cpu", "strict"):
            np.testing.assert_array_equal(here, there)
        np.testing.assert_allclose(here, there, rtol=1e-6, atol=1e-7)


def test_they_are_known_by_name():
    assert {name: f.__name__ for name, f in nn.ACTIVATIONS.items()} == {n: n for n in NAMES}
    assert [nn.ACTIVATIONS[n] for n in NAMES] == [nn.relu, nn.leaky_relu, nn.tanh, nn.sigmoid, nn.gelu]


@pytest.mark.parametrize("slope", [0.0, 0.01, 0.5, 1.0, 2.0])
def test_leaky_relu_has_its_slope_at_and_below_zero(slope, device):
    x = device.array([-2.0, -0.0, 0.0, 3.0])
    y, pull = vjp(lambda x: nn.leaky_relu(x, slope), x)
    y, g, named = device.host([y, *pull(np.ones_like(x)), nn.leaky_relu(x, slope=slope)])
    np.testing.assert_array_equal(y, [-2 * slope, 0, 0, 3])
    np.testing.assert_array_equal(g, [slope, slope, slope, 1])
    np.testing.assert_array_equal(named, y)


@pytest.mark.parametrize("name", NAMES)
def test_a_plain_number_is_taken_as_well(name):
    f = nn.ACTIVATIONS[name]
    for x in (0.7, -1.3, np.float64(0.7)):
        assert f(x) == f(np.array([x]))[0] and grad(f)(x) == grad(lambda x: np.sum(f(x)))(np.array([x]))[0]


def test_the_slope_of_leaky_relu_may_be_learned(device):
    """Its derivative is the sum of g·min(x, 0) (He et al., 2015, give it to every layer as a parameter)."""
    x, f = device.array(X), lambda x, slope: nn.leaky_relu(x, slope)
    np.testing.assert_allclose(device.host(vjp(f, x, 0.3)[1](np.ones_like(x))[1]), np.sum(np.minimum(X, 0)))
    check_grads(f, x, 0.3)


def test_gelu_is_near_the_gaussian_it_stands_for(device):
    """The tanh form differs from x·Φ(x) by less than 5e-4 (Hendrycks, Gimpel, 2016); far out it is x or 0."""
    gelu = lambda x: device.host(nn.gelu(device.array(x)))  # noqa: E731
    x = np.linspace(-6, 6, 1001)
    exact = x * 0.5 * (1 + np.array([math.erf(v / math.sqrt(2)) for v in x]))
    assert 1e-4 < np.abs(gelu(x) - exact).max() < 5e-4
    np.testing.assert_allclose(gelu(x) - gelu(-x), x, atol=1e-15)
    np.testing.assert_array_equal(gelu([-50.0, -1e300, 50.0, 1e300]), [0, 0, 50, 1e300])


# softmax


@pytest.mark.peer
@pytest.mark.parametrize(
    "shape, axis", [((5,), -1), ((3, 4), 0), ((3, 4), 1), ((2, 3, 4), 1), ((0, 3), -1), ((3, 1), 1)]
)
def test_softmax_and_two_derivatives_are_torch_s(torch, shape, axis, device):
    rng = np.random.default_rng(0)
    x, w, v = rng.standard_normal((3, *shape)) * 3
    t = torch.tensor(x, requires_grad=True)
    y = torch.softmax(t, axis)
    (g,) = torch.autograd.grad((torch.tensor(w) * y * y).sum(), t, create_graph=True)
    (h,) = torch.autograd.grad((g * torch.tensor(v)).sum(), t)
    x, w, v = device.arrays([x, w, v])
    loss = lambda x: np.sum(w * nn.softmax(x, axis) ** 2)  # noqa: E731
    with device.no_sync():
        found = [nn.softmax(x, axis=axis), grad(loss)(x), hvp(loss)(x, v)]
    value, gradient, product = device.host(found)
    np.testing.assert_allclose(value, y.detach().numpy(), rtol=1e-14)
    np.testing.assert_allclose(gradient, g.detach().numpy(), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(product, h.numpy(), rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("dtype, big", [("float32", 1e4), ("float32", 3e38), ("float64", 1e4), ("float64", 1.7e308)])
def test_softmax_of_any_finite_logits_is_a_distribution(dtype, big, device):
    x = device.array([[big, -big, 0.0], [-big, -big, -big], [big, big, -big]], dtype)
    y, pull = vjp(nn.softmax, x)
    second = hvp(lambda x: np.sum(nn.softmax(x) ** 2))(x, np.ones_like(x))
    y, g, second = device.host([y, *pull(device.array(np.arange(9.0).reshape(3, 3), dtype)), second])
    np.testing.assert_allclose(y, np.array([[1, 0, 0], [1 / 3] * 3, [0.5, 0.5, 0]]), rtol=1e-6)
    assert y.dtype == g.dtype == dtype and np.isfinite(g).all() and np.isfinite(second).all()


def test_softmax_does_not_change_with_a_shift_and_minus_infinity_is_probability_zero(device):
    softmax = lambda x: device.host(nn.softmax(device.array(x)))  # noqa: E731
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 5))
    np.testing.assert_allclose(softmax(x + 100), softmax(x), rtol=1e-12)
    np.testing.assert_allclose(softmax(x).sum(axis=1), 1, rtol=1e-15)
    masked = np.concatenate([x, np.full((4, 2), -np.inf)], axis=1)
    y, pull = vjp(nn.softmax, device.array(masked))
    y, g = device.host([y, *pull(np.ones_like(y))])
    np.testing.assert_array_equal(y, np.concatenate([softmax(x), np.zeros((4, 2))], axis=1))
    np.testing.assert_array_equal(g[:, 5:], 0)


@pytest.mark.parametrize("shape, axis", [((), -1), ((3, 0), 1), ((3,), 1), ((3, 2), -3)])
def test_softmax_over_nothing_is_refused(shape, axis, device):
    with pytest.raises(ValueError, match=rf"softmax over axis {axis} needs at least one entry there, got shape \("):
        nn.softmax(device.array(np.zeros(shape)), axis)


def test_softmax_is_the_gradient_of_logsumexp(device):
    x = device.array(np.random.default_rng(0).standard_normal(6))
    slope = grad(lambda x: ops.logsumexp(x))(x)
    np.testing.assert_allclose(device.host(nn.softmax(x)), device.host(slope), rtol=1e-14)
    check_grads(nn.softmax, x, order=3)


def test_the_slope_of_leaky_relu_can_be_an_array_and_be_learned(device):
    x, slope = device.array(X), device.array(np.linspace(0.1, 0.6, 6))
    with device.no_sync():
        y = nn.leaky_relu(x, slope)
        of_slope = grad(lambda s: ops.sum(nn.leaky_relu(x, s)))(slope)
        of_x = grad(lambda x: ops.sum(nn.leaky_relu(x, slope)))(x)
    below = np.minimum(X, 0)
    np.testing.assert_array_equal(device.host(y), np.maximum(X, 0) + np.linspace(0.1, 0.6, 6) * below)
    np.testing.assert_array_equal(device.host(of_slope), below)
    np.testing.assert_array_equal(device.host(of_x), np.where(X > 0, 1, np.linspace(0.1, 0.6, 6)))
