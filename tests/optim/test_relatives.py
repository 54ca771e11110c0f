"""SignSGD, LARS, LAMB and NovoGrad: against their formulas written out, against optax, against what they come near."""

import importlib
import itertools
import math
import pickle

import numpy as np
import pytest

from minibng import optim
from minibng.params import Params

LR = 0.05
SHAPES = {"0.W": (4, 3), "1.W": (3, 2), "0.b": (3,), "1.b": (2,), "2.W": (2, 2, 3)}
NAMES, ALL = list(SHAPES), list(SHAPES.values())
RELATIVES = ["SignSGD", "LARS", "LAMB", "NovoGrad"]
PARTITIONS = ["layer", "tensor", "unit", "global"]
every_relative = pytest.mark.parametrize("name", RELATIVES)
every_partition = pytest.mark.parametrize("blocks", PARTITIONS)


def params(kit, dtype="float64", seed=0, **settings):
    return Params.of(dict(zip(NAMES, kit.numbers(seed, dtype, shapes=ALL), strict=True)), **settings)


def pack(g):
    return Params.of(dict(zip(NAMES, g, strict=True)))


# --- the formulas, block by block ----------------------------------------------------------------------------


def sign_sgd(s, g, x):
    return np.sign(g)


def lars(s, g, x, momentum=0.9, weight_decay=0.0):
    size, n = np.linalg.norm(x), np.linalg.norm(g)
    f = size / (n + weight_decay * size) if size > 0 and n > 0 else 1.0
    s.b = momentum * s.b + f * (g + weight_decay * x)
    return s.b


def lamb(s, g, x, beta1=0.9, beta2=0.999, eps=1e-6, weight_decay=0.0):
    s.b = beta1 * s.b + (1 - beta1) * g
    s.v = beta2 * s.v + (1 - beta2) * g**2
    r = s.b / (1 - beta1**s.t) / (np.sqrt(s.v / (1 - beta2**s.t)) + eps) + weight_decay * x
    size, n = np.linalg.norm(x), np.linalg.norm(r)
    return size / n * r if size > 0 and n > 0 else r


def novograd(s, g, x, beta1=0.9, beta2=0.25, weight_decay=0.0):
    n2 = np.sum(g**2)
    s.v = n2 if s.t == 1 else beta2 * s.v + (1 - beta2) * n2
    direction = g / np.sqrt(s.v) if s.v > 0 else np.zeros_like(g)
    s.b = beta1 * s.b + direction + weight_decay * x
    return s.b


FORMULAS = {"SignSGD": sign_sgd, "LARS": lars, "LAMB": lamb, "NovoGrad": novograd}


@pytest.fixture
def naive(kit):
    """The naive loop with a formula that sees x and whole raw blocks."""

    class NaiveRelative(kit.NaiveLoop):
        def __init__(self, name, arrays, blocks, lr, **settings):
            super().__init__("SGD", None, arrays, blocks, lr)
            self.formula, self.settings = FORMULAS[name], settings

        def change(self, g, lr):
            u = np.empty_like(g)
            for b, state in zip(self.blocks, self.states, strict=True):
                state.t += 1
                u[b] = self.formula(state, g[b], self.x[b], **self.settings)
            return lr * u

    return NaiveRelative


SETTINGS = {
    "SignSGD": [{}],
    "LARS": [{}, {"weight_decay": 0.3}, {"momentum": 0.5, "weight_decay": 0.1}, {"momentum": 0.0}],
    "LAMB": [{}, {"weight_decay": 0.3}, {"beta1": 0.5, "beta2": 0.7, "eps": 1e-2, "weight_decay": 0.1}],
    "NovoGrad": [{}, {"weight_decay": 0.3}, {"beta1": 0.5, "beta2": 0.9, "weight_decay": 0.1}, {"beta2": 0.0}],
}
CASES = [(name, settings) for name in RELATIVES for settings in SETTINGS[name]]
every_case = pytest.mark.parametrize("name, settings", CASES, ids=str)


