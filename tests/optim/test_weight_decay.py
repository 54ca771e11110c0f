"""Weight decay: decoupled, after the normalizer, or before it; what each means, by name, and what is refused."""

import math
import warnings

import numpy as np
import pytest

from minibng import optim
from minibng.params import Params

LR = 0.05
PLACES = ["decoupled", "after", "before"]
SHAPES = {"0.W": (4, 3), "0.b": (3,), "1.scale": (3,), "2.W": (3, 2), "2.b": (2,)}
ANY = (ValueError, TypeError)
in_each_place = pytest.mark.parametrize("decay", PLACES)


def params(kit, dtype="float64", seed=0):
    return Params.of(dict(zip(SHAPES, kit.numbers(seed, dtype, shapes=SHAPES.values()), strict=True)))


def gradients(kit, steps, dtype="float64"):
    every = kit.gradients(steps, dtype, shapes=tuple(SHAPES.values()))
    return [Params.of(dict(zip(SHAPES, g, strict=True))) for g in every]


def zero(p):
    return Params(p.layout, np.zeros_like(p.flat))


def made(name, target, **settings):
    """An optimizer, silent about decay before normalization: a test of its own hears that."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*before", category=UserWarning)
        return getattr(optim, name)(target, **settings)


# --- decoupled -----------------------------------------------------------------------------------------------


def test_decoupled_decay_alone_shrinks_by_the_rate_times_lambda(kit, device, rule, form):
    """Without a gradient a fresh rule gives nothing, and x ← (1 − lr(t)·λ)x: by the schedule too."""
    rates = [0.5, 0.25, 0.0, 0.125]
    p = params(kit)
    before, opt = p.flat.copy(), made(rule + form, p, lr=lambda t: rates[t], weight_decay=0.5)
    for _ in rates:
        opt.step(zero(p))
    factor = math.prod(1 - lr * 0.5 for lr in rates)
    np.testing.assert_allclose(*device.host([p.flat, factor * before]), rtol=1e-14)


def test_decoupled_is_the_default(kit, rule):
    one, two = params(kit), params(kit)
    opts = [getattr(optim, rule)(one, lr=LR, weight_decay=0.1)]
    opts.append(getattr(optim, rule)(two, lr=LR, weight_decay=0.1, decay="decoupled"))
    for g in gradients(kit, 4):
        for opt in opts:
            opt.step(g)
    assert kit.same_bits(one.flat, two.flat)


def test_decoupled_decay_adds_to_the_step_and_leaves_the_state_alone(kit, device, rule, form):
    """The state is that of a run without decay (adaptive: as long as its lengths are)."""
    p, q = params(kit), params(kit)
    g = gradients(kit, 1)[0]
    one, two = made(rule + form, p, lr=LR), made(rule + form, q, lr=LR, weight_decay=0.4)
    before = p.flat.copy()
    one.step(g)
    two.step(g)
    np.testing.assert_allclose(*device.host([q.flat, p.flat - LR * 0.4 * before]), rtol=1e-13, atol=1e-14)
    assert kit.same_bits(one.state_dict()["state"], two.state_dict()["state"])


def test_the_parameters_that_decay_are_those_before_the_step(device):
    x = device.array([1.0])
    optim.SGD([x], lr=0.5, weight_decay=0.5).step([device.array([2.0])])
    assert x[0] == 1 - 0.5 * (2 + 0.5)


@pytest.mark.parametrize("decay", ["decoupled", "after"])
def test_decay_is_not_normalized(device, decay):
    """3 and 4 have length 5; λx is added to a direction of length 1, whatever the gradient's."""
    for scale in (1e-150, 1.0, 1e150):
        x = device.array([1.0, 0.0])
        optim.SGDNG([x], lr=0.5, weight_decay=0.25, decay=decay).step([scale * device.array([3.0, 4.0])])
        np.testing.assert_allclose(device.host(x), [1 - 0.5 * (0.6 + 0.25), -0.5 * 0.8], rtol=1e-15)


