import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minibng.data import standardize, stratified
from minibng.data.prepare import make_split


@settings(derandomize=True)
@given(st.lists(st.integers(0, 4), max_size=200))
def test_stratified_parts_are_disjoint_complete_and_of_the_stated_sizes(labels: list[int]) -> None:
    y = np.array(labels, np.int64)
    train, val, test = stratified(y)
    assert sorted([*train, *val, *test]) == list(range(len(y)))
    for label in range(5):
        n = int((y == label).sum())
        expected = [(2 * n + 5) // 10, (n + 5) // 10]
        assert [int((y[part] == label).sum()) for part in (test, val)] == expected
        assert all(abs(10 * size - share * n) <= 5 for size, share in zip(expected, (2, 1), strict=True))


PINNED = (
    [16, 28, 22, 7, 4, 13, 18, 25, 17, 5, 20, 24, 1, 8, 15, 26, 10, 12, 0, 29, 9],
    [2, 21, 11],
    [14, 6, 27, 23, 3, 19],
)


def test_stratified_is_this_permutation_on_every_machine() -> None:
    train, val, test = stratified([0] * 20 + [1] * 10)
    assert (train.tolist(), val.tolist(), test.tolist()) == PINNED


def test_stratified_parts_are_shuffled_across_classes() -> None:
    y = np.repeat(np.arange(10), 500)
    for part in stratified(y):
        first = np.bincount(y[part[:100]], minlength=10)
        assert first.min() >= 4 and first.max() <= 20, "the first 100 of a part are a sample of all classes"


def test_standardize_by_one_scalar() -> None:
    rng = np.random.default_rng(0)
    train, other = rng.normal(3, 5, (200, 4)), rng.normal(3, 5, (50, 4))
    scaled, moved = standardize(train, other)
    assert scaled.dtype == moved.dtype == np.float32
    np.testing.assert_array_equal(moved, ((other - train.mean()) / train.std()).astype(np.float32))
    assert abs(scaled.mean(dtype=np.float64)) < 1e-6
    assert abs(scaled.std(dtype=np.float64) - 1) < 1e-6
    assert np.abs(scaled.mean(axis=0)).max() > 1e-2, "one mean for all, not one per feature"


def test_standardize_per_feature() -> None:
    rng = np.random.default_rng(0)
    train = rng.normal(0, 1, (200, 3)) * [1, 1e3, 1e-3] + [0, -50, 7]
    (scaled,) = standardize(train, axis=0)
    np.testing.assert_allclose(scaled.mean(axis=0, dtype=np.float64), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(axis=0, dtype=np.float64), 1, atol=1e-6)


def test_standardize_over_samples_and_pixels_but_not_channels() -> None:
    images = np.random.default_rng(0).uniform(size=(10, 4, 5, 3)) * [1, 10, 100]
    (scaled,) = standardize(images, axis=(0, 1, -2))
    np.testing.assert_allclose(scaled.std(axis=(0, 1, 2), dtype=np.float64), 1, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e30, 1e-40, 255.0])
@pytest.mark.parametrize("axis", [None, 0])
def test_constant_training_set_becomes_zero_and_is_only_shifted(value: float, axis: int | None) -> None:
    train, other = standardize(np.full((7, 3), value), np.full((2, 3), value + 1), axis=axis)
    assert not train.any()
    np.testing.assert_array_equal(other, np.float32((value + 1) - value))


def test_standardize_takes_unsigned_bytes() -> None:
    (scaled,) = standardize(np.array([[0, 255]], np.uint8))
    assert scaled.tolist() == [[-1.0, 1.0]]


@pytest.mark.parametrize(
    ("parts", "axis", "words"),
    [
        ([np.zeros((0, 3))], None, "(0, 3)"),
        ([np.array([[1.0, np.nan]])], None, "NaN or infinity"),
        ([np.array([[1.0, np.inf]])], 0, "NaN or infinity"),
        ([np.zeros((4, 3))], 1, "axis is 1"),
        ([np.zeros((4, 3)), np.zeros((4, 1))], 0, "(4, 3), another part (4, 1)"),
    ],
)
def test_standardize_errors(parts, axis, words) -> None:
    with pytest.raises(ValueError) as caught:
        standardize(*parts, axis=axis)
    assert words in str(caught.value)


def test_a_set_too_small_to_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="the data set is empty"):
        make_split(np.ones((4, 2)), np.array([0, 0, 1, 1]), name="tiny", classes=2, source="")


def test_a_regression_is_divided_at_random_and_its_target_standardized() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(5, 3, (100, 4)) * [1, 10, 100, 1000], rng.normal(-7, 2, (100, 1))
    split = make_split(x, y, name="r", classes=None, source="", axis=0)
    parts = stratified(np.zeros(100))
    assert [len(part) for part in parts] == [70, 10, 20]
    assert split.classes is None
    for dataset, part in zip((split.train, split.val, split.test), parts, strict=True):
        mean, std = x[parts[0]].mean(axis=0), x[parts[0]].std(axis=0)
        np.testing.assert_array_equal(dataset.x, ((x[part] - mean) / std).astype(np.float32))
        np.testing.assert_allclose(dataset.y * y[parts[0]].std() + y[parts[0]].mean(), y[part], rtol=1e-5)
        assert dataset.y.dtype == np.float32 and dataset.y.shape == (len(part), 1) and dataset.classes is None


def test_other_shares_and_parts_that_are_left_out() -> None:
    y = np.repeat([0, 1, 2], [10, 40, 7])
    train, val, test = stratified(y, val=10, test=0)
    assert test.size == 0 and np.bincount(y[val]).tolist() == [1, 4, 1]
    assert sorted([*train, *val]) == list(range(57))
    everything, *nothing = stratified(y, val=0, test=0)
    assert sorted(everything) == list(range(57)) and [part.size for part in nothing] == [0, 0]
    for expected, found in zip(stratified(y), stratified(y, val=10, test=20), strict=True):
        np.testing.assert_array_equal(expected, found)
