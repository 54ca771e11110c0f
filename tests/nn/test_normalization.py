"""Layer normalization against PyTorch, and the invariances that it is for."""

import numpy as np
import pytest

from minibng import check_grads, hvp, nn, vjp

RNG = np.random.default_rng(0)


def made(size, eps=1e-5, dtype="float64"):
    """A layer whose γ and β are not what they start as."""
    layer = nn.LayerNorm(size, eps)
    params = layer.init(dtype=dtype)
    rng = np.random.default_rng(7)
    params["gamma"], params["beta"] = rng.uniform(0.5, 2, size).astype(dtype), rng.standard_normal(size).astype(dtype)
    return layer, params


def run(layer, params, x, g, device):
    """Output and both gradients, worked out on a device without waiting, as the host's."""
    params, x, g = params.to(device.name), device.array(x), device.array(g)
    with device.no_sync():
        y, pull = vjp(lambda p, x: layer(p, x), params, x)
        gp, gx = pull(g)
    return device.host(y), gp.to("cpu"), device.host(gx)


def output(layer, params, x, device, **kwargs):
    return device.host(layer(params.to(device.name), device.array(x), **kwargs))


@pytest.mark.peer
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 4, 5), (2, 1, 3, 5), (0, 5), (1, 5)])
def test_values_and_gradients_are_torch_s(torch, shape, dtype, device):
    layer, params = made(shape[-1], 1e-5, dtype)
    x = (RNG.standard_normal(shape) * 3 + 1).astype(dtype)
    g = RNG.standard_normal(shape).astype(dtype)
    y, gp, gx = run(layer, params, x, g, device)
    theirs = torch.nn.LayerNorm(shape[-1], dtype=getattr(torch, dtype))
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor(params["gamma"]))
        theirs.bias.copy_(torch.tensor(params["beta"]))
    tx = torch.tensor(x, requires_grad=True)
    ty = theirs(tx)
    ty.backward(torch.tensor(g))
    eps = float(np.finfo(dtype).eps)
    pairs = [(y, ty.detach()), (gx, tx.grad), (gp["gamma"], theirs.weight.grad), (gp["beta"], theirs.bias.grad)]
    for ours, expected in pairs:
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours, expected.numpy(), rtol=100 * eps, atol=100 * eps)


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5)])
def test_derivatives_are_exact_to_second_order(shape, device):
    layer, params = made(5, 1e-3)
    x = device.array(RNG.standard_normal(shape))
    check_grads(lambda p, x: layer(p, x), params.to(device.name), x, order=2)


@pytest.mark.parametrize("scale", [1e-3, 0.5, 3.0, 1e4])
@pytest.mark.parametrize("shift", [0.0, -2.0, 1e3])
def test_shifting_and_scaling_a_row_is_only_another_eps(scale, shift, device):
    """LN_ε(a·x + b) = LN_{ε/a²}(x), to the rounding of the shifted entries."""
    layer, params = made(6, eps=1e-2)
    other = nn.LayerNorm(6, 1e-2 / scale**2)
    x = RNG.standard_normal((4, 6))
    moved = scale * x + shift
    lost = np.finfo(float).eps * np.abs(moved).max() / (scale * x.std(axis=1).min())
    moved, still = output(layer, params, moved, device), output(other, params, x, device)
    np.testing.assert_allclose(moved, still, rtol=1e-13, atol=20 * lost + 1e-14)


def test_with_a_vanishing_eps_each_row_has_mean_beta_and_length_root_d(device):
    layer = nn.LayerNorm(7, 1e-30)
    x = RNG.standard_normal((5, 7)) * np.array([[1e-6], [1.0], [1e6], [3.0], [1e3]]) + 5
    y = output(layer, layer.init(dtype="float64"), x, device)
    np.testing.assert_allclose(y.sum(axis=1), 0, atol=7e-15 * 5 / 1e-6)
    np.testing.assert_allclose(np.linalg.norm(y, axis=1), np.sqrt(7), rtol=1e-9)


def test_the_gradient_is_orthogonal_to_what_the_output_does_not_feel(device):
    """To a shift exactly; to a scaling of the row about its mean as ε vanishes."""
    layer, params = made(6, eps=1e-12)
    x, g = RNG.standard_normal((2, 4, 6))
    _, _, gx = run(layer, params, x, g, device)
    centred = x - x.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(gx.sum(axis=1), 0, atol=1e-13)
    np.testing.assert_allclose((gx * centred).sum(axis=1), 0, atol=1e-10)


