"""Batch normalization against PyTorch, and what it must not depend on."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibng import check_grads, grad, hvp, nn, vjp
from minibng.autodiff.tracer import FUSED
from minibng.backend import images, to_host
from minibng.nn import batchnorm

RNG = np.random.default_rng(0)


def made(channels, dtype="float64", **kwargs):
    """A layer whose γ, β and running statistics are not what they start as."""
    layer = nn.BatchNorm(channels, **kwargs)
    params, rng = layer.init(dtype=dtype), np.random.default_rng(7)
    params["gamma"], params["beta"] = (
        rng.uniform(0.5, 2, channels).astype(dtype),
        rng.standard_normal(channels).astype(dtype),
    )
    params.buffers["mean"] = rng.standard_normal(channels).astype(dtype)
    params.buffers["var"] = rng.uniform(0.5, 2, channels).astype(dtype)
    return layer, params


def on(device, params):
    return params.to(device.name)


def padded(x, below=1, right=1):
    """Images with margins."""
    made = images.padded(x.shape, x.dtype, below, right)
    made[...] = x
    return made


def run(layer, params, x, g, device, skip=None, train=True):
    """Output, gradients and buffers, worked out on a device without waiting, as the host's."""
    params, x, g = on(device, params), device.array(x), device.array(g)
    inputs = (x,) if skip is None else (x, device.array(skip))
    with device.no_sync():
        y, pull = vjp(lambda p, x, s=None: layer(p, x, skip=s, train=train), params, *inputs)
        gp, *gx = pull(g)
    return device.host([y, gp["gamma"], gp["beta"], *gx]), device.host(params.buffers)


class Twin:
    """PyTorch's layer with the same parameters, running statistics and arguments, on (N, …, C)."""

    def __init__(self, torch, layer, params):
        self.torch, self.relu = torch, layer.activation == "relu"
        self.layer = torch.nn.BatchNorm1d(layer.channels, layer.eps, layer.momentum, dtype=torch.float64)
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor(params["gamma"]))
            self.layer.bias.copy_(torch.tensor(params["beta"]))
            self.layer.running_mean.copy_(torch.tensor(params.buffers["mean"]))
            self.layer.running_var.copy_(torch.tensor(params.buffers["var"]))

    def __call__(self, x, skip=None, train=True):
        y = self.layer.train(train)(x.reshape(-1, x.shape[-1])).reshape(x.shape)
        y = y if skip is None else y + skip
        return self.torch.relu(y) if self.relu else y

    def tensor(self, x):
        return self.torch.tensor(np.array(x, order="C"), requires_grad=True)

    @property
    def parameters(self):
        return [self.layer.weight, self.layer.bias]


def close(ours, theirs, rtol=1e-8):
    for a, b in zip(ours, theirs, strict=True):
        b = b.detach().numpy()
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * max(1.0, float(np.abs(b).max(initial=0))))


shapes = st.one_of(
    st.tuples(st.integers(2, 9), st.integers(1, 6)),
    st.tuples(st.integers(1, 4), st.integers(2, 6), st.integers(1, 6)),
    st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(2, 6), st.integers(1, 6)),
)


@pytest.mark.peer
@given(
    shape=shapes,
    relu=st.booleans(),
    with_skip=st.booleans(),
    train=st.booleans(),
    margins=st.none() | st.tuples(st.integers(0, 2), st.integers(1, 2)),
    seed=st.integers(0, 2**32 - 1),
)
def test_values_gradients_and_statistics_are_torch_s(torch, shape, relu, with_skip, train, margins, seed, device):
    """All of it, three calls in a row, with small pieces, from plain and from padded memory."""
    rng = np.random.default_rng(seed)
    layer, params = made(shape[-1], activation="relu" if relu else None, momentum=0.3)
    params, twin = on(device, params), Twin(torch, layer, params)
    for _ in range(3):
        x, skip, g = rng.standard_normal((3, *shape)) * 2 + 1
        if margins and len(shape) == 4 and device.name == "cpu":
            x, skip, g = [padded(a, *margins) if rng.random() < 0.8 else a for a in (x, skip, g)]
        theirs = [twin.tensor(a) for a in ((x, skip) if with_skip else (x,))]
        y = twin(*theirs, train=train)
        expected = torch.autograd.grad(y, [*twin.parameters, *theirs], torch.tensor(np.array(g, order="C")))
        inputs = device.arrays([x, skip] if with_skip else [x])
        with device.no_sync():
            out, pull = vjp(lambda p, x, s=None: layer(p, x, skip=s, train=train), params, *inputs)
            gp, *gx = pull(device.array(g))
        close(device.host([out, gp["gamma"], gp["beta"], *gx]), [y, *expected])
        close(
            device.host([params.buffers["mean"], params.buffers["var"]]),
            [twin.layer.running_mean, twin.layer.running_var],
        )