def on(partitions):
    """Every case on every partition; SignSGD has its own."""
    rows = [(*case, b) for case in CASES for b in (partitions if case[0] != "SignSGD" else [None])]
    return pytest.mark.parametrize("name, settings, blocks", rows, ids=str)


def where(blocks):
    return {} if blocks is None else {"blocks": blocks}


@on(PARTITIONS)
def test_params_follow_the_formula(kit, naive, name, settings, blocks, dtype):
    p = params(kit, dtype)
    p["1.b"] = 0.0  # a block at zero, where blocks are tensors
    arrays = [v for _, v in p.items()]
    loop = naive(name, arrays, kit.entries(ALL, blocks or "coordinate", NAMES), LR, **settings)
    opt = getattr(optim, name)(p, lr=LR, **settings, **where(blocks))
    for g in kit.gradients(20, dtype, shapes=tuple(ALL)):
        kit.step(opt, pack(g))
        loop.step(g)
    kit.assert_follows(arrays, loop, dtype)


@on([None, "unit", [[0, 2], [1]]])
def test_plain_arrays_follow_the_formula(kit, naive, name, settings, blocks, dtype):
    shapes = [(4, 3), (3, 2), (3,)]
    arrays = kit.numbers(0, dtype, shapes=shapes)
    loop = naive(name, arrays, kit.entries(shapes, blocks or "tensor"), lambda t: LR / (1 + t), **settings)
    opt = getattr(optim, name)(arrays, lr=lambda t: LR / (1 + t), **settings, **where(blocks))
    for g in kit.gradients(12, dtype, shapes=tuple(shapes)):
        kit.step(opt, g)
        loop.step(g)
    kit.assert_follows(arrays, loop, dtype)


@on([[[0], [1, 2]]])
def test_large_tensors_follow_the_formula(kit, naive, name, settings, blocks, dtype):
    shapes = [(300_001,), (300, 40), (40,)]
    arrays = kit.numbers(0, dtype, shapes=shapes)
    loop = naive(name, arrays, kit.entries(shapes, blocks or "tensor"), LR, **settings)
    opt = getattr(optim, name)(arrays, lr=LR, **settings, **where(blocks))
    for seed in (1, 2):
        g = kit.numbers(seed, dtype, shapes=shapes)
        kit.step(opt, g)
        loop.step(g)
    kit.assert_follows(arrays, loop, dtype)


# --- identities ----------------------------------------------------------------------------------------------


def together(kit, one, two, p, q, rtol, steps=20, dtype="float64"):
    for g in kit.gradients(steps, dtype, shapes=tuple(ALL)):
        one.step(pack(g))
        two.step(pack(g))
        kit.assert_close([v for _, v in q.items()], [v for _, v in p.items()], rtol)


def test_a_step_of_sign_sgd_is_the_rate_times_the_sign_bit_for_bit(kit, dtype):
    x, g = kit.numbers(0, dtype, shapes=[(50,)])[0], kit.numbers(1, dtype, shapes=[(50,)])[0]
    g[3], g[4], g[5] = 0, np.finfo(dtype).smallest_subnormal, -np.finfo(dtype).max
    want = x - 0.1 * np.sign(g)
    optim.SignSGD([x], 0.1).step([g])
    assert kit.same_bits(x, want)


def test_sign_sgd_is_normalized_gradient_descent_on_coordinates(kit, dtype):
    p, q = params(kit, dtype), params(kit, dtype)
    one, two = optim.SignSGD(p, lr=LR), optim.SGDNG(q, lr=LR, blocks="coordinate")
    for g in kit.gradients(10, dtype, shapes=tuple(ALL)):
        one.step(pack(g))
        two.step(pack(g))
        assert kit.same_bits(p.flat, q.flat)


@every_partition
@pytest.mark.parametrize("momentum", [0.9, 0.5, 0.0])
def test_lars_without_decay_is_adaptive_momentum_without_a_floor(kit, blocks, momentum):
    """Off zero blocks: at ‖x‖ = 0 LARS takes the raw gradient, and adaptive NG no step."""
    p, q = params(kit), params(kit)
    one = optim.LARS(p, LR, momentum=momentum, blocks=blocks)
    two = optim.MomentumNGAdaptive(q, lr=LR, momentum=momentum, floor=0.0, blocks=blocks)
    together(kit, one, two, p, q, 1e-12)


