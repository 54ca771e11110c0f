"""Every rule in every form, on every partition, against one loop over blocks written from the theory."""

import numpy as np
import pytest

from minibng import optim
from minibng.params import Params

LR = 0.02
RTOL = {"float64": 1e-10, "float32": 1e-4}


def run(kit, opt, arrays, naive, grads, rtol, pack=lambda g: g):
    for g in grads:
        kit.step(opt, pack(g))
        naive.step(g)
    kit.assert_close(arrays, naive.arrays, rtol)


@pytest.mark.parametrize("blocks", ["layer", "tensor", "global"])
def test_params_follow_the_naive_loop(kit, rule, form, dtype, blocks):
    p = Params.of(dict(zip(kit.SHAPES, kit.numbers(0, dtype), strict=True)), blocks=blocks)
    naive = kit.NaiveLoop(rule, form, list(dict(p.items()).values()), kit.PARTITIONS[blocks], LR)
    opt = getattr(optim, rule + form)(p, lr=LR)
    pack = lambda g: Params.of(dict(zip(kit.SHAPES, g, strict=True)))  # noqa: E731
    run(kit, opt, [v for _, v in p.items()], naive, kit.gradients(50, dtype), RTOL[dtype], pack)


@pytest.mark.parametrize("blocks", ["layer", "tensor", "global"])
def test_the_optimizer_may_override_the_partition_of_the_layout(kit, rule, blocks):
    p = Params.of(dict(zip(kit.SHAPES, kit.numbers(0), strict=True)), blocks="tensor")
    naive = kit.NaiveLoop(rule, "NG", [v for _, v in p.items()], kit.PARTITIONS[blocks], LR)
    opt = getattr(optim, rule + "NG")(p, lr=LR, blocks=blocks)
    pack = lambda g: Params.of(dict(zip(kit.SHAPES, g, strict=True)), blocks="tensor")  # noqa: E731
    run(kit, opt, [v for _, v in p.items()], naive, kit.gradients(50), 1e-10, pack)


@pytest.mark.parametrize("blocks", [None, [[0, 2], [1]]], ids=str)
def test_plain_arrays_follow_the_naive_loop(kit, rule, form, dtype, blocks):
    shapes = [(4, 3), (3, 2), (3,)]
    arrays = kit.numbers(0, dtype, shapes=shapes)
    naive = kit.NaiveLoop(rule, form, arrays, blocks or [[0], [1], [2]], LR)
    opt = getattr(optim, rule + form)(arrays, lr=LR, blocks=blocks)
    run(kit, opt, arrays, naive, kit.gradients(50, dtype, shapes=shapes), RTOL[dtype])


SETTINGS = {
    "SGD": {},
    "Momentum": {"momentum": 0.5},
    "Nesterov": {"momentum": 0.5},
    "AdaGrad": {"eps": 1e-3},
    "RMSProp": {"alpha": 0.7, "eps": 1e-2},
    "AdaDelta": {"rho": 0.6, "eps": 1e-3},
    "Adam": {"beta1": 0.5, "beta2": 0.9, "eps": 1e-2},
    "AMSGrad": {"beta1": 0.5, "beta2": 0.6, "eps": 1e-2},
    "NAdam": {"beta1": 0.5, "beta2": 0.9, "eps": 1e-2, "momentum_decay": 0.1},
}


@pytest.mark.parametrize("extra", [{}, {"clip": 0.05}, {"clip": 30.0}, {"floor": 0.0}, {"floor": 3.0}], ids=str)
def test_settings_reach_the_formulas(kit, rule, extra):
    form = {"clip": "Clip", "floor": "NGAdaptive"}.get(next(iter(extra), ""), "NG")
    arrays = kit.numbers(0)
    naive = kit.NaiveLoop(rule, form, arrays, [[i] for i in range(len(arrays))], LR, **extra, **SETTINGS[rule])
    opt = getattr(optim, rule + form)(arrays, lr=LR, **extra, **SETTINGS[rule])
    run(kit, opt, arrays, naive, kit.gradients(50), 1e-10)


@pytest.mark.parametrize("normalized", ["NG", "NGAdaptive"])
def test_normalized_forms_follow_it_over_the_exponents_of_the_dtype(kit, rule, normalized, dtype):
    """Where squares leave the range; the naive loop gets the gradient scaled back, which N does not see."""
    decades = {"float32": 34, "float64": 300}[dtype]
    arrays = kit.numbers(0, dtype, shapes=[(4, 3), (3,)])
    naive = kit.NaiveLoop(rule, normalized, arrays, [[0], [1]], LR)
    opt = getattr(optim, rule + normalized)(arrays, lr=LR)
    rng = np.random.default_rng(2)
    for _ in range(20):
        g = kit.numbers(int(rng.integers(1 << 30)), dtype, shapes=[(4, 3), (3,)])
        powers = (rng.uniform(-1, 1, 2) * decades * np.log2(10)).astype(int)
        opt.step([np.ldexp(a, k) for a, k in zip(g, powers, strict=True)])
        naive.step(g)
    kit.assert_close(arrays, naive.arrays, RTOL[dtype])


