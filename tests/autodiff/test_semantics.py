"""What a derivative means: nested, of containers, of unused arguments, by users' own primitives, in threads."""

import contextlib
import copy
import math
import threading
from collections import namedtuple

import numpy as np
import pytest

from minibng import Params, check_grads, fused, grad, hvp, nn, ops, primitive, value_and_grad, vjp
from minibng.autodiff import Traced, flatten, raw
from minibng.backend import is_array, to_host

X = np.array([0.5, 1.5, 2.5])
Pair = namedtuple("Pair", "left right")


@pytest.fixture(autouse=True)
def on_the_device(device, monkeypatch):
    """Every test here is run on every device: X is there, and put brings others."""
    monkeypatch.setitem(globals(), "X", device.array(X))
    monkeypatch.setitem(globals(), "put", device.array)


put = np.asarray


def at_home(x):
    return type(x)(map(at_home, x)) if isinstance(x, (list, tuple)) else to_host(x) if is_array(x) else x


def equal(actual, desired):
    np.testing.assert_array_equal(at_home(actual), at_home(desired))


def close(actual, desired, **tolerances):
    np.testing.assert_allclose(at_home(actual), at_home(desired), **tolerances)


def nth(f, order):
    for _ in range(order):
        f = grad(f)
    return f


# Nesting

CLOSED = {
    "exp(2x)": (lambda x: np.exp(2 * x), lambda x, n: 2**n * math.exp(2 * x)),
    "x**5": (lambda x: x**5, lambda x, n: math.prod(range(5, 5 - n, -1)) * x ** (5 - n)),
    "1/x": (lambda x: 1 / x, lambda x, n: (-1) ** n * math.factorial(n) / x ** (n + 1)),
    "log": (np.log, lambda x, n: (-1) ** (n - 1) * math.factorial(n - 1) / x**n),
    "sqrt": (np.sqrt, lambda x, n: math.prod(0.5 - k for k in range(n)) * x ** (0.5 - n)),
    "x**x": (
        lambda x: x**x,
        lambda x, n: x**x * {
            1: 1 + math.log(x),
            2: (1 + math.log(x)) ** 2 + 1 / x,
            3: (1 + math.log(x)) ** 3 + 3 * (1 + math.log(x)) / x - 1 / x**2,
        }[n],
    ),
    "2**x": (lambda x: 2**x, lambda x, n: math.log(2) ** n * 2**x),
    "tanh": (
        np.tanh,
        lambda x, n: (1 - math.tanh(x) ** 2) * {1: 1, 2: -2 * math.tanh(x), 3: 6 * math.tanh(x) ** 2 - 2}[n],
    ),
    "sigmoid": (
        nn.sigmoid,
        lambda x, n: {1: lambda s: s, 2: lambda s: s * (1 - 2 * s), 3: lambda s: s * (1 - 6 * s + 6 * s * s)}[n](
            1 / (1 + math.exp(-x))
        )
        * (1 - 1 / (1 + math.exp(-x))),
    ),
}  # fmt: skip


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("name", CLOSED)
def test_derivatives_to_third_order_have_their_closed_form(name, order):
    f, closed = CLOSED[name]
    for x in (0.7, 1.9):
        close(nth(f, order)(x), closed(x, order), rtol=1e-12)
        close(nth(f, order)(put(x)), closed(x, order), rtol=1e-12)


def test_perturbations_of_nested_derivatives_are_not_confused():
    assert grad(lambda x: x * grad(lambda y: x + y)(2.0))(3.0) == 1.0
    assert grad(lambda x: x * grad(lambda y: x * y)(2.0))(3.0) == 6.0
    assert grad(lambda x: grad(lambda y: x * x * y)(x) * x)(2.0) == 12.0
    assert grad(lambda x: grad(lambda x: x * x)(x) * x)(3.0) == 12.0


