"""Dropout: a mask that is a hash of a counter, so that it can be drawn again."""

import numpy as np
import pytest

from minibng import asarray, check_grads, grad, hvp, nn, to_host, value_and_grad, vjp


def masks(layer, params, shape, calls=1, device="cpu"):
    """What becomes of ones, call after call, as the host's."""
    return [to_host(layer(params, asarray(np.ones(shape), device=str(device)), train=True)) for _ in range(calls)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_masks_and_gradients_are_the_same_on_every_device(rate, dtype, device):
    layer, params = nn.Dropout(rate), nn.Dropout(rate).init(seed=3)
    x, g = np.random.default_rng(0).standard_normal((2, 70, 50)).astype(dtype)
    found = []
    for to, p in ((np.asarray, params.copy()), (device.array, params.to(device.name))):
        there = to(x), to(g)
        with device.no_sync():
            for _ in range(3):
                y, pull = vjp(lambda x, p=p: layer(p, x, train=True), there[0])
                (gx,) = pull(there[1])
        found.append((device.host(y), device.host(gx), p.buffers["counter"]))
    for here, there in zip(*found, strict=True):
        np.testing.assert_array_equal(here, there)
    y, gx, _ = found[1]
    np.testing.assert_array_equal(y == 0, gx == 0)
    assert y.dtype == gx.dtype == dtype


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9, 0.999])
def test_entries_are_dropped_at_the_rate_and_the_others_rescaled(rate):
    layer = nn.Dropout(rate)
    n = 200_000
    (y,) = masks(layer, layer.init(seed=1), (n,))
    kept = y != 0
    sigma = np.sqrt(rate * (1 - rate) / n)
    assert abs(kept.mean() - (1 - rate)) < 5 * sigma
    np.testing.assert_allclose(y[kept], 1 / (1 - rate), rtol=1e-15)
    rows = kept.reshape(400, -1).mean(axis=1)
    assert np.abs(rows - (1 - rate)).max() < 6 * np.sqrt(rate * (1 - rate) / 500) + 2 / 500


def test_without_training_and_at_rate_zero_it_is_the_identity(device):
    x = device.array(np.ones((3, 4)))
    for layer, train in ((nn.Dropout(0.5), False), (nn.Dropout(0.0), True), (nn.Dropout(0), False)):
        params = layer.init(seed=0)
        before = dict(params.buffers)
        assert layer(params, x, train=train) is x
        if not train:
            assert params.buffers == before
    layer = nn.Dropout(0.5)
    assert layer(layer.init(), x) is x


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_and_shape_are_kept(dtype, device):
    layer = nn.Dropout(0.4)
    for shape in ((3, 4), (5,), (), (0, 3), (2, 1, 2, 3)):
        y = layer(layer.init(), device.array(np.ones(shape, dtype)), train=True)
        assert (np.shape(y), y.dtype) == (shape, dtype)


def test_equal_copies_draw_equal_masks():
    layer = nn.Dropout(0.5)
    params = layer.init(seed=4)
    other = params.copy()
    for a, b in zip(masks(layer, params, (100,), 3), masks(layer, other, (100,), 3), strict=True):
        np.testing.assert_array_equal(a, b)


def test_each_training_call_advances_the_counter_by_one():
    layer = nn.Dropout(0.5)
    params = layer.init(seed=0)
    start = params.buffers["counter"]
    assert type(start) is int and 0 <= start < 2**62
    masks(layer, params, (3,), 4)
    assert params.buffers["counter"] == start + 4
    layer(params, np.ones(3))
    assert params.buffers["counter"] == start + 4
    value_and_grad(lambda x: np.sum(layer(params, x, train=True)))(np.ones(3))
    assert params.buffers["counter"] == start + 5


def test_two_layers_and_two_seeds_have_different_masks():
    model = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5))
    params = model.init(seed=0)
    first, second = (masks(layer, params.scope(name), (1000,))[0] for name, layer in model.layers.items())
    assert params.buffers["0.counter"] != params.buffers["1.counter"]
    assert 0.4 < np.mean(first == second) < 0.6
    layer = nn.Dropout(0.5)
    a, b = (masks(layer, layer.init(seed=s), (1000,))[0] for s in (0, 1))
    assert 0.4 < np.mean(a == b) < 0.6
    c, d = (masks(layer, layer.init(seed=7), (1000,))[0] for _ in range(2))
    np.testing.assert_array_equal(c, d)


