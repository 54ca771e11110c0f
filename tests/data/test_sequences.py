"""The tasks of memory: what their definitions say, entry by entry."""

import math

import numpy as np
import pytest

from minibng import data

PARTS = ("train", "val", "test")


@pytest.mark.parametrize("length", [2, 3, 20])
def test_adding_is_the_sum_of_a_marked_number_of_each_half(length) -> None:
    split = data.adding(length, 200)
    assert (split.classes, split.name) == (None, f"adding{length}") and "\n" not in split.source
    for part, n in zip(PARTS, (200, 20, 20), strict=True):
        dataset = getattr(split, part)
        assert dataset.x.shape == (n, length, 2) and dataset.y.shape == (n, 1)
        assert dataset.x.dtype == dataset.y.dtype == np.float32
        for row, (target,) in zip(dataset.x, dataset.y, strict=True):
            (first, second), numbers = np.flatnonzero(row[:, 1]), row[:, 0]
            assert first < length // 2 <= second and row[first, 1] == row[second, 1] == 1
            assert target == numbers[first] + numbers[second]
    assert split.train.x[..., 0].min() >= 0 and split.train.x[..., 0].max() < 1


def test_to_say_one_costs_a_sixth() -> None:
    y = data.adding(30, 20_000).train.y.astype(np.float64)
    error = np.square(y - 1)
    assert abs(error.mean() - 1 / 6) < 3 * error.std() / math.sqrt(len(y))
    marks = data.adding(10, 5000).train.x[..., 1].mean(axis=0)
    np.testing.assert_allclose(marks, 0.2, atol=0.02)  # every step of a half is as likely


@pytest.mark.parametrize("length", [1, 2, 30])
def test_copying_gives_ten_symbols_back(length) -> None:
    split = data.copying(length, 50)
    assert (split.classes, split.name) == (10, f"copying{length}") and "\n" not in split.source
    for part, n in zip(PARTS, (50, 5, 5), strict=True):
        x, y = getattr(split, part).x, getattr(split, part).y
        assert x.shape == y.shape == (n, length + 20) and x.dtype == y.dtype == np.int64
        np.testing.assert_array_equal(x[:, :10], y[:, -10:])
        assert (np.unique(x[:, :10]) >= 1).all() and x[:, :10].max() <= 8
        assert (y[:, :-10] == 0).all() and (x[:, -10:] == 0).all()
        assert (x[:, 9 + length] == 9).all() and (x[:, 10 : 9 + length] == 0).all()
    assert set(np.unique(split.train.x[:, :10])) == set(range(1, 9))


def test_the_loss_of_a_model_without_memory() -> None:
    y, length = data.copying(25, 40).train.y, 25
    probabilities = np.where(np.arange(length + 20)[:, None] < length + 10, np.eye(10)[0], np.r_[0, [1 / 8] * 8, 0])
    losses = -np.log(probabilities[np.arange(length + 20), y])
    assert losses.mean() == pytest.approx(10 * math.log(8) / (length + 20), rel=1e-12)


@pytest.mark.parametrize("task", [data.adding, data.copying])
def test_the_seed_decides_and_no_sequence_is_in_two_parts(task) -> None:
    first, again, other = task(8, 100), task(8, 100), task(8, 100, seed=1)
    for part in PARTS:
        np.testing.assert_array_equal(getattr(first, part).x, getattr(again, part).x)
        assert not np.array_equal(getattr(first, part).x, getattr(other, part).x)
    rows = [row.tobytes() for part in PARTS for row in getattr(first, part).x]
    assert len(set(rows)) == len(rows) == 120
    assert len(task(8, 1).val) == 1


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda: data.adding(1), ValueError, "length must be at least 2; got 1"),
        (lambda: data.copying(0), ValueError, "length must be at least 1; got 0"),
        (lambda: data.adding(5.0), TypeError, "length must be a whole number; got 5.0"),
        (lambda: data.copying(5, 0), ValueError, "samples must be at least 1; got 0"),
        (lambda: data.adding(5, seed=-1), ValueError, "seed must be at least 0; got -1"),
    ],
)
def test_errors(act, error, message) -> None:
    with pytest.raises(error) as caught:
        act()
    assert str(caught.value) == message
