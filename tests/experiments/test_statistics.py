import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from minibng.experiments.statistics import (
    CONTRADICTED,
    SUPPORTED,
    UNDECIDED,
    holm_levels,
    judge,
    p_value,
    t_interval,
)

values = st.lists(st.floats(-100, 100), min_size=2, max_size=12).filter(lambda v: np.std(v) > 1e-6)


@given(values)
def test_the_interval_is_scipys(x):
    ours = t_interval(x)
    theirs = scipy.stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert np.allclose([ours.low, ours.high], theirs, rtol=1e-9, atol=1e-9)


@given(values)
def test_the_p_value_is_scipys(x):
    assert p_value(x) == pytest.approx(scipy.stats.ttest_1samp(x, 0).pvalue, rel=1e-9, abs=1e-300)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_rejects_what_its_adjusted_p_values_say(p):
    order = np.argsort(p, kind="stable")
    adjusted, running = np.empty(len(p)), 0.0
    for rank, i in enumerate(order):
        running = max(running, (len(p) - rank) * p[i])
        adjusted[i] = running
    ours = [level is not None for level in holm_levels(p)]
    clear = np.abs(adjusted - 0.05) > 1e-12
    assert [o for o, c in zip(ours, clear, strict=True) if c] == list((adjusted <= 0.05)[clear])


def test_verdicts_follow_the_interval():
    clearly = [-0.9, -1.0, -1.1, -1.0, -0.95]
    (finding,) = judge([clearly])
    assert finding.verdict == SUPPORTED and finding.difference.high < 0
    assert judge([[-v for v in clearly]])[0].verdict == CONTRADICTED
    assert judge([[-1.0, 1.0, -1.0, 1.0, 0.1]])[0].verdict == UNDECIDED


def test_nothing_is_decided_below_five_seeds_or_with_a_diverged_one():
    assert judge([[-1.0, -1.1, -1.0, -0.9]])[0].verdict == UNDECIDED
    assert judge([[-1.0, -1.1, -1.0, -0.9, -math.inf]])[0].verdict == UNDECIDED


def test_several_claims_share_the_level():
    d = [-1.0, -0.25, -1.4, -0.9, -0.4]
    assert 0.025 / 2 < p_value(d) < 0.025
    assert judge([d])[0].verdict == SUPPORTED
    assert judge([d, [1.0, -1.0, 1.0, -1.0, 0.1], [1.0, -1.0, 1.0, -1.0, 0.1]])[0].verdict == UNDECIDED


def test_one_value_has_no_interval():
    assert t_interval([3.0]).mean == 3.0 and math.isnan(t_interval([3.0]).low)
