"""What an optimizer remembers: saving and resuming, refused gradients, skipped steps."""

import pickle

import numpy as np
import pytest

from minibng import optim
from minibng.params import Params

LR = 0.03
REMEMBERING = pytest.mark.parametrize("name", ["Momentum", "AdaGrad", "RMSProp", "AdaDelta", "Adam"])  # not SGD
BAD = pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])


def params(kit, dtype="float64", blocks="layer", seed=0):
    return Params.of(dict(zip(kit.SHAPES, kit.numbers(seed, dtype), strict=True)), blocks=blocks)


def grads(kit, steps, dtype="float64"):
    return [Params.of(dict(zip(kit.SHAPES, g, strict=True))) for g in kit.gradients(steps, dtype)]


def arrays_in(state):
    if isinstance(state, dict):
        return [a for v in state.values() for a in arrays_in(v)]
    if isinstance(state, list | tuple):
        return [a for v in state for a in arrays_in(v)]
    return [state] if isinstance(state, np.ndarray) else []


# --- I11: saving and resuming ----------------------------------------------------------------------------


def test_resuming_continues_bit_for_bit(kit, rule, form, dtype):
    every = grads(kit, 20, dtype)
    p = params(kit, dtype)
    opt = getattr(optim, rule + form)(p, lr=lambda t: LR / (1 + t))
    for g in every[:8]:
        opt.step(g)
    q, state = p.copy(), pickle.loads(pickle.dumps(opt.state_dict()))
    resumed = getattr(optim, rule + form)(q, lr=lambda t: LR / (1 + t))
    resumed.load_state_dict(state)
    assert resumed.steps == 8
    for g in every[8:]:
        opt.step(g)
        resumed.step(g)
        assert kit.same_bits(p.flat, q.flat)
    assert kit.same_bits(opt.state_dict(), resumed.state_dict())


def test_resuming_on_plain_arrays_continues_bit_for_bit(kit, rule, form):
    every, x = kit.gradients(10), kit.numbers(0)
    opt = getattr(optim, rule + form)(x, lr=LR, blocks=kit.PARTITIONS["layer"])
    for g in every[:5]:
        opt.step(g)
    y = [a.copy() for a in x]
    resumed = getattr(optim, rule + form)(y, lr=LR, blocks=kit.PARTITIONS["layer"])
    resumed.load_state_dict(opt.state_dict())
    for g in every[5:]:
        opt.step(g)
        resumed.step(g)
    assert kit.same_bits(x, y)


def test_loading_turns_an_optimizer_that_has_stepped_back(kit, rule, form):
    every, p = grads(kit, 10), params(kit)
    opt = getattr(optim, rule + form)(p, lr=LR)
    for g in every[:4]:
        opt.step(g)
    x, state, ends = p.flat.copy(), opt.state_dict(), []
    for _ in range(2):
        for g in every[4:]:
            opt.step(g)
        ends.append(p.flat.copy())
        p.flat[...] = x
        opt.load_state_dict(state)
    assert kit.same_bits(ends[0], ends[1]) and opt.steps == 4


def test_a_state_dict_is_numpy_copies(kit, rule, form, dtype):
    p, q, every = params(kit, dtype), params(kit, dtype), grads(kit, 6, dtype)
    opt, other = getattr(optim, rule + form)(p, lr=LR), getattr(optim, rule + form)(q, lr=LR)
    for g in every[:3]:
        opt.step(g)
        other.step(g)
    state = opt.state_dict()
    assert rule == "SGD" or len(arrays_in(state)) > 0
    assert all(type(a) is np.ndarray for a in arrays_in(state))
    for a in arrays_in(state):
        a[...] = 99
    for g in every[3:]:
        opt.step(g)
        other.step(g)
    assert kit.same_bits(p.flat, q.flat)


def test_a_loaded_state_dict_may_be_written_to_and_is_not_written_to(kit, rule, form):
    p, q, every = params(kit), params(kit), grads(kit, 6)
    opt = getattr(optim, rule + form)(p, lr=LR)
    for g in every[:3]:
        opt.step(g)
    q.flat[...] = p.flat
    state = opt.state_dict()
    resumed = getattr(optim, rule + form)(q, lr=LR)
    resumed.load_state_dict(state)
    copies = [a.copy() for a in arrays_in(state)]
    opt.step(every[3])
    resumed.step(every[3])
    assert kit.same_bits(arrays_in(state), copies)
    for a in arrays_in(state):
        a[...] = 99
    opt.step(every[4])
    resumed.step(every[4])
    assert kit.same_bits(p.flat, q.flat)


