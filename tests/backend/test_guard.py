"""What keeps a step from being taken where a number is not finite: on the device, and told late."""

import numpy as np
import pytest

from minibng.backend import Group, get_backend
from minibng.backend.guard import NONE, DeviceGuard
from minibng.backend.kernel import parse

NAN = np.nan


def run(device, guard, step, checks, kernel=False):
    """One step whose checks find these numbers; returns an array that the step would set to one."""
    x = device.array(np.zeros(3))
    with device.no_sync():
        guard.begin(step)
        for per_block in checks:
            guard.note(device.array(np.array(per_block, float)))
        x = guard.keep(device.array(np.ones(3)), x)
        if kernel:  # stands for one that writes the record itself
            assert guard.take_record() is guard.record
        guard.commit()
    return device.host(x).tolist()


FINE, KEPT = [1.0] * 3, [0.0] * 3


@pytest.mark.parametrize(
    ("checks", "taken", "bad"),
    [
        ([[1.0, 2.0]], True, None),
        ([[1.0, NAN]], False, (0, 1)),
        ([[np.inf, NAN]], False, (0, 0)),
        ([[1.0, 2.0], [-np.inf, 0.0]], False, (1, 0)),
        ([[1.0, NAN], [NAN, NAN]], False, (0, 1)),
        ([[1.0, 2.0], [0.0, 0.0], [0.0, NAN]], False, (2, 1)),
        ([[1e308, -1e-320], [0.0, -0.0]], True, None),
    ],
    ids=str,
)
def test_a_step_is_taken_where_every_check_is_finite(checks, taken, bad, device):
    guard = DeviceGuard(device.backend, 2)
    assert run(device, guard, 7, checks) == (FINE if taken else KEPT)
    code = device.host(guard.bad)
    assert code.dtype == np.int64 and code.shape == ()
    assert (code >= NONE) == taken
    trouble = guard.fetch()
    if taken:
        assert trouble is None
    else:
        assert (trouble.step, (trouble.check, trouble.block), trouble.suppressed) == (7, bad, 1)
        assert all(type(number) is int for number in trouble)


def test_the_first_trouble_is_kept_and_all_are_counted(device):
    guard = DeviceGuard(device.backend, 3)
    good, second, third = [0.0, 0.0, 0.0], [0.0, NAN, 0.0], [0.0, 0.0, NAN]
    found = [run(device, guard, k, [c]) for k, c in enumerate([good, third, good, second, second, good])]
    assert found == [FINE, KEPT, FINE, KEPT, KEPT, FINE]
    assert guard.fetch() == (1, 0, 2, 3)


def test_what_was_told_is_forgotten(device):
    guard = DeviceGuard(device.backend, 1)
    run(device, guard, 4, [[NAN]])
    assert guard.fetch() == (4, 0, 0, 1)
    assert guard.fetch() is None
    run(device, guard, 5, [[0.0]])
    run(device, guard, 6, [[np.inf]])
    assert guard.fetch() == (6, 0, 0, 1)
    assert [run(device, guard, 7, [[0.0]]), guard.fetch()] == [FINE, None]


def test_a_number_that_a_kernel_found_counts_like_one_of_ours(device):
    guard = DeviceGuard(device.backend, 4)
    for first, then, expected in ((NONE, 3, (1, 3)), (2, 0, (0, 2)), (NONE, NONE, None)):
        guard.begin(9)
        with device.no_sync():
            guard.note(device.array(np.zeros(4)), device.array(np.int64(first)))
            guard.note(device.array(np.zeros(4)), device.array(np.int64(then)))
            guard.commit()
        trouble = guard.fetch()
        assert (trouble and (trouble.check, trouble.block)) == expected


def test_the_record_is_written_once_a_step(device):
    guard = DeviceGuard(device.backend, 1)
    run(device, guard, 0, [[NAN]], kernel=True)
    assert guard.fetch() is None  # the kernel's task, and here was none
    guard.begin(1)
    assert guard.take_record() is guard.record and guard.take_record() is None
    guard.begin(2)
    assert guard.take_record() is guard.record


def descend(x, g):
    x = x - g
    return x


@pytest.mark.parametrize("bad", [None, 1])
def test_a_step_of_several_formulas_is_recorded_once(bad):
    """A stepper of a device writes the record where it does not step; a second one does not count again."""
    strict = get_backend("strict")
    groups = [Group.whole(name, [i], [(3,), (2,)]) for i, name in enumerate("ab")]
    g = [np.ones(3), np.full(2, np.nan if bad else 1.0)]
    x, g = [strict.asarray(np.zeros(n)) for n in (3, 2)], [strict.asarray(v) for v in g]
    stepper = strict.stepper(parse(descend, readonly=("g",)), x, groups)
    guard = strict.guard(2)
    with strict.training_step():
        guard.begin(5)
        norms = strict.block_norms(g, groups)
        guard.note(norms.root, norms.bad)
        for _ in range(2):
            stepper({"x": x, "g": g}, {}, guard=guard)
        guard.commit()
    assert strict.to_host(x[0]).tolist() == ([0.0] * 3 if bad else [-2.0] * 3)
    assert guard.fetch() == ((5, 0, 1, 1) if bad else None)


def test_no_blocks_are_no_trouble(device):
    guard, empty = DeviceGuard(device.backend, 0), device.array(np.zeros(0))
    with device.no_sync():
        guard.begin(0)
        guard.note(empty, device.array(np.int64(NONE)))
        guard.note(empty)
        x = guard.keep(device.array(np.ones(3)), device.array(np.zeros(3)))
        guard.commit()
    assert device.host(x).tolist() == FINE and guard.fetch() is None


def test_the_host_looks_itself():
    assert get_backend("cpu").guard(3) is None
    guard = get_backend("strict").guard(3)
    assert isinstance(guard, DeviceGuard) and guard.blocks == 3
