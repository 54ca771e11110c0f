"""A checker is worth what it finds: faults planted in the package, and the naive loop that notices each."""

import numpy as np
import pytest

from minibng import optim
from minibng.optim import optimizer, rules
from minibng.optim.normalize import Adaptive, Clip, Unit

LR = 0.02


@pytest.fixture
def kit(host_kit):
    return host_kit


def disagreement(kit, name, form, steps=10):
    """The comparison that the other tests make; its message, or None where package and loop agree."""
    shapes = [(4, 3), (3, 2), (3,)]
    arrays = kit.numbers(0, shapes=shapes)
    naive = kit.NaiveLoop(name, form, arrays, [[0, 2], [1]], LR)
    opt = getattr(optim, name + form)(arrays, lr=LR, blocks=[[0, 2], [1]])
    for g in kit.gradients(steps, shapes=shapes):
        opt.step(g)
        naive.step(g)
    try:
        kit.assert_close(arrays, naive.arrays, 1e-10)
    except AssertionError as found:
        return str(found)
    return None


def planted_lengths(fault):
    """A `lengths` that answers with a fault: one factor a block too much or too little."""

    def lengths(self, norms, sizes, parameters):
        return fault(norms.values(), parameters(), sizes)

    return lengths


# how ℓ comes out of ‖g‖, ‖x‖ and d when the normalizer is wrong
FAULTS = {
    "one norm for all blocks": (Unit, "NG", lambda n, x, d: n / np.sqrt(np.sum(n**2) + 1e-300)),
    "an epsilon beside the norm": (Unit, "NG", lambda n, x, d: n / (n + 1e-8)),
    "unit root mean square": (Unit, "NG", lambda n, x, d: np.sqrt(d)),
    "no normalization": (Unit, "NG", lambda n, x, d: n),
    "the norm squared": (Unit, "NG", lambda n, x, d: np.where(n > 0, 1 / np.maximum(n, 1e-300), 0)),
    "clipping by the global norm": (Clip, "Clip", lambda n, x, d: n * min(1, 1 / np.sqrt(np.sum(n**2) + 1e-300))),
    "clipping that lengthens": (Clip, "Clip", lambda n, x, d: np.maximum(n, 1.0)),
    "adaptive without its parameters": (Adaptive, "NGAdaptive", lambda n, x, d: np.ones(2)),
    "adaptive by the norm of everything": (Adaptive, "NGAdaptive", lambda n, x, d: np.full(2, np.sqrt(np.sum(x**2)))),
    "a floor that adds": (Adaptive, "NGAdaptive", lambda n, x, d: x + 1e-3 * np.sqrt(d)),
}


def test_without_a_fault_the_comparison_passes(kit, form):
    assert disagreement(kit, "SGD", form) is None


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_normalizer_is_found(kit, monkeypatch, fault):
    normalizer, form, lengths = FAULTS[fault]
    assert disagreement(kit, "SGD", form) is None
    monkeypatch.setattr(normalizer, "lengths", planted_lengths(lengths))
    assert "off by" in disagreement(kit, "SGD", form)


def test_a_norm_taken_tensor_by_tensor_is_found(kit, monkeypatch):
    arrays = kit.numbers(0, shapes=[(4, 3), (3, 2), (3,)])
    naive = kit.NaiveLoop("SGD", "NG", arrays, [[0, 2], [1]], LR)
    opt = optim.SGDNG(arrays, lr=LR)  # the fault: the partition is forgotten
    g = kit.numbers(1, shapes=[(4, 3), (3, 2), (3,)])
    opt.step(g)
    naive.step(g)
    with pytest.raises(AssertionError, match="array 0"):
        kit.assert_close(arrays, naive.arrays, 1e-10)


def test_normalizing_the_direction_in_place_of_the_gradient_is_found(kit):
    """The law of the method: N before the rule, never after it."""
    x = kit.numbers(0, shapes=[(5,)])
    naive = kit.NaiveLoop("Momentum", "NG", x, [[0]], LR)
    formula = optim.rules.Momentum()
    state, wrong = formula.init(x[0]), x[0].copy()
    for g in kit.gradients(4, shapes=[(5,)]):
        u, state = formula.update(state, g[0])
        wrong -= LR * optim.normalize_blocks([u])[0]
        naive.step(g)
    with pytest.raises(AssertionError, match="off by"):
        kit.assert_close([wrong], naive.arrays, 1e-10)


# scalars that a rule might get wrong: (rule, what becomes of its scalars)
SCALARS = {
    "Adam's correction counts from 0": (rules.Adam, lambda f: lambda self, t: f(self, max(t - 1, 1))),
    "Adam has no correction": (rules.Adam, lambda f: lambda self, t: f(self, 10**9)),
    "RMSProp's epsilon is not rescaled": (rules.RMSProp, lambda f: lambda self, t: {**f(self, t), "scaled_eps": 1e-3}),
    "momentum is a tenth off": (rules.Momentum, lambda f: lambda self, t: {"momentum": 0.81}),
}


@pytest.mark.parametrize("fault", SCALARS)
def test_a_fault_in_a_rule_is_found(kit, monkeypatch, fault):
    rule, broken = SCALARS[fault]
    assert disagreement(kit, rule.__name__, "NG") is None
    monkeypatch.setattr(rule, "scalars", broken(rule.scalars))
    assert "off by" in disagreement(kit, rule.__name__, "NG")


def test_a_step_in_the_wrong_direction_is_found(kit, monkeypatch):
    monkeypatch.setattr(optimizer, "check_rate", lambda *rate: -LR)
    assert "off by" in disagreement(kit, "SGD", "NG")