def test_lars_moves_a_block_at_zero_by_its_raw_gradient(device):
    x = device.array([0.0, 0.0])
    optim.LARS([x], 0.5).step([device.array([3.0, -4.0])])
    assert x.tolist() == [-1.5, 2.0]


def test_lars_without_a_gradient_decays(device):
    """f = 1 where ‖g‖ = 0: m ← μm + λx."""
    x = device.array([3.0, 4.0])
    optim.LARS([x], 0.5, weight_decay=0.25).step([np.zeros_like(x)])
    np.testing.assert_allclose(x.tolist(), [3 * 0.875, 4 * 0.875], rtol=1e-15)


@every_partition
def test_lars_is_invariant_to_the_scale_of_the_loss_only_without_decay(kit, blocks):
    ends = {}
    for weight_decay in (0.0, 0.1):
        for power in (0, 20):
            p = params(kit)
            opt = optim.LARS(p, LR, weight_decay=weight_decay, blocks=blocks)
            for g in kit.gradients(5, shapes=tuple(ALL)):
                opt.step(pack([np.ldexp(a, power) for a in g]))
            ends[weight_decay, power] = p.flat
    assert kit.same_bits(ends[0.0, 0], ends[0.0, 20])
    assert not kit.same_bits(ends[0.1, 0], ends[0.1, 20])


@every_partition
def test_a_step_of_lamb_has_the_length_of_its_parameters(kit, blocks):
    p = params(kit, blocks=blocks)
    opt = optim.LAMB(p, 0.25, weight_decay=0.1)
    for seed in (1, 2, 3):
        before = p.copy()
        opt.step(params(kit, seed=seed))
        for (_, new), (_, old) in zip(p.blocks(), before.blocks(), strict=True):
            length = np.linalg.norm(np.concatenate(new) - np.concatenate(old))
            assert abs(float(length / (0.25 * np.linalg.norm(np.concatenate(old)))) - 1) <= 1e-13


def test_lamb_at_zero_is_adam(kit, device):
    """The ratio is 1 where ‖x‖ = 0."""
    x, y, g = device.arrays([np.zeros(3), np.zeros(3), np.array([1.0, -2.0, 3.0])])
    optim.LAMB([x], 0.5).step([g])
    optim.Adam([y], 0.5, eps=1e-6).step([g])
    kit.assert_close([x], [y], 1e-15)


def test_lamb_scales_after_its_rule_and_adaptive_before(kit):
    """LAMB's step is ‖x‖ long; that of adaptive NG in front of Adam is about √d, as Adam's is."""
    p, q = params(kit), params(kit)
    g = params(kit, seed=1)
    optim.LAMB(p, 1.0, blocks="global").step(g)
    optim.AdamNGAdaptive(q, 1.0, blocks="global").step(g)
    start = params(kit).flat
    assert abs(float(np.linalg.norm(p.flat - start) / np.linalg.norm(start)) - 1) < 1e-13
    assert abs(float(np.linalg.norm(q.flat - start)) / math.sqrt(start.size) - 1) < 1e-2


@every_partition
@pytest.mark.parametrize("beta1", [0.9, 0.3])
def test_novograd_without_memory_is_normalized_momentum(kit, blocks, beta1):
    """β₂ = 0: v = ‖g‖² at every step."""
    p, q = params(kit), params(kit)
    one = optim.NovoGrad(p, LR, beta1=beta1, beta2=0.0, blocks=blocks)
    two = optim.MomentumNG(q, lr=LR, momentum=beta1, blocks=blocks)
    together(kit, one, two, p, q, 1e-12)


def test_novograd_without_memory_decays_as_normalized_momentum_with_decay_after(kit):
    p, q = params(kit), params(kit)
    one = optim.NovoGrad(p, LR, beta2=0.0, weight_decay=0.2)
    two = optim.MomentumNG(q, lr=LR, weight_decay=0.2, decay="after")
    together(kit, one, two, p, q, 1e-12)