def test_mixed_derivatives_with_captured_variables_agree_in_either_order():
    def f(x, y):
        return np.exp(x * y) + x**2 * y**3

    xy = grad(lambda x: grad(lambda y: f(x, y))(1.3))(0.4)
    yx = grad(lambda y: grad(lambda x: f(x, y))(0.4))(1.3)
    exact = (1 + 0.4 * 1.3) * math.exp(0.4 * 1.3) + 6 * 0.4 * 1.3**2
    close([xy, yx], exact, rtol=1e-13)


def test_mixed_derivative_of_a_power_at_exponent_zero():
    """∂²(x^p)/∂p∂x = x^(p−1)(1 + p log x), which is 1/x at p = 0."""
    for p in (0.0, 1.0, 2.0):
        exact = 2.0 ** (p - 1) * (1 + p * math.log(2.0))
        close(grad(lambda p: grad(lambda x: x**p)(2.0))(p), exact, rtol=1e-14)
        close(grad(lambda x, p=p: grad(lambda p: x**p)(p))(2.0), exact, rtol=1e-14)


def test_three_traces_that_share_their_variables():
    inner = lambda x, y: grad(lambda z: x * y**2 * z**3)(x)  # noqa: E731  3 x³ y²
    outer = lambda x: grad(lambda y: inner(x, y) * x)(x)  # noqa: E731  6 x⁴ y at y = x
    close(grad(outer)(1.1), 30 * 1.1**4, rtol=1e-13)


def test_a_gradient_step_can_be_differentiated():
    """The loss after one step of gradient descent, in the learning rate and in the start."""
    a = put([1.0, 3.0])

    def after(lr, x):
        x = x - lr * grad(lambda x: 0.5 * np.sum(a * x**2))(x)
        return 0.5 * np.sum(a * x**2)

    x = put([0.5, -2.0])
    g_lr, g_x = grad(after, (0, 1))(0.1, x)
    close(g_lr, np.sum(-(a**2) * x * (1 - 0.1 * a) * x), rtol=1e-13)
    close(g_x, a * (1 - 0.1 * a) ** 2 * x, rtol=1e-13)


def test_vjp_inside_grad_and_grad_inside_vjp():
    exact, twos = 6 * X * 2.0, put(np.full(3, 2.0))
    close(grad(lambda x: np.sum(vjp(lambda y: y**3, x)[1](twos)[0]))(X), exact)
    close(vjp(grad(lambda y: np.sum(y**3)), X)[1](twos)[0], exact)


# Unused arguments, constants, auxiliary results


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_unused_argument_has_zeros_of_its_own_structure(dtype):
    tree = {
        "a": put(np.ones((2, 3), dtype)),
        "b": [put(np.ones(0, dtype)), (put(1.0, dtype),)],
        "p": Pair(put(np.ones(1, dtype)), 2.0),
    }
    _, g = value_and_grad(lambda t, x: np.sum(x), argnums=(0, 1))(tree, X)
    assert list(g[0]) == ["a", "b", "p"]
    assert isinstance(g[0]["b"], list) and isinstance(g[0]["b"][1], tuple) and isinstance(g[0]["p"], Pair)
    for got, given in zip(flatten(g[0])[0], flatten(tree)[0], strict=True):
        assert np.shape(got) == np.shape(given)
        assert np.result_type(got) == np.result_type(given)
        assert not np.any(got)


@pytest.mark.parametrize("f", [lambda x: 3.0, lambda x: 3, lambda x: np.float64(2), lambda x: np.sum(raw(x)) * 1.0])
def test_a_constant_function_has_gradient_zero(f):
    value, g = value_and_grad(f)(X)
    assert value == f(X)
    equal(g, np.zeros(3))
    equal(hvp(f)(X, X), np.zeros(3))


def test_the_hessian_of_a_linear_function_is_zero():
    equal(hvp(lambda x: np.sum(x * 2))(X, X), np.zeros(3))
    p = Params.of({"W": X, "b": X})
    assert not np.any(hvp(lambda p: np.sum(p["W"]))(p, p).flat)


