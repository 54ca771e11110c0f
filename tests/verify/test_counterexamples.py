"""Counterexamples show what they say, measured against closed forms; a wrong closed form or a wrong run is told."""

import math
from dataclasses import replace

import numpy as np
import pytest

from minibng.names import UnknownNameError
from minibng.verify.counterexamples import COUNTEREXAMPLES, Fact, _gamma_median, show

NAMES = {
    *("median-bias", "workers-normalized-first", "scalar-blocks", "circling", "decay-before", "adam-scale"),
    "half-norm",
}


@pytest.mark.parametrize("name", COUNTEREXAMPLES)
def test_it_shows_what_it_says(name):
    finding = show(name)
    assert finding.name == name and finding.statement.endswith(".") and finding.facts
    for label, (x, y) in finding.curves.items():
        assert label and len(x) == len(y) > 1 and np.isfinite(y).all()
    for axis, data in zip("xy", zip(*finding.curves.values(), strict=True), strict=True):
        assert axis not in finding.log or min(map(np.min, data)) > 0
    text = str(finding)
    assert text.startswith(finding.statement) and text.count("\n") == len(finding.facts)


def test_all_are_there():
    assert set(COUNTEREXAMPLES) == NAMES
    with pytest.raises(UnknownNameError, match="did you mean 'median-bias'"):
        show("median_bias")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("median-bias", {"batches": (3,), "replicas": 500, "steps": 400, "seed": 1}),
        ("workers-normalized-first", {"heights": (2.0,), "steps": 150}),
        ("scalar-blocks", {"start": 0.7, "steps": 300}),
        ("circling", {"lr": 0.3, "steps": 100, "seed": 1}),
        ("decay-before", {"lr": 0.07, "steps": 90, "seed": 2}),
        ("adam-scale", {"factor": 10, "at": 20, "steps": 200}),
        ("half-norm", {"size": 4096}),
    ],
)
def test_closed_forms_hold_for_other_settings(name, settings):
    show(name, **settings)


def test_medians_of_means_are_those_of_the_gamma_distribution():
    special = pytest.importorskip("scipy.special")
    for m in (1, 2, 4, 8, 16):
        median, density = _gamma_median(m)
        assert median == pytest.approx(special.gammaincinv(m, 0.5) / m, rel=1e-12)
        h = 1e-4
        slope = (special.gammainc(m, m * (median + h)) - special.gammainc(m, m * (median - h))) / (2 * h)
        assert density == pytest.approx(slope, rel=1e-6)
        assert median == pytest.approx(1 - 1 / (3 * m) + 8 / (405 * m * m), abs=0.02 / m**2)


def test_a_fact_that_does_not_hold_is_told():
    finding = show("half-norm")
    for fact in finding.facts:
        assert not replace(fact, measured=math.nan).holds
        assert not replace(fact, measured=fact.high + 1).holds and not replace(fact, measured=fact.low - 1).holds
    broken = replace(finding, facts=(replace(finding.facts[0], measured=40.0), *finding.facts[1:]))
    with pytest.raises(AssertionError, match="norm in float16 right: 40, by theory 16") as caught:
        broken.check()
    assert str(caught.value).startswith("half-norm does not show it: A norm computed in float16")
    assert str(caught.value).count("\n") == 1  # the facts that hold are left out


def test_facts_are_told_with_what_is_allowed():
    assert str(Fact("x", 1.0, 0.5, math.inf)) == "x: 1, by theory at least 0.5"
    assert str(Fact("x", 1.0, -math.inf, 2.0)) == "x: 1, by theory at most 2"
    assert str(Fact.near("x", 1.0, 1.0, 0.0)) == "x: 1, by theory 1"
    assert str(Fact.near("x", 1.0, 1.5, 0.5)) == "x: 1, by theory 1 to 2"


def test_runs_are_the_same_twice():
    first, second = (str(COUNTEREXAMPLES["median-bias"](steps=50, replicas=20)) for _ in range(2))
    assert first == second != str(COUNTEREXAMPLES["median-bias"](steps=50, replicas=20, seed=1))