@pytest.mark.parametrize("normalize", [None, "clip", "unit", "adaptive"])
def test_a_named_form_is_the_rule_with_that_normalizer_bit_for_bit(kit, rule, dtype, normalize):
    form = {None: "", "clip": "Clip", "unit": "NG", "adaptive": "NGAdaptive"}[normalize]
    a, b, c = kit.numbers(0, dtype), kit.numbers(0, dtype), kit.numbers(0, dtype)
    command = "-".join(
        [rule.lower(), *{"Clip": ["clip"], "NG": ["ng"], "NGAdaptive": ["ng", "adaptive"]}.get(form, [])]
    )
    opts = [
        getattr(optim, rule)(a, lr=LR, normalize=normalize),
        getattr(optim, rule + form)(b, lr=LR),
        optim.get(command)(c, lr=LR),
    ]
    for g in kit.gradients(10, dtype):
        for opt in opts:
            opt.step(g)
    assert kit.same_bits(a, b) and kit.same_bits(b, c)


def test_names_are_the_nine_rules_in_four_forms_and_the_relatives():
    rules = ["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adadelta", "adam", "amsgrad", "nadam"]
    forms = [r + f for r in rules for f in ["", "-clip", "-ng", "-ng-adaptive"]]
    assert sorted(optim.names()) == sorted([*forms, "signsgd", "lars", "lamb", "novograd"])


# --- the same numbers, however they are held --------------------------------------------------------------


def test_params_and_plain_arrays_make_the_same_trajectory_bit_for_bit(kit, rule, form, dtype):
    shapes = {"0.W": (40, 30), "1.W": (30, 7), "0.b": (30,)}
    p = Params.of(dict(zip(shapes, kit.numbers(0, dtype, shapes=shapes.values()), strict=True)))
    arrays = kit.numbers(0, dtype, shapes=shapes.values())
    one = getattr(optim, rule + form)(p, lr=LR)
    two = getattr(optim, rule + form)(arrays, lr=LR, blocks=[[0, 2], [1]])
    for g in kit.gradients(20, dtype, shapes=shapes.values()):
        one.step(Params.of(dict(zip(shapes, g, strict=True))))
        two.step(g)
        assert kit.same_bits([v for _, v in p.items()], arrays)


def test_views_of_params_stay_views(kit, device, rule, form):
    p = Params.of(dict(zip(kit.SHAPES, kit.numbers(0), strict=True)))
    flat, view, before = p.flat, p["0.W"], p.flat.copy()
    opt = getattr(optim, rule + form)(p, lr=LR)
    opt.step(Params.of(dict(zip(kit.SHAPES, kit.numbers(1), strict=True))))
    assert p.flat is flat and np.may_share_memory(p["0.W"], flat) and np.may_share_memory(view, flat)
    view, flat, before = device.host([view, flat, before])
    assert np.all(view != before[:12].reshape(4, 3)) and np.array_equal(view, flat[:12].reshape(4, 3))


def test_plain_arrays_are_changed_in_place(kit, rule, form):
    arrays = kit.numbers(0)
    held = list(arrays)
    opt = getattr(optim, rule + form)(arrays, lr=LR)
    opt.step(kit.numbers(1))
    assert all(a is b for a, b in zip(arrays, held, strict=True))
    assert not kit.same_bits(arrays, kit.numbers(0))


def test_a_step_changes_nothing_that_it_is_given(kit, rule, form, dtype):
    arrays, grads = kit.numbers(0, dtype), kit.numbers(1, dtype)
    opt = getattr(optim, rule + form)(arrays, lr=LR)
    p = Params.of(dict(zip(kit.SHAPES, arrays, strict=True)))
    g = Params.of(dict(zip(kit.SHAPES, grads, strict=True)))
    other = getattr(optim, rule + form)(p, lr=LR)
    for _ in range(3):
        opt.step(grads)
        other.step(g)
    assert kit.same_bits(grads, kit.numbers(1, dtype))
    assert kit.same_bits([v for _, v in g.items()], kit.numbers(1, dtype))


def test_one_buffer_may_carry_every_gradient(kit, rule, form):
    """The state holds no reference to a gradient (a first momentum that *is* the gradient would)."""
    reused, fresh = kit.numbers(0), kit.numbers(0)
    one, two = getattr(optim, rule + form)(reused, lr=LR), getattr(optim, rule + form)(fresh, lr=LR)
    buffer = kit.numbers(7)
    for g in kit.gradients(10):
        for into, a in zip(buffer, g, strict=True):
            into[...] = a
        one.step(buffer)
        two.step(g)
    assert kit.same_bits(reused, fresh)