@pytest.mark.peer
@pytest.mark.parametrize("piece, row", [(1, 1), (64, 16), (300, 100), (1 << 17, 5200)])
@pytest.mark.parametrize("shape", [(24, 5), (3, 8, 5), (6, 4, 8, 5)])
def test_it_is_torch_s_however_it_is_cut(torch, shape, piece, row, monkeypatch):
    monkeypatch.setattr(batchnorm, "PIECE", piece)
    monkeypatch.setattr(batchnorm, "ROW", row)
    x, skip, g = RNG.standard_normal((3, *shape)) + 2
    layer, params = made(5, activation="relu")
    before = params.copy()
    ways = [(x, skip, g)]
    if len(shape) == 4:
        ways += [[padded(a) for a in (x, skip, g)], (padded(x), skip, g), (x, padded(skip, 2, 3), padded(g))]
        ways += [(padded(x), padded(skip), np.broadcast_to(g[:, :1, :1], shape)), [a[:, :, ::-1] for a in (x, skip, g)]]
    for x, skip, g in ways:
        params = before.copy()
        twin = Twin(torch, layer, params)
        theirs = [twin.tensor(a) for a in (x, skip)]
        y = twin(*theirs)
        expected = torch.autograd.grad(y, [*twin.parameters, *theirs], torch.tensor(np.array(g, order="C")))
        out, pull = vjp(lambda p, x, s: layer(p, x, skip=s, train=True), params, x, skip)
        gp, *gx = pull(g)
        close([out, gp["gamma"], gp["beta"], *gx], [y, *expected], 1e-11)
        close([params.buffers["var"]], [twin.layer.running_var], 1e-12)


@pytest.mark.peer
@pytest.mark.parametrize("train, relu, with_skip", list(itertools.product([True, False], repeat=3)))
def test_second_derivatives_are_torch_s(torch, train, relu, with_skip, device):
    shape = (3, 2, 4, 3)
    x, skip, g, v, u = RNG.standard_normal((5, *shape))
    layer, params = made(3, activation="relu" if relu else None)
    twin = Twin(torch, layer, params)
    theirs = [twin.tensor(a) for a in ((x, skip) if with_skip else (x,))]
    weights = torch.tensor(g)
    first = torch.autograd.grad((torch.sin(twin(*theirs, train=train)) * weights).sum(), theirs, create_graph=True)
    product = sum((a * torch.tensor(b)).sum() for a, b in zip(first, (v, u), strict=False))
    expected = torch.autograd.grad(product, [*theirs, *twin.parameters])
    params, (g, *inputs) = on(device, params), device.arrays([g, x, skip] if with_skip else [g, x])
    directions = device.arrays([v, u])

    def slope(p, *inputs):
        def loss(*inputs):
            return np.sum(np.sin(layer(p, inputs[0], skip=(*inputs, None)[1], train=train)) * g)

        slopes = vjp(loss, *inputs)[1](1.0)
        return sum(np.sum(a * b) for a, b in zip(slopes, directions, strict=False))

    with device.no_sync():
        gp, *gx = grad(slope, argnums=tuple(range(1 + len(inputs))))(params, *inputs)
    close(device.host([*gx, gp["gamma"], gp["beta"]]), expected)


@pytest.mark.parametrize("train, activation", list(itertools.product([True, False], [None, "relu"])))
def test_derivatives_are_exact_to_second_order(train, activation, device):
    layer, params = made(3, eps=1e-2, activation=activation)
    x, skip = device.arrays(list(RNG.standard_normal((2, 4, 3, 2, 3))))
    check_grads(lambda p, x, s: layer(p, x, skip=s, train=train), on(device, params), x, skip, order=2)
    check_grads(lambda p, x: layer(p, x, train=train), on(device, params), x, order=2)


