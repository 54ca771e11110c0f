"""Convolutions against PyTorch to second order, over random geometries; and what the layers refuse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minibng import check_grads, grad, hvp, nn, primitive, value_and_grad, vjp
from minibng.backend.convolution import Geometry
from minibng.nn.convolution import conv2d, conv2d_input, conv2d_weight

RNG = np.random.default_rng(0)
SAME = Geometry((1, 1), ((1, 1), (1, 1)))


@st.composite
def problems(draw, axes=2):
    """(layer, x): a layer of any geometry and an input that it takes, float64."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    kernel = tuple(draw(st.integers(1, 4)) for _ in range(axes))
    padding = draw(
        st.one_of(
            st.sampled_from(["same", "valid", 0, 1, 2]),
            st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * axes),
        )
    )
    if axes == 1 and isinstance(padding, tuple):
        padding = padding[0]
    stride = draw(st.sampled_from([1, 1, 2, 3, (2, 1)[:axes]]))
    inputs, outputs = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    kind = nn.Conv2d if axes == 2 else nn.Conv1d
    layer = kind(inputs, outputs, kernel, stride, padding, groups, draw(st.booleans()))
    sizes = [draw(st.integers(k, 7)) for k in kernel]
    rng = np.random.default_rng(draw(st.integers(0, 1 << 16)))
    return layer, rng.standard_normal((draw(st.integers(1, 3)), *sizes, inputs))


def torch_conv(torch, layer, x, w, b):
    """The same layer as PyTorch writes it, on its tensors in our order of axes."""
    spatial = x.ndim - 2
    pads = [n for pair in reversed(layer.geometry.pads[-spatial:]) for n in pair]
    x = torch.nn.functional.pad(x.movedim(-1, 1), pads)
    conv = torch.nn.functional.conv2d if spatial == 2 else torch.nn.functional.conv1d
    y = conv(x, w.movedim((-1, -2), (0, 1)).contiguous(), b, stride=layer.stride, groups=layer.geometry.groups)
    return y.movedim(1, -1)


def close(ours, theirs):
    theirs = theirs.detach().numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-8 * max(np.abs(theirs).max(initial=0), 1))


@pytest.mark.peer
@pytest.mark.parametrize("axes", [2, 1])
@settings(max_examples=40)
@given(st.data())
def test_values_first_and_second_derivatives_are_torch_s(torch, axes, device, data):
    layer, x = data.draw(problems(axes))
    params = layer.init(seed=1, dtype="float64")
    if layer.bias:
        params["b"][...] = np.linspace(-1, 1, layer.outputs)
    names = ["W", "b"][: 1 + layer.bias]
    there = [device.array(a) for a in (x, *[params[name] for name in names])]
    rng = np.random.default_rng(x.size)

    def ours(x, *tensors):
        return layer(dict(zip(names, tensors, strict=True)), x)

    y = ours(*there)
    weights, every = rng.standard_normal(y.shape), tuple(range(len(there)))
    along = [rng.standard_normal(a.shape) for a in there]
    c, vs = device.array(weights), [device.array(v) for v in along]

    def loss(*arrays):
        return np.sum(c * np.square(ours(*arrays)))

    def slope(*arrays):
        return sum(np.sum(g * v) for g, v in zip(grad(loss, every)(*arrays), vs, strict=True))

    first = device.host(grad(loss, every)(*there))
    second = device.host(grad(slope, every)(*there))

    leaves = [torch.tensor(a, requires_grad=True) for a in (x, *[np.asarray(params[n]) for n in names])]
    ty = torch_conv(torch, layer, *leaves, *[None] * (3 - len(leaves)))
    close(device.host(y), ty)
    tfirst = torch.autograd.grad((torch.tensor(weights) * ty**2).sum(), leaves, create_graph=True)
    tslope = sum((g * torch.tensor(v)).sum() for g, v in zip(tfirst, along, strict=True))
    tsecond = torch.autograd.grad(tslope, leaves)
    for mine, other in zip([*first, *second], [*tfirst, *tsecond], strict=True):
        close(mine, other)


