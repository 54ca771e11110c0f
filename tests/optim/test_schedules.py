"""The learning rate: a number, or a function of the number of finished steps."""

import importlib
import itertools
import math

import numpy as np
import pytest

from minibng import optim

WRONG = [-0.1, math.nan, math.inf, -math.inf, "0.1", None, 1j]


def test_a_schedule_is_called_with_the_number_of_finished_steps_zero_first(device, form):
    x, called = device.array(np.ones(3)), []
    opt = getattr(optim, "Adam" + form)([x], lr=lambda t: called.append(t) or 0.1)
    for _ in range(4):
        opt.step([np.ones_like(x)])
    steps = sorted(set(called))
    assert steps == [0, 1, 2, 3] and called == sorted(called) and all(type(t) is int for t in called)


def test_each_step_uses_the_rate_of_its_own_number(kit, rule, form):
    rates = [0.5, 0.0, 0.25, 0.125, 1.0]
    arrays = kit.numbers(0)
    naive = kit.NaiveLoop(rule, form, arrays, [[i] for i in range(len(arrays))], lambda t: rates[t])
    opt = getattr(optim, rule + form)(arrays, lr=lambda t: rates[t])
    for g in kit.gradients(5):
        kit.step(opt, g)
        naive.step(g)
    kit.assert_close(arrays, naive.arrays, 1e-12)


def test_a_number_and_constant_and_a_function_that_returns_it_are_the_same(kit, rule):
    made = []
    for lr in (0.1, optim.constant(0.1), lambda t: 0.1, np.float64(0.1)):
        arrays = kit.numbers(0)
        opt = getattr(optim, rule)(arrays, lr=lr)
        for g in kit.gradients(5):
            opt.step(g)
        made.append(arrays)
    assert all(kit.same_bits(arrays, made[0]) for arrays in made)


def test_constant_gives_its_number_at_every_step():
    assert [optim.constant(0.3)(t) for t in (0, 1, 10**9)] == [0.3] * 3


def test_step_decay_falls_at_its_milestones_and_nowhere_else():
    schedule = optim.step_decay(2.0, [3, 5, 6], factor=0.5)
    assert [schedule(t) for t in range(9)] == [2, 2, 2, 1, 1, 0.5, 0.25, 0.25, 0.25]


def test_step_decay_divides_by_ten_by_default():
    schedule = optim.step_decay(0.1, [2, 4])
    assert schedule(0) == schedule(1) == 0.1
    np.testing.assert_allclose([schedule(t) for t in (2, 3, 4, 100)], [1e-2, 1e-2, 1e-3, 1e-3], rtol=1e-14)


@pytest.mark.peer
def test_step_decay_is_the_multi_step_schedule_of_torch(torch):
    tensor = torch.zeros(1, requires_grad=True)
    theirs = torch.optim.SGD([tensor], lr=0.7)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(theirs, [2, 5], gamma=0.3)
    ours = optim.step_decay(0.7, [2, 5], factor=0.3)
    for t in range(8):
        np.testing.assert_allclose(ours(t), scheduler.get_last_lr()[0], rtol=1e-14)
        theirs.step()
        scheduler.step()


def test_step_decay_drives_an_optimizer(device):
    x = device.array([0.0])
    opt = optim.SGDNG([x], lr=optim.step_decay(1.0, [2], factor=0.25))
    seen = []
    for _ in range(4):
        opt.step([device.array([-7.0])])
        seen.append(x.tolist()[0])
    assert seen == [1, 2, 2.25, 2.5]


@pytest.mark.parametrize("lr", WRONG, ids=repr)
def test_a_rate_that_is_no_rate_is_refused_at_construction(lr):
    with pytest.raises((ValueError, TypeError), match="lr"):
        optim.AdamNG([np.ones(2)], lr=lr)


def test_the_rate_has_no_default(rule):
    with pytest.raises(TypeError, match="lr"):
        getattr(optim, rule)([np.ones(2)])