def refused(kit, opt, p, state, *words):
    """Loading raises an error that holds the words, and neither optimizer nor parameters change."""
    before, x = opt.state_dict(), p.flat.copy()
    with pytest.raises((ValueError, TypeError)) as caught:
        opt.load_state_dict(state)
    for word in words:
        assert word in str(caught.value), f"{word!r} is not in: {caught.value}"
    assert kit.same_bits(opt.state_dict(), before) and kit.same_bits(p.flat, x)


def stepped(kit, name, p, dtype="float64", steps=2, **settings):
    opt = getattr(optim, name)(p, lr=LR, **settings)
    for g in grads(kit, steps, dtype):
        opt.step(g)
    return opt


@pytest.mark.parametrize("one, other", [("layer", "tensor"), ("layer", "global"), ("global", "tensor")])
def test_a_state_does_not_load_into_another_partition(kit, rule, one, other):
    p = params(kit)
    state = stepped(kit, rule + "NG", params(kit), blocks=one).state_dict()
    refused(kit, stepped(kit, rule + "NG", p, blocks=other), p, state, "0.W")


def test_a_state_does_not_load_into_another_rule(kit, rule):
    other = {"Adam": "Momentum"}.get(rule, "Adam")
    p = params(kit)
    refused(kit, stepped(kit, rule, p), p, stepped(kit, other, params(kit)).state_dict(), rule, other)


def test_a_state_does_not_load_into_another_form(kit, rule):
    p = params(kit)
    refused(kit, stepped(kit, rule + "NG", p), p, stepped(kit, rule, params(kit)).state_dict(), "unit", "None")


@REMEMBERING
def test_a_state_does_not_load_into_another_dtype(kit, name):
    p = params(kit)
    state = stepped(kit, name, params(kit, "float32"), "float32").state_dict()
    refused(kit, stepped(kit, name, p), p, state, "0.W", "float32", "float64")


@REMEMBERING
def test_a_state_does_not_load_into_another_shape(kit, device, name):
    made = []
    for n in (3, 5):
        p = Params.of(device.arrays({"0.W": np.ones((2, n)), "1.W": np.ones(2)}))
        opt = getattr(optim, name)(p, lr=LR)
        opt.step(p)
        made.append((opt, p))
    refused(kit, *made[0], made[1][0].state_dict(), "0.W", "2, 3", "2, 5")


def test_a_state_does_not_load_into_other_names(kit, device, rule):
    made = []
    for name in ("0.W", "0.V"):
        p = Params.of({name: device.array(np.ones(3))})
        opt = getattr(optim, rule)(p, lr=LR)
        opt.step(Params.of({name: device.array(np.ones(3))}))
        made.append((opt, p))
    refused(kit, *made[0], made[1][0].state_dict(), "0.V")


def test_a_state_whose_last_array_is_wrong_changes_nothing(kit):
    p = params(kit)
    opt = stepped(kit, "AdamNG", p)
    state = stepped(kit, "AdamNG", params(kit), steps=3).state_dict()
    state["state"]["3.none"]["v"] = np.zeros(4)
    refused(kit, opt, p, state, "3.none", "(4,)", "(0,)")


@pytest.mark.parametrize("lost", ["rule", "steps", "blocks", "state"])
def test_an_incomplete_state_changes_nothing(kit, lost):
    p = params(kit)
    opt = stepped(kit, "AdamNG", p)
    state = stepped(kit, "AdamNG", params(kit), steps=3).state_dict()
    del state[lost]
    before, x = opt.state_dict(), p.flat.copy()
    with pytest.raises((ValueError, KeyError, TypeError)):
        opt.load_state_dict(state)
    assert kit.same_bits(opt.state_dict(), before) and kit.same_bits(p.flat, x)


# --- gradients that are not finite: told at once on the host, by `check` on a device ---------------------------


@BAD
@pytest.mark.parametrize("where, block", [("0.W", "0"), ("0.b", "0"), ("1.W", "1"), ("2.scale", "2")])
@pytest.mark.parametrize("name", ["SGD", "MomentumClip", "AdamNG", "RMSPropNGAdaptive"])
def test_a_gradient_that_is_not_finite_is_refused_by_block_and_step_and_nothing_changes(kit, name, bad, where, block):
    p = params(kit)
    opt = getattr(optim, name)(p, lr=LR)
    every = grads(kit, 4)
    for g in every[:3]:
        opt.step(g)
    x, state = p.flat.copy(), opt.state_dict()
    every[3][where].reshape(-1)[-1] = bad
    with pytest.raises(optim.NonFiniteError) as caught:
        opt.step(every[3])
        opt.check()
    assert f"'{block}'" in str(caught.value) and "step 3" in str(caught.value)
    assert kit.same_bits(p.flat, x) and kit.same_bits(opt.state_dict(), state) and opt.steps == 3
    opt.step(every[0])
    assert opt.steps == 4