def test_the_first_step_of_novograd_is_a_normalized_one(kit):
    p, q, g = params(kit), params(kit), params(kit, seed=1)
    optim.NovoGrad(p, LR).step(g)
    optim.SGDNG(q, LR).step(g)
    kit.assert_close([p.flat], [q.flat], 1e-14)


def test_novograd_remembers_the_squared_norm_of_the_block(device):
    """By hand: v = 25, then 25/4 + 3·100/4 = 81.25; g/√v = (0.6, 0.8), then (6, 8)/√81.25."""
    x = device.array([0.0, 0.0])
    opt = optim.NovoGrad([x], 1.0, beta1=0.5)
    opt.step([device.array([3.0, 4.0])])
    np.testing.assert_allclose(device.host(x), [-0.6, -0.8], rtol=1e-15)
    opt.step([device.array([6.0, 8.0])])
    m = 0.5 * np.array([0.6, 0.8]) + np.array([6.0, 8.0]) / math.sqrt(81.25)
    np.testing.assert_allclose(device.host(x), -np.array([0.6, 0.8]) - m, rtol=1e-15)


def test_a_block_of_zeros_at_first_gives_novograd_no_memory_and_no_step(device):
    """v₁ = 0, v₂ = (1−β₂)‖g‖²: the start is the first gradient, though it be zero."""
    x = device.array([0.0, 0.0])
    opt = optim.NovoGrad([x], 1.0)
    opt.step([device.array([0.0, 0.0])])
    assert not x.any()
    opt.step([device.array([3.0, 4.0])])
    np.testing.assert_allclose(device.host(x), -np.array([0.6, 0.8]) / math.sqrt(0.75), rtol=1e-15)


@pytest.mark.parametrize("power", [-40, 0, 40])
def test_novograd_and_lars_do_not_see_a_power_of_two_in_the_loss(kit, power, dtype):
    """ε has no place in either; squares of float32 leave the range of float32 here."""
    for name in ("NovoGrad", "LARS"):
        ends = []
        for k in (0, 2 * power):
            p = params(kit, dtype)
            opt = getattr(optim, name)(p, LR)
            for g in kit.gradients(6, dtype, shapes=tuple(ALL)):
                opt.step(pack([np.ldexp(a, k) for a in g]))
            ends.append(p.flat)
        kit.assert_close(ends[:1], ends[1:], 1e-5 if dtype == "float32" else 1e-13)


@pytest.mark.parametrize("name", ["LARS", "NovoGrad", "SignSGD"])
def test_gradients_over_the_exponents_of_the_dtype_make_steps_of_their_length(device, name, dtype):
    info = np.finfo(dtype)
    for c in (info.smallest_subnormal, info.tiny, info.max / 4):  # ‖g‖ is a number yet
        x = device.array(np.full(4, 2.0, dtype))  # ‖x‖ = 4
        getattr(optim, name)([x], 0.5).step([device.array(np.full(4, c, dtype))])
        want = {"LARS": 2 - 0.5 * 4 / 2, "NovoGrad": 2 - 0.5 / 2, "SignSGD": 1.5}[name]
        np.testing.assert_allclose(device.host(x), want, rtol=4 * info.eps)


@pytest.mark.parametrize("name", ["LARS", "LAMB"])
def test_parameters_over_the_exponents_of_the_dtype_make_steps_of_their_length(device, name, dtype):
    """Squares of x leave the range: its length does not."""
    for power in {"float32": (-100, -70, 70, 100), "float64": (-900, -600, 600, 900)}[dtype]:
        x = device.array(np.ldexp(np.array([3.0, 4.0], dtype), power))
        getattr(optim, name)([x], 0.5).step([device.array([0.0, 2.0], dtype)])
        want = np.ldexp([3.0, 4.0 - 2.5], power)
        np.testing.assert_allclose(device.host(x).astype(float), want, rtol=1e-5 if dtype == "float32" else 1e-12)