def test_decay_before_the_normalizer_is_normalized(device):
    x = device.array([2.0, 0.0])
    opt = made("SGDNG", [x], lr=0.5, weight_decay=0.5, decay="before")
    opt.step([device.array([2.0, 4.0])])  # g + λx = (3, 4)
    np.testing.assert_allclose(device.host(x), [2 - 0.3, -0.4], rtol=1e-15)


def test_decay_before_clipping_is_clipped_and_after_it_is_not(device):
    for decay, want in [("before", [2 - 0.3, -0.4]), ("after", [2 - 0.5 * (2 / 20**0.5 + 1), -0.5 * 4 / 20**0.5])]:
        x = device.array([2.0, 0.0])
        optim.SGDClip([x], lr=0.5, weight_decay=0.5, decay=decay).step([device.array([2.0, 4.0])])
        np.testing.assert_allclose(device.host(x), want, rtol=1e-14)


@pytest.mark.parametrize("normalize", ["clip", "clip-global"])
def test_a_gradient_is_clipped_by_its_length_with_the_decay_before_it(device, normalize):
    """g is long and λx takes it back inside the ball: nothing is clipped."""
    x = device.array([-2.0, 0.0])
    opt = optim.SGD([x], lr=0.5, normalize=normalize, clip=1.5, weight_decay=1.0, decay="before")
    opt.step([device.array([3.0, 0.0])])
    np.testing.assert_allclose(device.host(x), [-2.5, 0.0], rtol=1e-15)


def test_an_adaptive_length_is_that_of_the_parameters_before_any_decay(device):
    x = device.array([3.0, 4.0])
    optim.SGDNGAdaptive([x], lr=0.5, weight_decay=0.2).step([device.array([0.0, 7.0])])
    np.testing.assert_allclose(device.host(x), [3 - 0.5 * 0.6, 4 - 0.5 * (5 + 0.8)], rtol=1e-15)


# --- what each place means -----------------------------------------------------------------------------------


def test_all_places_are_one_for_gradient_descent_without_a_normalizer(kit, dtype):
    ends = []
    for decay in PLACES:
        p = params(kit, dtype)
        opt = optim.SGD(p, lr=LR, weight_decay=0.3, decay=decay)
        for g in gradients(kit, 5, dtype):
            opt.step(g)
        ends.append(p.flat)
    for end in ends[1:]:
        kit.assert_close([end], [ends[0]], 1e-6 if dtype == "float32" else 1e-14)


def test_before_and_after_are_one_without_a_normalizer(kit, rule, dtype):
    ends = []
    for decay in ("after", "before"):
        p = params(kit, dtype)
        opt = getattr(optim, rule)(p, lr=LR, weight_decay=0.3, decay=decay)
        for g in gradients(kit, 5, dtype):
            opt.step(g)
        ends.append(p.flat)
    kit.assert_close(ends[:1], ends[1:], 1e-5 if dtype == "float32" else 1e-12)


@in_each_place
@pytest.mark.parametrize("name", ["Momentum", "Adam"])
def test_decay_inside_the_rule_enters_its_moments_and_decoupled_decay_does_not(kit, name, decay):
    p, q = params(kit), params(kit)
    one = getattr(optim, name)(p, lr=LR)
    two = getattr(optim, name)(q, lr=LR, weight_decay=0.3, decay=decay)
    g = gradients(kit, 1)[0]
    one.step(g)
    two.step(g)
    same = kit.same_bits(one.state_dict()["state"], two.state_dict()["state"])
    assert same == (decay == "decoupled")


def test_before_the_normalizer_lambda_is_not_seen_where_the_gradient_vanishes(kit, device):
    """Why it warns: the step is lr·x/‖x‖ for every λ > 0."""
    ends = []
    for weight_decay in (2.0**-10, 1.0, 2.0**10):
        p = params(kit)
        made("SGDNG", p, lr=LR, weight_decay=weight_decay, decay="before").step(zero(p))
        ends.append(p.flat)
    assert kit.same_bits(ends[0], ends[1]) and kit.same_bits(ends[0], ends[2])
    assert not np.array_equal(*device.host([ends[0], params(kit).flat]))


