"""Micro-batches: gradients are averaged first and normalized once."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minibng as bng
from minibng import optim
from minibng.params import Params

ANY = (ValueError, TypeError)
SHAPES = {"0.W": (4, 3), "0.b": (3,), "1.W": (3, 2)}


def params(kit, dtype="float64", seed=0):
    return Params.of(dict(zip(SHAPES, kit.numbers(seed, dtype, shapes=SHAPES.values()), strict=True)))


def loss(p, x, y):
    """Mean squared error of a small network, a mean over the N rows: x (N, 4), y (N, 2)."""
    return bng.ops.mean((bng.ops.tanh(x @ p["0.W"] + p["0.b"]) @ p["1.W"] - y) ** 2)


def data(device, dtype="float64"):
    rng = np.random.default_rng(0)
    return device.arrays([rng.standard_normal((60, n)).astype(dtype) for n in (4, 2)])


CUTS = [[0, 60], [0, 20, 40, 60], [0, 1, 60], [0, 7, 8, 30, 59, 60]]
RTOL = {"float32": 2e-5, "float64": 1e-13}


@pytest.mark.parametrize("cuts", CUTS, ids=str)
def test_weighted_micro_batches_make_the_gradient_of_the_batch(kit, device, cuts, dtype):
    x, y = data(device, dtype)
    p, gradient, acc = params(kit, dtype), bng.grad(loss), optim.Accumulator()
    whole = gradient(p, x, y)
    for a, b in itertools.pairwise(cuts):
        acc.add(gradient(p, x[a:b], y[a:b]), weight=b - a)
    mean = acc.mean()
    assert isinstance(mean, Params) and mean.layout == p.layout and mean.flat.dtype == dtype
    kit.assert_close([mean.flat], [whole.flat], RTOL[dtype])


@pytest.mark.parametrize("cuts", CUTS, ids=str)
def test_and_therefore_its_steps(kit, device, form, cuts):
    x, y = data(device)
    one, two = params(kit), params(kit)
    a, b = (getattr(optim, "Momentum" + form)(p, lr=0.1) for p in (one, two))
    gradient, acc = bng.grad(loss), optim.Accumulator()
    for _ in range(5):
        a.step(gradient(one, x, y))
        for i, j in itertools.pairwise(cuts):
            acc.add(gradient(two, x[i:j], y[i:j]), weight=j - i)
        b.step(acc.mean())
        kit.assert_close([two.flat], [one.flat], 1e-12)


def test_normalizing_each_micro_batch_is_another_method(kit, device):
    """Theory, what fails: normalization comes after the average, never before."""
    x, y = data(device)
    p, gradient = params(kit), bng.grad(loss)
    acc, wrong = optim.Accumulator(), optim.Accumulator()
    for i in range(0, 60, 20):
        g = gradient(p, x[i : i + 20], y[i : i + 20])
        acc.add(g, weight=20)
        wrong.add(optim.normalize_blocks([g.flat]), weight=20)
    right = optim.normalize_blocks([acc.mean().flat])[0]
    assert np.abs(wrong.mean()[0] - right).max() > 1e-2


def test_the_mean_is_weighted(device):
    acc = optim.Accumulator()
    acc.add([device.array([1.0, 2.0]), device.array(3.0)], weight=3)
    acc.add([device.array([5.0, -2.0]), device.array(-1.0)])  # a weight of one
    first, second = acc.mean()
    assert first.tolist() == [2.0, 1.0] and second.tolist() == 2.0


@given(st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 2**32 - 1)), min_size=1, max_size=8))
def test_the_mean_is_that_of_its_formula(device, parts):
    acc, grads = optim.Accumulator(), []
    for n, seed in parts:
        g = np.random.default_rng(seed).standard_normal((3, 2))
        acc.add([device.array(g)], weight=n)
        grads.append(n * g)
    want, largest = sum(grads) / sum(n for n, _ in parts), max(np.abs(g).max() for g in grads)
    assert np.abs(device.host(acc.mean()[0]) - want).max() <= 20 * 2.0**-53 * largest


def test_equal_weights_are_a_mean_whatever_they_are(kit):
    ends = []
    for weight in (1, 8, 0.25):
        acc = optim.Accumulator()
        for seed in range(3):
            acc.add(kit.numbers(seed), weight=weight)
        ends.append(acc.mean())
    assert kit.same_bits(ends[0], ends[1]) and kit.same_bits(ends[0], ends[2])


def test_one_gradient_is_its_own_mean(kit, dtype):
    acc, g = optim.Accumulator(), kit.numbers(1, dtype)
    acc.add(g, weight=4)
    assert kit.same_bits(list(acc.mean()), g)
    acc.add(g, weight=7)
    kit.assert_close(list(acc.mean()), g, 4 * np.finfo(dtype).eps)


def test_after_the_mean_it_is_empty_again(kit):
    acc = optim.Accumulator()
    for seed in (1, 2):
        acc.add(kit.numbers(seed), weight=4)
        assert kit.same_bits(list(acc.mean()), kit.numbers(seed))
        with pytest.raises(ValueError, match="add"):
            acc.mean()


def test_the_mean_of_nothing_is_refused():
    with pytest.raises(ValueError, match="add"):
        optim.Accumulator().mean()


def test_one_buffer_may_carry_every_gradient_and_is_not_written_to(kit, dtype):
    acc, buffer = optim.Accumulator(), kit.numbers(0, dtype)
    for seed in (1, 2):
        for into, a in zip(buffer, kit.numbers(seed, dtype), strict=True):
            into[...] = a
        acc.add(buffer, weight=seed)
        assert kit.same_bits(buffer, kit.numbers(seed, dtype))
    for into in buffer:
        into[...] = 99
    mean = acc.mean()
    want = [(a + 2 * b) / 3 for a, b in zip(kit.numbers(1, dtype), kit.numbers(2, dtype), strict=True)]
    kit.assert_close(mean, want, 8 * np.finfo(dtype).eps)


def test_a_mean_is_kept_when_the_next_one_is_made(kit):
    acc = optim.Accumulator()
    acc.add(kit.numbers(1))
    first = acc.mean()
    copies = [a.copy() for a in first]
    acc.add(kit.numbers(2))
    second = acc.mean()
    assert kit.same_bits(list(first), copies)
    assert not any(np.may_share_memory(a, b) for a, b in zip(first, second, strict=True) if a.size)


def test_params_and_arrays_make_the_same_mean(kit, dtype):
    one, two = optim.Accumulator(), optim.Accumulator()
    for seed in (1, 2, 3):
        g = kit.numbers(seed, dtype, shapes=SHAPES.values())
        one.add(Params.of(dict(zip(SHAPES, g, strict=True))), weight=seed)
        two.add(g, weight=seed)
    made = one.mean()
    assert made.flat.dtype == dtype
    assert kit.same_bits([v for _, v in made.items()], list(two.mean()))


def test_the_mean_of_gradients_can_be_stepped_with(kit):
    p = params(kit)
    opt, acc = optim.AdamNG(p, lr=0.1), optim.Accumulator()
    acc.add(params(kit, seed=1), weight=5)
    opt.step(acc.mean())
    arrays = kit.numbers(0)
    other = optim.AdamNG(arrays, lr=0.1)
    acc.add(kit.numbers(1))
    other.step(acc.mean())
    assert opt.steps == other.steps == 1


def test_a_gradient_that_is_not_finite_reaches_the_optimizer(kit):
    """It is the optimizer that decides what is done about it."""
    p, bad = params(kit), params(kit, seed=1)
    bad["1.W"][0, 0] = np.nan
    acc, opt = optim.Accumulator(), optim.AdamNG(p, lr=0.1)
    acc.add(params(kit, seed=2), weight=3)
    acc.add(bad, weight=2)
    with pytest.raises(optim.NonFiniteError, match="'1'"):
        opt.step(acc.mean())
        opt.check()


@pytest.mark.parametrize("weight", [0, -1, np.nan, np.inf, "3", None], ids=repr)
def test_a_weight_that_is_no_number_of_examples_is_refused(weight):
    acc = optim.Accumulator()
    with pytest.raises(ANY, match="weight"):
        acc.add([np.ones(2)], weight=weight)


def test_gradients_that_do_not_belong_together_are_refused_and_what_was_added_stays(host_kit):
    others = {
        "another shape": [np.ones((2, 3)), np.ones(5)],
        "a shape that broadcasts": [np.ones((1, 3)), np.ones(4)],
        "another number": [np.ones((2, 3))],
        "another dtype": [np.ones((2, 3), "float32"), np.ones(4, "float32")],
        "a Params": Params.of({"0.W": np.ones((2, 3)), "0.b": np.ones(4)}),
        "no gradient": None,
    }
    for case, wrong in others.items():
        acc = optim.Accumulator()
        acc.add([np.ones((2, 3)), np.ones(4)])
        with pytest.raises(ANY):
            acc.add(wrong)
            pytest.fail(case)
        assert host_kit.same_bits(list(acc.mean()), [np.ones((2, 3)), np.ones(4)])


def test_params_of_another_layout_are_refused(kit):
    acc = optim.Accumulator()
    acc.add(params(kit))
    with pytest.raises(ANY, match=r"0\.b|0\.V"):
        acc.add(Params.of({"0.W": np.ones((4, 3)), "0.V": np.ones(3), "1.W": np.ones((3, 2))}))
