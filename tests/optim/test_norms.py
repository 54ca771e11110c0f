"""The four norms: I1 in each over every exponent, the identities I2 to I5, and what is not a number."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minibng as bng
from minibng import optim
from minibng.optim import NonFiniteError, normalize_blocks
from minibng.params import Params

NORMS = [2, "rms", 1, math.inf]
every_norm = pytest.mark.parametrize("p", NORMS, ids=str)
DTYPES = ["float16", "float32", "float64"]
BITS = {"float16": (10, 5, np.uint16), "float32": (23, 8, np.uint32), "float64": (52, 11, np.uint64)}
seeds = st.integers(0, 2**32 - 1)
norms = st.sampled_from(NORMS)


def normalized(device, every, **settings):
    """N of blocks of the host, on a device and back."""
    return device.host(normalize_blocks(device.arrays(every), **settings))


def N(device, g, p):
    return normalized(device, [g], norm=p)[0]


def length(u, p):
    """‖u‖ in integers, each entry exact to 2⁻¹⁰⁰."""
    parts = [abs(int(math.ldexp(v, 100))) for v in u.ravel().tolist()]
    if p in (1, math.inf):
        return Fraction(sum(parts) if p == 1 else max(parts), 1 << 100)
    squares = sum(v * v for v in parts) << 100
    return Fraction(math.isqrt(squares // (u.size if p == "rms" else 1)), 1 << 150)


def bound(g):
    """I1: (4 + √min(d, 16384))·υ + √d·s."""
    info = np.finfo(g.dtype)
    return (4 + math.sqrt(min(g.size, 16384))) * float(info.eps) / 2 + math.sqrt(g.size) * float(
        info.smallest_subnormal
    )


def off_by(u, p):
    return abs(float(length(u, p) - 1))


def random_bits(of, size, seed, low=0.0, high=1.0):
    """Finite numbers of both signs, exponents uniform over a part of the range; 0 is all subnormals."""
    mantissa, exponent, unsigned = BITS[of]
    rng = np.random.default_rng(seed)
    top = 2**exponent - 2
    fields = rng.integers(int(low * top), int(high * top), size, endpoint=True).astype(np.uint64)
    pattern = fields << np.uint64(mantissa) | rng.integers(0, 2**mantissa, size, dtype=np.uint64)
    pattern |= rng.integers(0, 2, size, dtype=np.uint64) << np.uint64(mantissa + exponent)
    return pattern.astype(unsigned).view(of)


@st.composite
def blocks(draw, dtypes=tuple(DTYPES), most=70):
    """One block with entries of a window of exponents, and some zeros."""
    of, size = draw(st.sampled_from(dtypes)), draw(st.integers(1, most))
    low, high = sorted((draw(st.floats(0, 1)), draw(st.floats(0, 1))))
    g = random_bits(of, size, draw(seeds), low, high)
    g[draw(st.lists(st.integers(0, size - 1), max_size=5))] = 0
    return g


# --- I1: unit length -----------------------------------------------------------------------------------------


@given(blocks(), norms)
def test_the_direction_has_length_one_in_its_norm_whatever_the_exponents(device, g, p):
    u = N(device, g, p)
    assert u.dtype == g.dtype and u.shape == g.shape
    if np.any(g):
        assert off_by(u, p) <= bound(g)
    else:
        assert not np.any(u)


@every_norm
@pytest.mark.parametrize("of", DTYPES)
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_constant_arrays_at_every_power_of_two(device, of, size, p):
    info = np.finfo(of)
    powers = [np.array(float(info.smallest_subnormal), of)]
    while np.isfinite(powers[-1]) and powers[-1] <= float(info.max) / 2:
        powers.append(powers[-1] * np.array(2, of))
    assert len(powers) == info.maxexp - info.minexp + info.nmant
    if of == "float64":  # 2,098 powers, of which every one near the ends and in the middle, and some between
        powers = [c for k, c in enumerate(powers) if k % 31 == 0 or min(abs(k - at) for at in (0, 52, 1074, 2097)) < 30]
    every = normalized(device, [np.full(size, c, of) for c in [*powers, info.max]], norm=p)
    assert off_by(every[0], p) <= bound(every[0]) and off_by(every[-1], p) <= bound(every[-1])
    assert all(np.array_equal(u, every[0]) for u in every[:-1])  # I2: the power of two is not seen


@every_norm
@pytest.mark.parametrize("of", DTYPES)
@pytest.mark.parametrize("size", [4097, 16385, 40000])
@pytest.mark.parametrize("low, high", [(0, 0), (0.45, 0.55), (0.98, 1)], ids=str)
def test_large_blocks_have_length_one(device, of, size, low, high, p):
    g = random_bits(of, size, size, low, high)
    assert off_by(N(device, g, p), p) <= bound(g)


@every_norm
@pytest.mark.parametrize("of", DTYPES)
def test_equal_entries_at_both_ends_of_the_range_have_length_one(device, of, p):
    info = np.finfo(of)
    for c in (info.smallest_subnormal, info.tiny, info.max):
        for size in (2, 4097, 16385):
            g = np.full(size, c, of)
            assert off_by(N(device, g, p), p) <= bound(g)


@given(blocks(most=1), norms)
def test_a_block_of_one_entry_gives_exactly_its_sign(device, g, p):
    assert N(device, g, p)[0] == np.sign(g[0])


@pytest.mark.parametrize("of", DTYPES)
def test_the_word_for_infinity_is_infinity(device, of):
    g = random_bits(of, 50, 3)
    assert all(np.array_equal(N(device, g, "inf"), N(device, g, infinity)) for infinity in (math.inf, np.inf))


# --- I2 to I5 in every norm ----------------------------------------------------------------------------------


@given(st.sampled_from(DTYPES), seeds, st.integers(1, 300), st.integers(-2000, 2000), norms)
def test_a_power_of_two_is_not_seen_bit_for_bit(device, of, seed, size, k, p):
    info = np.finfo(of)
    g = np.random.default_rng(seed).choice(np.linspace(0.5, 1, 100), size).astype(of)
    k = min(max(k, info.minexp + 2), info.maxexp - 2)
    assert np.array_equal(N(device, np.ldexp(g, k), p), N(device, g, p))


@given(blocks(), norms)
def test_the_opposite_gradient_gives_the_opposite_direction_bit_for_bit(device, g, p):
    assert np.array_equal(N(device, -g, p), -N(device, g, p))


@given(blocks(), norms)
def test_a_direction_is_its_own_direction_to_rounding(device, g, p):
    u = N(device, g, p).astype(float)
    again = N(device, N(device, g, p), p).astype(float)
    assert np.abs(again - u).max() <= 2 * bound(g) * max(1.0, np.abs(u).max())


@given(blocks(dtypes=("float32",)), norms)
def test_the_direction_points_along_the_gradient(device, g, p):
    """I3, any norm: u is a positive multiple of g, entry by entry to rounding."""
    if np.any(g):
        wide, u = g.astype(float), N(device, g, p).astype(float)
        factor = np.abs(u).max() / np.abs(wide).max()
        error = np.abs(u - factor * wide)
        info = np.finfo("float32")
        tiny = 2 * float(info.smallest_subnormal) * max(1.0, np.abs(u).max())  # lost before the scaling to u's length
        assert np.all(error <= 4 * float(info.eps) * np.abs(factor * wide) + tiny)


@given(st.sampled_from(["float32", "float64"]), seeds, st.integers(1, 200))
def test_norms_are_in_the_ratios_of_their_formulas(device, of, seed, size):
    """Where nothing leaves the range, against the formulas in float64."""
    g = np.random.default_rng(seed).standard_normal(size).astype(of)
    wide = g.astype(float)
    want = {
        2: math.sqrt(math.fsum(wide**2)),
        "rms": math.sqrt(math.fsum(wide**2) / size),
        1: math.fsum(np.abs(wide)),
        math.inf: np.abs(wide).max(),
    }
    for p, n in want.items():
        np.testing.assert_allclose(N(device, g, p), wide / n, rtol=2 * bound(g), atol=0)


# --- zeros, and what is not a number ---------------------------------------------------------------------------


@every_norm
@pytest.mark.parametrize("of", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (3, 2), (0,), (0, 4), (20000,)], ids=str)
def test_a_zero_or_empty_block_gives_zeros(device, of, shape, p):
    for zero in (0.0, -0.0):
        u = N(device, np.full(shape, zero, of), p)
        assert u.shape == shape and u.dtype == of and not np.any(u)
    assert normalized(device, [], norm=p) == []


@every_norm
@pytest.mark.parametrize("of", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("others", [0.0, 1e-300, 1.0, 6e4])
def test_a_number_that_is_not_finite_is_found_wherever_it_stands(device, of, others, bad, p):
    """A maximum drops NaN where the larger of two is chosen by a comparison."""
    for size, at in [(1, 0), (3, 0), (3, 1), (3, 2), (20_000, 0), (20_000, 16_384), (20_000, -1)]:
        arrays = [np.full(size, others).astype(of) for _ in range(3)]
        arrays[1][at] = bad
        with pytest.raises(NonFiniteError, match=r"\b1\b"), bng.debug():
            normalized(device, arrays, norm=p)


@every_norm
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("blocks", ["tensor", "unit", "coordinate", "global", [[2, 0], [1]]], ids=str)
@pytest.mark.parametrize("normalize", [None, "clip", "clip-global", "unit", "adaptive"])
def test_the_optimizer_finds_it_in_every_norm_partition_and_form(device, normalize, blocks, bad, p):
    """At once on the host, at `check` on a device, where nothing has changed either."""
    arrays = device.arrays([np.ones((4, 3)), np.ones(3), np.ones((2, 5))])
    gradient = device.arrays([np.zeros((4, 3)), np.ones(3), np.full((2, 5), 1e200)])
    opt = optim.Optimizer(arrays, optim.rules.Adam(), 0.1, normalize=normalize, norm=p, blocks=blocks, weight_decay=0.1)
    gradient[0][2, 1] = bad
    state = repr(opt.state_dict())
    block = "all" if blocks == "global" else "array 0"
    with pytest.raises(NonFiniteError, match=f"step 0.*{block}"):
        opt.step(gradient)
        opt.check()
    assert all(np.all(a == 1) for a in arrays) and opt.steps == 0 and repr(opt.state_dict()) == state
    gradient[0][2, 1] = 0.0
    opt.step(gradient)
    opt.check()
    assert opt.steps == 1 and all(np.all(np.isfinite(a)) for a in arrays)


# --- norms in the optimizer --------------------------------------------------------------------------------


@every_norm
@pytest.mark.parametrize("blocks", ["tensor", "global", [[0, 2], [1]], "unit"], ids=str)
def test_the_optimizer_tells_the_norms_of_its_last_gradient(kit, device, p, blocks, dtype):
    """(B,) numbers, in the order of `block_names`, whatever was then done to the gradient."""
    shapes = [(4, 3), (3,), (7,)]
    opt = optim.MomentumNG(kit.numbers(0, dtype, shapes=shapes), lr=0.1, norm=p, blocks=blocks)
    for seed in (1, 2):
        g = kit.numbers(seed, dtype, shapes=shapes)
        opt.step(g)
        flat = np.concatenate([a.ravel() for a in device.host(g)]).astype(float)
        want = [kit.norm(flat[b], p) for b in kit.entries(shapes, blocks)]
        assert len(opt.block_names) == len(set(opt.block_names)) == len(want)
        got = device.host(opt.norms.values())
        np.testing.assert_allclose(got, want, rtol=2e-6 if dtype == "float32" else 1e-14)


@pytest.mark.parametrize("p, length", [(2, 1.0), ("rms", math.sqrt(30)), (1, None), (math.inf, None)], ids=str)
def test_a_normalized_step_has_length_one_in_its_norm(kit, device, p, length):
    x = device.array(np.zeros(30))
    optim.SGDNG([x], lr=1.0, norm=p).step(kit.numbers(1, shapes=[(30,)]))
    x = device.host(x)
    assert abs(kit.norm(x, p) - 1) <= 1e-14
    if length is not None:
        assert abs(np.linalg.norm(x) - length) <= 1e-14 * length


@every_norm
def test_an_adaptive_step_has_the_length_of_its_parameters_in_that_norm(kit, device, p):
    x = kit.numbers(0, shapes=[(30,)])[0]
    before = x.copy()
    optim.SGDNGAdaptive([x], lr=0.25, norm=p).step(kit.numbers(1, shapes=[(30,)]))
    x, before = device.host([x, before])
    assert abs(kit.norm(before - x, p) / (0.25 * kit.norm(before, p)) - 1) <= 1e-14


@every_norm
@pytest.mark.parametrize("d", [1, 4, 100])
def test_the_floor_is_that_many_ones_in_that_norm(kit, device, p, d):
    x = device.array(np.zeros(d))
    optim.SGDNGAdaptive([x], lr=1.0, norm=p, floor=0.5).step(kit.numbers(1, shapes=[(d,)]))
    ones = {2: math.sqrt(d), "rms": 1, 1: d, math.inf: 1}[p]
    assert abs(kit.norm(device.host(x), p) / (0.5 * ones) - 1) <= 1e-14


@every_norm
def test_clipping_holds_a_gradient_to_its_length_in_that_norm(kit, device, p):
    g = device.host(kit.numbers(1, shapes=[(30,)])[0])
    for n in (0.7, 1.3):
        x, scaled = device.array(np.zeros(30)), n * g / kit.norm(g, p)
        optim.SGDClip([x], lr=1.0, clip=1.0, norm=p).step([device.array(scaled)])
        x = device.host(x)
        assert abs(kit.norm(x, p) - min(n, 1.0)) <= 1e-14
        if n < 1:
            assert np.array_equal(x, -scaled)


@every_norm
def test_clipping_of_everything_keeps_the_proportions_of_the_blocks(kit, device, p):
    g = kit.numbers(1, shapes=[(4,), (3, 2)])
    arrays = [np.zeros_like(a) for a in g]
    optim.SGD(arrays, lr=1.0, normalize="clip-global", clip=0.01, norm=p).step(g)
    moved, whole = (np.concatenate([a.ravel() for a in device.host(both)]) for both in (arrays, g))
    assert abs(kit.norm(moved, p) / 0.01 - 1) <= 1e-14
    np.testing.assert_allclose(moved, -whole * 0.01 / kit.norm(whole, p), rtol=1e-14)


@pytest.mark.parametrize("normalize", ["clip", "clip-global"])
def test_clipping_leaves_a_short_gradient_alone_bit_for_bit(kit, normalize, dtype):
    g = [a * 1e-3 for a in kit.numbers(1, dtype)]
    one, two = kit.numbers(0, dtype), kit.numbers(0, dtype)
    optim.Momentum(one, lr=0.3, normalize=normalize).step(g)
    optim.Momentum(two, lr=0.3).step(g)
    assert kit.same_bits(one, two)


@every_norm
def test_clipping_of_everything_neither_over_nor_underflows(kit, device, p, dtype):
    info = np.finfo(dtype)
    for c in (float(info.max), float(info.max) / 4, float(info.tiny)):
        g = device.arrays([np.full(5, c, dtype), np.full((2, 2), -c, dtype)])
        arrays = [np.zeros_like(a) for a in g]
        optim.SGD(arrays, lr=1.0, normalize="clip-global", clip=c / 8, norm=p).step(g)
        share = {2: 1 / 3, "rms": 1, 1: 1 / 9, math.inf: 1}[p] * (c / 8)
        for a, sign in zip(device.host(arrays), (-1, 1), strict=True):
            np.testing.assert_allclose(a.astype(float), sign * share, rtol=1e-5)


@every_norm
def test_clipping_of_everything_knows_blocks_that_were_rescaled_and_blocks_that_were_not(device, p):
    """The squares of one block leave the range, those of the others do not: all are shortened by one factor."""
    scales = [1e200, 1e140, 1.0, 1e-170]
    g = device.arrays([np.full(4, c) for c in scales])
    arrays = [np.zeros_like(a) for a in g]
    optim.SGD(arrays, lr=1.0, normalize="clip-global", clip=2.0, norm=p).step(g)
    longest = {2: 2e200, "rms": 1e200 / 2, 1: 4e200, math.inf: 1e200}[p]  # the rest is nothing beside it
    for x, c in zip(device.host(arrays), scales, strict=True):
        np.testing.assert_allclose(x, -2.0 * (c / longest), rtol=1e-14, atol=0)


@every_norm
def test_clipping_units_shortens_the_long_ones_and_leaves_the_others_bit_for_bit(kit, device, p):
    scales = np.array([1e-3, 1e3, 1e-200, 1e200, 0.0, 5e-324])
    g = [a * scales for a in device.host(kit.numbers(1, shapes=[(3, 6), (6,)]))]
    gradient = Params.of(device.arrays(dict(zip(("0.W", "0.b"), g, strict=True))))
    params = gradient.copy()
    params.flat[...] = 0
    optim.SGDClip(params, lr=1.0, norm=p, blocks="unit").step(gradient)
    W, b = device.host([params["0.W"], params["0.b"]])
    for j, c in enumerate(scales):
        x, column = np.append(W[:, j], b[j]), np.append(g[0][:, j], g[1][j])
        if c > 1:
            assert abs(kit.norm(x, p) - 1) <= 1e-14
            np.testing.assert_allclose(x / x[0], column / column[0], rtol=1e-14)
        else:
            assert np.array_equal(x, -column)


@pytest.mark.parametrize("bad", [0, 3, -1, "l2", "2", math.nan, None, [2]], ids=repr)
def test_another_norm_is_refused(bad):
    with pytest.raises((ValueError, TypeError), match="norm"):
        optim.SGDNG([np.ones(2)], lr=0.1, norm=bad)
    with pytest.raises((ValueError, TypeError), match="norm"):
        normalize_blocks([np.ones(2)], norm=bad)


@pytest.mark.parametrize("bad", ["units", "clip_global", "UNITY", 2, True], ids=repr)
def test_another_normalizer_is_refused(bad):
    with pytest.raises((ValueError, TypeError)):
        optim.Optimizer([np.ones(2)], optim.rules.SGD(), 0.1, normalize=bad)


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf, "1"], ids=repr)
def test_settings_of_clipping_everything_are_checked(bad):
    with pytest.raises((ValueError, TypeError), match="clip"):
        optim.SGD([np.ones(2)], lr=0.1, normalize="clip-global", clip=bad)


def test_clip_is_no_setting_of_the_others():
    for normalize in (None, "unit", "adaptive"):
        with pytest.raises((ValueError, TypeError), match="clip"):
            optim.SGD([np.ones(2)], lr=0.1, normalize=normalize, clip=2.0)
