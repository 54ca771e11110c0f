"""Corners that a second reading found: shared memory, copies, settings of a saved state, ranges, messages."""

import copy
import pickle

import numpy as np
import pytest

from minibng import Layout, Params, optim
from minibng.optim import NonFiniteError, Optimizer, rules
from minibng.optim.normalize import normalize_blocks

SHAPES = {"0.W": (2, 3), "0.b": (3,)}


def filled(value=1.0, dtype="float64", up=np.asarray):
    layout = Layout(SHAPES)
    return Params(layout, up(np.full(layout.size, value, dtype)))


# Memory that two arrays share


@pytest.mark.parametrize("name", sorted(optim.names()))
def test_the_gradient_of_a_product_may_be_the_other_factor_itself(device, name):
    x, y = device.array([1.0, -2.0]), device.array([2.0, 3.0])
    a, b = x.copy(), y.copy()
    optim.get(name)([x, y], lr=0.5).step([y, x])
    optim.get(name)([a, b], lr=0.5).step([b.copy(), a.copy()])
    np.testing.assert_array_equal(device.host([x, y]), device.host([a, b]))


def test_a_view_of_the_parameters_may_be_their_gradient(device):
    once = np.random.default_rng(0).standard_normal(300_000)
    x = device.array(once.copy())
    optim.SGD([x], lr=0.5).step([x[::-1]])
    np.testing.assert_array_equal(device.host(x), once - 0.5 * once[::-1])


def test_many_arrays_are_checked_for_shared_memory_in_no_time(device):
    arrays = [device.array(np.zeros(2)) for _ in range(3000)]
    optim.SGD(arrays, lr=0.1)
    whole = device.array(np.zeros(9))
    with pytest.raises(ValueError, match="array 3000 and array 3001 share memory"):
        optim.SGD([*arrays, whole[:5], whole[4:]], lr=0.1)


# Copies


@pytest.mark.parametrize("again", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))], ids=["copy", "pickle"])
def test_the_views_of_copied_parameters_are_views(device, again):
    params = filled(up=device.array)
    params.buffers["0.mean"] = device.array([1.0, 1.0])
    twin = again(params)
    assert twin.layout == params.layout and np.may_share_memory(twin.flat, twin["0.W"])
    optim.SGDNG(twin, lr=0.1).step(filled(up=device.array))
    assert np.any(twin.flat != params.flat) and twin.buffers["0.mean"].tolist() == [1, 1]


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, pickle.dumps])
def test_an_optimizer_is_not_copied(again):
    with pytest.raises(TypeError, match="make one on the copied parameters, then load_state_dict"):
        again(optim.Adam(filled(), lr=0.1))


def test_a_copied_backend_is_the_same_backend(device):
    backend = optim.Adam(filled(up=device.array), lr=0.1)._backend
    assert copy.deepcopy(backend) is backend and pickle.loads(pickle.dumps(backend)) is backend


# Partitions


def test_the_order_of_a_mapping_counts_when_a_layout_changes_its_blocks():
    one = {"*.b": "biases", "*": "weights"}
    other = dict(reversed(one.items()))
    assert Layout(SHAPES, one).with_blocks(other).groups == Layout(SHAPES, other).groups != Layout(SHAPES, one).groups


def test_a_layout_with_a_partition_of_ones_own_can_be_pickled():
    layout = Layout(SHAPES, lambda name: name[-1])
    assert pickle.loads(pickle.dumps(layout)) == layout


# States


@pytest.mark.parametrize(
    "one, other, told",
    [
        (rules.Adam(), rules.Adam(beta1=0.99), "settings was .*0.9, .*here .*0.99"),
        (rules.RMSProp(), rules.RMSProp(alpha=0.9), "settings"),
        (rules.Momentum(), rules.Momentum(0.5), "settings"),
    ],
)
def test_a_state_does_not_load_into_other_settings_which_would_rescale_it(one, other, told):
    saved = Optimizer(filled(), one, 0.1).state_dict()
    with pytest.raises(ValueError, match=told):
        Optimizer(filled(), other, 0.1).load_state_dict(saved)


def test_a_state_does_not_load_into_another_norm():
    saved = optim.MomentumNG(filled(), lr=0.1).state_dict()
    with pytest.raises(ValueError, match="norm was 2, here 'rms'"):
        optim.MomentumNG(filled(), lr=0.1, norm="rms").load_state_dict(saved)


def test_a_buffer_of_another_dtype_does_not_load(device):
    params = filled(dtype="float32", up=device.array)
    params.buffers["0.mean"] = device.array(np.ones(2, "float32"))
    saved = params.state_dict()
    saved["buffers"]["0.mean"] = np.ones(2)
    with pytest.raises(ValueError, match=r"buffer '0\.mean' is float64, here float32"):
        params.load_state_dict(saved)


# Ranges


@pytest.mark.parametrize("size", [1e-30, 1e-27, 1e-25])
def test_a_huge_gradient_takes_the_length_of_tiny_parameters(device, size):
    for start, blocks in [(np.full(4, size, "float32"), "tensor"), (np.full((4, 2), [size, 1.0], "float32"), "unit")]:
        x = device.array(start.copy())
        optim.SGDNGAdaptive([x], lr=0.5, floor=0.0, blocks=blocks).step([np.full_like(x, 1e17)])
        np.testing.assert_allclose(device.host(x), 0.5 * start, rtol=1e-6)


