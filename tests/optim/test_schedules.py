"""The learning rate: a number, or a function of the number of finished steps."""

import math

import numpy as np
import pytest

from minibng import optim

WRONG = [-0.1, math.nan, math.inf, -math.inf, "0.1", None, 1j]


def test_a_schedule_is_called_with_the_number_of_finished_steps_zero_first(form):
    called = []
    opt = getattr(optim, "Adam" + form)([np.ones(3)], lr=lambda t: called.append(t) or 0.1)
    for _ in range(4):
        opt.step([np.ones(3)])
    steps = sorted(set(called))
    assert steps == [0, 1, 2, 3] and called == sorted(called) and all(type(t) is int for t in called)


def test_each_step_uses_the_rate_of_its_own_number(kit, rule, form):
    rates = [0.5, 0.0, 0.25, 0.125, 1.0]
    arrays = kit.numbers(0)
    naive = kit.NaiveLoop(rule, form, arrays, [[i] for i in range(len(arrays))], lambda t: rates[t])
    opt = getattr(optim, rule + form)(arrays, lr=lambda t: rates[t])
    for g in kit.gradients(5):
        opt.step(g)
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


def test_step_decay_drives_an_optimizer():
    x = np.zeros(1)
    opt = optim.SGDNG([x], lr=optim.step_decay(1.0, [2], factor=0.25))
    seen = []
    for _ in range(4):
        opt.step([np.array([-7.0])])
        seen.append(x[0])
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
