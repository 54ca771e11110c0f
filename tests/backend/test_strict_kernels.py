"""The strict device's kernels, norms and formulas: the host's bits, and a guard that keeps steps from being taken."""

import numpy as np
import pytest

from minibng.backend import BlockNorms, Group, get_backend
from minibng.backend.chain import Chain
from minibng.backend.guard import NONE, DeviceGuard, Trouble
from minibng.backend.kernel import parse
from minibng.backend.waiting import SyncError, forbid_sync

HOST, STRICT = get_backend("cpu"), get_backend("strict")
SHAPES = [(4, 3), (3,), (5, 3), (3,), (2, 2)]
GROUPS = {
    "layers": (Group.whole("0", [0, 1], SHAPES), Group.whole("1", [2, 3], SHAPES), Group.whole("2", [4], SHAPES)),
    "units": (
        Group("0", (0, 1), ((4, 3, 1), (1, 3, 1))),
        Group("1", (2, 3), ((5, 3, 1), (1, 3, 1))),
        Group("2", (4,), ((1, 2, 2),)),
    ),
    "coordinates": tuple(Group(str(i), (i,), ((1, int(np.prod(s)), 1),)) for i, s in enumerate(SHAPES)),
}


def tensors(dtype="float32", seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(s).astype(dtype) for s in SHAPES]


def up(arrays):
    return [STRICT.asarray(a) for a in arrays]


def down(x):
    return x._host