@in_each_place
@pytest.mark.parametrize("normalized", ["NG", "NGAdaptive"])
@pytest.mark.parametrize("name, power", [("SGD", 5), ("Nesterov", -40), ("RMSProp", 7), ("AMSGrad", 40)])
def test_the_scale_of_the_loss_is_seen_only_by_decay_before_the_normalizer(kit, name, normalized, decay, power):
    """I10: decay none, decoupled or after, bit for bit under powers of two."""
    p, q = params(kit), params(kit)
    one = made(name + normalized, p, lr=LR, weight_decay=0.3, decay=decay)
    two = made(name + normalized, q, lr=LR, weight_decay=0.3, decay=decay)
    for g in gradients(kit, 6):
        scaled = g.copy()
        scaled.flat[...] = np.ldexp(g.flat, power)
        one.step(g)
        two.step(scaled)
    assert kit.same_bits(p.flat, q.flat) == (decay != "before")


@in_each_place
def test_a_block_without_a_gradient_still_moves_towards_zero(kit, rule, decay):
    p, g = params(kit), gradients(kit, 1)[0]
    g.flat[: 4 * 3 + 3] = 0
    before = p["0.W"].copy()
    made(rule + "NG", p, lr=LR, weight_decay=0.1, decay=decay).step(g)
    assert np.all((p["0.W"] - before) * before < 0) and np.all(np.isfinite(p.flat))


@in_each_place
def test_zeros_stay_zeros(device, rule, decay):
    for form in ("", "Clip", "NG", "NGAdaptive"):
        x = device.array(np.zeros(4, "float32"))
        opt = made(rule + form, [x], lr=LR, weight_decay=0.5, decay=decay)
        for _ in range(2):
            opt.step([np.zeros_like(x)])
        assert not x.any()


# --- by name -------------------------------------------------------------------------------------------------


@in_each_place
def test_no_decay_is_no_decay_bit_for_bit(kit, form, dtype, decay):
    ends = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for settings in ({}, {"weight_decay": 0.0}, {"weight_decay": {"*": 0.0}}):
            p = params(kit, dtype)
            opt = getattr(optim, "Adam" + form)(p, lr=LR, decay=decay, **settings)
            for g in gradients(kit, 5, dtype):
                opt.step(g)
            ends.append(p.flat)
    assert kit.same_bits(ends[0], ends[1]) and kit.same_bits(ends[0], ends[2])


@in_each_place
def test_one_lambda_for_every_name_is_a_number(kit, form, decay):
    ends = []
    for weight_decay in (0.25, {"*": 0.25}, {"*.b": 0.25, "*": 0.25}):
        p = params(kit)
        opt = made("NAdam" + form, p, lr=LR, weight_decay=weight_decay, decay=decay)
        for g in gradients(kit, 4):
            opt.step(g)
        ends.append(p.flat)
    assert kit.same_bits(ends[0], ends[1]) and kit.same_bits(ends[0], ends[2])


def test_patterns_choose_lambda_and_the_first_that_matches_wins(kit):
    p = params(kit)
    before = p.copy()
    opt = optim.SGD(p, lr=0.5, weight_decay={"2.W": 0.5, "*.W": 0.25, "2.*": 0.125})
    opt.step(zero(p))
    for name, value in {"0.W": 0.25, "0.b": 0.0, "1.scale": 0.0, "2.W": 0.5, "2.b": 0.125}.items():
        kit.assert_close([p[name]], [(1 - 0.5 * value) * before[name]], 1e-15)
    assert all(kit.same_bits(p[name], before[name]) for name in ("0.b", "1.scale"))


