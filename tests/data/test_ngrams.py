"""Counting models against a plain loop over words, and against what can be told without counting."""

import math
from collections import Counter

import numpy as np
import pytest

from minibng import data
from minibng.data import Dataset, Split
from minibng.data.ngrams import WEIGHTS


def text_split(train, val, test, size) -> Split:
    parts = [Dataset(np.array(part)[:-1], np.array(part)[1:], size) for part in (train, val, test)]
    return Split(*parts, "text", size, "made here")


def perplexity(split, part, probability) -> float:
    dataset = getattr(split, part)
    logs = [math.log(probability(int(v), int(w))) for v, w in zip(dataset.x, dataset.y, strict=True)]
    return math.exp(-sum(logs) / len(logs))


def test_counts_against_a_plain_loop() -> None:
    rng = np.random.default_rng(3)
    train, val = (np.cumsum(rng.zipf(1.6, n)) % 12 for n in (300, 80))
    split = text_split(train, val, rng.integers(0, 14, 90), size=14)
    pairs = Counter(zip(split.train.x.tolist(), split.train.y.tolist(), strict=True))
    left, right = Counter(split.train.x.tolist()), Counter(split.train.y.tolist())

    def unigram(a):
        return lambda v, w: (right[w] + a / 14) / (len(split.train) + a)

    def bigram(a, b):
        return lambda v, w: (pairs[v, w] + b * unigram(a)(v, w)) / (left[v] + b)

    a = min(WEIGHTS, key=lambda a: perplexity(split, "val", unigram(a)))
    b = min(WEIGHTS, key=lambda b: perplexity(split, "val", bigram(a, b)))
    assert a != min(WEIGHTS, key=lambda a: perplexity(split, "test", unigram(a))), "the test part chooses nothing"
    assert b != min(WEIGHTS, key=lambda b: perplexity(split, "test", bigram(a, b)))
    for model in (unigram(a), bigram(a, b)):  # they are distributions
        assert sum(model(3, w) for w in range(14)) == pytest.approx(1, abs=1e-12)
    for part in ("train", "val", "test"):
        assert data.unigram_perplexity(split)[part] == pytest.approx(perplexity(split, part, unigram(a)), rel=1e-12)
        assert data.bigram_perplexity(split)[part] == pytest.approx(perplexity(split, part, bigram(a, b)), rel=1e-12)


def test_equally_frequent_words_have_the_perplexity_of_their_number() -> None:
    size, rng = 7, np.random.default_rng(0)
    parts = [np.append(0, rng.permutation(np.repeat(np.arange(size), n))) for n in (50, 10, 10)]
    found = data.unigram_perplexity(text_split(*parts, size))
    assert found == pytest.approx({"train": size, "val": size, "test": size}, rel=1e-12)


def test_a_word_that_is_certain_costs_next_to_nothing() -> None:
    size, turns = 5, 40
    parts = [np.append(np.tile(np.arange(size), n), 0) for n in (turns, 3, 3)]
    a = WEIGHTS[0]
    sure = (turns + a / size) / (turns + a)
    found = data.bigram_perplexity(text_split(*parts, size))
    assert found == pytest.approx({"train": 1 / sure, "val": 1 / sure, "test": 1 / sure}, rel=1e-12)


def test_words_and_pairs_that_were_never_seen_have_a_finite_perplexity() -> None:
    found = data.bigram_perplexity(text_split([0, 1] * 20, [2, 3, 2], [3, 1, 0, 2], 4))
    assert all(math.isfinite(value) and value > 1 for value in found.values())
    assert found["val"] < 4.1, "what it knows is of no use, and the weight says so"


def test_small_tokens_of_a_large_vocabulary() -> None:
    x, y = np.repeat([0, 42_950], 20), np.repeat([32_704, 0], 20)  # 42,950·100,000 is 32,704 modulo 2³²
    parts = [Dataset(x.astype(kind), y, 100_000) for kind in (np.int64, np.int32)]
    found = [data.bigram_perplexity(Split(part, part, part, "t", 100_000, "made here")) for part in parts]
    assert found[0] == found[1] and found[0]["train"] > 1


@pytest.mark.parametrize("split", [data.adding(4, 5), data.copying(4, 5)], ids=lambda split: split.name)
def test_only_texts_have_one(split) -> None:
    with pytest.raises(ValueError, match=f"{split.name} is no text: x and y must be one sequence of tokens"):
        data.bigram_perplexity(split)