def test_aux_is_passed_on_as_plain_values():
    def f(x):
        y = x * x
        return np.sum(y), {"y": y, "n": 3, "who": "me", "nothing": None, "pair": Pair(y[0], [y > 1])}

    (value, aux), g = value_and_grad(f, has_aux=True)(X)
    assert value == np.sum(X**2)
    equal(g, 2 * X)
    equal(aux["y"], X**2)
    assert (aux["n"], aux["who"], aux["nothing"]) == (3, "me", None)
    assert not any(isinstance(leaf, Traced) for leaf in flatten(aux)[0])
    g2, aux2 = grad(f, has_aux=True)(X)
    equal(g2, g)
    assert not isinstance(aux2["pair"].left, Traced)


def test_aux_of_an_inner_derivative_is_still_differentiated_by_the_outer():
    def f(x):
        g, y = grad(lambda z: (np.sum(z * z), z * x), has_aux=True)(x)
        return np.sum(g * y)  # 2x · x²

    close(grad(f)(X), 6 * X**2)


def test_the_result_that_is_an_argument_has_the_identity_as_derivative():
    assert grad(lambda x: x)(2.0) == 1.0
    value, pull = vjp(lambda x, y: [y, x], X, 2 * X)
    equal(value, [2 * X, X])
    equal(pull([3 * X, 5 * X]), [5 * X, 3 * X])


# Arguments and containers


def test_argnums_choose_and_order_the_gradients():
    f = lambda a, b, c: np.sum(a * b**2 * c**3)  # noqa: E731
    a, b, c = X, X + 1, X + 2
    da, db, dc = b**2 * c**3, 2 * a * b * c**3, 3 * a * b**2 * c**2
    close(grad(f)(a, b, c), da)
    close(grad(f, argnums=1)(a, b, c), db)
    close(grad(f, argnums=-1)(a, b, c), dc)
    for argnums in ((2, 0), [2, 0]):
        got = grad(f, argnums=argnums)(a, b, c)
        assert isinstance(got, tuple)
        close(got, [dc, da])
    assert isinstance(grad(f, argnums=(1,))(a, b, c), tuple)
    close(grad(f, argnums=np.int64(1))(a, b, c), db)


def test_keyword_arguments_are_passed_on_plain():
    close(grad(lambda x, power=1: np.sum(x**power))(X, power=3), 3 * X**2)


@pytest.mark.parametrize(
    "tree",
    [
        [X, X + 1],
        (X, X + 1),
        {"a": X, "b": X + 1},
        Pair(X, X + 1),
        [[X], ({"c": X + 1},)],
        Params.of({"W": X, "b": X + 1}),
    ],
    ids=["list", "tuple", "dict", "namedtuple", "nested", "Params"],
)
def test_the_gradient_has_the_structure_of_the_argument(tree):
    def f(t):
        a, b = flatten(t)[0]
        return np.sum(a * b**2)

    before = copy.deepcopy(tree)
    value, g = value_and_grad(f)(tree)
    assert type(g) is type(tree)
    a, b = flatten(tree)[0]
    assert value == np.sum(a * b**2)
    for got, exact in zip(flatten(g)[0], [b**2, 2 * a * b], strict=True):
        close(got, exact)
    for got, exact in zip(flatten(tree)[0], flatten(before)[0], strict=True):
        equal(got, exact)
    check_grads(f, tree)


def test_empty_containers_are_containers():
    assert grad(lambda t: np.sum(t[1]))([[], X, {}, ()])[0] == []
    assert grad(lambda t: 1.0)({}) == {}


def test_one_array_in_two_leaves_gets_two_gradients():
    g = grad(lambda t: np.sum(t[0] * 2 + t[1] * 3))([X, X])
    equal(g, [[2.0] * 3, [3.0] * 3])


def test_an_object_with_the_two_methods_is_a_container():
    class Point:
        def __init__(self, x, y):
            self.x, self.y = x, y

        def __leaves__(self):
            return [self.x, self.y]

        def __rebuild__(self, leaves):
            return Point(*leaves)

    g = grad(lambda p: p.x**2 * p.y)(Point(2.0, 3.0))
    assert (type(g), g.x, g.y) == (Point, 12.0, 4.0)