# --- optax ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def optax_run():
    """Run a transformation of optax in float64; blocks there are leaves, here tensors."""
    jax, optax = importlib.import_module("jax"), importlib.import_module("optax")

    def run(make, arrays, every):
        with jax.enable_x64(True):
            transformation = make(optax)
            leaves = [jax.numpy.asarray(a) for a in arrays]
            state = transformation.init(leaves)

            @jax.jit
            def step(g, state, leaves):
                updates, state = transformation.update(g, state, leaves)
                return optax.apply_updates(leaves, updates), state

            for g in every:
                leaves, state = step([jax.numpy.asarray(a) for a in g], state, leaves)
            return [np.asarray(a) for a in leaves]

    return run


# ours and optax's, where the formulas agree:
#   LARS with λ = 0: optax divides by ‖g + λx‖ where You et al. have ‖g‖ + λ‖x‖; its coefficient 1, so that zero blocks,
#   which it does not multiply by the coefficient, agree too. NovoGrad with optax's ε = 0. LAMB as it is.
OPTAX = [
    ("LARS", {"momentum": 0.7}, lambda o: o.lars(LR, trust_coefficient=1.0, momentum=0.7)),
    ("LAMB", {}, lambda o: o.lamb(LR)),
    (
        "LAMB",
        {"beta1": 0.6, "beta2": 0.8, "eps": 1e-3, "weight_decay": 0.3},
        lambda o: o.lamb(LR, b1=0.6, b2=0.8, eps=1e-3, weight_decay=0.3),
    ),
    ("NovoGrad", {}, lambda o: o.novograd(LR, eps=0.0)),
    (
        "NovoGrad",
        {"beta1": 0.6, "beta2": 0.9, "weight_decay": 0.1},
        lambda o: o.novograd(LR, b1=0.6, b2=0.9, eps=0.0, weight_decay=0.1),
    ),
]
PAIR = [(4, 3), (5,)]  # few tensors: optax compiles


@pytest.mark.peer
@pytest.mark.parametrize("name, ours, theirs", OPTAX, ids=[f"{name} {ours}" for name, ours, _ in OPTAX])
def test_relatives_agree_with_optax(kit, device, optax_run, name, ours, theirs):
    """Gradients without zero tensors: optax has 0/0 there in NovoGrad without its ε."""
    arrays, rng = kit.numbers(0, shapes=PAIR), np.random.default_rng(3)
    every = [[a * 10.0 ** rng.uniform(-3, 3) for a in kit.numbers(k, shapes=PAIR)] for k in range(100)]
    want = optax_run(theirs, *device.host((arrays, every)))
    opt = getattr(optim, name)(arrays, LR, **ours)
    for g in every:
        opt.step(g)
    kit.assert_close(arrays, want, 1e-11)


# --- like every optimizer ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["LARS", "LAMB", "NovoGrad"])
def test_the_partition_is_the_layouts_unless_told(kit, name):
    p, q = params(kit, blocks="unit"), params(kit)
    one, two = getattr(optim, name)(p, lr=LR), getattr(optim, name)(q, lr=LR, blocks="unit")
    for g in kit.gradients(5, shapes=tuple(ALL)):
        one.step(pack(g))
        two.step(pack(g))
    assert kit.same_bits(p.flat, q.flat)


@every_case
def test_zeros_make_no_nan_and_no_step(kit, device, name, settings, dtype):
    arrays = [device.array(np.zeros(4, dtype)), kit.numbers(0, dtype, shapes=[(3, 2)])[0]]
    opt = getattr(optim, name)(arrays, lr=LR, **settings)
    for of_all in (0, 0, 1, 0):
        opt.step([np.full_like(arrays[0], of_all), np.ones_like(arrays[1])])
        assert all(np.all(np.isfinite(a)) for a in arrays) and (of_all or opt.steps > 2 or not arrays[0].any())


@every_case
def test_dtypes_are_kept_and_nothing_given_is_changed(kit, name, settings, dtype):
    arrays, g = kit.numbers(0, dtype), kit.numbers(1, dtype)
    held = list(arrays)
    opt = getattr(optim, name)(arrays, lr=LR, **settings)
    for _ in range(3):
        opt.step(g)
    assert all(a is b and a.dtype == dtype for a, b in zip(arrays, held, strict=True))
    assert kit.same_bits(g, kit.numbers(1, dtype)) and not kit.same_bits(arrays, kit.numbers(0, dtype))


