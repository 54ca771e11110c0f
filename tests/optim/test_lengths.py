"""Facts of the normalized methods: lengths of steps (I9), zero blocks (I8), the scale of the loss (I10)."""

import math

import numpy as np
import pytest

from minibng import optim
from minibng.params import Params

HALF_ULP = 2.0**-53
NORMALIZED = pytest.mark.parametrize("normalized", ["NG", "NGAdaptive"])


def rounding(d):
    return (8 + math.sqrt(d)) * HALF_ULP


def directions(opt, x, grads):
    """Set x to 0 before every step, with lr = 1: then u = −x, and nothing is rounded to the spacing of x."""
    for g in grads:
        x[...] = 0
        opt.step([g])
        yield -x


def wild(device, steps, d):
    rng = np.random.default_rng(d)
    return [device.array(10.0 ** rng.uniform(-200, 200) * rng.standard_normal(d)) for _ in range(steps)]


def zeros(device, d, dtype="float64"):
    return device.array(np.zeros(d, dtype))


def length(x):
    return math.sqrt(math.fsum(v * v for v in x.tolist()))


@pytest.mark.parametrize("d", [1, 2, 50, 20000])
def test_sgd_ng_takes_steps_of_length_one(device, d):
    x = zeros(device, d)
    for u in directions(optim.SGDNG([x], lr=1.0), x, wild(device, 10, d)):
        assert abs(length(u) - 1) <= rounding(d)


@pytest.mark.parametrize("lr", [1e-6, 0.1, 3.0])
def test_sgd_ng_moves_each_block_by_the_learning_rate(device, lr):
    sizes = [1, 3, 1000]
    arrays = [zeros(device, d) for d in sizes]
    optim.SGDNG(arrays, lr=lr).step([wild(device, 1, d)[0] for d in sizes])
    for x in arrays:
        assert abs(length(x) / lr - 1) <= rounding(x.size)


@pytest.mark.parametrize("mu", [0.0, 0.5, 0.9, 0.99])
def test_momentum_ng_stays_within_its_geometric_sum(device, mu):
    x, d = zeros(device, 20), 20
    for t, u in enumerate(directions(optim.MomentumNG([x], lr=1.0, momentum=mu), x, wild(device, 60, d)), 1):
        assert length(u) <= (1 - mu**t) / (1 - mu) * (1 + t * rounding(d))


@pytest.mark.parametrize("mu", [0.0, 0.5, 0.9])
def test_momentum_ng_reaches_the_geometric_sum_where_directions_agree(device, mu):
    g, x = device.array(np.random.default_rng(0).standard_normal(20)), zeros(device, 20)
    grads = [g * 10.0**k for k in range(-30, 30)]
    for t, u in enumerate(directions(optim.MomentumNG([x], lr=1.0, momentum=mu), x, grads), 1):
        assert abs(length(u) / ((1 - mu**t) / (1 - mu)) - 1) <= t * rounding(20)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e5])
def test_adaptive_sgd_takes_steps_of_the_length_of_its_parameters(device, size):
    start = np.random.default_rng(1).standard_normal(100)
    start *= size / np.linalg.norm(start)
    x = device.array(start.copy())
    optim.SGDNGAdaptive([x], lr=1.0, floor=0.0).step(wild(device, 1, 100))
    assert abs(np.linalg.norm(start - device.host(x)) / size - 1) <= 1e-14


@pytest.mark.parametrize("floor", [1e-3, 0.5])
@pytest.mark.parametrize("d", [1, 4, 10000])
def test_adaptive_sgd_leaves_zero_by_its_floor(device, d, floor):
    x = zeros(device, d)
    optim.SGDNGAdaptive([x], lr=1.0, floor=floor).step(wild(device, 1, d))
    assert abs(length(x) / (floor * math.sqrt(d)) - 1) <= rounding(d)


def test_adaptive_sgd_without_a_floor_stays_at_zero(device):
    x = zeros(device, 3)
    optim.SGDNGAdaptive([x], lr=1.0, floor=0.0).step([np.ones_like(x)])
    assert not x.any()


def test_the_default_floor_is_a_thousandth_of_the_root_of_the_size(device):
    x = zeros(device, 25)
    optim.SGDNGAdaptive([x], lr=1.0).step([np.ones_like(x)])
    np.testing.assert_allclose(length(x), 5e-3, rtol=1e-14)


def test_scaling_the_parameters_scales_an_adaptive_step_bit_for_bit(device):
    start, g = device.array(np.random.default_rng(2).standard_normal((2, 30)))
    x, scaled = start.copy(), 1024 * start
    optim.SGDNGAdaptive([x], lr=0.25).step([g])
    optim.SGDNGAdaptive([scaled], lr=0.25).step([g])
    assert np.array_equal(*device.host([1024 * x, scaled]))


def test_adaptive_length_is_taken_before_the_step_and_over_the_whole_block(device):
    W, b = device.arrays([np.full((2, 2), 3.0), np.full(4, 4.0)])  # ‖x‖ = √(4·9 + 4·16) = 10
    optim.SGDNGAdaptive([W, b], lr=1.0, blocks=[[0, 1]]).step([np.zeros_like(W), device.array([0, 0, 5.0, 0])])
    assert W.tolist() == [[3, 3], [3, 3]]
    np.testing.assert_allclose(b.tolist(), [4, 4, -6, 4], rtol=1e-15)


