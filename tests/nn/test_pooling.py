"""Pooling against PyTorch, at ties, at margins and over whole images."""

import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from minibng import check_grads, grad, hvp, nn, vjp
from minibng.backend import images

RNG = np.random.default_rng(0)
LAYERS = {"max": (nn.MaxPool1d, nn.MaxPool2d), "avg": (nn.AvgPool1d, nn.AvgPool2d)}


def call(layer, x):
    return layer(layer.init(), x)


def output(layer, x, device):
    """What a layer gives on a device, as the host's."""
    with device.no_sync():
        y = call(layer, device.array(x))
    return device.host(y)


def slope(layer, x, g, device):
    """What a layer pulls back, as the host's."""
    with device.no_sync():
        (dx,) = vjp(lambda x: call(layer, x), device.array(x))[1](device.array(g))
    return device.host(dx)


def torch_s(torch, kind, axes, x, *arguments):
    """PyTorch's pooling of (N, …, C)."""
    forth, back = ((0, 3, 1, 2), (0, 2, 3, 1)) if axes == 2 else ((0, 2, 1), (0, 2, 1))
    pool = getattr(torch.nn.functional, f"{kind}_pool{axes}d")
    return pool(x.permute(*forth), *arguments).permute(*back)


@st.composite
def cases(draw, axes):
    window = tuple(draw(st.integers(1, 4)) for _ in range(axes))
    stride = tuple(draw(st.integers(1, 4)) for _ in range(axes))
    padding = tuple(draw(st.integers(0, k // 2)) for k in window)
    extents = tuple(draw(st.integers(1, 7)) for _ in range(axes))
    assume(all(n + 2 * p >= k for n, p, k in zip(extents, padding, window, strict=True)))
    return (draw(st.integers(0, 2)), *extents, draw(st.integers(1, 3))), window, stride, padding


@pytest.mark.peer
@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize("axes", [1, 2])
@given(data=st.data(), ties=st.booleans(), seed=st.integers(0, 2**32 - 1))
def test_values_and_two_derivatives_are_torch_s(torch, kind, axes, data, ties, seed, device):
    """With few different entries, windows are full of ties: the gradient goes where PyTorch's does."""
    shape, *arguments = data.draw(cases(axes))
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 3, shape).astype("float64") if ties else rng.standard_normal(shape)
    layer = LAYERS[kind][axes - 1](*arguments)
    t = torch.tensor(x, requires_grad=True)
    expected = torch_s(torch, kind, axes, t, *arguments)
    g, v = rng.standard_normal(tuple(expected.shape)), rng.standard_normal(shape)
    (first,) = torch.autograd.grad((torch.sin(expected) * torch.tensor(g)).sum(), t, create_graph=True)
    (second,) = torch.autograd.grad((first * torch.tensor(v)).sum(), t)
    moved, weights, direction = device.arrays([x, g, v])

    def loss(x):
        return np.sum(np.sin(call(layer, x)) * weights)

    with device.no_sync():
        y, dx, product = call(layer, moved), grad(loss)(moved), hvp(loss)(moved, direction)
    for ours, theirs in zip(device.host([y, dx, product]), (expected, first, second), strict=True):
        assert ours.shape == tuple(theirs.shape)
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-8, atol=1e-12)


@pytest.mark.peer
@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 3, 4, 3), (2, 2, 3, 2, 3), (3, 1, 1, 2)])
def test_global_pools_are_torch_s(torch, shape, device):
    x, g = RNG.integers(0, 3, shape).astype("float64"), RNG.standard_normal((shape[0], shape[-1]))
    for layer, pool in ((nn.GlobalMaxPool(), "adaptive_max_pool1d"), (nn.GlobalAvgPool(), "adaptive_avg_pool1d")):
        t = torch.tensor(x, requires_grad=True)
        flat = t.reshape(shape[0], -1, shape[-1]).permute(0, 2, 1)
        expected = getattr(torch.nn.functional, pool)(flat, 1)[..., 0]
        (theirs,) = torch.autograd.grad(expected, t, torch.tensor(g))
        np.testing.assert_allclose(output(layer, x, device), expected.detach().numpy(), rtol=1e-13)
        np.testing.assert_allclose(slope(layer, x, g, device), theirs.numpy(), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(
    "layer",
    [nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(3, (1, 2), 1), nn.GlobalMaxPool(), nn.GlobalAvgPool()],
    ids=repr,
)
def test_derivatives_are_exact_to_second_order(layer, device):
    check_grads(lambda x: call(layer, x) ** 2, device.array(RNG.standard_normal((2, 5, 4, 2))), order=2)


def test_the_first_of_equal_entries_gets_the_gradient(device):
    x, one = np.zeros((1, 4, 4, 1)), np.ones((1, 2, 2, 1))
    expected = np.zeros((4, 4))
    expected[::2, ::2] = 1
    np.testing.assert_array_equal(slope(nn.MaxPool2d(2), x, one, device)[0, :, :, 0], expected)
    x[0, 1, 1] = x[0, 0, 1] = 5.0
    dx = slope(nn.MaxPool2d(2), x, one, device)[0, :, :, 0]
    assert dx[0, 1] == 1 and dx[0, 0] == dx[1, 1] == 0
    dx = slope(nn.GlobalMaxPool(), x, np.ones((1, 1)), device)[0, :, :, 0]
    assert dx[0, 1] == 1 and dx.sum() == 1


def test_a_margin_is_below_everything_for_the_largest_and_zero_for_the_mean(device):
    x = np.full((1, 2, 2, 1), -3.0)
    np.testing.assert_array_equal(output(nn.MaxPool2d(2, 2, 1), x, device), np.full((1, 2, 2, 1), -3.0))
    np.testing.assert_array_equal(output(nn.AvgPool2d(2, 2, 1), x, device), np.full((1, 2, 2, 1), -0.75))
    x = np.full((1, 2, 2, 1), -np.inf)
    np.testing.assert_array_equal(output(nn.MaxPool2d(2, 2, 1), x, device), np.full((1, 2, 2, 1), -np.inf))


def test_windows_side_by_side_are_a_reshape(device):
    x = RNG.standard_normal((2, 6, 8, 3))
    tiles = x.reshape(2, 3, 2, 2, 4, 3)
    np.testing.assert_array_equal(output(nn.MaxPool2d((2, 4)), x, device), tiles.max(axis=(2, 4)))
    np.testing.assert_allclose(output(nn.AvgPool2d((2, 4)), x, device), tiles.mean(axis=(2, 4)), rtol=1e-13)
    np.testing.assert_array_equal(output(nn.MaxPool2d((6, 8)), x, device)[:, 0, 0], x.max(axis=(1, 2)))
    np.testing.assert_array_equal(output(nn.MaxPool2d(1), x, device), x)


def test_gradients_of_means_add_up_to_what_comes_in(device):
    """Without a margin every bit of a cotangent arrives; Σ dx = Σ g for both kinds."""
    x, g = RNG.standard_normal((2, 7, 7, 2)), RNG.standard_normal((2, 3, 3, 2))
    for layer in (nn.MaxPool2d(3, 2), nn.AvgPool2d(3, 2)):
        np.testing.assert_allclose(slope(layer, x, g, device).sum(axis=(1, 2)), g.sum(axis=(1, 2)), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_kept(dtype, device):
    x = RNG.standard_normal((2, 4, 4, 3)).astype(dtype)
    for layer in (nn.MaxPool2d(2), nn.AvgPool2d(3, 1, 1), nn.GlobalMaxPool(), nn.GlobalAvgPool()):
        y = output(layer, x, device)
        assert y.dtype == dtype and slope(layer, x, y, device).dtype == dtype
        moved = device.array(x)
        assert hvp(lambda x, layer=layer: np.sum(call(layer, x) ** 2))(moved, moved).dtype == dtype


def test_images_in_padded_memory_are_images_and_nothing_is_written_into():
    x = images.padded((2, 5, 6, 3), np.dtype("float32"), 1, 1)
    x[...] = RNG.standard_normal(x.shape)
    before = np.array(images.memory_of(x))
    for layer in (nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(3, 2, 1), nn.GlobalMaxPool(), nn.GlobalAvgPool()):
        y, pull = vjp(lambda x, layer=layer: call(layer, x), x)
        plain, pull_plain = vjp(lambda x, layer=layer: call(layer, x), np.array(x))
        np.testing.assert_allclose(y, plain, rtol=1e-6)
        np.testing.assert_allclose(pull(y)[0], pull_plain(y)[0], rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(images.memory_of(x)), before)


def test_layers_describe_themselves_and_have_no_parameters():
    model = nn.Sequential(nn.MaxPool2d(2), nn.AvgPool2d(3, 1, padding=1), nn.GlobalAvgPool())
    assert repr(model) == "Sequential(MaxPool2d(2), AvgPool2d(3, stride=1, padding=1), GlobalAvgPool())"
    assert repr(nn.MaxPool2d((2, 3), (1, 2), (0, 1))) == "MaxPool2d((2, 3), stride=(1, 2), padding=(0, 1))"
    assert repr(nn.MaxPool1d(3, 2)) == "MaxPool1d(3, stride=2)" and repr(nn.GlobalMaxPool()) == "GlobalMaxPool()"
    assert repr(nn.MaxPool2d(2, 2)) == "MaxPool2d(2)" and repr(nn.AvgPool1d(4)) == "AvgPool1d(4)"
    assert not model.tensors() and not model.buffers()
    assert model(model.init(), np.ones((2, 4, 4, 3))).shape == (2, 3)


# What is refused


@pytest.mark.parametrize(
    "layer, shape",
    [
        (nn.MaxPool2d(3), (2, 2, 5, 1)),
        (nn.AvgPool2d((1, 8), padding=(0, 1)), (2, 2, 5, 1)),
        (nn.MaxPool1d(6), (2, 5, 1)),
    ],
)
def test_a_window_larger_than_the_input_is_refused_by_name(layer, shape):
    model = nn.Sequential(nn.relu, layer)
    with pytest.raises(ValueError) as caught:
        model(model.init(), np.ones(shape))
    assert all(part in str(caught.value) for part in (f"layer '1', {layer!r}", "larger than the input", str(shape)))


@pytest.mark.parametrize("layer", [nn.MaxPool2d(2), nn.AvgPool2d(2), nn.MaxPool1d(2), nn.AvgPool1d(2)], ids=repr)
@pytest.mark.parametrize("shape", [(4, 4), (), (2, 4, 4, 4, 1)])
def test_other_shapes_are_refused_by_name(layer, shape):
    with pytest.raises(ValueError) as caught:
        call(layer, np.ones(shape))
    assert repr(layer) in str(caught.value) and str(shape) in str(caught.value)


@pytest.mark.parametrize("layer", [nn.GlobalAvgPool(), nn.GlobalMaxPool()], ids=repr)
@pytest.mark.parametrize("shape", [(4, 4), (3,), (2, 0, 4), (2, 3, 0, 4)])
def test_global_pools_refuse_what_has_nothing_to_pool(layer, shape):
    with pytest.raises(ValueError) as caught:
        call(layer, np.ones(shape))
    assert repr(layer) in str(caught.value) and str(shape) in str(caught.value)


@pytest.mark.parametrize("layer", [nn.MaxPool2d(2), nn.GlobalAvgPool(), nn.GlobalMaxPool()], ids=repr)
def test_whole_numbers_and_lists_are_refused_as_entries(layer):
    x, params = np.ones((1, 2, 2, 1), "uint8"), layer.init()
    with pytest.raises(TypeError, match=rf"{re.escape(repr(layer))} takes floating-point numbers, got uint8"):
        layer(params, x)
    with pytest.raises(TypeError, match=rf"{re.escape(repr(layer))}: the input is a list, not an array"):
        layer(params, x.tolist())
    with pytest.raises(TypeError, match=r"call model\(params, x\), in this order"):
        layer(x, params)


@pytest.mark.parametrize(
    "make, error, match",
    [
        (lambda: nn.MaxPool2d(0), ValueError, "MaxPool2d's window is a number from 1 on, or a pair of them, got 0"),
        (lambda: nn.AvgPool2d((2, 2, 2)), ValueError, "AvgPool2d's window"),
        (lambda: nn.MaxPool1d((2, 2)), ValueError, "MaxPool1d's window is a number from 1 on, got"),
        (lambda: nn.MaxPool2d(2, 0), ValueError, "MaxPool2d's stride"),
        (lambda: nn.MaxPool2d(2, 1, -1), ValueError, "MaxPool2d's padding"),
        (lambda: nn.MaxPool2d(3, 1, 2), ValueError, "at most half a window"),
        (lambda: nn.MaxPool2d(2.0), TypeError, "MaxPool2d takes whole numbers"),
        (lambda: nn.AvgPool2d("2"), TypeError, "AvgPool2d takes whole numbers"),
    ],
)
def test_arguments_that_make_no_windows_are_refused(make, error, match):
    with pytest.raises(error, match=match):
        make()