@pytest.mark.parametrize("lr", WRONG, ids=repr)
def test_a_rate_that_turns_wrong_is_refused_at_its_step_and_nothing_has_changed(kit, lr):
    arrays = kit.numbers(0)
    opt = optim.AdamNG(arrays, lr=lambda t: 0.1 if t < 2 else lr)
    for g in kit.gradients(2):
        opt.step(g)
    before, state = [a.copy() for a in arrays], opt.state_dict()
    with pytest.raises((ValueError, TypeError)) as caught:
        opt.step(kit.numbers(9))
    assert repr(lr) in str(caught.value) and "2" in str(caught.value)
    assert kit.same_bits(arrays, before) and kit.same_bits(opt.state_dict(), state) and opt.steps == 2


@pytest.mark.parametrize("lr", WRONG, ids=repr)
def test_schedules_refuse_a_rate_that_is_no_rate(lr):
    for make in (optim.constant, lambda lr: optim.step_decay(lr, [1])):
        with pytest.raises((ValueError, TypeError)):
            make(lr)


@pytest.mark.parametrize("milestones", [[5, 3], [-1], [1.5], ["2"]], ids=repr)
def test_step_decay_refuses_or_understands_odd_milestones(milestones):
    """Not in the contract; but a schedule that is made must fall at the numbers it was given."""
    try:
        schedule = optim.step_decay(1.0, milestones, factor=0.5)
    except (ValueError, TypeError):
        return
    assert [schedule(t) for t in range(8)] == [0.5 ** sum(m <= t for m in milestones) for t in range(8)]


@pytest.mark.parametrize("factor", [-0.5, math.nan, math.inf, "0.1"], ids=repr)
def test_step_decay_refuses_a_factor_that_makes_no_rate(factor):
    with pytest.raises((ValueError, TypeError)):
        optim.step_decay(1.0, [1], factor=factor)


# --- cosine, warm-up, inverse square root, one after another --------------------------------------------------

CLOSE = {"rtol": 1e-14, "atol": 1e-16}


def values(schedule, steps):
    return [schedule(t) for t in range(steps)]


def test_every_schedule_is_exported_by_both_names():
    for name in ("constant", "step_decay", "cosine", "warm_up", "inverse_sqrt", "sequence"):
        assert getattr(optim, name) is getattr(optim.schedules, name)
        assert name in dir(optim)


def test_cosine_falls_from_its_rate_to_its_end_and_stays():
    schedule = optim.cosine(0.8, 4, final=0.2)
    root = math.sqrt(0.5)
    np.testing.assert_allclose(values(schedule, 5), [0.8, 0.5 + 0.3 * root, 0.5, 0.5 - 0.3 * root, 0.2], **CLOSE)
    assert [schedule(t) for t in (4, 5, 100, 10**9)] == [0.2] * 4


def test_cosine_ends_at_zero_unless_told_exactly():
    schedule = optim.cosine(0.3, 7)
    assert schedule(0) == 0.3 and schedule(7) == schedule(8) == 0.0
    assert all(a > b for a, b in itertools.pairwise(values(schedule, 8)))


def test_cosine_of_one_step_takes_it_at_the_full_rate():
    assert values(optim.cosine(0.3, 1, final=0.1), 3) == [0.3, 0.1, 0.1]


def test_cosine_may_rise():
    assert values(optim.cosine(0.0, 2, final=1.0), 3) == pytest.approx([0.0, 0.5, 1.0])


@pytest.mark.parametrize("steps", [1, 2, 5, 1000])
def test_warm_up_rises_by_equal_steps_to_the_full_rate(steps):
    schedule = optim.warm_up(0.6, steps)
    np.testing.assert_allclose(values(schedule, steps), [0.6 * (t + 1) / steps for t in range(steps)], **CLOSE)
    assert [schedule(t) for t in (steps - 1, steps, steps + 1, 10**9)] == [0.6] * 4


