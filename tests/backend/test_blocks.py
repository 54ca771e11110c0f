"""Blocks: tensors cut into boxes, norms of whole and of cut tensors, gradients at new lengths."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibng.backend import BlockNorms, Group
from minibng.backend.blocks import boxes
from minibng.backend.guard import NONE
from minibng.backend.kernel import parse

NORMS = (1, 2, math.inf)
cuts = st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))


def units(*shapes, axis=-1):
    """One group: the entries of arrays of these shapes that share an index of the first or last axis."""
    n = shapes[0][axis]
    rest = [math.prod(s) // n for s in shapes]
    return Group("u", tuple(range(len(shapes))), tuple((r, n, 1) if axis else (1, n, r) for r in rest))


def norms_of(device, tensors, groups, norm=2):
    """The norms as the host's, worked out on a device without waiting."""
    tensors = device.arrays(tensors)
    with device.no_sync():
        found = device.backend.block_norms(tensors, groups, norm)
    return device.host(found)


def scaled(device, tensors, groups, norms, lengths):
    """The tensors with blocks of these lengths, as the host's."""
    tensors, lengths = device.arrays(tensors), device.array(np.asarray(lengths, "float64"))
    norms = BlockNorms(device.array(norms.root), device.array(norms.exponent))
    with device.no_sync():
        out = device.backend.scale_blocks(tensors, groups, norms, lengths)
    return device.host(out)


@given(cuts, st.integers(1, 40))
def test_boxes_cover_a_tensor_exactly_once_in_contiguous_stretches(cut, most):
    size = math.prod(cut)
    block = np.broadcast_to(np.arange(cut[1])[:, None], cut).reshape(-1)
    found = list(boxes(cut, most))
    assert [i for box in found for i in range(box.start, box.stop)] == list(range(size))
    for box in found:
        assert 0 < box.stop - box.start == math.prod(box.shape) <= most
        own = np.broadcast_to(np.arange(box.first, box.last)[:, None], box.shape).reshape(-1)
        np.testing.assert_array_equal(own, block[box.start : box.stop])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("axis", [0, -1])
