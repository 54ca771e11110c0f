import numpy as np
import pytest

from minibng import check_grads, grad, hvp, nn, vjp

NAMES = ["relu", "tanh", "sigmoid"]
X = np.array([-3.0, -1.2, -0.1, 0.2, 0.9, 4.0])
EXTREME = [-1e38, -1e4, -800.0, -100.0, -0.0, 0.0, 100.0, 800.0, 1e4, 1e38]


@pytest.mark.peer
@pytest.mark.parametrize("name", NAMES)
def test_value_and_two_derivatives_are_torch_s(torch, name):
    ours, theirs = nn.ACTIVATIONS[name], getattr(torch, name)
    x, v = torch.tensor(X, requires_grad=True), np.linspace(-1, 1, 6)
    y = theirs(x)
    (g,) = torch.autograd.grad((y * y).sum() / 2, x, create_graph=True)
    (h,) = torch.autograd.grad((g * torch.tensor(v)).sum(), x)
    np.testing.assert_allclose(ours(X), y.detach().numpy(), rtol=1e-14)
    loss = lambda x: np.sum(ours(x) ** 2) / 2  # noqa: E731
    np.testing.assert_allclose(grad(loss)(X), g.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(hvp(loss)(X, v), h.numpy(), rtol=1e-10, atol=1e-15)


@pytest.mark.peer
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_extreme_inputs_give_torch_s_numbers_and_no_warning(torch, name, dtype):
    x = np.array(EXTREME, dtype)
    t = torch.tensor(x, requires_grad=True)
    expected = getattr(torch, name)(t)
    expected.backward(torch.ones_like(expected))
    y, pull = vjp(nn.ACTIVATIONS[name], x)
    (g,) = pull(np.ones_like(x))
    assert y.dtype == g.dtype == dtype
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=4 * eps, atol=eps)
    np.testing.assert_allclose(g, t.grad.numpy(), rtol=4 * eps, atol=eps)
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
    assert [nn.ACTIVATIONS[n] for n in NAMES] == [nn.relu, nn.tanh, nn.sigmoid]