def test_clipping_leaves_short_gradients_bit_for_bit_and_shortens_long_ones(device):
    g = np.random.default_rng(3).standard_normal(9)
    g *= 0.999 / np.linalg.norm(g)
    g, short, raw, long = device.arrays([g, np.zeros(9), np.zeros(9), np.zeros(9)])
    optim.SGDClip([short], lr=0.3).step([g])
    optim.SGD([raw], lr=0.3).step([g])
    optim.SGDClip([long], lr=1.0, clip=2.5).step([g * 1e200])
    assert short.tolist() == raw.tolist()
    assert abs(length(long) / 2.5 - 1) <= rounding(9)


# --- I8: zero blocks -------------------------------------------------------------------------------------


def test_a_zero_block_takes_no_step_and_others_still_do(rule, form, dtype, kit):
    arrays = kit.numbers(0, dtype, shapes=[(3, 2), (4,)])
    opt = getattr(optim, rule + form)(arrays, lr=0.1)
    for seed in range(3):
        opt.step([np.zeros_like(arrays[0]), kit.numbers(seed, dtype, shapes=[(4,)])[0]])
    start = kit.numbers(0, dtype, shapes=[(3, 2), (4,)])
    assert kit.same_bits(arrays[0], start[0])
    assert np.all(np.isfinite(arrays[1])) and np.all(arrays[1] != start[1])


def test_a_zero_gradient_of_everything_changes_no_number(rule, form, dtype, kit):
    arrays = kit.numbers(0, dtype)
    opt = getattr(optim, rule + form)(arrays, lr=0.1)
    for _ in range(3):
        opt.step([np.zeros_like(a) for a in arrays])
    assert opt.steps == 3 and kit.same_bits(arrays, kit.numbers(0, dtype))


@pytest.mark.parametrize(
    "name, moves", [("SGDNG", False), ("MomentumNG", True), ("AdamNG", True), ("RMSPropNG", False)]
)
def test_after_a_step_a_zero_gradient_moves_a_block_only_by_its_momentum(device, name, moves):
    x = device.array(np.ones(4))
    opt = getattr(optim, name)([x], lr=0.1)
    opt.step([device.array([1.0, 2.0, 3.0, 4.0])])
    before = x.copy()
    opt.step([np.zeros_like(x)])
    assert np.all(x != before) if moves else np.all(x == before)


def test_zero_parameters_and_zero_gradients_make_no_nan(device, rule, form, dtype):
    x = zeros(device, 5, dtype)
    opt = getattr(optim, rule + form)([x], lr=0.1)
    for g in (np.zeros_like(x), np.ones_like(x), np.zeros_like(x)):
        opt.step([g])
        assert np.all(np.isfinite(x))


def test_an_optimizer_of_empty_blocks_steps(device, rule, form):
    x = zeros(device, (0, 3))
    opt = getattr(optim, rule + form)([x], lr=0.1)
    opt.step([np.zeros_like(x)])
    assert opt.steps == 1


# --- I10: the scale of the loss --------------------------------------------------------------------------


@NORMALIZED
@pytest.mark.parametrize("power", [-60, -3, 11, 60])
def test_a_loss_times_a_power_of_two_makes_the_same_trajectory_bit_for_bit(kit, rule, normalized, dtype, power):
    plain, scaled = kit.numbers(0, dtype), kit.numbers(0, dtype)
    one = getattr(optim, rule + normalized)(plain, lr=0.05)
    two = getattr(optim, rule + normalized)(scaled, lr=0.05)
    for g in kit.gradients(15, dtype):
        one.step(g)
        two.step([np.ldexp(a, power) for a in g])
        assert kit.same_bits(plain, scaled)


@NORMALIZED
def test_a_power_of_two_for_each_block_and_step_is_not_seen_either(kit, rule, normalized):
    p = Params.of(dict(zip(kit.SHAPES, kit.numbers(0), strict=True)))
    q = p.copy()
    one, two = getattr(optim, rule + normalized)(p, lr=0.05), getattr(optim, rule + normalized)(q, lr=0.05)
    rng = np.random.default_rng(0)
    for g in kit.gradients(15):
        powers = rng.integers(-300, 300, len(kit.PARTITIONS["layer"]))
        scaled = list(g)
        for block, k in zip(kit.PARTITIONS["layer"], powers, strict=True):
            for i in block:
                scaled[i] = np.ldexp(g[i], int(k))
        one.step(Params.of(dict(zip(kit.SHAPES, g, strict=True))))
        two.step(Params.of(dict(zip(kit.SHAPES, scaled, strict=True))))
        assert kit.same_bits(p.flat, q.flat)


def test_the_raw_form_does_see_the_scale_of_the_loss(kit):
    plain, scaled = kit.numbers(0), kit.numbers(0)
    optim.SGD(plain, lr=0.05).step(kit.numbers(1))
    optim.SGD(scaled, lr=0.05).step([2 * a for a in kit.numbers(1)])
    assert not kit.same_bits(plain, scaled)


def test_a_tiny_gradient_takes_the_length_of_huge_parameters(device):
    x = [device.array(np.full(4, 1e29, "float32"))]
    before = x[0].copy()
    optim.SGDNGAdaptive(x, lr=0.5).step([np.full_like(x[0], 1e-10)])
    assert np.allclose(x[0], 0.5 * before, rtol=1e-6)