@pytest.mark.parametrize("arguments", [(0,), (1,), (2,), (3,), (0, 2), (1, 3), (0, 1, 2, 3)])
@pytest.mark.parametrize("relu, train", list(itertools.product([True, False], repeat=2)))
def test_the_fused_operation_is_its_reference_for_any_arguments(arguments, relu, train, device):
    """What the generic test over all operations asks, with a gradient asked of a part of the arguments only."""
    op = FUSED["_batch_norm"]
    x, skip, g = device.arrays(list(RNG.standard_normal((3, 4, 3, 2, 5))))
    gamma, beta = device.arrays(list(RNG.uniform(0.5, 1, (2, 5))))
    mean, variance = batchnorm.moments(x)
    every = [x, gamma, beta, skip]

    def of(function):
        def f(*some):
            args = list(every)
            for i, a in zip(arguments, some, strict=True):
                args[i] = a
            return function(*args, mean, variance, 1e-3, relu, train)

        y, pull = vjp(f, *[every[i] for i in arguments])
        return device.host([y, *pull(g)])

    for ours, expected in zip(of(op), of(op.reference), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-11, atol=1e-13)


def test_no_argument_is_written_into_and_no_gradient_is_another_s(device):
    """With and without an activation: the skip's gradient may be the incoming one, which others hold."""
    for activation in (None, "relu"):
        layer, params = made(4, activation=activation)
        x, skip, g = RNG.standard_normal((3, 5, 2, 3, 4))
        if device.name == "cpu":
            for a in (x, skip, g, params.flat):
                a.setflags(write=False)
        given = device.arrays([x, skip, g])
        params = on(device, params)
        inputs = given[:2]
        f = lambda p, x, s, layer=layer: layer(p, x, skip=s, train=True) + s  # noqa: E731 (the skip's gradient, shared)
        pull = vjp(f, params, *inputs)[1]
        first, second = pull(given[2]), pull(given[2])
        for a, b in zip(first[1:], second[1:], strict=True):
            np.testing.assert_array_equal(device.host(a), device.host(b))
        for a, b in zip(given, (x, skip, g), strict=True):
            np.testing.assert_array_equal(device.host(a), b)


# Statistics


@pytest.mark.parametrize("shape", [(4096, 3), (64, 50, 3), (32, 16, 16, 3), (2, 200, 300, 3)])
@pytest.mark.parametrize("margins", [False, True])
def test_float32_keeps_its_digits_at_a_large_mean(shape, margins, device):
    """E[x²] − mean² would have none left: squares of 10⁶ are kept to 0.06 in float32."""
    if margins and (len(shape) < 4 or device.name != "cpu"):
        return
    x = (RNG.standard_normal(shape) * [1, 0.1, 10] + [1000, -1000, 3e4]).astype("float32")
    exact = x.astype("float64").reshape(-1, 3)
    mean, variance = map(to_host, batchnorm.moments(padded(x) if margins else device.array(x)))
    np.testing.assert_allclose(variance, exact.var(axis=0), rtol=3e-6 if device.name == "cpu" else 2e-5)
    np.testing.assert_allclose(mean, exact.mean(axis=0), rtol=2e-7)
    layer = nn.BatchNorm(3)
    y = device.host(layer(layer.init(device=device.name), device.array(x), train=True))
    expected = (exact - exact.mean(axis=0)) / np.sqrt(exact.var(axis=0) + 1e-5)
    tolerance = [2e-4, 2e-3, 1e-3] if device.name == "cpu" else [1e-3, 1e-2, 1e-2]
    assert (np.abs(y.reshape(-1, 3) - expected).max(axis=0) < tolerance).all()


@pytest.mark.parametrize("levels", [[0, 1e4] * 8, [0] * 15 + [1e6], [1e6] + [0] * 255, np.arange(16) * 1e5], ids=len)
def test_pieces_of_very_different_means_lose_nothing(levels, monkeypatch):
    """The centre of a piece is the mean of the one before: a step between the two costs no digits of the whole.

    With the first piece's mean for all, the third case has errors of 8e-5.
    """
    monkeypatch.setattr(batchnorm, "PIECE", 1024)
    monkeypatch.setattr(batchnorm, "ROW", 16)
    x = (RNG.standard_normal((len(levels), 8, 4, 4, 8)) + np.reshape(levels, (-1, 1, 1, 1, 1))).astype("float32")
    exact = x.astype("float64").reshape(-1, 8)
    mean, variance = batchnorm.moments(x)
    np.testing.assert_allclose(variance, exact.var(axis=0), rtol=5e-6)
    np.testing.assert_allclose(mean, exact.mean(axis=0), rtol=5e-6)