@pytest.mark.parametrize("groups", GROUPS.values(), ids=str)
@pytest.mark.parametrize("norm", [1, 2, np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_norms_and_scaled_blocks_have_the_host_s_bits(groups, norm, dtype):
    g = tensors(dtype)
    g[4][:] *= 1e-3 if dtype == "float16" else 1e-30  # off the range in which squares are exact
    theirs = HOST.block_norms(g, groups, norm)
    lengths = np.linspace(0.5, 2, theirs.root.size)
    with forbid_sync():
        mine = STRICT.block_norms(up(g), groups, norm)
        scaled = STRICT.scale_blocks(up(g), groups, mine, STRICT.asarray(lengths))
    np.testing.assert_array_equal(down(mine.root), theirs.root)
    np.testing.assert_array_equal(down(mine.exponent), theirs.exponent)
    assert (mine.root.dtype, mine.exponent.dtype, mine.bad.dtype) == ("float64", "int32", "int64")
    assert mine.bad.shape == () and down(mine.bad) == NONE and theirs.bad is None
    for m, t in zip(scaled, HOST.scale_blocks(g, groups, theirs, lengths), strict=True):
        np.testing.assert_array_equal(down(m), t)
        assert m.dtype == t.dtype
    np.testing.assert_array_equal(down(mine.values()), theirs.values())


@pytest.mark.parametrize("where, block", [((2,), 1), ((4, 0), 0), ((3, 4), 1), ((4,), 2)])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_bad_block_is_told(where, block, value):
    g = tensors()
    for i in where:
        g[i].reshape(-1)[-1] = value
    with forbid_sync():
        assert down(STRICT.block_norms(up(g), GROUPS["layers"]).bad) == block


def momentum(x, m, g, *, lr, beta):
    m = beta * m + g
    x = x - lr * m
    return x, m


def stepped(backend, made, guard=None, steps=3):
    x, m = made(tensors(seed=1)), made([np.zeros(s, "float32") for s in SHAPES])
    stepper = backend.stepper(parse(momentum), x, GROUPS["layers"])
    for k in range(steps):
        g = made(tensors(seed=2 + k))
        norms = backend.block_norms(g, GROUPS["layers"])
        if guard is not None:
            guard.begin(k)
            guard.note(norms.root, norms.bad)
        lengths = backend.asarray(np.array([1.0, 0.5, 2.0]))
        stepper({"x": x, "m": m, "g": g}, {"lr": 0.1, "beta": 0.9}, norms, lengths, guard)
        if guard is not None:
            guard.commit()
    return x, m


def test_a_formula_is_stepped_to_the_host_s_bits():
    theirs = stepped(HOST, list)
    with forbid_sync():
        plain, guarded = stepped(STRICT, up), stepped(STRICT, up, STRICT.guard(3))
    for column, other, expected in zip(plain, guarded, theirs, strict=True):
        for a, b, t in zip(column, other, expected, strict=True):
            np.testing.assert_array_equal(down(a), t)
            np.testing.assert_array_equal(down(b), t)


def test_without_lengths_the_gradient_is_as_it_is():
    x, g = tensors(seed=1), tensors(seed=2)
    mine = up(x)
    m = up([np.zeros_like(a) for a in x])
    with forbid_sync():
        STRICT.stepper(parse(momentum), mine, GROUPS["layers"])(
            {"x": mine, "m": m, "g": up(g)}, {"lr": 0.5, "beta": 0.0}
        )
    for a, b, c in zip(mine, x, g, strict=True):
        np.testing.assert_array_equal(down(a), b - np.float32(0.5) * c)


def bad_at(*steps):
    """Run six steps of which some have a gradient that is not finite, in block 1 at the second, else in block 2."""
    guard = STRICT.guard(3)
    x, m = up(tensors(seed=1)), up([np.zeros(s, "float32") for s in SHAPES])
    stepper = STRICT.stepper(parse(momentum), x, GROUPS["layers"])
    taken = []
    for k in range(6):
        g = tensors(seed=k)
        if k in steps:
            g[2 if k == 1 else 4][0, 0] = np.nan
        before = [down(a).copy() for a in (*x, *m)]
        norms = STRICT.block_norms(up(g), GROUPS["layers"])
        guard.begin(k)
        guard.note(norms.root, norms.bad)
        for _ in range(2):  # two launches of one step are one record
            stepper({"x": x, "m": m, "g": up(g)}, {"lr": 0.1, "beta": 0.9}, norms, norms.root, guard)
        guard.commit()
        taken.append(not all(np.array_equal(down(a), b) for a, b in zip((*x, *m), before, strict=True)))
    return guard, taken


@pytest.mark.parametrize("steps", [(), (1,), (3,), (1, 3), (3, 4, 5), (0, 1, 2, 3, 4, 5)])
def test_a_guard_keeps_bad_steps_from_being_taken_and_remembers_the_first(steps):
    with forbid_sync():
        guard, taken = bad_at(*steps)
        assert isinstance(guard, DeviceGuard)
        with pytest.raises(SyncError):
            guard.fetch()
    assert taken == [k not in steps for k in range(6)]
    expected = Trouble(steps[0], 0, 1 if steps[0] == 1 else 2, len(steps)) if steps else None
    assert guard.fetch() == expected
    assert guard.fetch() is None


def test_the_second_check_of_a_step_counts_too():
    guard, x = STRICT.guard(3), up([np.ones(2, "float32")])
    one = (Group.whole("x", [0], [(2,)]),)
    stepper = STRICT.stepper(parse(momentum), x, one)
    guard.begin(7)
    guard.note(STRICT.asarray(np.ones(3)), STRICT.asarray(np.int64(NONE)))
    guard.note(STRICT.asarray(np.array([1.0, 2.0, np.inf])))
    stepper({"x": x, "m": up([np.ones(2, "float32")]), "g": x}, {"lr": 1.0, "beta": 0.5}, guard=guard)
    np.testing.assert_array_equal(down(x[0]), 1)
    assert guard.fetch() == Trouble(7, 1, 2, 1)


def test_chains_have_the_host_s_bits():
    from numpy import exp, tanh

    @Chain
    def chain(x, y, *, rate):
        a = tanh(rate * x) + exp(y)
        b = a * a
        return a, b

    x, y = np.random.default_rng(0).standard_normal((2, 5, 7)).astype("float32")
    with forbid_sync():
        mine = chain(*up([x, y]), rate=0.3)
    for m, t in zip(mine, chain(x, y, rate=0.3), strict=True):
        np.testing.assert_array_equal(down(m), t)
        assert m.dtype == np.float32


def test_scatter_add_counts_every_time_an_entry_is_named():
    target, index, values = np.zeros((3, 2)), np.array([0, 2, 0]), np.arange(6.0).reshape(3, 2)
    mine = STRICT.asarray(target)
    with forbid_sync():
        STRICT.scatter_add(mine, STRICT.asarray(index), STRICT.asarray(values))
    HOST.scatter_add(target, index, values)
    np.testing.assert_array_equal(down(mine), target)
    with pytest.raises(TypeError, match="not on the device"):
        STRICT.scatter_add(mine, index, STRICT.asarray(values))


def test_norms_are_kept_with_what_the_guard_asks():
    assert BlockNorms._fields == ("root", "exponent", "bad")
    assert HOST.guard(3) is None