def test_rows_do_not_know_of_each_other_and_training_changes_nothing(device):
    layer, params = made(5)
    x = RNG.standard_normal((4, 5))
    whole = output(layer, params, x, device)
    for i in range(4):
        np.testing.assert_allclose(output(layer, params, x[i], device), whole[i], rtol=1e-14)
    np.testing.assert_array_equal(output(layer, params, x, device, train=True), whole)
    assert not params.buffers


def test_a_large_common_mean_costs_no_accuracy(device):
    """E[x²] − mean² would lose everything here: the squares are 10⁸, of which float32 keeps 8 in the last place."""
    layer = nn.LayerNorm(64)
    x = RNG.standard_normal((3, 64)).astype("float32") + np.float32(1e4)
    exact = x.astype("float64") - x.astype("float64").mean(axis=1, keepdims=True)
    exact /= np.sqrt((exact**2).mean(axis=1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(output(layer, layer.init(), x, device), exact, atol=2e-3)  # an ulp of x is 1e-3


@pytest.mark.parametrize("value", [0.0, 3.0, -1e4])
def test_a_constant_row_gives_beta_and_its_gradients_are_finite(value, device):
    layer, params = made(4, dtype="float32")
    x = np.full((2, 4), value, "float32")
    y, gp, gx = run(layer, params, x, np.ones((2, 4), "float32"), device)
    np.testing.assert_array_equal(y, np.tile(params["beta"], (2, 1)))
    assert np.isfinite(gx).all() and not gp["gamma"].any()
    x, params = device.array(x), params.to(device.name)
    assert np.isfinite(device.host(hvp(lambda x: np.sum(layer(params, x) ** 2))(x, x + 1))).all()


def test_rows_of_one_entry_give_beta_and_no_gradient(device):
    layer, params = made(1)
    y, gp, gx = run(layer, params, RNG.standard_normal((4, 1)), np.ones((4, 1)), device)
    np.testing.assert_array_equal(y, np.full((4, 1), params["beta"][0]))
    assert not gx.any() and gp["gamma"].tolist() == [0] and gp["beta"].tolist() == [4]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_kept(dtype, device):
    layer, params = made(3, dtype=dtype)
    x = np.arange(6, dtype=dtype).reshape(2, 3)
    y, gp, gx = run(layer, params, x, np.ones((2, 3), dtype), device)
    assert {y.dtype, gp.dtype, gx.dtype} == {np.dtype(dtype)}
    x, params = device.array(x), params.to(device.name)
    assert hvp(lambda x: np.sum(layer(params, x) ** 2))(x, x).dtype == dtype


def test_gamma_and_beta_are_one_block_that_starts_as_the_identity():
    model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.tanh, nn.Linear(3, 2))
    params = model.init()
    assert list(params.layout.block_names) == ["0", "1", "3"]
    assert list(params)[2:4] == ["1.gamma", "1.beta"]
    assert params["1.gamma"].tolist() == [1, 1, 1] and params["1.beta"].tolist() == [0, 0, 0]
    assert repr(nn.LayerNorm(3)) == "LayerNorm(3)" and repr(nn.LayerNorm(3, 1e-3)) == "LayerNorm(3, eps=0.001)"
    assert "LayerNorm(3)" in model.summary(np.ones((2, 4), "float32"))


@pytest.mark.parametrize("shape", [(5, 4), (4,), (), (3, 3, 2)])
def test_an_input_of_another_size_names_layer_and_shapes(shape):
    model = nn.Sequential(nn.relu, nn.LayerNorm(3))
    with pytest.raises(ValueError) as caught:
        model(model.init(), np.ones(shape, "float32"))
    assert all(part in str(caught.value) for part in ("layer '1', LayerNorm(3)", str(shape), "3 in axis -1"))


def test_mixed_dtypes_are_refused_by_name(device):
    layer = nn.LayerNorm(3)
    with pytest.raises(TypeError, match=r"LayerNorm\(3\): the input is float64, the parameters are float32"):
        layer(layer.init(device=device.name), device.array(np.ones((2, 3))))


@pytest.mark.parametrize("size, eps", [(0, 1e-5), (-1, 1e-5), (3, 0.0), (3, -1.0), (3, float("nan")), (3, 1e-60)])
def test_sizes_below_one_and_an_eps_that_vanishes_are_refused(size, eps):
    with pytest.raises(ValueError, match="LayerNorm"):
        nn.LayerNorm(size, eps)


def test_a_pass_does_not_write_into_its_input():
    layer, params = made(3)
    x, g = RNG.standard_normal((2, 4, 3))
    for a in (x, g, params.flat):
        a.setflags(write=False)
    vjp(lambda p, x: layer(p, x), params, x)[1](g)


def test_a_size_that_is_no_whole_number_is_refused():
    with pytest.raises(TypeError, match=r"LayerNorm takes whole numbers, got 3\.0"):
        nn.LayerNorm(3.0)