def test_a_gradient_in_another_memory_order_is_the_same_gradient(kit, rule, form):
    """autograd hands out transposed and strided arrays."""
    shapes = [(4, 3), (3, 2), (6,)]
    plain, strided = kit.numbers(0, shapes=shapes), kit.numbers(0, shapes=shapes)
    one, two = getattr(optim, rule + form)(plain, lr=LR), getattr(optim, rule + form)(strided, lr=LR)
    for g in kit.gradients(5, shapes=shapes):
        one.step(g)
        two.step([g[0].T.copy().T, g[1][::-1].copy()[::-1], np.stack([g[2], g[2]], axis=1)[:, 0]])
    kit.assert_close(strided, plain, 1e-13)


# --- large tensors, which the optimizer cuts into pieces ---------------------------------------------------

LARGE = 300_001


@pytest.fixture(scope="module")
def large(host_kit):
    """A start and two gradients, (LARGE,) each, on the host."""
    return [host_kit.numbers(seed, shapes=[(LARGE,)])[0] for seed in range(3)]


@pytest.mark.parametrize("normalize", [None, "unit"])
def test_pieces_make_the_numbers_of_the_whole_array_bit_for_bit(device, large, rule, dtype, normalize):
    size = {"float32": LARGE, "float64": LARGE // 2}[dtype]  # the same number of bytes
    x, *grads = (device.array(a[:size].astype(dtype)) for a in large)
    whole = x.copy()
    opt = getattr(optim, rule)([x], lr=LR, normalize=normalize)
    formula = getattr(optim.rules, rule)()
    state = formula.init(whole)
    for g in grads:
        opt.step([g])
        u, state = formula.update(state, optim.normalize_blocks([g])[0] if normalize else g)
        whole = whole - LR * u
        assert u.dtype == whole.dtype == np.dtype(dtype)
        assert np.array_equal(*device.host([x, whole]))


CASES = [(r, "NG") for r in ("SGD", "Momentum", "AdaGrad", "RMSProp", "AdaDelta", "Adam")]
CASES += [("Adam", ""), ("SGD", "Clip"), ("RMSProp", "NGAdaptive")]


@pytest.mark.parametrize("name, shape", CASES, ids=lambda v: v or "raw")
def test_large_tensors_in_one_block_follow_the_naive_loop(kit, device, large, name, shape, dtype):
    def cut(a):
        return [device.array(part.astype(dtype)) for part in (a, a[:9].reshape(3, 3), a[:90300].reshape(300, 301))]

    arrays = cut(large[0])
    naive = kit.NaiveLoop(name, shape, arrays, [[0, 2], [1]], LR)
    opt = getattr(optim, name + shape)(arrays, lr=LR, blocks=[[0, 2], [1]])
    run(kit, opt, arrays, naive, [cut(a) for a in large[1:]], RTOL[dtype])


def test_update_is_pure(kit, device, rule, dtype):
    (g,), formula = kit.numbers(1, dtype, shapes=[(7, 3)]), getattr(optim.rules, rule)()
    start = formula.init(device.array(np.zeros((7, 3), dtype)))
    u, after = formula.update(start, g)
    assert u.shape == g.shape and u.dtype == g.dtype
    again, _ = formula.update(start, g)
    later, _ = formula.update(after, g)
    assert kit.same_bits(g, kit.numbers(1, dtype, shapes=[(7, 3)])[0])
    assert kit.same_bits(u, again)
    assert kit.same_bits(later, formula.update(after, g)[0])


# --- driven by somebody else's gradients --------------------------------------------------------------------


def test_hips_autograd_drives_the_optimizers_on_plain_arrays(host_kit, rule, form):
    import autograd
    import autograd.numpy as anp

    inputs, targets = host_kit.numbers(0, shapes=[(20, 3), (20, 2)])

    def loss(tensors):
        W, b = tensors
        return anp.mean((anp.tanh(anp.dot(inputs, W) + b) - targets) ** 2)

    gradient = autograd.grad(loss)
    arrays = host_kit.numbers(5, shapes=[(3, 2), (2,)])
    naive = host_kit.NaiveLoop(rule, form, arrays, [[0, 1]], LR)
    opt = getattr(optim, rule + form)(arrays, lr=LR, blocks=[[0, 1]])
    for _ in range(30):
        opt.step(gradient(arrays))
        naive.step(gradient(naive.arrays))
    host_kit.assert_close(arrays, naive.arrays, 1e-10)
