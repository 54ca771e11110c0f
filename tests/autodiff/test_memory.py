"""No reference cycles, and a backward pass that frees the forward pass while it runs."""

import contextlib
import gc
import tracemalloc
import weakref

import numpy as np
import pytest

from minibng import asarray, grad, hvp, nn, primitive, value_and_grad, vjp

N = 1 << 17  # one array of a megabyte


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def model_and_data(device="cpu"):
    model = nn.Sequential(nn.Linear(6, 5), nn.relu, nn.Residual(nn.Linear(5, 5)), nn.Dropout(0.3), nn.Linear(5, 3))
    rng = np.random.default_rng(0)
    x, t = (asarray(a, device=device) for a in (rng.standard_normal((4, 6)), rng.integers(0, 3, 4)))
    return model, model.init(seed=0, dtype="float64", device=device), x, t


def training_step(device):
    model, params, x, t = model_and_data(device)
    return lambda: value_and_grad(lambda p: nn.cross_entropy(model(p, x, train=True), t))(params)


def hessian_product():
    model, params, x, t = model_and_data()
    return lambda: hvp(lambda p: nn.cross_entropy(model(p, x), t))(params, params)


def with_aux():
    return lambda: grad(lambda x: (np.sum(x * x), [x, x * 2]), has_aux=True)(np.ones(3))


def pullback():
    return lambda: vjp(lambda x: [np.exp(x), np.max(x)], np.ones(3))[1]([np.ones(3), 1.0])


def failing():
    def call():
        with contextlib.suppress(ValueError):
            grad(lambda x: x * 2)(np.ones(3))

    return call


@pytest.mark.parametrize("make", [hessian_product, with_aux, pullback, failing])
def test_no_reference_cycles_are_left(make, no_collector):
    leaves_no_cycles(make())


def test_a_training_step_leaves_no_reference_cycles_on_any_device(device, no_collector):
    work = training_step(device.name)
    with device.no_sync():
        leaves_no_cycles(work)


def leaves_no_cycles(work):
    work()
    gc.collect()
    for _ in range(3):
        work()
    assert gc.collect() == 0


def peak_during(work):
    """Bytes beyond those held at the start."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("derivative", [grad, value_and_grad])
def test_the_peak_is_the_forward_pass_and_a_few_arrays(derivative, no_collector):
    x, depth = np.full(N, 0.5), 24

    def chain(x):
        for _ in range(depth):
            x = np.tanh(x)
        return np.sum(x)

    forward = depth * x.nbytes
    peak = peak_during(lambda: derivative(chain)(x))
    assert forward <= peak <= forward + 6 * x.nbytes


def test_the_backward_pass_frees_each_result_once_it_is_used(device, no_collector):
    live, alive_at_backward = [], []

    def rule(g, y, x):
        alive_at_backward.append(sum(ref() is not None for ref in live))
        return g * 2.0

    @primitive(rule)
    def doubled(x):
        y = x * 2.0
        live.append(weakref.ref(y))
        return y

    def f(x):
        for _ in range(8):
            x = doubled(x)
        return np.sum(x)

    g = grad(f)(device.array(np.ones(3)))
    np.testing.assert_array_equal(device.host(g), np.full(3, 256.0))
    assert alive_at_backward == [8, 7, 6, 5, 4, 3, 2, 1]
    assert not any(ref() is not None for ref in live)


def test_everything_is_freed_when_the_gradient_has_been_returned(no_collector):
    x = np.full(N, 0.5)
    value_and_grad(lambda x: np.sum(np.tanh(x) * x))(x)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    result = value_and_grad(lambda x: np.sum(np.tanh(x) * x))(x)
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert after - before < x.nbytes + 100_000
    del result


def test_a_pullback_frees_its_forward_pass_with_itself(device, no_collector):
    kept = []

    @primitive(lambda g, y, x: g * y)
    def exponential(x):
        y = np.exp(x)
        kept.append(weakref.ref(y))
        return y

    y, pull = vjp(lambda x: exponential(x) * 1.0, device.array(np.ones(3)))
    pull(y)
    pull(y)
    assert kept[0]() is not None
    del y, pull
    assert kept[0]() is None


def test_a_long_chain_needs_no_recursion():
    def chain(x):
        for _ in range(10_000):
            x = x + 1.0
        return x

    assert grad(chain)(2.0) == 1.0
    _, pull = vjp(chain, 2.0)
    assert pull(3.0) == (3.0,)
    del pull


def test_a_graph_with_exponentially_many_paths_is_walked_once():
    def f(x):
        for _ in range(60):
            x = x + x
        return x

    assert grad(f)(1.0) == 2.0**60