def test_moments_are_numpy_s_in_float64(device):
    x = RNG.standard_normal((7, 5, 3, 6)) * 3 - 2
    mean, variance = map(to_host, batchnorm.moments(device.array(x)))
    np.testing.assert_allclose(mean, x.mean(axis=(0, 1, 2)), rtol=1e-13)
    np.testing.assert_allclose(variance, x.var(axis=(0, 1, 2)), rtol=1e-13)


def test_running_statistics_are_the_declared_average_of_unbiased_ones(device):
    layer = nn.BatchNorm(2, momentum=0.25)
    params = layer.init(dtype="float64", device=device.name)
    mean, variance = np.zeros(2), np.ones(2)
    for _ in range(4):
        x = RNG.standard_normal((3, 5, 2)) * 2 + 1
        with device.no_sync():
            layer(params, device.array(x), train=True)
        flat = x.reshape(-1, 2)
        mean, variance = 0.75 * mean + 0.25 * flat.mean(axis=0), 0.75 * variance + 0.25 * flat.var(axis=0, ddof=1)
        np.testing.assert_allclose(device.host(params.buffers["mean"]), mean, rtol=1e-13)
        np.testing.assert_allclose(device.host(params.buffers["var"]), variance, rtol=1e-13)


def test_evaluation_leaves_the_buffers_alone_and_copies_give_the_same_again(device):
    layer, params = made(3, dtype="float32")
    params, x = on(device, params), device.array(RNG.standard_normal((4, 6, 3)).astype("float32"))
    before, copy = device.host(params.copy().buffers), params.copy()
    layer(params, x)
    for name, value in device.host(params.buffers).items():
        np.testing.assert_array_equal(value, before[name])
    results = [device.host([layer(p, x, train=True), *p.buffers.values()]) for p in (params, copy)]
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(device.host(params.buffers["mean"]), before["mean"])


def test_buffers_hold_plain_arrays_after_any_number_of_traces(device):
    layer, params = made(3)
    params, x = on(device, params), device.array(RNG.standard_normal((4, 3)))
    hvp(lambda p: np.sum(layer(p, x, train=True) ** 3))(params, params.copy())
    plain = layer.init(dtype="float64", device=device.name).buffers
    assert {k: type(v) for k, v in params.buffers.items()} == {k: type(v) for k, v in plain.items()}
    assert all(v.dtype == "float64" for v in params.buffers.values())


def test_a_saved_model_goes_on_where_it_stopped(device):
    layer, params = made(3)
    x = device.array(RNG.standard_normal((4, 3)))
    params = on(device, params)
    layer(params, x, train=True)
    other = layer.init(seed=1, dtype="float64", device=device.name)
    other.load_state_dict(params.state_dict())
    np.testing.assert_array_equal(device.host(layer(other, x)), device.host(layer(params, x)))


# What it does not feel


@pytest.mark.parametrize("scale, shift", [(1e-3, 5.0), (3.0, 0.0), (1e4, -2e4)])
def test_shifting_and_scaling_a_channel_is_only_another_eps(scale, shift, device):
    """BN_ε(a·x + b) = BN_{ε/a²}(x) in training."""
    layer, params = made(4, eps=1e-2)
    other = nn.BatchNorm(4, 1e-2 / scale**2)
    x, params = RNG.standard_normal((5, 3, 4)), on(device, params)
    y = device.host(layer(params, device.array(scale * x + shift), train=True))
    still = device.host(other(params, device.array(x), train=True))
    np.testing.assert_allclose(y, still, rtol=1e-9, atol=1e-11)


def test_gradients_are_orthogonal_to_what_the_output_does_not_feel(device):
    """To a shift of each channel exactly, to its scaling as ε vanishes."""
    layer, params = made(4, eps=1e-12, activation="relu")
    x, g = RNG.standard_normal((2, 6, 3, 2, 4))
    (_, _, _, gx), _ = run(layer, params, x, g, device)
    np.testing.assert_allclose(gx.reshape(-1, 4).sum(axis=0), 0, atol=1e-13)
    centred = x - x.mean(axis=(0, 1, 2))
    np.testing.assert_allclose((gx * centred).reshape(-1, 4).sum(axis=0), 0, atol=1e-10)


