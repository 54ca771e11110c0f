import numpy as np
import pytest

from minibng import asarray, check_grads, nn, value_and_grad, vjp

RNG = np.random.default_rng(0)


@pytest.mark.peer
@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 5, 3), (4, 2, 5, 3), (0, 3), (1, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_torch_s(torch, shape, bias, device):
    layer = nn.Linear(3, 2, bias=bias)
    params = layer.init(seed=3, dtype="float64")
    if bias:
        params["b"] = np.array([0.5, -1.5])
    x, g = RNG.standard_normal(shape), RNG.standard_normal((*shape[:-1], 2))
    there = params.to(device.name), device.array(x), device.array(g)
    with device.no_sync():
        y, pull = vjp(lambda p, x: layer(p, x), *there[:2])
        gp, gx = pull(there[2])
    y, gp, gx = device.host(y), gp.to("cpu"), device.host(gx)

    theirs = torch.nn.Linear(3, 2, bias=bias, dtype=torch.float64)
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor(params["W"].T))
        if bias:
            theirs.bias.copy_(torch.tensor(params["b"]))
    tx = torch.tensor(x, requires_grad=True)
    ty = theirs(tx)
    ty.backward(torch.tensor(g))
    assert y.shape == tuple(ty.shape)
    np.testing.assert_allclose(y, ty.detach().numpy(), rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(gx, tx.grad.numpy(), rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(gp["W"], theirs.weight.grad.numpy().T, rtol=1e-12, atol=1e-13)
    if bias:
        np.testing.assert_allclose(gp["b"], theirs.bias.grad.numpy(), rtol=1e-12, atol=1e-13)


def test_weights_end_in_the_output_axis():
    assert {n: s.shape for n, s in nn.Linear(3, 2).tensors().items()} == {"W": (3, 2), "b": (2,)}
    assert list(nn.Linear(3, 2, bias=False).tensors()) == ["W"]
    assert repr(nn.Linear(3, 2)) == "Linear(3, 2)"
    assert repr(nn.Linear(3, 2, bias=False)) == "Linear(3, 2, bias=False)"


@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 5, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_derivatives_are_exact_to_second_order(shape, bias, device):
    layer = nn.Linear(3, 2, bias=bias)
    params = layer.init(seed=0, dtype="float64", device=device.name)
    check_grads(lambda p, x: layer(p, x), params, device.array(RNG.standard_normal(shape)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_that_of_the_parameters(dtype, device):
    layer = nn.Linear(3, 2)
    params = layer.init(seed=0, dtype=dtype, device=device.name)
    y, pull = vjp(lambda p, x: layer(p, x), params, device.array(np.ones((5, 3), dtype)))
    gp, gx = pull(device.array(np.ones((5, 2), dtype)))
    assert {params.dtype, y.dtype, gp.dtype, gx.dtype} == {np.dtype(dtype)}


@pytest.mark.parametrize("shape, hint", [((5, 4), ""), ((4,), ""), ((), ""), ((2, 28, 28), "nn.Flatten")])
def test_an_input_of_another_size_names_layer_and_shapes(shape, hint, device):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(3, 2))
    with pytest.raises(ValueError) as caught:
        nn.Linear(3, 2)(nn.Linear(3, 2).init(device=device.name), device.array(np.ones(shape, "float32")))
    message = str(caught.value)
    assert "Linear(3, 2)" in message and str(shape) in message and "3" in message and hint in message
    with pytest.raises(ValueError, match=r"layer '1', Linear\(3, 2\).*got shape \(5, 4\)"):
        model(model.init(device=device.name), device.array(np.ones((5, 4), "float32")))


@pytest.mark.parametrize("layer", [nn.BatchNorm(4), nn.LayerNorm(4)], ids=repr)
def test_layers_that_take_images_do_not_advise_to_flatten_them(layer):
    with pytest.raises(ValueError, match=r"with 4 in axis -1, got shape \(2, 5, 5, 3\)$"):
        layer(layer.init(), np.ones((2, 5, 5, 3), "float32"))


@pytest.mark.parametrize("inputs, parameters", [("float64", "float32"), ("float32", "float64"), ("int64", "float32")])
def test_mixed_dtypes_are_refused_by_name(inputs, parameters, device):
    model = nn.Sequential(nn.relu, nn.Linear(3, 2))
    params = model.init(dtype=parameters, device=device.name)
    with pytest.raises(TypeError) as caught:
        model(params, device.array(np.ones((5, 3), inputs)))
    message = str(caught.value)
    assert all(part in message for part in ("layer '1'", "Linear(3, 2)", inputs, parameters, "astype"))


@pytest.mark.parametrize("here, there", [("cpu", "strict"), ("strict", "cpu")])
@pytest.mark.parametrize("layer", [nn.Linear(3, 2), nn.LayerNorm(3)], ids=repr)
def test_a_batch_on_another_device_is_refused_by_name(layer, here, there):
    model = nn.Sequential(nn.relu, layer)
    params, x = model.init(device=there), asarray(np.ones((5, 3), "float32"), device=here)
    told = f"{layer!r}: the input is on '{here}', the parameters are on '{there}': use bng.asarray(x, device='{there}')"
    for call in (model, lambda p, x: value_and_grad(lambda p: np.sum(model(p, x)))(p)):
        with pytest.raises(TypeError) as caught:
            call(params, x)
        assert str(caught.value) == f"layer '1', {told}"
    with pytest.raises(TypeError) as caught:
        layer(layer.init(device=there), x)
    assert str(caught.value) == told
    model(params, asarray(x, device=there))


@pytest.mark.parametrize("x", [[[1.0, 2.0, 3.0]], 2.0, None])
def test_an_input_that_is_no_array_is_refused(x):
    with pytest.raises(TypeError, match=r"Linear\(3, 2\).*not an array"):
        nn.Linear(3, 2)(nn.Linear(3, 2).init(), x)


@pytest.mark.parametrize("inputs, outputs", [(0, 2), (3, 0), (-1, 2)])
def test_sizes_below_one_are_refused(inputs, outputs):
    with pytest.raises(ValueError, match="at least one input and one output"):
        nn.Linear(inputs, outputs)


def test_initializers_by_name_and_by_function():
    assert not nn.Linear(3, 2, init="zeros").init()["W"].any()
    assert nn.Linear(3, 2, init=lambda rng, shape: np.full(shape, 7.0)).init()["W"].tolist() == [[7.0, 7.0]] * 3
    with pytest.raises(ValueError, match="unknown initializer 'xavjer'; did you mean 'xavier'"):
        nn.Linear(3, 2, init="xavjer")


def test_a_forward_pass_does_not_write_into_its_input():
    layer = nn.Linear(3, 2)
    params, x = layer.init(dtype="float64"), np.ones((4, 3))
    x.setflags(write=False)
    params.flat.setflags(write=False)
    y, pull = vjp(lambda p, x: layer(p, x), params, x)
    pull(np.ones((4, 2)))
    np.testing.assert_allclose(y, x @ params["W"] + params["b"])


@pytest.mark.parametrize("sizes", [(3.0, 4), (3, 4.0), ("3", 4), (None, 2)])
def test_sizes_that_are_no_whole_numbers_are_refused(sizes):
    with pytest.raises(TypeError, match="Linear takes whole numbers, got") as caught:
        nn.Linear(*sizes)
    assert all(repr(n) in str(caught.value) for n in sizes)
    assert nn.Linear(np.int64(3), np.prod((2, 2))).init()["W"].shape == (3, 4)


def test_a_batch_made_float64_by_a_numpy_scalar_is_told_so():
    model = nn.Sequential(lambda x: x / np.sqrt(3), nn.Linear(3, 2))
    with pytest.raises(TypeError, match=r"np\.sqrt\(3\) promotes: write math\.sqrt\(3\)"):
        model(model.init(), np.ones((5, 3), "float32"))
