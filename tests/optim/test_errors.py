"""Refusals: what is wrong is said by name, with both shapes or dtypes, and nothing has changed."""

import numpy as np
import pytest

from minibng import optim
from minibng.names import UnknownNameError
from minibng.params import Params

ANY = (ValueError, TypeError)


def refusal(act, *words, error=ANY):
    with pytest.raises(error) as caught:
        act()
    message = str(caught.value)
    for word in words:
        assert word in message, f"{word!r} is not in: {message}"
    return message


# --- parameters ------------------------------------------------------------------------------------------


def test_half_precision_parameters_are_told_to_keep_a_float32_copy(device, rule):
    make = getattr(optim, rule)
    refusal(lambda: make(device.arrays([np.ones(2), np.ones(3, "float16")]), lr=0.1), "array 1", "float16", "float32")
    p = Params.of({"0.W": device.array(np.ones(3, "float16"))})
    refusal(lambda: make(p, lr=0.1), "float16", "float32")


@pytest.mark.parametrize(
    "bad", [np.arange(3), np.ones(3, bool), np.ones(3, complex), np.array(["a"])], ids=lambda a: str(a.dtype)
)
def test_parameters_that_are_not_floating_are_refused(bad):
    refusal(lambda: optim.SGD([np.ones(2), bad], lr=0.1), "array 1", str(bad.dtype))


@pytest.mark.parametrize("bad", [[1.0, 2.0], 3.0, None, "W"], ids=repr)
def test_parameters_that_are_not_arrays_are_refused(bad):
    refusal(lambda: optim.SGD([np.ones(2), bad], lr=0.1), "array 1")


def test_read_only_arrays_are_refused():
    frozen = np.ones(3)
    frozen.setflags(write=False)
    refusal(lambda: optim.SGD([np.ones(2), frozen], lr=0.1), "array 1", "read-only")


@pytest.mark.parametrize("bend", [lambda a: a.T, lambda a: a[::2], lambda a: a[::-1]], ids=["T", "strided", "reversed"])
def test_arrays_that_are_not_contiguous_are_refused(device, bend):
    bad = bend(device.array(np.ones((4, 3))))
    refusal(lambda: optim.SGD([device.array(np.ones(2)), bad], lr=0.1), "array 1", "contiguous")


def test_the_same_array_twice_is_refused(device):
    W, b = device.arrays([np.ones(3), np.ones(2)])
    refusal(lambda: optim.SGD([W, b, W], lr=0.1), "array 0", "array 2", "memory")


def test_arrays_that_share_memory_are_refused(device):
    base, b = device.arrays([np.ones(10), np.ones(2)])
    refusal(lambda: optim.SGD([b, base[:6], base[5:]], lr=0.1), "array 1", "array 2", "memory")


def test_neighbours_in_one_array_do_not_share_memory(device):
    base, *grads = device.arrays([np.ones(10), np.ones(5), np.zeros(5)])
    optim.SGD([base[:5], base[5:]], lr=0.5).step(grads)
    assert base.tolist() == [0.5] * 5 + [1] * 5


def test_an_array_of_another_dtype_is_refused_or_kept_at_its_dtype(device):
    """Not in the contract. Whatever is done must not mix them silently."""
    W, b = device.arrays([np.ones(2), np.ones(2, "float32")])
    try:
        optim.SGD([W, b], lr=0.5).step([W.copy(), b.copy()])
    except ANY as error:
        assert "float32" in str(error) and "float64" in str(error)
    else:
        assert W.tolist() == b.tolist() == [0.5, 0.5] and b.dtype == "float32"


def test_no_arrays_at_all_are_refused():
    refusal(lambda: optim.SGD([], lr=0.1), "empty")


def test_one_array_in_place_of_a_list_is_refused():
    refusal(lambda: optim.SGD(np.ones(3), lr=0.1), "list")


# --- gradients -------------------------------------------------------------------------------------------


def on(device, gradient):
    """A wrong gradient, its arrays on the device."""
    if isinstance(gradient, Params):
        return gradient.to(device.name)
    if isinstance(gradient, list):
        return [on(device, a) for a in gradient]
    return device.array(gradient) if isinstance(gradient, np.ndarray) else gradient


def unchanged_after(arrays, opt, gradient, *words):
    before, state = [a.copy() for a in arrays], repr(opt.state_dict())
    message = refusal(lambda: opt.step(gradient), *words)
    assert all(np.all(a == b) for a, b in zip(arrays, before, strict=True))
    assert repr(opt.state_dict()) == state and opt.steps == 0
    return message