def test_samples_do_not_know_of_each_other_in_evaluation(device):
    layer, params = made(3, activation="relu")
    x, g = RNG.standard_normal((2, 5, 4, 3))
    g[1:] = 0
    (y, _, _, gx), _ = run(layer, params, x, g, device, train=False)
    assert gx[0].any() and not gx[1:].any()
    np.testing.assert_allclose(device.host(layer(on(device, params), device.array(x[2:3])))[0], y[2], rtol=1e-14)
    (_, _, _, gx), _ = run(layer, params, x, g, device, train=True)
    assert gx[1:].any()


@pytest.mark.peer
@pytest.mark.parametrize("value", [0.0, 0.1, -7e3])
@pytest.mark.parametrize("shape", [(6, 3), (2, 5, 7, 3)])
def test_a_constant_input_gives_beta_and_torch_s_gradients(torch, value, shape, device):
    layer, params = made(3)
    g = RNG.standard_normal(shape)
    twin = Twin(torch, layer, params)
    theirs = twin.tensor(np.full(shape, value))
    expected = torch.autograd.grad(twin(theirs), [*twin.parameters, theirs], torch.tensor(g))
    (y, *gradients), buffers = run(layer, params, np.full(shape, value), g, device)
    np.testing.assert_allclose(y, np.broadcast_to(params["beta"], shape), rtol=1e-9)
    for ours, other in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(ours, other.numpy(), rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(buffers["var"], 0.9 * params.buffers["var"], rtol=1e-13)
    single = layer.init()
    y = layer(single, np.full(shape, value, "float32"), train=True)
    assert not y.any()  # exactly β, whatever the value


# Memory and dtypes


@pytest.mark.parametrize("relu, with_skip", list(itertools.product([True, False], repeat=2)))
@pytest.mark.parametrize("shape", [(3, 4, 5, 2), (2, 33, 40, 16)])
def test_margins_stay_zero_and_change_nothing(shape, relu, with_skip):
    """The output, and both gradients, have the margins of x; what padded memory gives, plain memory gives too."""
    op = FUSED["_batch_norm"]
    x, skip, g = (RNG.standard_normal((3, *shape)) + 1).astype("float32")
    gamma, beta = np.float32([[1.5], [0.5]]) * np.ones((2, shape[-1]), "float32")
    results = []
    for pad in (np.array, padded):
        a, s, h = pad(x), pad(skip) if with_skip else None, pad(g)
        arguments = (a, gamma, beta, s, *batchnorm.moments(a), 1e-5, relu, True)
        y, residual = batchnorm._forward(*arguments)
        gradients = batchnorm._backward(h, y, residual, (0, 1, 2, 3) if with_skip else (0, 1, 2), *arguments)
        kept = [y, gradients[0], gradients[3]] if with_skip else [y, gradients[0]]
        results.append([np.array(r) for r in (*kept, gradients[1], gradients[2])])
        for image in kept if pad is padded else []:
            memory = images.memory_of(image)
            assert memory is not None
            image[...] = 0
            assert not np.asarray(memory).any()
    np.testing.assert_allclose(op(*arguments), results[0][0], rtol=1e-5, atol=1e-5)
    for plain, with_margins in zip(*results, strict=True):
        np.testing.assert_allclose(with_margins, plain, rtol=2e-5, atol=2e-6 * max(1, np.abs(plain).max()))


def test_numpy_s_buffer_is_as_it_was():
    layer, params = made(3)
    before = np.getbufsize()
    grad(lambda x: np.sum(layer(params, x, train=True) ** 2))(RNG.standard_normal((4, 3)))
    assert np.getbufsize() == before


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("train", [True, False])
def test_dtype_is_kept(dtype, train, device):
    layer, params = made(3, dtype, activation="relu")
    x = RNG.standard_normal((4, 2, 3)).astype(dtype)
    results, buffers = run(layer, params, x, x, device, skip=x, train=train)
    assert {r.dtype for r in (*results, *buffers.values())} == {np.dtype(dtype)}
    params, x = on(device, params), device.array(x)
    assert hvp(lambda x: np.sum(layer(params, x, train=train) ** 2))(x, x).dtype == dtype


def test_an_empty_batch_is_evaluated():
    layer, params = made(3)
    assert layer(params, np.ones((0, 2, 2, 3))).shape == (0, 2, 2, 3)
    gx = grad(lambda x: np.sum(layer(params, x)))(np.ones((0, 3)))
    assert gx.shape == (0, 3)


# What is refused, and how it describes itself


@pytest.mark.parametrize("shape", [(1, 3), (1, 1, 3), (1, 1, 1, 3), (0, 3), (0, 4, 4, 3)])
def test_statistics_of_one_value_are_refused_by_name(shape, device):
    model = nn.Sequential(nn.relu, nn.BatchNorm(3))
    params, x = model.init(device=device.name), device.array(np.ones(shape, "float32"))
    with pytest.raises(ValueError) as caught:
        model(params, x, train=True)
    told = str(caught.value)
    assert all(part in told for part in ("layer '1', BatchNorm(3)", "at least 2 values per channel", str(shape)))
    assert not np.asarray(device.host(params.buffers["1.mean"])).any()
    assert model(params, x).shape == shape


@pytest.mark.parametrize("shape", [(5, 4), (3,), (), (2, 3, 3, 2)])
def test_an_input_of_another_shape_names_layer_and_shape(shape):
    model = nn.Sequential(nn.relu, nn.BatchNorm(3))
    for train in (True, False):
        with pytest.raises(ValueError) as caught:
            model(model.init(), np.ones(shape, "float32"), train=train)
        assert all(part in str(caught.value) for part in ("layer '1', BatchNorm(3)", str(shape)))


def test_a_skip_that_does_not_fit_is_refused():
    layer, params = made(3)
    x = np.ones((4, 2, 3))
    with pytest.raises(ValueError, match=r"BatchNorm\(3\): skip has shape \(4, 1, 3\), x \(4, 2, 3\)"):
        layer(params, x, skip=np.ones((4, 1, 3)), train=True)
    with pytest.raises(TypeError, match=r"BatchNorm\(3\): skip is a list, not an array of the shape of x"):
        layer(params, x, skip=x.tolist())
    with pytest.raises(TypeError, match="skip is float32, x float64"):
        layer(params, x, skip=np.ones((4, 2, 3), "float32"))
    with pytest.raises(TypeError, match="the input is float32, the parameters are float64"):
        layer(params, x.astype("float32"))


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"channels": 0}, "at least one channel"),
        ({"eps": 0.0}, "eps must be positive"),
        ({"eps": 1e-60}, "eps must be positive"),
        ({"momentum": 1.5}, r"momentum must lie in \[0, 1\]"),
        ({"momentum": float("nan")}, "momentum"),
        ({"activation": "tanh"}, "activation is None or 'relu'"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        nn.BatchNorm(**{"channels": 3, **arguments})


def test_a_number_of_channels_that_is_no_whole_number_is_refused():
    with pytest.raises(TypeError, match="BatchNorm takes whole numbers"):
        nn.BatchNorm(3.0)


def test_gamma_and_beta_are_one_block_and_the_buffers_lie_outside():
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.BatchNorm(3, activation="relu"), nn.Linear(3, 2))
    params = model.init()
    assert list(params.layout.block_names) == ["0", "1", "2"]
    assert list(params.buffers) == ["1.mean", "1.var"]
    assert params["1.gamma"].tolist() == [1, 1, 1] and params["1.beta"].tolist() == [0, 0, 0]
    assert params.buffers["1.mean"].tolist() == [0, 0, 0] and params.buffers["1.var"].tolist() == [1, 1, 1]
    assert params.buffers["1.var"].dtype == "float32"
    assert repr(nn.BatchNorm(3)) == "BatchNorm(3)"
    assert repr(nn.BatchNorm(3, 1e-3, 0.5, "relu")) == "BatchNorm(3, eps=0.001, momentum=0.5, activation='relu')"


def test_scaling_the_weights_before_it_changes_nothing_and_their_gradient_stands_on_them():
    """⟨W, dL/dW⟩ = 0 for a layer before batch norm: what adaptive NG meets in convolutional networks."""
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.BatchNorm(3, eps=1e-30))
    params = model.init(dtype="float64")
    x, t = RNG.standard_normal((8, 4)), RNG.standard_normal((8, 3))
    loss = lambda p: np.sum((model(p, x, train=True) - t) ** 2)  # noqa: E731
    before = loss(params)
    g = grad(loss)(params)
    assert abs(np.sum(g["0.W"] * params["0.W"])) < 1e-12 * np.abs(g["0.W"]).sum()
    params["0.W"] *= 7.5
    np.testing.assert_allclose(loss(params), before, rtol=1e-13)