@pytest.mark.parametrize("blocks", ["tensor", "coordinate", "global"])
def test_clipping_of_the_whole_reaches_huge_gradients(device, blocks):
    x = device.array([0.0, 0.0])
    optim.SGD([x], lr=1.0, normalize="clip-global", blocks=blocks).step([device.array([3e200, 4e200])])
    np.testing.assert_allclose(device.host(x), [-0.6, -0.8], rtol=1e-14)


def test_nothing_but_empty_arrays_is_clipped_to_nothing(device):
    for shape in ((0, 2), (2, 0)):
        x = device.array(np.zeros(shape))
        opt = optim.SGD([x], lr=1.0, normalize="clip-global", blocks="unit")
        opt.step([x.copy()])
        opt.check()


@pytest.mark.parametrize("of, g, x", [("float64", 1.7e308, 1.0), ("float32", 3e38, 3e38)])
def test_lars_changes_nothing_where_gradient_and_decay_overflow(device, of, g, x):
    p = device.array(np.full(4, x, of))
    opt = optim.LARS([p], lr=0.1, weight_decay=0.5)
    with pytest.raises(NonFiniteError):
        opt.step([np.full_like(p, g)])
        opt.check()
    assert (p == x).all() and not opt.state["array 0"]["m"].any() and opt.steps == 0


# Gradients of scalars


def test_scalar_gradients_are_averaged():
    total = optim.Accumulator()
    for value in (1.0, 2.0, 6.0):
        total.add([np.float64(value), np.full(2, value)])
    number, vector = total.mean()
    assert number == 3.0 and vector.tolist() == [3.0, 3.0]


@pytest.mark.parametrize("wrong", [[np.arange(3)], [[1.0, 2.0]], [1.0]], ids=["integers", "a list", "a number"])
def test_what_is_no_gradient_is_refused_at_once(wrong):
    with pytest.raises(TypeError, match="floating-point arrays; leaf 0 is"):
        optim.Accumulator().add(wrong)


# Messages


def test_a_number_can_be_set_as_the_rate(device):
    x = device.array([0.0])
    opt = optim.SGD([x], lr=1.0)
    opt.lr = 0.25
    opt.step([np.ones_like(x)])
    assert x.tolist() == [-0.25] and opt.lr(7) == 0.25


@pytest.mark.parametrize("wrong", [rules.Adam, "adam", optim.Adam, None])
def test_what_is_no_rule_is_told(wrong):
    with pytest.raises(TypeError, match=r"such as optim\.rules\.Adam\(\), got"):
        Optimizer([np.ones(1)], wrong, 0.1)


def direction(g, m, *, lr):
    m = m + lr * g
    u = m
    return m, u


def nameless(g, m, *, mu):
    m = m + mu * g
    return m


def made(formula, slots, **hyper):
    rule = type("Made", (rules.FormulaRule,), {"formula": formula, "slots": slots})()
    rule.hyper = hyper
    return rule


def test_a_formula_is_checked_when_the_optimizer_is_made():
    with pytest.raises(ValueError, match="Made: lr is the optimizer's; choose another name"):
        Optimizer([np.ones(1)], made(direction, ("m",), lr=0.5), 0.1)
    with pytest.raises(ValueError, match="nameless: u asked for"):
        Optimizer([np.ones(1)], made(nameless, ("m",), mu=0.5), 0.1)
    with pytest.raises(ValueError, match=r"Made: the formula's arrays are \['g', 'm', 'u'\]; with its slots .*'mm'"):
        Optimizer([np.ones(1)], made(rules.momentum, ("mm",), momentum=0.5), 0.1)


def test_a_rule_that_is_defined_again_replaces_the_old_one():
    def define(factor):
        class Again:
            def init(self, like):
                return None

            def update(self, state, g):
                return factor * g, state

        return Again

    try:
        optim.register(define(1.0))
        optim.register(define(2.0))
        x = np.zeros(1)
        optim.get("again")([x], lr=1.0).step([np.ones(1)])
        assert x.tolist() == [-2.0]
    finally:
        optim.unregister("Again")
    with pytest.raises(ValueError, match="Adam is minibng's own and stays"):
        optim.unregister("Adam")


class Kind(np.ndarray):
    """An array that means something else by its operators."""


@pytest.mark.parametrize("strange", [np.ma.array([1.0], mask=[True]), np.ones(1).view(Kind)], ids=["masked", "own"])
def test_arrays_of_another_kind_are_refused(strange):
    with pytest.raises(TypeError, match="not an array"):
        optim.SGD([strange], lr=0.1)
    with pytest.raises(TypeError, match="not an array"):
        optim.SGD([np.ones(strange.shape)], lr=0.1).step([strange])
    with pytest.raises(TypeError):
        normalize_blocks([strange])


def test_beta_may_be_so_small_that_float32_has_no_number_for_it(device):
    x = device.array([1.0], "float32")
    optim.Adam([x], lr=0.1, beta1=1e-46).step([np.ones_like(x)])
    with pytest.raises(ValueError, match="eps=1e-46 is 0 in float32"):
        optim.Adam([np.ones(1, "float32")], lr=0.1, eps=1e-46)


def test_the_norms_of_a_params_can_be_measured(device):
    opt = optim.SGDNG(filled(up=device.array), lr=0.1)
    assert opt.measure(filled(2.0, up=device.array)).values().tolist() == [6.0]


@pytest.mark.parametrize("name", [2, np.int64(2), 2.0])
def test_a_norm_may_be_any_number_that_is_equal(device, name):
    got, want = (device.host(normalize_blocks([device.array([3.0, 4.0])], norm=n)[0]) for n in (name, 2))
    np.testing.assert_array_equal(got, want)