GRADIENTS = {
    "none": (None, ["None"]),
    "one is None": ([np.ones((2, 3)), None], ["array 1", "None"]),
    "too few": ([np.ones((2, 3))], ["1", "2"]),
    "too many": ([np.ones((2, 3)), np.ones(4), np.ones(4)], ["3", "2"]),
    "shape": ([np.ones((2, 3)), np.ones(5)], ["array 1", "(5,)", "(4,)"]),
    "a shape that broadcasts": ([np.ones((1, 3)), np.ones(4)], ["array 0", "(1, 3)", "(2, 3)"]),
    "transposed": ([np.ones((3, 2)), np.ones(4)], ["array 0", "(3, 2)", "(2, 3)"]),
    "dtype": ([np.ones((2, 3)), np.ones(4, "float32")], ["array 1", "float32", "float64"]),
    "integers": ([np.ones((2, 3)), np.ones(4, int)], ["array 1", "int64", "float64"]),
    "lists": ([np.ones((2, 3)), [1.0, 1.0, 1.0, 1.0]], ["array 1", "list"]),
    "one array": (np.ones((2, 3)), []),
    "a Params": (Params.of({"0.W": np.ones((2, 3)), "0.b": np.ones(4)}), ["Params"]),
}


@pytest.mark.parametrize("case", GRADIENTS)
def test_a_gradient_that_does_not_fit_plain_arrays_is_refused(device, case):
    arrays = device.arrays([np.ones((2, 3)), np.ones(4)])
    gradient, words = GRADIENTS[case]
    unchanged_after(arrays, optim.AdamNG(arrays, lr=0.1), on(device, gradient), *words)