def test_warm_up_multiplies_the_schedule_that_goes_on_beneath_it():
    """The cosine's own steps are not moved."""
    beneath = optim.cosine(0.8, 10, final=0.1)
    schedule = optim.warm_up(beneath, 4)
    np.testing.assert_allclose(values(schedule, 12), [beneath(t) * min(1, (t + 1) / 4) for t in range(12)], **CLOSE)


def test_inverse_square_root_falls_as_it_says():
    schedule = optim.inverse_sqrt(0.6)
    np.testing.assert_allclose([schedule(t) for t in (0, 3, 8, 10**6 - 1)], [0.6, 0.3, 0.2, 0.6e-3], **CLOSE)
    schedule = optim.inverse_sqrt(0.6, offset=100)
    np.testing.assert_allclose([schedule(t) for t in (0, 300, 800)], [0.6, 0.3, 0.2], **CLOSE)


def test_the_first_rate_of_every_schedule_is_its_rate_exactly():
    for schedule in (optim.cosine(0.3, 5), optim.inverse_sqrt(0.3), optim.inverse_sqrt(0.3, 7), optim.warm_up(0.3, 1)):
        assert schedule(0) == 0.3


def test_a_sequence_gives_each_schedule_its_own_steps_from_zero():
    parts = [optim.warm_up(1.0, 2), optim.cosine(0.8, 3), optim.inverse_sqrt(0.5)]
    schedule = optim.sequence((2, parts[0]), (3, parts[1]), parts[2])
    want = [parts[0](0), parts[0](1), *values(parts[1], 3), *values(parts[2], 5)]
    assert values(schedule, 10) == want
    assert schedule(5 + 10**6) == parts[2](10**6)


def test_a_sequence_of_one_is_that_one():
    assert values(optim.sequence(optim.cosine(0.3, 5)), 8) == values(optim.cosine(0.3, 5), 8)


def test_a_sequence_of_constants_is_step_decay():
    schedule = optim.sequence((3, optim.constant(1.0)), (2, optim.constant(0.5)), optim.constant(0.25))
    assert values(schedule, 9) == values(optim.step_decay(1.0, [3, 5], factor=0.5), 9)


def test_schedules_hold_in_one_another():
    inner = optim.sequence((2, optim.constant(1.0)), optim.constant(0.5))
    schedule = optim.sequence((1, optim.constant(2.0)), (3, inner), optim.warm_up(inner, 2))
    assert values(schedule, 8) == [2.0, 1.0, 1.0, 0.5, 0.5, 1.0, 0.5, 0.5]


def test_a_plain_function_is_a_schedule_everywhere():
    double = lambda t: 2.0 * t  # noqa: E731
    assert values(optim.warm_up(double, 4), 5) == [0, 1, 3, 6, 8]
    assert values(optim.sequence((3, double), double), 6) == [0, 2, 4, 0, 2, 4]


@pytest.mark.parametrize(
    "schedule",
    [
        optim.cosine(0.3, 5, final=0.01),
        optim.warm_up(optim.cosine(0.3, 6), 3),
        optim.inverse_sqrt(0.2, 3),
        optim.sequence((3, optim.warm_up(0.1, 3)), optim.inverse_sqrt(0.1)),
    ],
    ids=["cosine", "warm_up", "inverse_sqrt", "sequence"],
)
def test_schedules_drive_optimizers(kit, rule, schedule):
    arrays = kit.numbers(0)
    naive = kit.NaiveLoop(rule, "NG", arrays, [[i] for i in range(len(arrays))], schedule)
    opt = getattr(optim, rule + "NG")(arrays, lr=schedule)
    for g in kit.gradients(8):
        kit.step(opt, g)
        naive.step(g)
    kit.assert_close(arrays, naive.arrays, 1e-12)


