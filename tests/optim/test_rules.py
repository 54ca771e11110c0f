"""The step rules by themselves: formulas, defaults, ranges and names, without an optimizer around them."""

import inspect
import math
from types import SimpleNamespace

import numpy as np
import pytest

from minibng.optim import rules

# rule, settings: the defaults, and numbers that no formula confuses with one another (1 − x is 1 mod x for x over ½)
CASES = [
    ("SGD", {}),
    ("Momentum", {}),
    ("Momentum", {"momentum": 0.0}),
    ("Momentum", {"momentum": 1.25}),
    ("Nesterov", {}),
    ("Nesterov", {"momentum": 0.4}),
    ("AdaGrad", {}),
    ("AdaGrad", {"eps": 0.3}),
    ("RMSProp", {}),
    ("RMSProp", {"alpha": 0.0}),
    ("RMSProp", {"alpha": 0.4, "eps": 0.3}),
    ("RMSProp", {"alpha": 0.4, "eps": 0.3, "centered": True}),
    ("RMSProp", {"alpha": 0.4, "eps": 0.3, "momentum": 0.7}),
    ("RMSProp", {"alpha": 0.4, "eps": 0.3, "momentum": 0.7, "centered": True}),
    ("AdaDelta", {}),
    ("AdaDelta", {"rho": 0.4, "eps": 0.3}),
    ("Adam", {}),
    ("Adam", {"beta1": 0.4, "beta2": 0.45, "eps": 0.3}),
    ("AMSGrad", {}),
    ("AMSGrad", {"beta1": 0.4, "beta2": 0.3, "eps": 0.3}),
    ("NAdam", {}),
    ("NAdam", {"beta1": 0.4, "beta2": 0.45, "eps": 0.3, "momentum_decay": 0.7}),
]
GRADIENTS = np.random.default_rng(0).standard_normal((6, 9)) * 10.0 ** np.linspace(-2, 1, 9)


@pytest.mark.parametrize("name, settings", CASES, ids=str)
def test_updates_are_those_of_the_textbook(host_kit, name, settings):
    rule, textbook = getattr(rules, name)(**settings), SimpleNamespace(a=0.0, b=0.0, m=0.0, v=0.0, t=0)
    state = rule.init(GRADIENTS[0])
    assert state["step"] == 0 and all(not np.any(state[slot]) for slot in rule.slots)
    for g in GRADIENTS:
        textbook.t += 1
        u, state = rule.update(state, g)
        want = host_kit.TEXTBOOK[name](textbook, g, **settings)
        np.testing.assert_allclose(u, want, rtol=1e-11 if settings.get("centered") else 1e-13)
        assert state["step"] == textbook.t


@pytest.mark.parametrize("formula, m", [(rules.rmsprop_centered, ()), (rules.rmsprop_both, (2.0,))])
def test_a_variance_that_rounds_below_zero_is_zero(formula, m):
    """v = 1 and a = 6 are those of no gradients; they stand for roundings, which make such pairs after many steps."""
    momentum = {"momentum": 0.25} if m else {}
    *_, u = formula(np.ones(1), np.zeros(1), np.full(1, 10.0), *m, alpha=0.5, scaled_eps=0.125, back=2.0, **momentum)
    assert u == 2 / 0.125 + (0.5 if m else 0)


@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_the_state_of_rmsprop_is_what_its_docstring_says(momentum):
    """The direction sees the square of the mean alone; who reads a saved state sees its sign."""
    rule = rules.RMSProp(alpha=0.5, momentum=momentum, centered=True)
    state = rule.init(np.zeros(1))
    for g in (-4.0, 3.0):
        _, state = rule.update(state, np.array([g]))
    assert state["v"] == 0.5 * 16 + 9 and state["a"] == 0.5 * -4 + 3
    assert list(state) == ["step", "v", "a", *(["m"] if momentum else [])]


def test_scalars_may_be_asked_for_in_any_order():
    """As after loading an earlier state; NAdam keeps a table of its products."""
    asked, fresh = rules.NAdam(), [rules.NAdam().scalars(t) for t in (9, 1, 2, 10)]
    assert [asked.scalars(t) for t in (9, 1, 2, 10)] == fresh


def test_a_formula_that_forgets_a_slot_is_refused():
    class Forgetful(rules.FormulaRule):
        def formula(g, m, v):
            return m, g

        slots = ("m", "v")
        hyper = {}  # noqa: RUF012

    with pytest.raises(ValueError, match="zip"):
        Forgetful().update(Forgetful().init(np.ones(2)), np.ones(2))


DEFAULTS = {
    "SGD": {},
    "Momentum": {"momentum": 0.9},
    "Nesterov": {"momentum": 0.9},
    "AdaGrad": {"eps": 1e-10},
    "RMSProp": {"alpha": 0.99, "eps": 1e-8, "momentum": 0.0, "centered": False},
    "AdaDelta": {"rho": 0.9, "eps": 1e-6},
    "Adam": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
    "AMSGrad": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
    "NAdam": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "momentum_decay": 4e-3},
}


def test_every_rule_has_the_defaults_of_its_docstring():
    signatures = {r.__name__: inspect.signature(r).parameters for r in rules.RULES}
    assert {name: {k: p.default for k, p in s.items()} for name, s in signatures.items()} == DEFAULTS


def test_rules_tell_their_settings():
    assert repr(rules.SGD()) == "SGD()"
    assert repr(rules.NAdam()) == "NAdam(beta1=0.9, beta2=0.999, eps=1e-08, momentum_decay=0.004)"
    assert repr(rules.RMSProp(centered=True)) == "RMSProp(alpha=0.99, eps=1e-08, momentum=0, centered)"


# hyper-parameter → the least and the most that it may be, and how its range is told
UNIT = (0.0, math.nextafter(1.0, 0.0), r"lie in \[0, 1\)")
HALF_LINE = (0.0, 1e308, r"lie in \[0, ∞\)")
RANGES = {
    "alpha": UNIT,
    "rho": UNIT,
    "beta1": UNIT,
    "beta2": UNIT,
    "momentum": HALF_LINE,
    "momentum_decay": HALF_LINE,
    "eps": (5e-324, 1e308, "be positive and finite"),
}


@pytest.mark.parametrize("name", RANGES)
def test_ranges_end_where_they_are_said_to_end(name):
    least, most, told = RANGES[name]
    assert rules.checked(**{name: least}) == {name: least}
    assert rules.checked(**{name: most}) == {name: most}
    for wrong in (-5e-324 if least == 0 else 0.0, 1.0 if most < 1 else math.inf, math.nan):
        with pytest.raises(ValueError, match=f"^{name} must {told}, got {wrong}$"):
            rules.checked(**{name: wrong})