def test_gradients_are_writable_and_their_own():
    """A gradient can be scaled or accumulated in place without a change anywhere else."""
    x, y = X.copy(), X + 1
    for f in (lambda x, y: np.sum(x + y), lambda x, y: np.sum((x + y) ** 2), lambda x, y: np.mean(x) - np.sum(y)):
        gx, gy = grad(f, (0, 1))(x, y)
        expected = gy.copy()
        assert not any(np.shares_memory(a, b) for a, b in [(gx, gy), (gx, x), (gy, y)])
        gx *= 7
        equal(gy, expected)


# vjp


def test_a_pullback_may_be_called_again_and_gives_the_same():
    y, pull = vjp(lambda x: np.exp(x) * x, X)
    g = put([1.0, -2.0, 0.5])
    first, second, third = pull(g)[0], pull(2 * g)[0], pull(g)[0]
    equal(first, third)
    close(second, 2 * first)
    close(first, g * np.exp(X) * (1 + X))
    equal(y, np.exp(X) * X)


def test_vjp_of_a_function_that_returns_containers():
    def f(x, t):
        return {"p": x * t["s"], "q": [x[0], Pair(t["s"] ** 2, 5.0)]}

    value, pull = vjp(f, X, {"s": 2.0})
    assert value["q"][1] == Pair(4.0, 5.0)
    assert not any(isinstance(leaf, Traced) for leaf in flatten(value)[0])
    gx, gt = pull({"p": put([1.0, 2.0, 3.0]), "q": [10.0, Pair(0.5, 99.0)]})
    equal(gx, [12.0, 4.0, 6.0])
    assert gt["s"] == X @ put([1.0, 2.0, 3.0]) + 0.5 * 2 * 2.0


def test_the_cotangent_of_a_number_on_a_device_may_be_a_number_of_the_host():
    for number in (3.0, np.float64(3.0), put(3.0)):
        for f, exact in ((lambda x: x[1], [0.0, 3.0, 0.0]), (np.sum, [3.0] * 3)):
            (g,) = vjp(f, X)[1](number)
            assert type(g) is type(X)
            equal(g, exact)
        _, pull = vjp(lambda x: x[0] * x[1], X)
        equal(grad(lambda g, pull=pull: np.sum(pull(g)[0]))(number), X[0] + X[1])


def test_dicts_are_matched_by_key_or_refused():
    _, pull = vjp(lambda x: {"a": x, "b": 2 * x}, X)
    zeros, ones = put(np.zeros(3)), put(np.ones(3))
    point, direction = {"a": X, "b": X + 1}, {"b": zeros, "a": ones}
    for compute, exact in (
        (lambda: pull({"b": zeros, "a": ones})[0], ones),
        (lambda: hvp(lambda t: np.sum(t["a"] ** 3 + t["b"] ** 2))(point, direction)["a"], 6 * X),
    ):
        try:
            got = compute()
        except (TypeError, ValueError):
            continue
        equal(got, exact)


# Hessians


def mlp_loss(model, x, t):
    return lambda params: nn.cross_entropy(model(params, x), t) + 0.1 * np.sum(params.flat**2)


def test_hvp_on_params_equals_the_dense_hessian_by_differences(device):
    model = nn.Sequential(nn.Linear(3, 4), nn.tanh, nn.Linear(4, 3), nn.sigmoid, nn.Linear(3, 2))
    params = model.init(seed=1, dtype="float64", device=device.name)
    rng = np.random.default_rng(0)
    loss = mlp_loss(model, put(rng.standard_normal((5, 3))), put(rng.integers(0, 2, 5)))
    n, h, start = params.layout.size, 1e-5, device.host(params.flat)

    def gradient_at(flat):
        return device.host(grad(loss)(Params(params.layout, put(flat))).flat)

    def product_with(v):
        with device.no_sync():
            product = hvp(loss)(params, Params(params.layout, v))
        assert isinstance(product, Params) and product.layout == params.layout
        return device.host(product.flat)

    dense = np.stack([(gradient_at(start + h * e) - gradient_at(start - h * e)) / (2 * h) for e in np.eye(n)])
    v = rng.standard_normal(n)
    before = start.copy()
    close(product_with(put(v)), dense @ v, rtol=1e-7, atol=1e-8)
    equal(params.flat, before)
    columns = np.stack([product_with(put(e)) for e in np.eye(n)])
    close(columns, columns.T, atol=1e-13)