def correlation(a, b):
    """In units of its own standard deviation under independence."""
    a, b = a - a.mean(), b - b.mean()
    return (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()) * np.sqrt(a.size)


@pytest.mark.parametrize("start", [0, 1, 2**31, 2**32 - 4, 2**61 + 12345])
def test_masks_of_consecutive_counters_are_uncorrelated(start):
    layer = nn.Dropout(0.5)
    params = layer.init()
    params.buffers["counter"] = start
    drawn = [m != 0 for m in masks(layer, params, (50_000,), 8)]
    for i in range(8):
        for j in range(i):
            assert abs(correlation(drawn[i], drawn[j])) < 5
            for shift in (1, 2, 64, i ^ j):
                swapped = np.arange(1 << 15) ^ shift
                assert abs(correlation(drawn[i][: 1 << 15], drawn[j][: 1 << 15][swapped])) < 5
                assert abs(correlation(drawn[i][shift:], drawn[j][:-shift])) < 5


def test_entries_of_one_mask_are_uncorrelated():
    layer = nn.Dropout(0.5)
    (m,) = masks(layer, layer.init(seed=9), (200_000,))
    kept = m != 0
    for lag in (1, 2, 3, 8, 10, 64, 100, 128, 784, 1024, 65536):
        assert abs(correlation(kept[lag:], kept[:-lag])) < 5
    assert abs(kept.reshape(-1, 2)[:, 0].mean() - 0.5) < 5 * 0.5 / np.sqrt(100_000)


def test_an_entry_kept_does_not_depend_on_the_size_of_the_batch():
    layer = nn.Dropout(0.5)
    params = layer.init(seed=2)
    (small,), (large,) = masks(layer, params.copy(), (10, 7)), masks(layer, params.copy(), (20, 7))
    np.testing.assert_array_equal(small, large[:10])


def test_the_gradient_uses_the_mask_of_its_forward_pass(device):
    layer = nn.Dropout(0.3)
    params = layer.init(seed=5)
    x = device.array(np.linspace(1, 2, 50))
    with device.no_sync():
        mask = layer(params.copy(), np.ones_like(x), train=True)
        found = grad(lambda x: np.sum(layer(params.copy(), x, train=True)))(x)
        second = hvp(lambda x: np.sum(layer(params.copy(), x, train=True) ** 3))(x, np.ones_like(x))
    x, mask, found, second = device.host([x, mask, found, second])
    np.testing.assert_array_equal(found, mask)
    np.testing.assert_allclose(second, 6 * x * mask**3)


def test_second_derivatives_while_training_are_exact():
    model = nn.Sequential(nn.Linear(4, 8), nn.tanh, nn.Dropout(0.5), nn.Linear(8, 3), nn.Dropout(0.2))
    params = model.init(seed=0, dtype="float64")
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((5, 4)), rng.integers(0, 3, 5)
    before = dict(params.buffers)
    check_grads(lambda p: nn.cross_entropy(model(p, x, train=True), t), params)
    assert params.buffers == before

    def loss(p):
        return nn.cross_entropy(model(p, x, train=True), t)

    v = params.copy()
    v.flat[:] = rng.standard_normal(v.flat.size)
    h = 1e-5

    def gradient_at(step):
        moved = params.copy()
        moved.flat[:] = params.flat + step * v.flat
        return grad(loss)(moved).flat

    exact = hvp(loss)(params.copy(), v).flat
    np.testing.assert_allclose(exact, (gradient_at(h) - gradient_at(-h)) / (2 * h), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("rate", [-0.1, 1, 1.0, 1.5, float("nan"), float("inf")])
def test_a_rate_outside_zero_and_one_is_refused(rate):
    with pytest.raises(ValueError, match="rate must lie in"):
        nn.Dropout(rate)


def test_it_is_shown_with_its_rate():
    assert repr(nn.Dropout(0.25)) == "Dropout(0.25)"