@in_each_place
def test_one_block_may_hold_tensors_that_decay_and_tensors_that_do_not(kit, form, decay):
    p = params(kit)
    naive = kit.NaiveLoop(
        "Momentum",
        form,
        [v for _, v in p.items()],
        kit.entries(list(SHAPES.values()), "layer", list(SHAPES)),
        LR,
        weight_decay=[0.3, 0, 0.1, 0.3, 0],
        decay=decay,
    )
    opt = made("Momentum" + form, p, lr=LR, weight_decay={"*.W": 0.3, "*.scale": 0.1}, decay=decay)
    for g in gradients(kit, 10):
        opt.step(g)
        naive.step([v for _, v in g.items()])
    kit.assert_follows([v for _, v in p.items()], naive, "float64")


@in_each_place
def test_plain_arrays_decay(kit, rule, decay, dtype):
    shapes = [(4, 3), (3,), (7,)]
    arrays = kit.numbers(0, dtype, shapes=shapes)
    naive = kit.NaiveLoop(rule, "NG", arrays, [[0, 1], [2]], LR, weight_decay=0.3, decay=decay)
    opt = made(rule + "NG", arrays, lr=LR, weight_decay=0.3, decay=decay, blocks=[[0, 1], [2]])
    for g in kit.gradients(5, dtype, shapes=shapes):
        opt.step(g)
        naive.step(g)
    kit.assert_follows(arrays, naive, dtype)


def test_plain_arrays_are_called_by_their_names(kit, device):
    """`array 0`, as in every message."""
    x, y = device.arrays([np.ones(2), np.ones(3)])
    optim.SGD([x, y], lr=0.5, weight_decay={"array 1": 0.5}).step([np.zeros_like(x), np.zeros_like(y)])
    assert x.tolist() == [1, 1] and y.tolist() == [0.75] * 3


@in_each_place
def test_large_tensors_decay_in_every_piece(kit, decay, dtype):
    shapes = [(300_001,), (7,)]
    arrays = kit.numbers(0, dtype, shapes=shapes)
    naive = kit.NaiveLoop("Adam", "NG", arrays, [[0], [1]], LR, weight_decay=0.3, decay=decay)
    opt = made("AdamNG", arrays, lr=LR, weight_decay=0.3, decay=decay)
    for seed in (1, 2):
        g = kit.numbers(seed, dtype, shapes=shapes)
        opt.step(g)
        naive.step(g)
    kit.assert_follows(arrays, naive, dtype)


class Lion:
    """A rule of one's own: it has no formula to be run in pieces."""

    def init(self, like):
        return {"m": np.zeros_like(like)}

    def update(self, state, g):
        return np.sign(0.9 * state["m"] + 0.1 * g), {"m": 0.99 * state["m"] + 0.01 * g}