@pytest.mark.parametrize("size", [1, 16385, 300_001])
def test_the_last_entry_of_any_array_is_looked_at(device, form, dtype, size):
    arrays, gradient = (device.arrays([np.ones(3, dtype), np.ones(size, dtype)]) for _ in range(2))
    opt = getattr(optim, "Adam" + form)(arrays, lr=LR)
    gradient[1][-1] = np.nan
    with pytest.raises(optim.NonFiniteError, match="array 1"):
        opt.step(gradient)
        opt.check()
    assert all(np.all(a == 1) for a in arrays) and opt.steps == 0


@BAD
@pytest.mark.parametrize("blocks", [[[0, 1, 2]], [[1, 0, 2]], [[2, 1, 0]]], ids=str)
@pytest.mark.parametrize("other", [0.0, 1e-200, 1.0, 1e200])
@pytest.mark.parametrize("name", ["SGD", "AdamNG"])
def test_a_number_that_is_not_finite_is_found_beside_any_others(device, name, bad, blocks, other):
    """Beside zeros in another array of its block most of all: max(0.0, nan) is 0.0 in Python."""
    arrays = device.arrays([np.ones(4), np.ones(3), np.ones(2)])
    opt = getattr(optim, name)(arrays, lr=LR, blocks=blocks)
    gradient = [np.full_like(a, other) for a in arrays]
    gradient[1][1] = bad
    with pytest.raises(optim.NonFiniteError, match="array 1"):
        opt.step(gradient)
        opt.check()
    assert all(np.all(a == 1) for a in arrays)


def test_finite_gradients_whose_squares_overflow_are_not_refused_by_the_normalized_forms(device, dtype):
    x, big = device.arrays([np.zeros(3, dtype), np.full(3, np.finfo(dtype).max)])
    optim.SGDNG([x], lr=1.0).step([big])
    np.testing.assert_allclose(device.host(x), -np.sqrt(1 / 3), rtol=1e-6)
    opt = optim.SGD([x], lr=0.0)
    opt.step([big])
    opt.check()


@BAD
def test_skip_leaves_out_the_whole_step_and_counts_it(kit, rule, bad):
    p = params(kit)
    opt = getattr(optim, rule + "NG")(p, lr=LR, nonfinite="skip")
    every = grads(kit, 3)
    for g in every[:2]:
        opt.step(g)
    x, state = p.flat.copy(), opt.state_dict()["state"]
    every[2]["1.W"][0, 0] = bad
    for n in (1, 2):
        opt.step(every[2])
        opt.check()
        assert (opt.skipped, opt.steps) == (n, 2)
    assert kit.same_bits(p.flat, x) and kit.same_bits(opt.state_dict()["state"], state)


def test_after_a_skip_the_trajectory_is_that_without_the_step(kit, rule, form):
    with_bad, without = params(kit), params(kit)
    rate = lambda t: LR / (1 + t)  # noqa: E731
    one = getattr(optim, rule + form)(with_bad, lr=rate, nonfinite="skip")
    two = getattr(optim, rule + form)(without, lr=rate)
    for t, g in enumerate(grads(kit, 10)):
        if t in (0, 4, 5):
            bad = g.copy()
            bad["0.b"][1] = np.nan
            one.step(bad)
            one.check()
        one.step(g)
        two.step(g)
        assert kit.same_bits(with_bad.flat, without.flat)
    assert (one.skipped, one.steps, two.skipped, two.steps) == (3, 10, 0, 10)


def test_the_count_of_skipped_steps_is_saved(kit):
    p = params(kit)
    opt = optim.AdamNG(p, lr=LR, nonfinite="skip")
    bad = grads(kit, 1)[0]
    bad["1.W"][0, 0] = np.nan
    opt.step(bad)
    other = optim.AdamNG(params(kit), lr=LR, nonfinite="skip")
    other.load_state_dict(opt.state_dict())
    assert (other.skipped, other.steps) == (1, 0)


def test_a_state_saved_in_fortran_order_is_taken_over_and_goes_on(device):
    x, y, g = ([device.array(a)] for a in (np.ones((3, 2)), np.ones((3, 2)), np.arange(6.0).reshape(3, 2)))
    a, b = optim.Momentum(x, lr=LR), optim.Momentum(y, lr=LR)
    a.step(g)
    b.step(g)
    state = a.state_dict()
    state["state"]["array 0"]["m"] = np.asfortranarray(state["state"]["array 0"]["m"])
    b.load_state_dict(state)
    for _ in range(2):
        a.step(g)
        b.step(g)
    assert np.array_equal(*device.host(x + y))