@pytest.mark.peer
def test_schedules_are_those_of_torch(torch):
    """Torch counts warm-up from its start factor: ours is 1/5 at the first of five steps."""
    lrs = torch.optim.lr_scheduler
    pairs = [
        (optim.cosine(0.7, 9, final=0.02), lambda o: lrs.CosineAnnealingLR(o, 9, eta_min=0.02), 10),
        (optim.warm_up(0.7, 5), lambda o: lrs.LinearLR(o, 0.2, 1.0, total_iters=4), 12),
        (
            optim.sequence((4, optim.cosine(0.7, 4)), optim.step_decay(0.7, [3], factor=0.5)),
            lambda o: lrs.SequentialLR(o, [lrs.CosineAnnealingLR(o, 4), lrs.MultiStepLR(o, [3], gamma=0.5)], [4]),
            12,
        ),
    ]
    for ours, make, steps in pairs:
        theirs = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.7)
        scheduler = make(theirs)
        for t in range(steps):
            np.testing.assert_allclose(ours(t), scheduler.get_last_lr()[0], rtol=1e-12, atol=1e-15)
            theirs.step()
            scheduler.step()


@pytest.mark.peer
def test_schedules_are_those_of_optax():
    """Its warm-up starts at 0 and is joined to what follows; in float32."""
    optax = importlib.import_module("optax")
    pairs = [
        (optim.cosine(0.7, 9, final=0.07), optax.cosine_decay_schedule(0.7, 9, alpha=0.1)),
        (
            optim.sequence((5, lambda t: 0.7 * t / 5), optim.cosine(0.7, 10)),
            optax.warmup_cosine_decay_schedule(0.0, 0.7, 5, 15),
        ),
        (
            optim.sequence((3, optim.constant(0.5)), (4, optim.cosine(0.3, 4)), 0.1),
            optax.join_schedules(
                [optax.constant_schedule(0.5), optax.cosine_decay_schedule(0.3, 4), optax.constant_schedule(0.1)],
                [3, 7],
            ),
        ),
    ]
    for ours, theirs in pairs:
        np.testing.assert_allclose(values(ours, 20), [float(theirs(t)) for t in range(20)], rtol=1e-5, atol=1e-7)


MAKERS = {
    "cosine": lambda lr: optim.cosine(lr, 5),
    "cosine, final": lambda lr: optim.cosine(0.1, 5, final=lr),
    "warm_up": lambda lr: optim.warm_up(lr, 5),
    "inverse_sqrt": lambda lr: optim.inverse_sqrt(lr),
    "sequence": lambda lr: optim.sequence((2, 0.1), lr),
    "sequence, first": lambda lr: optim.sequence((2, lr), 0.1),
}


@pytest.mark.parametrize("lr", WRONG, ids=repr)
@pytest.mark.parametrize("name", MAKERS)
def test_the_new_schedules_refuse_a_rate_that_is_no_rate_when_they_are_made(name, lr):
    with pytest.raises((ValueError, TypeError)):
        MAKERS[name](lr)


@pytest.mark.parametrize("steps", [0, -1, 1.5, "3", None, math.nan, math.inf, True], ids=repr)
def test_numbers_of_steps_are_whole_and_positive(steps):
    for make in (
        lambda: optim.cosine(0.1, steps),
        lambda: optim.warm_up(0.1, steps),
        lambda: optim.sequence((steps, 0.1), 0.2),
    ):
        with pytest.raises((ValueError, TypeError), match="step"):
            make()


@pytest.mark.parametrize("offset", [0, -1, math.nan, math.inf, "1", None], ids=repr)
def test_an_offset_is_positive(offset):
    with pytest.raises((ValueError, TypeError), match="offset"):
        optim.inverse_sqrt(0.1, offset)


@pytest.mark.parametrize(
    "stages", [(), ((2, 0.1),), (0.1, 0.2), ((2, 0.1, 3), 0.2), (0.1, (2, 0.2))], ids=["none", "no last", *"abc"]
)
def test_a_sequence_has_stages_with_steps_and_one_without(stages):
    with pytest.raises((ValueError, TypeError)):
        optim.sequence(*stages)