@every_relative
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_is_refused_or_skipped(kit, name, bad):
    p = params(kit)
    opt = getattr(optim, name)(p, lr=LR)
    opt.step(params(kit, seed=1))
    before, state, wrong = p.flat.copy(), opt.state_dict(), params(kit, seed=2)
    wrong["1.W"][0, 1] = bad
    with pytest.raises(optim.NonFiniteError, match=r"1.*step 1|step 1.*1"):
        opt.step(wrong)
        opt.check()
    assert kit.same_bits(p.flat, before) and kit.same_bits(opt.state_dict(), state)
    q = params(kit)
    other = getattr(optim, name)(q, lr=LR, nonfinite="skip")
    other.step(params(kit, seed=1))
    other.step(wrong)
    other.check()
    assert (other.skipped, other.steps) == (1, 1) and kit.same_bits(q.flat, before)


@every_case
def test_resuming_continues_bit_for_bit(kit, name, settings, dtype):
    every, p = [pack(g) for g in kit.gradients(16, dtype, shapes=tuple(ALL))], params(kit, dtype)
    opt = getattr(optim, name)(p, lr=LR, **settings)
    for g in every[:7]:
        opt.step(g)
    q, state = p.copy(), pickle.loads(pickle.dumps(opt.state_dict()))
    resumed = getattr(optim, name)(q, lr=LR, **settings)
    resumed.load_state_dict(state)
    assert resumed.steps == 7
    for g in every[7:]:
        opt.step(g)
        resumed.step(g)
        assert kit.same_bits(p.flat, q.flat)
    assert kit.same_bits(opt.state_dict(), resumed.state_dict())


@every_relative
def test_a_loaded_state_is_a_copy(kit, name):
    """Neither optimizer writes into the other's state, nor into the state dict."""
    p, q = params(kit), params(kit)
    one, two = getattr(optim, name)(p, lr=LR), getattr(optim, name)(q, lr=LR)
    one.step(params(kit, seed=1))
    saved = one.state_dict()
    text = repr(saved)
    q.flat[...] = p.flat
    two.load_state_dict(saved)
    for seed in (2, 3):
        two.step(params(kit, seed=seed))
    assert repr(saved) == text == repr(one.state_dict())


@pytest.mark.parametrize("one", ["LARS", "LAMB", "NovoGrad"])
@pytest.mark.parametrize("a, b", [("layer", "tensor"), ("layer", "unit"), ("unit", "global")])
def test_a_state_does_not_load_into_another_partition(kit, one, a, b):
    opt = getattr(optim, one)(params(kit), lr=LR, blocks=a)
    opt.step(params(kit, seed=1))
    other = getattr(optim, one)(params(kit), lr=LR, blocks=b)
    before = other.state_dict()
    with pytest.raises(ValueError):
        other.load_state_dict(opt.state_dict())
    assert kit.same_bits(other.state_dict(), before)


METHODS = [*RELATIVES, "Momentum", "MomentumNG", "MomentumNGAdaptive", "Adam"]


@pytest.mark.parametrize("one, two", [p for p in itertools.permutations(METHODS, 2) if {*p} & {*RELATIVES}])
def test_a_state_does_not_load_into_another_method(kit, one, two):
    opt = getattr(optim, one)(params(kit), lr=LR)
    opt.step(params(kit, seed=1))
    other = getattr(optim, two)(params(kit), lr=LR)
    before = other.state_dict()
    with pytest.raises(ValueError):
        other.load_state_dict(opt.state_dict())
    assert kit.same_bits(other.state_dict(), before)