@in_each_place
@pytest.mark.parametrize("normalize", [None, "clip", "clip-global", "unit", "adaptive"])
def test_a_rule_of_ones_own_decays_as_the_others_do(kit, decay, normalize):
    """The same optimizer around a rule without a formula: gradient descent written out, beside SGD's formula."""

    class Plain:
        def init(self, like):
            return ()

        def update(self, state, g):
            return g, state

    p, q = params(kit), params(kit)
    settings = {"normalize": normalize, "weight_decay": {"*.W": 0.3}, "decay": decay, "blocks": "unit"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        one = optim.Optimizer(p, Plain(), LR, **settings)
        two = optim.Optimizer(q, optim.rules.SGD(), LR, **settings)
    for g in gradients(kit, 6):
        one.step(g)
        two.step(g)
        kit.assert_close([p.flat], [q.flat], 1e-13)


def test_lion_is_lion_of_its_paper(kit):
    """x ← x − lr(sign(β₁m + (1−β₁)g) + λx): decoupled decay around a rule of one's own (Chen et al., 2023)."""
    (x,) = kit.numbers(0, shapes=[(30,)])
    want, m = x.copy(), np.zeros_like(x)
    opt = optim.Optimizer([x], Lion(), LR, weight_decay=0.2)
    for (g,) in kit.gradients(10, shapes=[(30,)]):
        opt.step([g])
        want = want - LR * (np.sign(0.9 * m + 0.1 * g) + 0.2 * want)
        m = 0.99 * m + 0.01 * g
    kit.assert_close([x], [want], 1e-12)


# --- nothing is changed, and what is refused -------------------------------------------------------------------


@in_each_place
def test_a_step_with_decay_changes_nothing_that_it_is_given(kit, form, decay, dtype):
    p = params(kit, dtype)
    opt = made("Nesterov" + form, p, lr=LR, weight_decay=0.3, decay=decay)
    g = gradients(kit, 1, dtype)[0]
    before = g.flat.copy()
    for _ in range(2):
        opt.step(g)
    assert kit.same_bits(g.flat, before)


@in_each_place
@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
def test_a_step_that_is_not_taken_does_not_decay_either(kit, form, decay, nonfinite):
    p = params(kit)
    opt = made("Adam" + form, p, lr=LR, weight_decay=0.3, decay=decay, nonfinite=nonfinite)
    g = gradients(kit, 1)[0]
    opt.step(g)
    before, state = p.flat.copy(), opt.state_dict()["state"]
    g["2.W"][0, 0] = np.nan
    if nonfinite == "raise":
        with pytest.raises(optim.NonFiniteError, match="step 1"):
            opt.step(g)
            opt.check()
    else:
        opt.step(g)
        opt.check()
        assert opt.skipped == 1
    assert kit.same_bits(p.flat, before) and kit.same_bits(opt.state_dict()["state"], state)


@pytest.mark.parametrize("normalize", [None, "clip", "clip-global", "unit", "adaptive"])
@in_each_place
@pytest.mark.parametrize("weight_decay", [0.0, 1e-4, {"*.W": 1e-4}, {"*.W": 0.0}], ids=str)
def test_decay_before_a_normalizer_that_would_hide_it_warns_and_nothing_else_does(kit, normalize, decay, weight_decay):
    some = weight_decay not in (0.0, {"*.W": 0.0})
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        settings = {"normalize": normalize, "decay": decay, "weight_decay": weight_decay}
        opt = optim.Optimizer(params(kit), optim.rules.Momentum(), LR, **settings)
        count = len(heard)
        opt.step(gradients(kit, 1)[0])
    assert len(heard) == count == (decay == "before" and normalize in ("unit", "adaptive") and some)
    assert all(w.category is UserWarning and w.filename == __file__ for w in heard)


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf, "0.1", None, 1j, True], ids=repr)
def test_a_lambda_that_is_no_size_is_refused(host_kit, bad):
    for weight_decay in (bad, {"*.W": bad}):
        with pytest.raises(ANY, match="weight_decay"):
            optim.Adam(params(host_kit), lr=LR, weight_decay=weight_decay)


def test_a_pattern_that_names_nothing_is_refused(kit):
    with pytest.raises(ValueError, match=r"\*\.V"):
        optim.Adam(params(kit), lr=LR, weight_decay={"*.W": 0.1, "*.V": 0.2})
    with pytest.raises(ValueError, match="W"):
        optim.Adam([np.ones(2)], lr=LR, weight_decay={"W": 0.1})


def test_a_pattern_that_comes_too_late_matches_and_is_taken(kit):
    """`2.W` matches a tensor, though `*.W` is there before it: the contract refuses only what matches nothing."""
    p = params(kit)
    before = p.copy()
    optim.SGD(p, lr=0.5, weight_decay={"*.W": 0.5, "2.W": 0.25}).step(zero(p))
    kit.assert_close([p["2.W"]], [0.75 * before["2.W"]], 1e-15)


@pytest.mark.parametrize("bad", ["Decoupled ", "inside", "", None, 1], ids=repr)
def test_another_place_is_refused(host_kit, bad):
    with pytest.raises(ANY, match="decay"):
        optim.Adam(params(host_kit), lr=LR, weight_decay=0.1, decay=bad)
