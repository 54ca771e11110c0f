"""Excluded blocks: the rule sees their gradient as it comes, and every other block is normalized as before."""

import numpy as np
import pytest

from minibng import optim
from minibng.backend import to_host
from minibng.optim.normalize import Clip, Except, Unit
from minibng.params import Params

SHAPES = {"conv.W": (3, 4), "norm.gamma": (4,), "norm.beta": (4,), "head.W": (4, 2), "head.b": (2,)}
NORM = ("*.gamma", "*.beta")


def params_of(kit, seed, dtype="float64"):
    return Params.of(dict(zip(SHAPES, kit.numbers(seed, dtype, shapes=SHAPES.values()), strict=True)))


def moved(kit, name, steps=5, dtype="float64", **settings):
    """Return the host's copy of every tensor after some steps on gradients of many sizes, and the optimizer."""
    params = params_of(kit, 1, dtype)
    opt = optim.get(name)(params, lr=0.03, **settings)
    for k in range(steps):
        grad = params_of(kit, 10 + k, dtype)
        grad.flat *= 10.0 ** (2 * k - 4)
        kit.step(opt, grad)
    opt.check()
    return {n: to_host(params[n]) for n in SHAPES}, opt


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("ending", ["-ng", "-clip", "-ng-adaptive"])
def test_excluded_blocks_move_as_raw_and_the_others_as_normalized_ones(kit, name, ending, dtype):
    mixed, opt = moved(kit, name + ending, dtype=dtype, exclude=NORM)
    raw, whole = moved(kit, name, dtype=dtype)[0], moved(kit, name + ending, dtype=dtype)[0]
    for tensor in SHAPES:
        np.testing.assert_array_equal(mixed[tensor], (raw if tensor.startswith("norm") else whole)[tensor])
    assert opt.exclude == NORM


def test_a_block_of_zeros_stays_one(kit):
    params = params_of(kit, 1)
    before = to_host(params.flat).copy()
    optim.SGDNG(params, lr=1.0, exclude="norm.*").step(Params(params.layout, params.flat * 0.0))
    np.testing.assert_array_equal(to_host(params.flat), before)


def test_decay_reaches_excluded_blocks_too():
    params = Params.of({"a": np.array([3.0, 4.0]), "b": np.array([1.0])}, blocks="tensor")
    optim.SGDNG(params, lr=0.1, exclude="b", weight_decay=0.5).step(
        Params.of({"a": np.array([30.0, 40.0]), "b": np.array([7.0])}, blocks="tensor")
    )
    assert params["a"].tolist() == pytest.approx([3 - 0.1 * (0.6 + 1.5), 4 - 0.1 * (0.8 + 2.0)])
    assert params["b"].tolist() == pytest.approx([1 - 0.1 * (7 + 0.5)])


def test_units_of_a_tensor_are_excluded_together():
    a, b = np.ones((2, 3)), np.ones(2)
    opt = optim.SGDNG([a, b], lr=1.0, blocks="unit", exclude="array 0")
    opt.step([np.full((2, 3), 0.5), np.full(2, 8.0)])
    assert (a == 0.5).all() and (b == 0.0).all()


def test_only_blocks_as_a_whole_are_excluded():
    with pytest.raises(ValueError, match=r"of block '\w+' only \S*gamma would be left out; exclude all of it or none"):
        optim.MomentumNG(Params.of({n: np.ones(s) for n, s in SHAPES.items()}), lr=0.1, exclude="*.gamma")


def test_what_makes_no_sense_is_refused():
    params = Params.of({n: np.ones(s) for n, s in SHAPES.items()})
    with pytest.raises(ValueError, match="exclude is a setting of a normalizer"):
        optim.Momentum(params, lr=0.1, exclude=NORM)
    with pytest.raises(ValueError, match=r"exclude: the pattern '\*\.gama' fits none"):
        optim.MomentumNG(params, lr=0.1, exclude="*.gama")


def test_a_state_with_other_exclusions_is_refused():
    params = Params.of({n: np.ones(s) for n, s in SHAPES.items()})
    saved = optim.AdamNG(params, lr=0.1, exclude=NORM).state_dict()
    with pytest.raises(ValueError, match="another optimizer: exclude was"):
        optim.AdamNG(params, lr=0.1).load_state_dict(saved)
    optim.AdamNG(params, lr=0.1, exclude=NORM).load_state_dict(saved)


def test_the_normalizer_is_as_safe_as_the_one_in_it():
    assert Except(Unit(), np.array([True])).safe and Except(Clip(1.0), np.array([True])).safe
    adaptive = optim.SGDNGAdaptive([np.ones(2), np.ones(2)], lr=0.1, exclude="array 1").normalizer
    assert not adaptive.safe