def test_hvp_passes_further_arguments_on():
    close(hvp(lambda x, a, k=1: np.sum(a * x**3) * k)(X, put(np.ones(3)), X, k=2), 12 * X * X)


def test_hvp_of_several_leaves_includes_the_cross_terms():
    ones = put(np.ones(3))
    a, b = hvp(lambda t: np.sum(t[0] ** 2 * t[1]))([X, X + 1], [ones, 2 * ones])
    close(a, 2 * (X + 1) + 4 * X)
    close(b, 2 * X)


# Primitives and fused primitives of one's own


@primitive(lambda g, y, x: g[0] * 2 * x + g[1] * 3 * x**2, aux=1)
def powers(x):
    """x², x³, and the largest entry as a statistic."""
    return x**2, x**3, np.max(x)


def test_outputs_declared_auxiliary_come_out_plain():
    seen = []

    def f(x):
        a, b, top = powers(x)
        seen.append((type(a), type(b), top))
        return np.sum(a + b) * top

    g = grad(f)(X)
    assert seen == [(Traced, Traced, 2.5)]
    close(g, (2 * X + 3 * X**2) * 2.5)
    grad(lambda x: np.sum(grad(f)(x)))(X)
    assert not isinstance(seen[-1][2], Traced)


@pytest.mark.parametrize(
    "choose, first, second",
    [
        (lambda a, b: a, lambda x: 2 * x, lambda x: 2 + 0 * x),
        (lambda a, b: b, lambda x: 3 * x**2, lambda x: 6 * x),
        (lambda a, b: a * b, lambda x: 5 * x**4, lambda x: 20 * x**3),
    ],
    ids=["one", "other", "both"],
)
def test_a_primitive_that_returns_a_tuple_has_two_derivatives(choose, first, second):
    f = lambda x: np.sum(choose(*powers(x)[:2]))  # noqa: E731
    close(grad(f)(X), first(X))
    close(hvp(f)(X, put(np.ones(3))), second(X))
    check_grads(lambda x: powers(x)[:2], X, order=3)


def test_a_primitive_whose_tuple_is_not_used_gives_zeros():
    equal(grad(lambda x: (powers(x), 1.0)[1])(X), np.zeros(3))
    equal(grad(lambda x: powers(x)[2])(X), np.zeros(3))


def test_a_primitive_may_call_operations_and_take_settings():
    @primitive(lambda g, y, x, p, scale=1.0: g * scale * p * x ** (p - 1))
    def scaled_power(x, p, scale=1.0):
        """Docs."""
        return scale * x**p

    assert (scaled_power.__name__, scaled_power.__doc__) == ("scaled_power", "Docs.")
    equal(scaled_power(X, 3), X**3)
    check_grads(lambda x: scaled_power(x, 3, scale=2.0), X, order=3)
    close(grad(lambda x: np.sum(scaled_power(x, 3, scale=2.0)))(X), 6 * X**2)


def test_a_primitive_of_any_number_of_arrays():
    @primitive(every=lambda g, y, argnums, *xs, factor: [g * factor for _ in argnums])
    def total(*xs, factor):
        return factor * sum(xs)

    check_grads(lambda a, b, c: total(a, b, c, factor=3.0) ** 2, X, X + 1, X[:1])
    equal(grad(lambda b: np.sum(total(X, b, X, factor=3.0)))(X), 3 * np.ones(3))


def test_a_user_s_primitive_can_be_reached_from_numpy_s_name():
    from minibng.autodiff import tracer

    ours = {f: tracer.NUMPY_NAMES[f] for f in (np.sinh, np.cosh)}
    try:
        primitive(lambda g, y, x: g * np.cosh(x), numpy=np.sinh)(lambda x: np.sinh(x))
        primitive(lambda g, y, x: g * np.sinh(x), numpy=np.cosh)(lambda x: np.cosh(x))
        check_grads(np.sinh, X, order=3)
    finally:
        tracer.NUMPY_NAMES.update(ours)


