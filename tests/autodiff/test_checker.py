"""The checker must fail on wrong rules: a checker that accepts everything would make the other tests worthless."""

import numpy as np
import pytest

from minibng import nn, ops
from minibng.autodiff import check_grads, fused, primitive, raw

X = np.array([0.3, -0.8, 1.1])


def planted(rule):
    """sin, with the given rule."""

    @primitive(rule)
    def sine(x):
        return np.sin(x)

    return sine


@primitive(lambda g, y, x: g * cosine(x))
def right(x):
    return np.sin(x)


@primitive(lambda g, y, x: -g * right(x))
def cosine(x):
    return np.cos(x)


def test_a_right_rule_is_accepted_to_third_order(device):
    x = device.array(X)
    check_grads(right, x, order=3)
    check_grads(lambda x: right(x) ** 2, x, order=3)


@pytest.mark.parametrize(
    "rule",
    [
        lambda g, y, x: g * cosine(x) * 1.001,
        lambda g, y, x: -g * cosine(x),
        lambda g, y, x: g * right(x),
        lambda g, y, x: g * 0,
        lambda g, y, x: g * g * cosine(x),
        lambda g, y, x: g[::-1] * cosine(x),
        lambda g, y, x: g * cosine(x) * (raw(x) < 1.0),
        lambda g, y, x: g * cosine(x) + 1e-4,
    ],
    ids=["0.1 % off", "sign", "function", "zero", "not linear", "order", "one entry lost", "offset"],
)
@pytest.mark.parametrize("order", [1, 2])
def test_a_wrong_first_derivative_is_found(rule, order, device):
    with pytest.raises(AssertionError, match=r"derivative along a random direction is .* differences give"):
        check_grads(planted(rule), device.array(X), order=order)


lost = planted(lambda g, y, x: g * np.cos(raw(x)))


def test_a_second_derivative_lost_by_raw_values_is_found_at_order_two_only(device):
    x = device.array(X)
    check_grads(lost, x, order=1)
    with pytest.raises(AssertionError, match="derivative of the derivative"):
        check_grads(lost, x, order=2)


def test_a_wrong_third_derivative_is_found_at_order_three_only():
    @primitive(lambda g, y, x: g * lost(x))
    def minus_cosine(x):
        return -np.cos(x)

    check_grads(minus_cosine, X, order=2)
    with pytest.raises(AssertionError, match="derivative of the derivative of the derivative"):
        check_grads(minus_cosine, X, order=3)


def test_a_derivative_in_the_cotangent_that_is_lost_is_found():
    """Such a rule is right where the cotangent is constant, and wrong in every composed function's Hessian."""
    forgetful = planted(lambda g, y, x: np.asarray(raw(g)) * cosine(x))
    check_grads(forgetful, X, order=1)
    with pytest.raises(AssertionError):
        check_grads(lambda x: forgetful(x) ** 2, X)
    with pytest.raises(AssertionError):
        check_grads(forgetful, X)


@pytest.mark.parametrize("which", [0, 1])
def test_a_wrong_rule_of_one_of_two_arguments_is_found(which):
    factors = [1.0, 1.0]
    factors[which] = 1.01

    @primitive(lambda g, y, a, b: g * b * factors[0], lambda g, y, a, b: g * a * factors[1])
    def product(a, b):
        return a * b

    with pytest.raises(AssertionError):
        check_grads(product, X, X + 1, order=1)


def test_a_wrong_fused_backward_is_found_and_a_wrong_reference_at_order_two():
    @fused(lambda x: (x * x, None), lambda g, y, r, argnums, x: [g * x])
    def wrong_backward(x):
        return x * x

    @fused(lambda x: (x * x, None), lambda g, y, r, argnums, x: [g * 2 * x])
    def wrong_reference(x):
        return x * x * x

    with pytest.raises(AssertionError):
        check_grads(wrong_backward, X, order=1)
    check_grads(wrong_reference, X, order=1)
    with pytest.raises(AssertionError):
        check_grads(wrong_reference, X, order=2)


def test_a_kink_at_the_point_is_found():
    with pytest.raises(AssertionError):
        check_grads(ops.relu, np.array([0.0, 1.0]), order=1)


@pytest.mark.parametrize(
    "args",
    [
        (X.astype("float32"),),
        (X, X.astype("float32")),
        ([X, {"a": X.astype("float32")}],),
        (np.array([1, 2]),),
        (nn.Linear(2, 1).init(seed=0),),
    ],
    ids=["array", "second", "in a container", "integers", "float32 Params"],
)
def test_anything_but_float64_is_refused(args):
    with pytest.raises(TypeError, match="check_grads needs float64"):
        check_grads(lambda *a: 1.0, *args)


def test_containers_scalars_and_several_results_are_checked(device):
    x = device.array(X)
    check_grads(lambda t: {"s": t["a"] * t["b"][0], "n": np.sin(1.0) * t["b"][1]}, {"a": x, "b": [x + 1, 2.0]})
    check_grads(lambda x, y: (x * y, [y**3]), 1.5, 0.7)
    check_grads(lambda x, y: x * y, x, 0.7)
    with pytest.raises(AssertionError):
        check_grads(lambda t: [t["a"], lost(t["b"])], {"a": x, "b": x})


def test_params_are_checked_and_left_as_they_were(device):
    model = nn.Sequential(nn.Linear(3, 4), nn.tanh, nn.Linear(4, 2))
    params = model.init(seed=0, dtype="float64", device=device.name)
    before = device.host(params.flat.copy())
    check_grads(lambda p, x: model(p, x), params, device.array(X))
    np.testing.assert_array_equal(device.host(params.flat), before)


def test_the_same_seed_gives_the_same_verdict_and_the_global_generator_is_left_alone():
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    check_grads(np.tanh, X, seed=5)
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def test_empty_and_constant_functions_pass(device):
    x, none, ones = device.arrays([X, np.zeros((0, 3)), np.ones(2)])
    check_grads(np.tanh, none)
    check_grads(lambda x: ones, x)
    check_grads(lambda x: ops.sum(x) * 0.0, x)