def test_norms_of_cut_blocks_are_those_of_each_alone(dtype, norm, axis, device):
    rng = np.random.default_rng(0)
    shapes = [(3000, 7), (7,)] if axis else [(7, 40, 90), (7, 2)]
    tensors = [rng.standard_normal(s).astype(dtype) for s in shapes]
    tensors[0][..., 3] *= 100  # float16 squares overflow its own range here
    got = norms_of(device, tensors, [units(*shapes, axis=axis)], norm).values()
    for j in range(7):
        own = np.concatenate([np.take(t, j, axis=axis).ravel() for t in tensors]).astype("float64")
        assert got[j] == pytest.approx(np.linalg.norm(own, norm), rel=1e-6 if dtype != "float64" else 1e-14)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_rescue_of_one_column_changes_no_bit_of_the_others(norm, dtype, device):
    rng = np.random.default_rng(1)
    g = rng.standard_normal((500, 6)).astype(dtype)
    before = norms_of(device, [g], [units(g.shape)], norm)
    tiny = np.finfo(dtype).smallest_subnormal
    g[:, 1], g[:, 2], g[:, 4] = tiny, np.finfo(dtype).max, 0
    after = norms_of(device, [g], [units(g.shape)], norm)
    for kept in (0, 3, 5):
        assert (after.root[kept], after.exponent[kept]) == (before.root[kept], before.exponent[kept])
    power = {1: 500, 2: math.sqrt(500), math.inf: 1}[norm]
    assert after.root[4] == 0
    ones = scaled(device, [g], [units(g.shape)], after, np.ones(6))[0].astype("float64")
    np.testing.assert_allclose(np.linalg.norm(ones, norm, axis=0), [1, 1, 1, 1, 0, 1], rtol=1e-6)
    np.testing.assert_allclose(ones[:, 1:3], 1 / power, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("norm", NORMS)
def test_what_is_not_finite_shows_in_its_own_block_alone(bad, norm, device):
    g = np.ones((9, 4), "float32")
    g[5, 2] = bad
    found = norms_of(device, [np.ones(3, "float32"), g], [Group.whole("a", [0], [(3,)]), second(units(g.shape))], norm)
    assert np.isfinite(found.root).tolist() == [True, True, True, False, True]
    fine = norms_of(device, [g[:5]], [units((5, 4))], norm)
    assert np.isfinite(fine.root).all()
    if device.backend.on_host:
        assert found.bad is fine.bad is None
    else:
        assert (found.bad, fine.bad) == (3, NONE) and found.bad.dtype == np.int64


def second(group):
    """The same group of the tensor after the first."""
    return Group(group.name, (1,), group.cuts)


def test_the_sum_of_equal_squares_keeps_its_accuracy_however_it_is_cut(device):
    for shape in [(16_384, 2), (100_003, 3)]:
        g = np.full(shape, 0.1, "float32")
        got = norms_of(device, [g], [units(shape)]).root
        np.testing.assert_allclose(got, float(g[0, 0]) * math.sqrt(shape[0]), rtol=20 * 2.0**-24)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_single_entries_become_plus_or_minus_their_length(dtype, device):
    g = np.array([3e-30, -2.0, 0.0, 5.0], dtype)
    group = Group("c", (0,), ((1, 4, 1),))
    norms = norms_of(device, [g], [group])
    out = scaled(device, [g], [group], norms, [0.25, 0.5, 1.0, 5.0])[0]
    assert out.tolist() == [0.25, -0.5, 0.0, 5.0] and out.dtype == dtype


def test_columns_that_keep_their_length_keep_their_bits(device):
    g = np.random.default_rng(2).standard_normal((50, 3)).astype("float32")
    norms = norms_of(device, [g], [units(g.shape)])
    lengths = norms.values()
    lengths[1] = 1.0
    out = scaled(device, [g], [units(g.shape)], norms, lengths)[0]
    np.testing.assert_array_equal(out[:, [0, 2]], g[:, [0, 2]])
    assert np.linalg.norm(out[:, 1]) == pytest.approx(1, rel=1e-6)


def test_a_long_step_along_a_tiny_column_does_not_overflow_on_the_way(device):
    g = np.full((4, 2), [1e-10, 1.0], "float32")
    group = units(g.shape)
    out = scaled(device, [g], [group], norms_of(device, [g], [group]), [2e30, 2.0])[0]
    np.testing.assert_allclose(out, np.full((4, 2), [1e30, 1.0]), rtol=1e-6)


def shrink(g, x, *, rate):
    x = x - rate * g
    return x


def test_a_scalar_may_differ_from_tensor_to_tensor(device):
    x, g = device.arrays([np.zeros(3), np.zeros(2)]), device.arrays([np.ones(3), np.ones(2)])
    groups = [Group.whole("all", [0, 1], [(3,), (2,)])]
    stepper = device.backend.stepper(parse(shrink, readonly=("g",)), x, groups)
    with device.no_sync():
        stepper({"g": g, "x": x}, {"rate": [0.5, 2.0]})
    assert [a.tolist() for a in device.host(x)] == [[-0.5] * 3, [-2.0] * 2]


def test_cut_blocks_are_scaled_piece_by_piece_as_in_one(device):
    rng = np.random.default_rng(3)
    shape = (70_000, 5)  # more than one piece
    g, x = device.arrays([rng.standard_normal(shape), np.zeros(shape)])
    group, lengths = units(shape), device.array(np.arange(1.0, 6.0))
    with device.no_sync():
        norms = device.backend.block_norms([g], [group])
        stepper = device.backend.stepper(parse(shrink, readonly=("g",)), [x], [group])
        stepper({"g": [g], "x": [x]}, {"rate": 1.0}, norms, lengths)
        (out,) = device.backend.scale_blocks([g], [group], norms, lengths)
    np.testing.assert_array_equal(device.host(-x), device.host(out))


def test_norms_beyond_the_range_of_a_double_are_told_by_their_exponent(device):
    g = [np.full(4, 1e308)]
    norms = norms_of(device, g, [Group.whole("g", [0], [(4,)])])
    assert norms.values()[0] == math.inf and norms.root[0] < 2 and norms.exponent[0] < 0
    assert isinstance(norms, BlockNorms)
