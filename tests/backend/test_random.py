import numpy as np
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from minibng.backend.random import bernoulli, random_bits

counters = st.integers(0, 2**64 - 1)


@given(counters, st.integers(0, 50), st.integers(0, 50))
def test_a_longer_draw_begins_with_the_shorter(counter, a, b):
    short, long = sorted((a, b))
    assert np.array_equal(random_bits(np, counter, long)[:short], random_bits(np, counter, short))


def test_the_bits_never_change():
    assert random_bits(np, 0, 3).tolist() == KNOWN[0]
    assert random_bits(np, 2**40 + 17, 3).tolist() == KNOWN[1]


def test_bytes_are_uniform():
    counts = np.bincount(random_bits(np, 12345, 100_000).view(np.uint8), minlength=256)
    assert scipy.stats.chisquare(counts).pvalue > 1e-4


def test_every_bit_is_fair_and_independent_of_its_neighbours():
    bits = np.unpackbits(random_bits(np, 99, 50_000).view(np.uint8)).reshape(50_000, 32).astype(float)
    assert np.abs(bits.mean(0) - 0.5).max() < 5 * 0.5 / 50_000**0.5
    correlation = np.corrcoef(bits.T) - np.eye(32)
    assert np.abs(correlation).max() < 6 / 50_000**0.5


@given(st.integers(0, 2**62))
def test_consecutive_counters_give_unrelated_masks(counter):
    a, b = (bernoulli(np, counter + k, (4000,), 0.5).astype(float) for k in (0, 1))
    assert abs(np.corrcoef(a, b)[0, 1]) < 6 / 4000**0.5
    shifted = np.corrcoef(a[1:], b[:-1])[0, 1]
    assert abs(shifted) < 6 / 4000**0.5


@given(counters, st.floats(0.05, 0.95))
def test_the_mask_has_the_probability_it_was_asked_for(counter, p):
    mask = bernoulli(np, counter, (100, 50), p)
    assert mask.shape == (100, 50) and mask.dtype == bool
    assert abs(mask.mean() - p) < 6 * (p * (1 - p) / 5000) ** 0.5


def test_certain_and_impossible():
    assert not bernoulli(np, 5, (1000,), 0.0).any()
    assert bernoulli(np, 5, (1000,), 1.0).all()
    assert bernoulli(np, 5, (0, 3), 0.5).shape == (0, 3)


KNOWN = [[2829844446, 3425378524, 3646792290], [3134429311, 2125046582, 3841636080]]
