"""The normalizer N on its own: the invariants I1 to I7 of the theory, over every exponent of every dtype."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minibng as bng
from minibng.optim import NonFiniteError, normalize_blocks

ALL_DTYPES = ["float16", "float32", "float64"]
BITS = {"float16": (10, 5, np.uint16), "float32": (23, 8, np.uint32), "float64": (52, 11, np.uint64)}
all_dtypes = pytest.mark.parametrize("of", ALL_DTYPES)


def normalized(device, every, **settings):
    """N of blocks of the host, on a device and back."""
    return device.host(normalize_blocks(device.arrays(every), **settings))


def N(device, g):
    return normalized(device, [g])[0]


def half_ulp(of):
    return float(np.finfo(of).eps) / 2


def bound(g):
    """I1: how far from 1 the norm of the direction may lie."""
    smallest = float(np.finfo(g.dtype).smallest_subnormal)
    return (4 + math.sqrt(min(g.size, 16384))) * half_ulp(g.dtype) + math.sqrt(g.size) * smallest


def off_by(u):
    """|‖u‖ − 1|, in integers: exact but for 2⁻¹⁰⁰."""
    squares = sum(int(math.ldexp(v, 100)) ** 2 for v in u.ravel().tolist())
    return abs(float(Fraction(math.isqrt(squares), 1 << 100) - 1))


def random_bits(of, size, seed, low=0.0, high=1.0):
    """Finite numbers of both signs, exponents uniform over a part of the range; 0 is all subnormals."""
    mantissa, exponent, unsigned = BITS[of]
    rng = np.random.default_rng(seed)
    top = 2**exponent - 1  # the exponent field of infinities and NaNs
    fields = rng.integers(int(low * (top - 1)), int(high * (top - 1)), size, endpoint=True)
    pattern = fields.astype(np.uint64) << np.uint64(mantissa)
    pattern |= rng.integers(0, 2**mantissa, size, dtype=np.uint64)
    pattern |= rng.integers(0, 2, size, dtype=np.uint64) << np.uint64(mantissa + exponent)
    return pattern.astype(unsigned).view(of)


@st.composite
def blocks(draw, dtypes=tuple(ALL_DTYPES), most=70):
    """One block with entries of any exponents, or of a window of exponents, and some zeros."""
    of, size = draw(st.sampled_from(dtypes)), draw(st.integers(1, most))
    low, high = sorted((draw(st.floats(0, 1)), draw(st.floats(0, 1))))
    g = random_bits(of, size, draw(st.integers(0, 2**32 - 1)), low, high)
    g[draw(st.lists(st.integers(0, size - 1), max_size=5))] = 0
    return g


seeds = st.integers(0, 2**32 - 1)


# --- I1: unit length -------------------------------------------------------------------------------------


@given(blocks())
def test_the_direction_has_length_one_whatever_the_exponents(device, g):
    u = N(device, g)
    if np.any(g):
        assert off_by(u) <= bound(g)
    else:
        assert not np.any(u)


@all_dtypes
@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_constant_arrays_at_every_power_of_two(device, of, size):
    info = np.finfo(of)
    powers = [np.array(float(info.smallest_subnormal), of)]
    while np.isfinite(powers[-1]) and powers[-1] <= float(info.max) / 2:
        powers.append(powers[-1] * np.array(2, of))
    every = normalized(device, [np.full(size, c) for c in powers])
    assert len(every) == info.maxexp - info.minexp + info.nmant
    entry = every[0][0]
    assert off_by(every[0]) <= bound(every[0])
    assert all(np.all(u == entry) for u in every)  # I2: the power of two is not seen


@all_dtypes
@pytest.mark.parametrize("size", [1, 2, 3, 16383, 16384, 16385, 40000, 100000])
@pytest.mark.parametrize("low, high", [(0, 0), (0, 0.02), (0, 1), (0.4, 0.6), (0.98, 1)], ids=str)
def test_large_blocks_have_length_one(device, of, size, low, high):
    g = random_bits(of, size, size, low, high)
    assert off_by(N(device, g)) <= bound(g)


@all_dtypes
def test_equal_entries_at_both_ends_of_the_range_have_length_one(device, of):
    info = np.finfo(of)
    for c in (info.smallest_subnormal, info.tiny, info.max):
        for size in (2, 16384, 16385, 100000):
            assert off_by(N(device, np.full(size, c, of))) <= bound(np.empty(size, of))


@given(st.sampled_from(ALL_DTYPES), seeds)
def test_a_block_of_one_entry_gives_exactly_its_sign(device, of, seed):
    g = random_bits(of, 1, seed)
    assert N(device, g)[0] == np.sign(g)[0]


@all_dtypes
def test_smallest_and_largest_single_entries_give_exactly_one(device, of):
    info = np.finfo(of)
    for c in (info.smallest_subnormal, info.tiny, info.max):
        assert N(device, np.array([c]))[0] == 1 and N(device, np.array([-c]))[0] == -1
        assert N(device, np.array([0, c, 0], of)).tolist() == [0, 1, 0]


# --- I8: zero and empty blocks ---------------------------------------------------------------------------


@all_dtypes
@pytest.mark.parametrize("shape", [(), (1,), (3, 2), (0,), (0, 4), (20000,)], ids=str)
def test_a_zero_or_empty_block_gives_zeros(device, of, shape):
    for zero in (0.0, -0.0):
        u = N(device, np.full(shape, zero, of))
        assert u.shape == shape and u.dtype == of and not np.any(u)
    assert normalized(device, []) == []


# --- I2 to I7 --------------------------------------------------------------------------------------------


@given(blocks(), st.integers(-2200, 2200))
def test_a_power_of_two_is_not_seen_bit_for_bit(device, g, k):
    with np.errstate(over="ignore", under="ignore"):
        scaled = np.ldexp(g, k)
        exact = np.array_equal(np.ldexp(scaled, -k), g) and np.all(np.isfinite(scaled))
    u = N(device, g)
    normal = np.all((u == 0) | (np.abs(u) >= np.finfo(g.dtype).tiny)) and np.array_equal(u == 0, g == 0)
    if exact and normal:
        assert np.array_equal(N(device, scaled), u)


@given(st.sampled_from(ALL_DTYPES), seeds, st.integers(1, 3000), st.integers(-2000, 2000))
def test_a_power_of_two_is_not_seen_where_nothing_becomes_subnormal(device, of, seed, size, k):
    """As above, with numbers that always meet its conditions."""
    info = np.finfo(of)
    g = np.random.default_rng(seed).choice(np.linspace(0.5, 1, 100), size).astype(of)
    k = min(max(k, info.minexp + 2), info.maxexp - 2)
    assert np.array_equal(N(device, np.ldexp(g, k)), N(device, g))


@given(st.sampled_from(ALL_DTYPES), seeds, st.floats(0.01, 100))
def test_any_positive_factor_is_not_seen_to_rounding(device, of, seed, c):
    g = np.random.default_rng(seed).standard_normal(50).astype(of)
    assert np.abs(N(device, g * np.array(c, of)).astype(float) - N(device, g)).max() <= 4 * half_ulp(of)


@given(blocks(dtypes=("float32",)))
def test_the_product_with_the_gradient_is_its_norm(device, g):
    g = g * np.float32(2.0**-20)
    wide = g.astype(float)
    norm = np.linalg.norm(wide)
    if norm > 0:
        assert abs(N(device, g).astype(float) @ wide - norm) <= 2 * bound(g) * norm


@given(blocks())
def test_the_opposite_gradient_gives_the_opposite_direction_bit_for_bit(device, g):
    assert np.array_equal(N(device, -g), -N(device, g))


@given(blocks())
def test_a_direction_is_its_own_direction_to_rounding(device, g):
    u = N(device, g)
    assert np.abs(N(device, u).astype(float) - u.astype(float)).max() <= 2 * bound(g)


@given(st.lists(blocks(dtypes=("float32",)), min_size=2, max_size=5), seeds)
def test_blocks_do_not_see_one_another_bit_for_bit(device, every, seed):
    changed = [random_bits("float32", g.size, seed) for g in every]
    before = normalized(device, every)
    for i, g in enumerate(every):
        alone = [g if j == i else other for j, other in enumerate(changed)]
        assert np.array_equal(normalized(device, alone)[i], before[i])
        assert np.array_equal(N(device, g), before[i])


@given(st.lists(blocks(), min_size=2, max_size=5), st.randoms(use_true_random=False))
def test_permuting_blocks_permutes_the_result_to_rounding(device, every, random):
    order = list(range(len(every)))
    random.shuffle(order)
    before, after = normalized(device, every), normalized(device, [every[i] for i in order])
    for j, i in enumerate(order):
        assert np.abs(after[j].astype(float) - before[i].astype(float)).max() <= 2 * bound(every[i])


@given(seeds)
def test_a_rotation_of_the_gradient_rotates_the_direction(device, seed):
    rng = np.random.default_rng(seed)
    rotation, g = np.linalg.qr(rng.standard_normal((6, 6)))[0], rng.standard_normal(6)
    np.testing.assert_allclose(N(device, rotation @ g), rotation @ N(device, g), rtol=0, atol=1e-14)


# --- the interface ---------------------------------------------------------------------------------------


@given(st.lists(blocks(), min_size=1, max_size=4))
def test_inputs_are_left_alone_and_shapes_and_dtypes_are_kept(device, every):
    copies = [g.reshape(1, -1, 1) for g in every]
    every = [device.array(g.copy()) for g in copies]
    made = normalize_blocks(every)
    assert [(u.shape, u.dtype) for u in made] == [(g.shape, g.dtype) for g in every]
    assert [g.tobytes() for g in device.host(every)] == [c.tobytes() for c in copies]
    assert not any(np.may_share_memory(u, g) for u, g in zip(made, every, strict=True))


@all_dtypes
def test_read_only_and_strided_arrays_are_taken_as_they_are(device, of):
    g = np.random.default_rng(0).standard_normal((6, 4)).astype(of)
    want = N(device, g)
    frozen = g.copy()
    frozen.setflags(write=False)
    assert np.array_equal(N(device, frozen), want)
    g = device.array(g)
    for other in (np.stack([g, g], axis=2)[:, :, 0], g.T.copy().T):
        assert not other.flags.c_contiguous
        (u,) = device.host(normalize_blocks([other]))
        np.testing.assert_allclose(u, want, rtol=4 * np.finfo(of).eps)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(1,), (3, 3), (20000,)], ids=str)
@all_dtypes
def test_a_number_that_is_not_finite_is_refused_by_the_name_of_its_array(device, of, shape, bad):
    arrays = [np.ones(shape, of), np.ones(shape, of), np.ones(shape, of)]
    arrays[1].flat[-1] = bad
    with pytest.raises(NonFiniteError, match=r"\b1\b"), bng.debug():
        normalized(device, arrays)


def test_nan_is_found_beside_numbers_whose_squares_overflow(device):
    for other in (1e-300, 1e300):
        with pytest.raises(NonFiniteError), bng.debug():
            N(device, np.array([other, np.nan, other]))


def test_nobody_waits_for_blocks_on_a_device(device):
    blocks = [device.array(np.array([3.0, 4.0])), device.array(np.array([np.nan, 1.0]))]
    if device.name == "cpu":
        blocks.pop()
    with device.no_sync():
        first, *others = normalize_blocks(blocks)
    np.testing.assert_allclose(device.host(first), [0.6, 0.8], rtol=1e-15)
    assert all(np.isnan(device.host(a)).all() for a in others)


@pytest.mark.parametrize(
    "bad", [np.arange(3), np.array([True]), np.array(["a"]), np.ones(2, complex)], ids=lambda a: str(a.dtype)
)
def test_arrays_that_are_not_floating_are_refused_by_number_and_dtype(bad):
    with pytest.raises(TypeError, match=f"(?s)1.*{bad.dtype}"):
        normalize_blocks([np.ones(2), bad])


def test_a_floating_dtype_that_is_not_supported_is_refused_by_name():
    if np.dtype(np.longdouble) == np.float64:
        pytest.skip("long double is double here")
    with pytest.raises(TypeError, match=str(np.dtype(np.longdouble))):
        normalize_blocks([np.ones(2), np.ones(2, np.longdouble)])


def test_the_root_mean_square_can_be_made_one(device):
    g = [np.array([3.0, 4.0]), np.zeros(3)]
    unit, zero = normalized(device, g, norm="rms")
    assert np.isclose(np.sqrt(np.mean(unit**2)), 1) and not zero.any()
    with pytest.raises(ValueError, match="norm is 2, 'rms', 1 or inf, got 3"):
        normalized(device, g, norm=3)


@pytest.mark.parametrize("size", [1000, 4096, 4097, 8192, 16_384, 16_385, 100_000])
def test_equal_entries_whose_roundings_all_go_one_way_keep_the_bound(device, dtype, size):
    unit = np.finfo(dtype).eps / 2
    for value in np.random.default_rng(size).uniform(1, 2, 20):
        (u,) = normalized(device, [np.full(size, value, dtype)])
        length = np.sqrt(np.sum(u.astype(np.longdouble) ** 2))
        assert abs(float(length - 1)) <= (4 + math.sqrt(min(size, 16_384))) * unit