def test_a_user_s_primitive_does_not_enter_the_package_s_table():
    from minibng.autodiff import tracer

    assert "powers" not in tracer.PRIMITIVES


def test_a_user_s_fused_primitive_uses_its_twin_at_first_order_and_its_reference_beyond():
    calls = []

    def forward(a, b):
        calls.append("forward")
        assert not isinstance(a, Traced) and not isinstance(b, Traced)
        return a * b, a + b

    def backward(g, y, residual, argnums, a, b):
        calls.append(("backward", argnums))
        equal(residual, a + b)
        return [g * b if 0 in argnums else None, g * a if 1 in argnums else None]

    @fused(forward, backward)
    def product(a, b):
        """Docs."""
        calls.append("reference")
        return a * b

    assert product.__doc__ == "Docs."
    equal(product(X, X), X * X)
    assert calls == ["forward"]
    calls.clear()
    equal(grad(lambda a: np.sum(product(a, X)))(X), X)
    assert calls == ["forward", ("backward", (0,))]
    calls.clear()
    equal(grad(lambda b: np.sum(product(X, b)))(X), X)
    assert calls == ["forward", ("backward", (1,))]
    calls.clear()
    close(hvp(lambda a: np.sum(product(a, a) ** 2))(X, put(np.ones(3))), 12 * X**2)
    assert "reference" in calls
    check_grads(product, X, X + 1, order=3)


def test_a_fused_primitive_that_returns_a_tuple():
    @fused(
        lambda x: ((x**2, x**3), None),
        lambda g, y, r, argnums, x: [g[0] * 2 * x + g[1] * 3 * x**2],
    )
    def both(x):
        return x**2, x**3

    close(grad(lambda x: np.sum(both(x)[1]))(X), 3 * X**2)
    close(hvp(lambda x: np.sum(both(x)[1]))(X, put(np.ones(3))), 6 * X)
    _, pull = vjp(lambda x: both(x)[1], X)
    close(grad(lambda g: np.sum(pull(g)[0] ** 2))(X), 2 * X * (3 * X**2) ** 2)
    check_grads(both, X)


# No state


def test_a_function_that_raises_leaves_nothing_behind():
    def bad(x):
        np.exp(x)
        raise ValueError("mine")

    for derivative in (grad(bad), lambda x: vjp(bad, x), lambda x: hvp(bad)(x, x), grad(grad(bad))):
        with pytest.raises(ValueError, match="mine"):
            derivative(X)
    equal(grad(lambda x: np.sum(x * x))(X), 2 * X)


def test_an_inner_error_that_the_outer_function_catches_does_no_harm():
    def f(x):
        with contextlib.suppress(ValueError):
            grad(lambda y: y * x)(x)  # not a scalar
        return np.sum(x**3)

    close(grad(f)(X), 3 * X**2)
    close(hvp(f)(X, put(np.ones(3))), 6 * X)


def test_threads_do_not_disturb_each_other():
    barrier, results, ones = threading.Barrier(4), {}, put(np.ones(3))

    def work(k):
        def f(x):
            barrier.wait(10)
            y = x
            for _ in range(50):
                y = y * 1.01 + k * 0.01 * np.tanh(x)
            return np.sum(y**2) * grad(lambda z: np.sum(z**2 * x))(x)[0]

        results[k] = [hvp(f)(X + k, ones) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    barrier = threading.Barrier(1)
    threaded = dict(results)
    for k in range(4):
        work(k)
        equal(threaded[k], results[k])


def test_a_generator_or_nested_function_may_hold_traced_values_while_the_trace_lives():
    def f(x):
        doubled = (v * 2 for v in x)
        return sum(doubled) * ops.max(x)

    close(grad(f)(X), 2 * 2.5 + 2 * np.sum(X) * put([0, 0, 1]))
