import dataclasses

import numpy as np
import pytest

from minibng.data import Dataset

X = np.arange(12, dtype=np.float32).reshape(4, 3)


def test_len_dtypes_and_repr() -> None:
    dataset = Dataset(X, np.array([0, 1, 2, 1], np.int32), classes=3)
    assert len(dataset) == 4
    assert (dataset.x.dtype, dataset.y.dtype) == (np.float32, np.int64)
    assert repr(dataset) == "Dataset(x (4, 3) float32, y (4,) int64, 3 classes)"


def test_regression_keeps_float_targets() -> None:
    targets = np.array([[0.5], [1.5], [-2.0], [3.0]], np.float32)
    dataset = Dataset(X, targets)
    assert dataset.y.dtype == np.float32
    np.testing.assert_array_equal(dataset.y, targets)
    assert repr(dataset) == "Dataset(x (4, 3) float32, y (4, 1) float32)"


def test_no_copy_and_no_way_to_write() -> None:
    labels = np.array([0, 1, 2, 1])
    dataset = Dataset(X, labels, classes=3)
    assert np.shares_memory(dataset.x, X) and np.shares_memory(dataset.y, labels)
    assert X.flags.writeable and labels.flags.writeable, "the caller's own arrays stay as they were"
    for array in (dataset.x, dataset.y, dataset.take(2).x, dataset.take(2).y):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 7
    with pytest.raises(dataclasses.FrozenInstanceError):
        dataset.x = X[:2]  # type: ignore[misc]


def test_take_is_a_prefix() -> None:
    dataset = Dataset(X, [0, 1, 2, 1], classes=3)
    first = dataset.take(3)
    np.testing.assert_array_equal(first.x, X[:3])
    assert first.y.tolist() == [0, 1, 2] and first.classes == 3
    assert len(dataset.take(4)) == 4


@pytest.mark.parametrize("n", [0, -1, 5])
def test_take_refuses_other_sizes(n: int) -> None:
    with pytest.raises(ValueError, match=rf"^cannot take {n} samples of a data set of 4$"):
        Dataset(X, [0, 1, 2, 1]).take(n)


@pytest.mark.parametrize(
    ("x", "y", "classes", "error", "words"),
    [
        (X, [0, 1, 2], 3, ValueError, ["(4, 3)", "(3,)", "4 samples, but 3 targets"]),
        (X[:0], [], None, ValueError, ["empty", "(0, 3)"]),
        (X, [0, 1, 3, 1], 3, ValueError, ["label 3 (sample 2)", "3 classes", "0 to 2"]),
        (X, [0, -1, 2, 1], 3, ValueError, ["label -1 (sample 1)", "0 to 2"]),
        (X, [0.0, 1.0, 2.0, 1.0], 3, TypeError, ["float64", "astype(np.int64)", "regression"]),
        (X, np.eye(4, dtype=int), 4, ValueError, ["(4, 4)", "(N,)", "argmax"]),
        (X, [True, False, True, True], None, TypeError, ["y must hold real numbers", "bool"]),
        (X, ["a", "b", "c", "d"], None, TypeError, ["y must hold real numbers", "(4,)"]),
        (X.astype(object), [0, 1, 2, 1], 3, TypeError, ["x must hold real numbers", "object", "(4, 3)"]),
        (1.0, 1, None, ValueError, ["x is a single number", "one row per sample"]),
    ],
)
def test_errors_name_shapes_and_what_to_do(x, y, classes, error, words) -> None:
    with pytest.raises(error) as caught:
        Dataset(x, y, classes)
    for word in words:
        assert word in str(caught.value)
