import math

import numpy as np
import pytest

from minibng import check_grads, grad, hvp, nn, value_and_grad

RNG = np.random.default_rng(0)
Z = RNG.standard_normal((6, 4)) * 3
T = np.array([0, 3, 1, 1, 2, 0])


def torch_three(torch, f, x, v):
    t = torch.tensor(x, requires_grad=True)
    value = f(t)
    (g,) = torch.autograd.grad(value, t, create_graph=True)
    (h,) = torch.autograd.grad((g * torch.tensor(v)).sum(), t)
    return value.item(), g.detach().numpy(), h.numpy()


@pytest.mark.peer
@pytest.mark.parametrize("shape", [(6, 4), (1, 4), (3, 2, 4), (4,), (2, 1)])
def test_cross_entropy_and_two_derivatives_are_torch_s(torch, shape):
    z, v = RNG.standard_normal(shape) * 4, RNG.standard_normal(shape)
    t = np.asarray(RNG.integers(0, shape[-1], shape[:-1]))
    flat = torch.tensor(t.reshape(-1))
    value, g, h = torch_three(torch, lambda x: torch.nn.functional.cross_entropy(x.reshape(-1, shape[-1]), flat), z, v)
    loss = lambda z: nn.cross_entropy(z, t)  # noqa: E731
    ours, gradient = value_and_grad(loss)(z)
    np.testing.assert_allclose([ours, loss(z)], value, rtol=1e-13)
    np.testing.assert_allclose(gradient, g, rtol=1e-11, atol=1e-15)
    np.testing.assert_allclose(hvp(loss)(z, v), h, rtol=1e-10, atol=1e-15)


@pytest.mark.peer
def test_mse_and_two_derivatives_are_torch_s(torch):
    y, t, v = RNG.standard_normal((3, 5, 4))
    value, g, h = torch_three(torch, lambda x: torch.nn.functional.mse_loss(x, torch.tensor(t)), y, v)
    ours, gradient = value_and_grad(nn.mse)(y, t)
    np.testing.assert_allclose(ours, value, rtol=1e-14)
    np.testing.assert_allclose(gradient, g, rtol=1e-13)
    np.testing.assert_allclose(hvp(nn.mse)(y, v, t), h, rtol=1e-13)
    np.testing.assert_allclose(grad(nn.mse, argnums=1)(y, t), -g, rtol=1e-13)


@pytest.mark.parametrize("labels", ["int8", "uint8", "int32", "int64", "uint64"])
def test_every_kind_of_integer_label_is_accepted(labels):
    assert nn.cross_entropy(Z, T.astype(labels)) == nn.cross_entropy(Z, T)
    np.testing.assert_array_equal(grad(nn.cross_entropy)(Z, T.astype(labels)), grad(nn.cross_entropy)(Z, T))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_losses_keep_the_dtype(dtype):
    z = Z.astype(dtype)
    for loss, target in ((nn.cross_entropy, T), (nn.mse, z * 2)):
        value, g = value_and_grad(loss)(z, target)
        assert (value.dtype, g.dtype) == (dtype, dtype)
        assert hvp(loss)(z, z, target).dtype == dtype


def test_equal_logits_cost_log_k_whatever_their_size():
    for level in (0.0, 1e30, -1e30, 1e4):
        value, g = value_and_grad(nn.cross_entropy)(np.full((2, 5), level, "float32"), np.array([0, 4]))
        np.testing.assert_allclose(value, math.log(5), rtol=1e-6)
        np.testing.assert_allclose(g.sum(axis=1), 0, atol=1e-7)


@pytest.mark.parametrize("dtype, big", [("float32", 1e30), ("float64", 1e30), ("float32", 3e38), ("float64", 1.7e308)])
def test_huge_logits_are_safe_to_second_order(dtype, big):
    z = np.array([[big, -big, 0.0], [-big, big, 0.0]], dtype)
    value, g = value_and_grad(nn.cross_entropy)(z, np.array([0, 1]))
    assert value == 0.0
    np.testing.assert_array_equal(g, np.zeros((2, 3)))
    np.testing.assert_array_equal(hvp(nn.cross_entropy)(z, np.ones_like(z), np.array([0, 1])), np.zeros((2, 3)))


def test_a_confident_mistake_costs_the_difference_of_the_logits():
    z = np.array([[1e30, -1e30, 0.0]], "float32")
    value, g = value_and_grad(nn.cross_entropy)(z, np.array([2]))
    assert value == np.float32(1e30)
    np.testing.assert_array_equal(g, [[1.0, 0.0, -1.0]])


def test_nan_in_the_logits_is_not_hidden():
    z = Z.copy()
    z[2, 1] = np.nan
    value, g = value_and_grad(nn.cross_entropy)(z, T)
    assert np.isnan(value) and np.isnan(g[2]).all() and np.isfinite(g[0]).all()


def test_cross_entropy_does_not_write_into_its_arguments():
    z, t = Z.copy(), T.copy()
    z.setflags(write=False)
    t.setflags(write=False)
    grad(nn.cross_entropy)(z, t)
    hvp(nn.cross_entropy)(z, Z, t)


def test_derivatives_are_exact():
    check_grads(lambda z: nn.cross_entropy(z, T), Z, order=3)
    check_grads(lambda y: nn.mse(y, Z + 1), Z)
    check_grads(nn.mse, Z, Z + 1)


@pytest.mark.parametrize(
    "labels, match", [([0, 3, 1, 1, 2, 4], "0 … 3, got 4"), ([0, -1, 1, 1, 2, 0], "0 … 3, got -1")]
)
def test_labels_out_of_range_name_the_label(labels, match):
    for call in (nn.cross_entropy, grad(nn.cross_entropy)):
        with pytest.raises(IndexError, match=f"labels for 4 classes must lie in {match}"):
            call(Z, np.array(labels))


@pytest.mark.parametrize(
    "labels, kind", [(T.astype(float), "float64"), (T > 1, "bool"), (T.tolist(), "list"), (3, "int")]
)
def test_labels_that_are_no_integers_are_refused(labels, kind):
    with pytest.raises(TypeError, match=f"labels are integers, got {kind}"):
        nn.cross_entropy(Z, labels)


@pytest.mark.parametrize("shape", [(5,), (6, 1), (1, 6), (6, 4), ()])
def test_labels_of_another_shape_are_refused_with_both_shapes(shape):
    with pytest.raises(ValueError) as caught:
        nn.cross_entropy(Z, np.zeros(shape, int))
    assert all(str(s) in str(caught.value) for s in ((6, 4), (6,), shape))


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="empty batch"):
        nn.cross_entropy(np.zeros((0, 4)), np.zeros(0, int))


def test_the_mean_squared_error_of_nothing_is_refused():
    with pytest.raises(ValueError, match="empty"):
        nn.mse(np.zeros((0, 4)), np.zeros((0, 4)))


@pytest.mark.parametrize("shape", [(6,), (6, 1), (1, 4), (4,), ()])
def test_mse_refuses_shapes_that_would_broadcast(shape):
    with pytest.raises(ValueError, match=r"equal shapes, got \(6, 4\) and"):
        nn.mse(Z, np.zeros(shape))


def test_zero_dimensional_logits_are_refused():
    with pytest.raises(ValueError, match="logits"):
        nn.cross_entropy(np.array(1.0), np.array(0))