WRONG = [
    ("LARS", {"momentum": -0.1}),
    ("LARS", {"momentum": math.nan}),
    ("LAMB", {"beta1": 1.0}),
    ("LAMB", {"beta2": -0.1}),
    ("LAMB", {"eps": 0.0}),
    ("LAMB", {"eps": -1e-6}),
    ("NovoGrad", {"beta1": -0.5}),
    ("NovoGrad", {"beta2": 1.0}),
    ("NovoGrad", {"beta2": math.nan}),
    *[(name, {"weight_decay": bad}) for name in ("LARS", "LAMB", "NovoGrad") for bad in (-0.1, math.inf, "0.1")],
]


@pytest.mark.parametrize("name, settings", WRONG, ids=str)
def test_settings_that_make_no_sense_are_refused_by_name(name, settings):
    with pytest.raises((ValueError, TypeError), match=next(iter(settings))):
        getattr(optim, name)([np.ones(2)], lr=LR, **settings)


@every_relative
def test_what_is_no_gradient_or_no_rate_is_refused(kit, name):
    arrays = kit.numbers(0)
    opt = getattr(optim, name)(arrays, lr=LR)
    for wrong in (None, kit.numbers(1)[:-1], [a.astype("float32") for a in kit.numbers(1)]):
        with pytest.raises((ValueError, TypeError)):
            opt.step(wrong)
    assert kit.same_bits(arrays, kit.numbers(0)) and opt.steps == 0
    with pytest.raises((ValueError, TypeError), match="lr"):
        getattr(optim, name)(arrays, lr=-1.0)
    with pytest.raises(TypeError):
        getattr(optim, name)(arrays)


# --- a checker is worth what it finds --------------------------------------------------------------------------


def lars_with_the_norm_of_the_sum(s, g, x, momentum=0.9, weight_decay=0.0):
    g = g + weight_decay * x
    s.b = momentum * s.b + np.linalg.norm(x) / max(np.linalg.norm(g), 1e-300) * g
    return s.b


def lamb_with_decay_after_the_ratio(s, g, x, weight_decay=0.0, **settings):
    return lamb(s, g, x, **settings) + weight_decay * x


def lamb_on_the_gradient(s, g, x, **settings):
    n = np.linalg.norm(g)
    return lamb(s, g / n if n else g, np.zeros_like(x)) * np.linalg.norm(x)


def novograd_from_zero(s, g, x, beta2=0.25, **settings):
    if s.t == 1:
        s.v = 0.0
    s.t += 1
    return novograd(s, g, x, beta2=beta2, **settings)


def novograd_by_entries(s, g, x, beta1=0.9, beta2=0.25, weight_decay=0.0):
    s.v = g**2 if s.t == 1 else beta2 * s.v + (1 - beta2) * g**2
    s.b = beta1 * s.b + np.where(s.v > 0, g / np.sqrt(np.where(s.v > 0, s.v, 1)), 0) + weight_decay * x
    return s.b


PLANTED = {
    "LARS divides by the norm of the sum": ("LARS", lars_with_the_norm_of_the_sum),
    "LAMB decays after its ratio": ("LAMB", lamb_with_decay_after_the_ratio),
    "LAMB normalizes the gradient": ("LAMB", lamb_on_the_gradient),
    "NovoGrad starts its memory at zero": ("NovoGrad", novograd_from_zero),
    "NovoGrad is Adam": ("NovoGrad", novograd_by_entries),
}


@pytest.mark.parametrize("fault", [None, *PLANTED])
def test_a_planted_fault_is_found(kit, naive, monkeypatch, dtype, fault):
    for name in ["LARS", "LAMB", "NovoGrad"] if fault is None else [PLANTED[fault][0]]:
        if fault is not None:
            monkeypatch.setitem(FORMULAS, *PLANTED[fault])
        p = params(kit, dtype)
        arrays = [v for _, v in p.items()]
        loop = naive(name, arrays, kit.entries(ALL, "layer", NAMES), LR, weight_decay=0.2)
        opt = getattr(optim, name)(p, lr=LR, weight_decay=0.2)
        for g in kit.gradients(5, dtype, shapes=tuple(ALL)):
            opt.step(pack(g))
            loop.step(g)
        if fault is None:
            kit.assert_follows(arrays, loop, dtype)
        else:
            with pytest.raises(AssertionError, match="off by"):
                kit.assert_follows(arrays, loop, dtype)