GEOMETRIES = {
    "same": Geometry((1, 1), ((1, 1), (1, 1))),
    "valid": Geometry(),
    "uneven": Geometry((1, 1), ((0, 2), (1, 0))),
    "strided": Geometry((2, 3), ((1, 1), (0, 2))),
    "grouped": Geometry((2, 1), ((1, 0), (1, 1)), 2),
    "much padding": Geometry((1, 1), ((3, 4), (0, 3))),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_each_is_differentiable_to_third_order(name, device):
    geometry = GEOMETRIES[name]
    x, w = RNG.standard_normal((2, 4, 5, 2)), RNG.standard_normal((3, 2, 2 // geometry.groups, 2))
    g = RNG.standard_normal(geometry.outputs(x.shape, w.shape))
    order = 3 if device.name == "cpu" else 2
    x, w, g, b = (device.array(a) for a in (x, w, g, np.ones(2)))
    check_grads(lambda x, w, b: conv2d(x, w, b, geometry), x, w, b, order=order)
    check_grads(lambda g, w: conv2d_input(g, w, geometry, x.shape), g, w, order=order)
    check_grads(lambda x, g: conv2d_weight(x, g, geometry, w.shape), x, g, order=order)


def test_one_array_may_stand_in_two_places():
    x, w = RNG.standard_normal((2, 4, 4, 3)), RNG.standard_normal((3, 3, 3, 3))
    check_grads(lambda w: conv2d(conv2d(x, w, None, SAME), w, None, SAME), w)
    check_grads(lambda w: conv2d(w, w, None, SAME), w, order=3)


FAULTS = {
    "weights not turned around": (lambda g, w: conv2d(g, np.swapaxes(w, 2, 3), None, SAME), None),
    "inputs and outputs not exchanged": (lambda g, w: conv2d(g, w[::-1, ::-1], None, SAME), None),
    "turned in one axis only": (lambda g, w: conv2d(g, np.swapaxes(w[::-1], 2, 3), None, SAME), None),
    "windows one pixel off": (None, lambda x, g: conv2d_weight(np.roll(x, 1, 2), g, SAME, (3, 3, 2, 2))),
    "a sample left out": (None, lambda x, g: conv2d_weight(x[1:], g[1:], SAME, (3, 3, 2, 2))),
}


@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_the_checker_finds_a_planted_fault(fault):
    faulty_input, faulty_weight = FAULTS.get(fault, (None, None))
    by_input = faulty_input or (lambda g, w: conv2d_input(g, w, SAME, (2, 4, 4, 2)))
    by_weight = faulty_weight or (lambda x, g: conv2d_weight(x, g, SAME, (3, 3, 2, 2)))

    @primitive(lambda g, y, x, w: by_input(g, w), lambda g, y, x, w: by_weight(x, g))
    def convolution(x, w):
        return conv2d(x, w, None, SAME)

    x, w = RNG.standard_normal((2, 4, 4, 2)), RNG.standard_normal((3, 3, 2, 2))
    if fault is None:
        check_grads(convolution, x, w)
    else:
        with pytest.raises(AssertionError, match="derivative along a random direction"):
            check_grads(convolution, x, w)


def test_gradients_of_samples_add_up_and_do_not_leak(device):
    layer = nn.Conv2d(2, 3)
    params = layer.init(dtype="float64", device=device.name)
    x = device.array(RNG.standard_normal((3, 5, 5, 2)))
    step = value_and_grad(lambda p, x: np.sum(np.square(layer(p, x))))
    whole = device.host(step(params, x)[1].flat)
    parts = [device.host(step(params, x[i : i + 1])[1].flat) for i in range(3)]
    np.testing.assert_allclose(whole, sum(parts), rtol=1e-12)
    y, pull = vjp(lambda x: layer(params, x), x)
    g = np.zeros(y.shape)
    g[1] = 1
    leaked = device.host(pull(device.array(g))[0])[[0, 2]]
    np.testing.assert_array_equal(leaked, 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("stride, groups", [(1, 1), (2, 1), (1, 2)])
def test_dtype_is_that_of_the_parameters(dtype, stride, groups, device):
    layer = nn.Conv2d(2, 4, stride=stride, groups=groups)
    params = layer.init(dtype=dtype, device=device.name)
    x = device.array(np.ones((2, 5, 5, 2), dtype))
    with device.no_sync():
        y, pull = vjp(lambda p, x: layer(p, x), params, x)
        gp, gx = pull(y)
    assert {y.dtype, gp.dtype, gx.dtype} == {np.dtype(dtype)}
    second = hvp(lambda p: np.sum(np.square(layer(p, x))))(params, params)
    assert second.dtype == dtype


def test_what_is_given_and_what_comes_back_are_the_caller_s_own(device):
    layer = nn.Conv2d(2, 2, bias=False)
    params = layer.init(device=device.name)
    x = device.array(RNG.standard_normal((2, 4, 4, 2)).astype("float32"))
    before = device.host(x).copy()
    y = layer(params, x)
    first, second = device.host(layer(params, y)).copy(), layer(params, y)
    y += 1
    np.testing.assert_array_equal(device.host(second), first)
    np.testing.assert_array_equal(device.host(x), before)


@pytest.mark.parametrize("size", [5, 6, 7, 8])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_same_makes_one_output_a_stride(size, kernel, stride):
    layer = nn.Conv2d(1, 1, kernel, stride)
    assert layer(layer.init(), np.ones((1, size, size, 1), "float32")).shape == (1, *(-(-size // stride),) * 2, 1)
    if kernel % 2:
        assert layer.geometry.pads == (((kernel - 1) // 2,) * 2,) * 2


def test_sequences_are_images_of_one_row(device):
    layer, flat = nn.Conv1d(3, 4, 3, stride=2, padding=(2, 1)), nn.Conv2d(3, 4, (1, 3), (1, 2), ((0, 0), (2, 1)))
    params, x = layer.init(device=device.name), device.array(RNG.standard_normal((2, 7, 3)).astype("float32"))
    other = flat.init(device=device.name)
    other["W"] = params["W"][np.newaxis]
    np.testing.assert_array_equal(device.host(layer(params, x)), device.host(flat(other, x[:, np.newaxis]))[:, 0])


def test_weights_end_in_the_output_axis_and_repr_tells_what_is_unusual():
    assert {n: s.shape for n, s in nn.Conv2d(4, 6, (3, 5), groups=2).tensors().items()} == {
        "W": (3, 5, 2, 6),
        "b": (6,),
    }
    assert {n: s.shape for n, s in nn.Conv1d(4, 6, 3, bias=False).tensors().items()} == {"W": (3, 4, 6)}
    assert repr(nn.Conv2d(3, 16)) == "Conv2d(3, 16, kernel=3)"
    assert repr(nn.Conv2d(3, 16, 7, 2, "valid", bias=False)) == (
        "Conv2d(3, 16, kernel=7, stride=2, padding='valid', bias=False)"
    )
    assert repr(nn.Conv2d(4, 4, (1, 3), groups=2)) == "Conv2d(4, 4, kernel=(1, 3), groups=2)"
    assert repr(nn.Conv1d(4, 4, 5, padding=(4, 0))) == "Conv1d(4, 4, kernel=5, padding=(4, 0))"


def test_the_first_weights_have_the_variance_of_their_fan_in():
    w = nn.Conv2d(64, 128, groups=2).init(seed=0)["W"]
    assert np.var(w) == pytest.approx(2 / (9 * 32), rel=0.03)


REFUSED = {
    "no inputs": (ValueError, lambda: nn.Conv2d(0, 3), "Conv2d needs at least one input"),
    "half an output": (TypeError, lambda: nn.Conv2d(3, 1.5), "Conv2d takes whole numbers, got 3 and 1.5"),
    "groups": (ValueError, lambda: nn.Conv2d(4, 6, groups=3), "3 groups must divide the 4 inputs and the 6 outputs"),
    "no kernel": (ValueError, lambda: nn.Conv2d(3, 3, 0), "kernel is a positive number"),
    "three axes": (ValueError, lambda: nn.Conv2d(3, 3, (3, 3, 3)), "kernel is .*one for each of two axes"),
    "two axes of one": (ValueError, lambda: nn.Conv1d(3, 3, (3, 3)), "Conv1d: kernel is a positive number"),
    "stride": (TypeError, lambda: nn.Conv2d(3, 3, stride=0.5), "whole numbers"),
    "misspelt": (ValueError, lambda: nn.Conv2d(3, 3, padding="sane"), "same"),
    "negative": (ValueError, lambda: nn.Conv2d(3, 3, padding=-1), "padding cannot be negative, got -1"),
    "too many pads": (ValueError, lambda: nn.Conv2d(3, 3, padding=(1, 1, 1)), "padding is 'same', 'valid', a number"),
    "pads of three": (ValueError, lambda: nn.Conv2d(3, 3, padding=((1, 1, 1), 1)), "padding is 'same', 'valid'"),
    "init": (ValueError, lambda: nn.Conv2d(3, 3, init="hee"), "he"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_settings_that_make_no_sense_are_refused(what):
    error, make, told = REFUSED[what]
    with pytest.raises(error, match=told):
        make()


INPUTS = {
    "channels first": ((2, 3, 8, 8), r"got shape \(2, 3, 8, 8\); the channels come last: np.moveaxis\(x, 1, -1\)"),
    "other channels": ((2, 8, 8, 4), r"takes \(N, H, W, C\) with C = 3, got shape \(2, 8, 8, 4\)"),
    "one image": ((8, 8, 3), r"one sample alone is a batch"),
    "rows of pixels": ((8, 192), r"got shape \(8, 192\); rows of pixels become images by split.as_images\(\)"),
    "a number": ((), r"got shape \(\)"),
    "too small": ((2, 8, 2, 3), r"smaller than its window of 3×3"),
}


@pytest.mark.parametrize("what", INPUTS)
def test_inputs_that_do_not_fit_are_refused_by_the_layer_s_name(what, device):
    shape, told = INPUTS[what]
    model = nn.Sequential(nn.relu, nn.Conv2d(3, 4, padding="valid"))
    params = model.init(device=device.name)
    with pytest.raises(ValueError, match=r"layer '1', Conv2d\(3, 4, kernel=3, padding='valid'\).*" + told):
        model(params, device.array(np.ones(shape, "float32")))


def test_other_dtypes_and_what_is_no_array_are_refused_by_name():
    layer = nn.Conv1d(3, 4)
    params = layer.init()
    with pytest.raises(TypeError, match=r"Conv1d\(3, 4, kernel=3\): the input is float64, the parameters are float32"):
        layer(params, np.ones((2, 8, 3)))
    with pytest.raises(TypeError, match=r"the input is a list, not an array \(N, T, C\)"):
        layer(params, [[[1.0]]])
    with pytest.raises(TypeError, match=r"call model\(params, x\), in this order"):
        layer(np.ones((2, 8, 3), "float32"), params)
