import numpy as np
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from minibng.backend.random import bernoulli, random_bits

counters = st.integers(0, 2**64 - 1)


@given(counters, st.integers(0, 50), st.integers(0, 50))
def test_a_longer_draw_begins_with_the_shorter(device, counter, a, b):
    short, long = sorted((a, b))
    xp = device.backend.xp
    long, short = device.host([random_bits(xp, counter, long)[:short], random_bits(xp, counter, short)])
    assert np.array_equal(long, short)


def test_the_bits_never_change(device):
    with device.no_sync():
        drawn = [random_bits(device.backend.xp, counter, 3) for counter in (0, 2**40 + 17)]
    assert [bits.tolist() for bits in device.host(drawn)] == KNOWN


@given(counters, st.sampled_from([0, 1, 5, 70_000]))  # the last one is more than one piece
def test_the_bits_are_the_finalizer_twice(device, counter, size):
    """Against the definition in Python's integers."""

    def mixed(h):
        h = (h ^ h >> 16) * 0x85EBCA6B % 2**32
        h = (h ^ h >> 13) * 0xC2B2AE35 % 2**32
        return h ^ h >> 16

    low, high = counter % 2**32, counter >> 32
    key = low * 0x9E3779B1 + (high ^ 0x7F4A7C15) * 0x85EBCA77 + (high >> 15)
    bits = device.host(random_bits(device.backend.xp, counter, size))
    assert bits.dtype == np.uint32 and bits.shape == (size,)
    for i in range(0, size, max(1, size // 5)):
        assert bits[i] == mixed((mixed(i ^ low) + key) % 2**32)


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
def test_the_mask_has_the_probability_it_was_asked_for(device, counter, p):
    mask = device.host(bernoulli(device.backend.xp, counter, (100, 50), p))
    assert mask.shape == (100, 50) and mask.dtype == bool
    assert abs(mask.mean() - p) < 6 * (p * (1 - p) / 5000) ** 0.5


def test_certain_and_impossible(device):
    xp = device.backend.xp
    with device.no_sync():
        never, always, empty = [bernoulli(xp, 5, s, p) for s, p in (((1000,), 0.0), ((1000,), 1.0), ((0, 3), 0.5))]
    assert not device.host(never).any() and device.host(always).all() and empty.shape == (0, 3)


KNOWN = [[2829844446, 3425378524, 3646792290], [3134429311, 2125046582, 3841636080]]