P = {"0.W": np.ones((2, 3)), "0.b": np.ones(4)}
LAYOUTS = {
    "none": (None, ["None"]),
    "name": (Params.of({"0.W": P["0.W"], "0.c": P["0.b"]}), ["'0.b'", "'0.c'"]),
    "order": (Params.of({"0.b": P["0.b"], "0.W": P["0.W"]}), ["'0.W'", "'0.b'"]),
    "shape": (Params.of({"0.W": np.ones((3, 2)), "0.b": P["0.b"]}), ["'0.W'", "(2, 3)", "(3, 2)"]),
    "missing": (Params.of({"0.W": P["0.W"]}), ["1", "2"]),
    "more": (Params.of({**P, "1.W": np.ones(1)}), ["3", "2"]),
    "dtype": (Params.of({k: v.astype("float32") for k, v in P.items()}), ["float32", "float64"]),
    "a list": ([P["0.W"], P["0.b"]], ["Params"]),
    "its vector": (np.ones(10), ["Params"]),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_a_gradient_of_another_layout_is_refused(device, case):
    p = Params.of(device.arrays(P))
    gradient, words = LAYOUTS[case]
    unchanged_after([p.flat], optim.AdamNG(p, lr=0.1), on(device, gradient), *words)


# --- blocks ----------------------------------------------------------------------------------------------

WRONG_BLOCKS = {
    "one left out": [[0], [1]],
    "one twice": [[0, 1], [1, 2]],
    "one twice in a block": [[0, 0], [1, 2]],
    "one too high": [[0, 1], [2, 3]],
    "negative": [[0, 1], [-1]],
    "not lists": [0, 1, 2],
    "not integers": [[0.0, 1.0], [2.0]],
    "names": [["0", "1"], ["2"]],
}


@pytest.mark.parametrize("case", WRONG_BLOCKS)
def test_blocks_that_are_no_partition_are_refused(case):
    refusal(lambda: optim.SGDNG([np.ones(1), np.ones(2), np.ones(3)], lr=0.1, blocks=WRONG_BLOCKS[case]), "block")


def test_the_message_shows_the_blocks_and_the_number_of_arrays():
    arrays = [np.ones(1), np.ones(2), np.ones(3)]
    refusal(lambda: optim.SGDNG(arrays, lr=0.1, blocks=[[0, 2], [1, 2]]), "[[0, 2], [1, 2]]", "3")


def test_an_unknown_partition_of_params_is_refused_with_the_nearest():
    refusal(
        lambda: optim.SGDNG(Params.of(P), lr=0.1, blocks="layers"),
        "'layers'",
        "'layer'",
        error=UnknownNameError,
    )


# --- names and settings ----------------------------------------------------------------------------------


def test_an_unknown_optimizer_is_answered_with_the_nearest_name():
    refusal(lambda: optim.get("adm"), "'adm'", "'adam'", error=UnknownNameError)
    refusal(lambda: optim.get("adam-ng-adaptve"), "'adam-ng-adaptive'", error=UnknownNameError)


def test_an_unknown_attribute_is_answered_with_the_nearest_name():
    refusal(lambda: optim.AdamMG, "AdamMG", "AdamNG", error=AttributeError)
    assert not hasattr(optim, "NoSuchThing")


def test_an_unknown_setting_is_answered_with_the_nearest_name():
    refusal(lambda: optim.Adam([np.ones(1)], lr=0.1, beta_1=0.9), "beta_1", "beta1")
    refusal(lambda: optim.AdamNG([np.ones(1)], lr=0.1, epsilon=0.9), "epsilon", "eps")
    refusal(lambda: optim.SGD([np.ones(1)], lr=0.1, momentum=0.9), "momentum")
    refusal(lambda: optim.rules.Adam(beta_1=0.9), "beta_1")


def test_unknown_choices_are_refused():
    refusal(lambda: optim.Adam([np.ones(1)], lr=0.1, normalize="units"), "'units'", "'unit'")
    refusal(lambda: optim.Adam([np.ones(1)], lr=0.1, nonfinite="skp"), "'skp'", "'skip'")


def test_a_setting_of_another_normalizer_is_refused():
    x = [np.ones(1)]
    refusal(lambda: optim.Adam(x, lr=0.1, clip=2.0), "clip")
    refusal(lambda: optim.AdamNG(x, lr=0.1, clip=2.0), "clip")
    refusal(lambda: optim.Adam(x, lr=0.1, normalize="unit", floor=0.1), "floor", "adaptive")
    refusal(lambda: optim.AdamClip(x, lr=0.1, floor=0.1), "floor", "adaptive")


@pytest.mark.parametrize("clip", [0.0, -1.0, np.nan, np.inf, "1"], ids=repr)
def test_a_clip_that_is_no_length_is_refused(clip):
    if clip == np.inf:
        try:  # may mean "never clip"
            optim.SGDClip([np.ones(1)], lr=0.1, clip=clip)
        except ANY as error:
            assert "clip" in str(error)
        return
    refusal(lambda: optim.SGDClip([np.ones(1)], lr=0.1, clip=clip), "clip")


@pytest.mark.parametrize("floor", [-1e-3, np.nan, np.inf, "0"], ids=repr)
def test_a_floor_that_is_no_length_is_refused(floor):
    refusal(lambda: optim.SGDNGAdaptive([np.ones(1)], lr=0.1, floor=floor), "floor")


WRONG_SETTINGS = [
    ("Momentum", "momentum", [-0.1, np.inf, np.nan, "0.9"]),
    ("AdaGrad", "eps", [-1e-8, np.nan, np.inf, "1"]),
    ("RMSProp", "alpha", [-0.1, 1.0, 2.0, np.nan]),
    ("RMSProp", "eps", [-1e-8, np.nan]),
    ("AdaDelta", "rho", [-0.1, 1.5, np.nan]),
    ("AdaDelta", "eps", [-1e-8, np.nan]),
    ("Adam", "beta1", [-0.1, 1.0, 1.1, np.nan, "0.9"]),
    ("Adam", "beta2", [-0.1, 1.0, 1.1, np.nan]),
    ("Adam", "eps", [-1e-8, np.nan, np.inf]),
]


@pytest.mark.parametrize("name, setting, value", [(n, s, v) for n, s, vs in WRONG_SETTINGS for v in vs], ids=repr)
def test_settings_out_of_range_are_refused_by_name_and_value(name, setting, value):
    for make in (getattr(optim.rules, name), lambda **k: getattr(optim, name)([np.ones(1)], lr=0.1, **k)):
        refusal(lambda make=make: make(**{setting: value}), setting, str(value))


def test_an_epsilon_that_is_zero_in_the_parameters_precision_is_refused():
    refusal(lambda: optim.AdaGrad([np.ones(2, "float32")], lr=0.1, eps=1e-60), "eps=1e-60", "float32")
    optim.AdaGrad([np.ones(2)], lr=0.1, eps=1e-60)


def test_a_rule_that_returns_numbers_of_another_kind_moves_nothing(device):
    class Complex:
        def init(self, like):
            return None

        def update(self, state, g):
            return (g * 1j if g.shape == (2,) else g), state

    x = device.arrays([np.ones(3), np.ones(2)])
    opt = optim.Optimizer(x, Complex(), 0.1)
    refusal(lambda: opt.step([np.ones_like(a) for a in x]), "complex128", "array 1")
    assert np.all(x[0] == 1) and opt.steps == 0


def test_the_pair_of_value_and_gradient_is_told_to_be_unpacked():
    told = "value, grad = step(params), then opt.step(grad)"
    p = Params.of({"0.W": np.ones(3)})
    for opt, grad in (
        (optim.SGD(p, lr=0.1), p),
        (optim.SGD([np.ones(3)], lr=0.1), [np.ones(3)]),
    ):
        refusal(lambda opt=opt, grad=grad: opt.step((1.0, grad)), "the gradient", "got", told)
    assert told not in refusal(lambda: optim.SGD([np.ones(3)], lr=0.1).step([np.ones(3)] * 2), "got 2")


def test_a_dict_of_parameters_is_told_to_be_a_list():
    refusal(lambda: optim.SGD({"W": np.ones(3)}, lr=0.1), "got dict", "write list(d.values())")


@pytest.mark.parametrize("result", [lambda u: u, lambda u: (u,), lambda u: None], ids=["u", "(u,)", "None"])
def test_a_rule_that_returns_no_state_is_refused_and_moves_nothing(device, result):
    class Plain:
        def init(self, like):
            return None

        def update(self, state, g):
            return result(g)

    x, g = device.arrays([np.ones((2, 3)), np.ones((2, 3))])
    refusal(lambda: optim.Optimizer([x], Plain(), 0.1).step([g]), "Plain.update returns (u, state), got")
    assert np.all(x == 1)
