"""Norms of blocks by the CUDA kernels, against exact sums and against the host's; two launches whatever the blocks."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minibng.backend import cuda, get_backend
from minibng.backend.base import Group
from minibng.backend.guard import NONE
from minibng.params import partition

CPU = get_backend("cpu")
NORMS = [1, 2, math.inf]
DTYPES = ["float16", "float32", "float64"]


def up(gpu, arrays):
    return [gpu.asarray(a) for a in arrays]


def measure(gpu, arrays, groups, norm=2):
    before = gpu.launches
    norms = gpu.block_norms(up(gpu, arrays), groups, norm)
    assert gpu.launches - before == 1 + any(group.count for group in groups)
    return norms


def blocks_of(arrays, groups):
    """The entries of each block, in float64: the definition of a Group, written out."""
    for group in groups:
        views = [arrays[i].reshape(cut) for i, cut in zip(group.tensors, group.cuts, strict=True)]
        for j in range(group.count):
            yield np.concatenate([v[:, j].ravel() for v in views]).astype("float64")


def exact(block, norm):
    """A norm of finite numbers as (mantissa, exponent): nothing is rounded but the root."""
    sizes = [Fraction(abs(x)) for x in block.tolist()] or [Fraction(0)]
    if norm == math.inf:
        return max(sizes)
    return sum(sizes) if norm == 1 else sum(s * s for s in sizes)


def assert_right(norms, arrays, groups, norm):
    root, exponent = norms.root.get(), norms.exponent.get()
    assert root.dtype == np.float64 and exponent.dtype == np.int32
    for k, block in enumerate(blocks_of(arrays, groups)):
        got, want = Fraction(root[k]) / Fraction(2) ** int(exponent[k]), exact(block, norm)
        error = got**2 - want if norm == 2 else got - want
        assert (
            abs(error) <= want * Fraction(len(block) + 8) * Fraction(1, 2**53) / 4 if norm != math.inf else error == 0
        )
    assert norms.bad.get() == NONE


SHAPES = {
    "1.W": (300, 70),
    "1.b": (70,),
    "2.W": (3, 5, 40, 10),
    "3.t": (500, 40),
    "3.s": (),
    "4.e": (0, 7),
    "5.v": (9001,),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("blocks", ["layer", "tensor", "unit", "coordinate", "global", "rows"])
def test_norms_of_every_partition(gpu, blocks, norm, dtype):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s).astype(dtype) for s in SHAPES.values()]
    axes = {"3.t": 0, "3.s": 0} if blocks == "rows" else {}
    shapes = SHAPES if blocks != "rows" else {"3.t": (500, 40), "5.v": (9001,)}
    if blocks == "rows":
        arrays = [arrays[3], arrays[6]]
    groups = partition(shapes, "unit" if blocks == "rows" else blocks, unit_axes=axes)
    if blocks == "coordinate" and dtype != "float64":
        groups = [Group(g.name, g.tensors, g.cuts) for g in groups]
    norms = measure(gpu, arrays, groups, norm)
    host = CPU.block_norms(arrays, groups, norm)
    np.testing.assert_allclose(norms.root.get(), host.root, rtol=1e-6 if dtype != "float64" else 1e-14)
    if blocks in ("layer", "unit"):
        assert_right(norms, arrays, groups, norm)
    if blocks == "coordinate":
        np.testing.assert_array_equal(norms.root.get(), np.concatenate([abs(a.ravel()) for a in arrays]))


@settings(max_examples=12)
@given(st.data())
def test_any_cut_is_tiled_without_gap_or_overlap(one_gpu, data):
    """Small tiles, so that small tensors have many: columns, rows and runs all come in several chunks."""
    number = st.integers(0, 9)
    n = data.draw(st.integers(0, 40))
    cuts = tuple((data.draw(number), n, data.draw(st.integers(0, 70))) for _ in range(data.draw(st.integers(1, 3))))
    dtype = data.draw(st.sampled_from(DTYPES))
    norm = data.draw(st.sampled_from(NORMS))
    rng = np.random.default_rng(n)
    arrays = [rng.integers(-9, 9, cut).astype(dtype) for cut in cuts]
    groups = [Group("g", tuple(range(len(cuts))), cuts)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "NORM_TILE", data.draw(st.sampled_from([1, 7, 64, 4096])))
        one_gpu._norm_tables.cache_clear()
        norms = measure(one_gpu, arrays, groups, norm)
        one_gpu._norm_tables.cache_clear()
    expected = [float(np.linalg.norm(b, norm)) if b.size else 0.0 for b in blocks_of(arrays, groups)]
    np.testing.assert_allclose(norms.root.get(), expected, rtol=1e-15)  # sums of whole numbers are exact


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("size", [1e-320, 1e-200, 1e-150, 1.0, 1e150, 1e200, 1e307])
def test_doubles_neither_overflow_nor_underflow(gpu, size, norm):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((200, 12)) * size, rng.standard_normal(12) * size]
    arrays[0][:, 3] *= 1e-160 if size > 1 else 1
    arrays[0][:, 4] = 0
    arrays[1][4] = 0
    for blocks in ("unit", "layer"):
        groups = partition({"a.W": (200, 12), "a.b": (12,)}, blocks)
        norms, host = measure(gpu, arrays, groups, norm), CPU.block_norms(arrays, groups, norm)
        assert_right(norms, arrays, groups, norm)
        np.testing.assert_array_equal(norms.exponent.get(), host.exponent)


@pytest.mark.parametrize("size", [1e-45, 1e-38, 1e-30, 1e38])
def test_floats_need_no_rescue(gpu, size):
    arrays = [(np.random.default_rng(0).uniform(1, 3, (3, 4000)) * size).astype("float32")]
    groups = [Group.whole("a", [0], [(3, 4000)])]
    norms = measure(gpu, arrays, groups)
    assert norms.exponent.get() == [0]
    assert_right(norms, arrays, groups, 2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_named(gpu, value, norm, dtype):
    for blocks, first in [("unit", 7), ("layer", 0), ("coordinate", 5007), ("global", 0)]:
        array = np.ones((1000, 10), dtype)
        array[500, 7] = array[501, 9] = value
        groups = partition({"a.W": array.shape}, blocks)
        norms = measure(gpu, [array], groups, norm)
        assert norms.bad.get() == first
        assert norms.bad.shape == () and norms.bad.dtype == np.int64
        finite = np.isfinite(norms.root.get())
        assert (~finite).sum() == (1 if blocks in ("layer", "global") else 2) and not finite[first]


def test_a_finite_gradient_whose_norm_is_beyond_double_is_finite_and_can_stay(gpu):
    array = np.full(4, 1.5e308)
    groups = [Group.whole("a", [0], [(4,)])]
    norms = measure(gpu, [array], groups)
    assert norms.bad.get() == NONE and norms.values().get() == [math.inf]
    assert (norms.root.get(), norms.exponent.get()) == CPU.block_norms([array], groups)[:2]
    kept = gpu.scale_blocks(up(gpu, [array]), groups, norms, norms.values())[0]
    np.testing.assert_array_equal(kept.get(), array)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_order_of_threads_and_blocks_changes_no_bit(make_gpu, dtype):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s).astype(dtype) for s in SHAPES.values()]
    for blocks in ("layer", "unit", "global"):
        groups = partition(SHAPES, blocks)
        runs = [measure(make_gpu(seed=seed), arrays, groups).root.get().tobytes() for seed in (0, 1, 2, 3)]
        assert len(set(runs)) == 1


def test_no_blocks_and_empty_blocks(gpu):
    nothing = gpu.block_norms([], [])
    assert nothing.root.shape == (0,) and nothing.bad.get() == NONE
    empty = np.zeros((0, 3))
    norms = measure(gpu, [empty], partition({"a.W": (0, 3)}, "unit"))
    assert norms.root.get().tolist() == [0.0] * 3 and norms.bad.get() == NONE
    assert measure(gpu, [np.zeros((3, 0))], partition({"a.W": (3, 0)}, "unit")).root.shape == (0,)


def test_arrays_of_several_dtypes_and_layouts(gpu):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((30, 40)).astype(d) for d in DTYPES]
    groups = [Group.whole(d, [i], [(30, 40)] * 3) for i, d in enumerate(DTYPES)]
    norms = gpu.block_norms([a.T for a in up(gpu, arrays)], groups)
    np.testing.assert_allclose(norms.root.get(), [np.linalg.norm(a.astype("float64")) for a in arrays], rtol=1e-14)
    out = gpu.scale_blocks(up(gpu, arrays), groups, norms, gpu.asarray(np.ones(3)))
    for a, o in zip(arrays, out, strict=True):
        assert o.dtype == a.dtype
        assert np.linalg.norm(o.get().astype("float64")) == pytest.approx(1, rel=10 * float(np.finfo(a.dtype).eps))


# Lengths ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("blocks", ["layer", "unit", "coordinate", "global"])
def test_blocks_are_scaled_as_on_the_host_in_one_launch(gpu, blocks, dtype):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s).astype(dtype) for s in SHAPES.values()]
    arrays[0][:, 2] = 0
    arrays[1][2] = 0
    groups = partition(SHAPES, blocks)
    norms = CPU.block_norms(arrays, groups)
    lengths = rng.uniform(0.5, 2, len(norms.root))
    lengths[::3] = norms.root[::3]
    on_gpu = gpu.block_norms(up(gpu, arrays), groups)._replace(root=gpu.asarray(norms.root))
    before = gpu.launches
    got = gpu.scale_blocks(up(gpu, arrays), groups, on_gpu, gpu.asarray(lengths))
    assert gpu.launches - before == 1
    expected = CPU.scale_blocks(arrays, groups, norms, lengths)
    for have, want, original in zip(got, expected, arrays, strict=True):
        assert have.dtype == want.dtype and have.shape == want.shape and have is not original
        if dtype == "float64":
            np.testing.assert_array_equal(have.get(), want)
        else:  # the host multiplies in float32, the device in double
            np.testing.assert_array_max_ulp(have.get(), want, 1)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_every_half_survives_and_blocks_that_keep_their_length_keep_their_bits(gpu, dtype):
    bits = np.arange(2**16, dtype=np.uint16)
    arrays = [bits.view("float16").astype(dtype)]
    groups = [Group.whole("a", [0], [(2**16,)])]
    ones = gpu.block_norms(up(gpu, [np.array([1.0])]), [Group.whole("a", [0], [(1,)])])
    out = gpu.scale_blocks(up(gpu, arrays), groups, ones, gpu.asarray(np.ones(1)))[0].get()
    nan = np.isnan(arrays[0])
    assert out[~nan].tobytes() == arrays[0][~nan].tobytes() and np.isnan(out[nan]).all()


def test_halves_are_rounded_as_numpy_rounds_doubles(gpu):
    rng = np.random.default_rng(0)
    g = (rng.standard_normal(20_000) * np.exp(rng.uniform(-14, 8, 20_000))).astype("float16")
    groups, factor = [Group.whole("a", [0], [g.shape])], 0.7310585786300049
    norms = gpu.block_norms(up(gpu, [g]), groups)._replace(root=gpu.asarray(np.ones(1)))
    out = gpu.scale_blocks(up(gpu, [g]), groups, norms, gpu.asarray(np.array([factor])))[0].get()
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(out, (g.astype("float64") * factor).astype("float16"))
        large = gpu.scale_blocks(up(gpu, [g]), groups, norms, gpu.asarray(np.array([1e4])))[0].get()
        np.testing.assert_array_equal(large, (g.astype("float64") * 1e4).astype("float16"))


def test_single_entries_become_plus_or_minus_their_length(gpu):
    for dtype in ("float32", "float64"):
        g = np.array([3e-30, -2.0, 0.0, 5.0], dtype)
        group = Group("c", (0,), ((1, 4, 1),))
        norms = gpu.block_norms(up(gpu, [g]), [group])
        out = gpu.scale_blocks(up(gpu, [g]), [group], norms, gpu.asarray(np.array([0.25, 0.1, 1.0, 5.0])))[0]
        np.testing.assert_array_equal(out.get(), np.array([0.25, -0.1, 0.0, 5.0], dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(6,), (6, 3)])
def test_lengths_far_from_the_norms_lose_nothing_on_the_way(gpu, shape, dtype):
    least, most = (1e-44, 1e38) if dtype == "float32" else (5e-324, 1.7e308)
    groups = partition({"a.W": shape}, "unit" if len(shape) > 1 else "layer")
    for size, length in [(least, 1e30), (least, most), (most, 1e-30), (1.0, most / 8), (most, 1.0), (least, least)]:
        g = [np.full(shape, size, dtype)]
        host = CPU.block_norms(g, groups)
        lengths = np.full(len(host.root), length)
        on_gpu = gpu.block_norms(up(gpu, g), groups)
        got = gpu.scale_blocks(up(gpu, g), groups, on_gpu, gpu.asarray(lengths))[0].get()
        expected = CPU.scale_blocks(g, groups, host, lengths)[0]
        np.testing.assert_allclose(got, expected, rtol=4 * np.finfo(dtype).eps)
        np.testing.assert_allclose(
            got, length / math.sqrt(6), rtol=4 * np.finfo(dtype).eps, atol=np.finfo(dtype).smallest_subnormal
        )
