import copy
import dataclasses
import gc
import pickle
import weakref

import numpy as np
import pytest
from PIL import Image

from minibng import data, nn, train
from minibng.data import Dataset, Split, batches, resize
from minibng.train import metrics

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


# Pixels that stay bytes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("layout", ["C", "F"])
def test_a_scale_standardizes_each_channel_in_float32_on_every_device(device, rows, layout) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 3, 2), np.uint8)
    x = np.asarray(pixels.reshape(5, -1) if rows else pixels, order=layout)
    part = Dataset(x, np.arange(5), scale=((100.0, 7.0), (2.0, 50.0)))
    made = part.scaled(device.array(part.x[1:]))
    expected = (pixels[1:].astype(np.float32) - np.float32([100, 7])) / np.float32([2, 50])
    assert made.dtype == np.float32
    np.testing.assert_array_equal(device.host(made).reshape(expected.shape), expected)
    np.testing.assert_array_equal(part.x, x)
    assert part.take(2).scale is not None and part.x.dtype == np.uint8


def test_batches_and_scores_see_what_a_standardized_copy_shows(device) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 4), np.uint8)
    part = Dataset(pixels, np.arange(9) % 2, 2, scale=(100.0, 50.0))
    copy = Dataset((pixels.astype(np.float32) - 100) / 50, part.y, 2)
    for (x, _), (z, _) in zip(*(batches(d, 4, 1, device=device.name) for d in (part, copy)), strict=True):
        np.testing.assert_array_equal(device.host(x), device.host(z))
        x[...] = 0  # the caller's own
    params = nn.Linear(4, 2).init(0, device=device.name)

    def evaluate(p, x, y):
        output = nn.Linear(4, 2)(p, x)
        return nn.cross_entropy(output, y), output

    assert train.score(evaluate, params, part) == train.score(evaluate, params, copy)


def test_large_samples_are_scored_a_few_at_a_time(monkeypatch) -> None:
    part, seen = Dataset(np.ones((10, 6), np.float32), np.zeros(10, int), 2), []
    monkeypatch.setattr(metrics, "ENTRIES", 20)

    def evaluate(_, x, y):
        seen.append(len(x))
        return np.float32(1.0), np.stack([x[:, 0], 0 * x[:, 0]], axis=1)

    assert train.score(evaluate, nn.Linear(1, 1).init(0), part) == (1.0, 0.0)
    assert seen == [3, 3, 3, 1]


def test_without_a_scale_samples_are_what_they_are() -> None:
    part = Dataset(X, [0, 1, 2, 1])
    assert part.scale is None and part.scaled(part.x) is part.x


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        (((1.0, 2.0), (1.0, 2.0)), ["(2,)", "(3,)", "one for each channel"]),
        (((1.0,), (1.0, 2.0, 3.0)), ["mean of shape (1,)", "deviation of shape (3,)"]),
        ((0.0, 0.0), ["positive", "[0.]"]),
        ((0.0, np.nan), ["finite"]),
    ],
)
def test_scales_that_do_not_fit(scale, words) -> None:
    with pytest.raises(ValueError) as caught:
        Dataset(X, [0, 1, 2, 1], scale=scale)
    for word in words:
        assert word in str(caught.value)


# Images ---------------------------------------------------------------------------------------------------------------


def split_of(x, **settings) -> Split:
    parts = [Dataset(part, np.arange(len(part))) for part in (x, x[:3], x[:2])]
    return Split(*parts, "made", None, "source", **settings)


def test_rows_become_images_and_images_rows_without_a_copy() -> None:
    x = np.random.default_rng(0).standard_normal((4, 24)).astype(np.float32)
    split = split_of(x, image_shape=(3, 4, 2))
    images = split.as_images()
    assert [len(part.x) for part in (images.train, images.val, images.test)] == [4, 3, 2]
    np.testing.assert_array_equal(images.train.x, x.reshape(4, 3, 4, 2))
    assert np.shares_memory(images.train.x, x) and not images.train.x.flags.writeable
    assert images.as_images() is images and split.flat() is split
    np.testing.assert_array_equal(images.flat().train.x, x)
    assert images.image_shape == images.flat().image_shape == (3, 4, 2)
    assert images.source == split.source
    assert split_of(x.reshape(4, 3, 4, 2)).image_shape == (3, 4, 2), "told by four axes"


def test_what_is_made_is_made_once_and_goes_with_its_split() -> None:
    split = split_of(np.zeros((4, 16), np.float32), image_shape=(4, 4, 1))
    assert split.as_images(2) is split.as_images(2) and split.as_images() is split.as_images()
    assert split.as_images(2).flat() is split.as_images(2).flat()
    gone = weakref.ref(split.as_images(2).train)
    del split
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8])
def test_resized_pixels_are_means_over_areas(size, dtype) -> None:
    """Against pixels first repeated ``size`` times, so that every new one covers whole pieces."""
    x = np.random.default_rng(0).standard_normal((4, 4, 4, 3)).astype(dtype)
    split = split_of(x.reshape(4, 48), image_shape=(4, 4, 3)).as_images(size)
    fine = x.astype(np.float64).repeat(size, axis=1).repeat(size, axis=2)
    expected = fine.reshape(4, size, 4, size, 4, 3).mean(axis=(2, 4))
    made = split.train.x
    assert made.dtype == dtype and split.image_shape == (size, size, 3)
    np.testing.assert_allclose(made, expected, rtol=1e-6 if dtype == "float32" else 1e-13, atol=1e-7)
    with pytest.raises(ValueError, match="read-only"):
        made[0] = 7
    if size != 4:  # a new array, which nobody can make writable
        with pytest.raises(ValueError, match="WRITEABLE"):
            made.flags.writeable = True
    assert (f"averaged to {size}×{size}" in split.source) == (size != 4)


def test_mnist_at_half_size_is_as_pillow_makes_it() -> None:
    """For ratios that are no whole numbers Pillow's box takes whole pixels, not the parts of them that are covered."""
    small = data.load("mnist5k").as_images(14)
    assert small is data.load("mnist5k").as_images(14)
    for image, made in zip(data.load("mnist5k").val.x[:50], small.val.x, strict=False):
        expected = Image.fromarray(image.reshape(28, 28)).resize((14, 14), Image.Resampling.BOX)
        np.testing.assert_allclose(made[..., 0], expected, rtol=0, atol=2e-6)
    np.testing.assert_array_equal(small.val.y, data.load("mnist5k").val.y)


def test_bytes_are_rounded_and_keep_their_scale() -> None:
    parts = [Dataset(np.uint8([[0, 1, 1, 1]]), [0], scale=(0.5, 2.0))] * 3
    split = Split(*parts, "made", None, "source", image_shape=(2, 2, 1)).as_images(1)
    assert split.train.x.dtype == np.uint8 and split.train.x.item() == 1
    assert split.train.scaled(split.train.x).item() == 0.25


def test_an_image_smaller_than_the_memory_for_one_go_or_larger(monkeypatch) -> None:
    x = np.random.default_rng(0).standard_normal((7, 4, 4, 1))
    at_once = resize.resize(x, 3, 2)
    monkeypatch.setattr(resize, "_AT_ONCE", 33)
    np.testing.assert_array_equal(resize.resize(x, 3, 2), at_once)


def test_tables_are_no_images() -> None:
    table = split_of(np.zeros((4, 16), np.float32))
    assert table.image_shape is None and table.flat() is table
    with pytest.raises(ValueError, match=r"'made', of shape \(16,\), are no images.*such as digits or textures"):
        table.as_images()
    with pytest.raises(ValueError, match="no images"):
        data.load("breast_cancer").as_images(8)
    with pytest.raises(ValueError, match="size must be at least 1; got 0"):
        data.load("digits").as_images(0)
    with pytest.raises(TypeError, match=r"size must be a whole number; got 2\.5"):
        data.load("digits").as_images(2.5)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda part: pickle.loads(pickle.dumps(part))])
def test_copies_are_read_only_too(again) -> None:
    part = Dataset(np.arange(12, dtype=np.uint8).reshape(4, 3), [0, 1, 1, 0], 2, scale=(1.0, 2.0))
    copied = again(part)
    assert repr(copied) == repr(part)
    np.testing.assert_array_equal(copied.scaled(copied.x), part.scaled(part.x))
    assert not any(array.flags.writeable for array in (copied.x, copied.y, *copied.scale))


def test_a_split_refuses_shapes_and_names_that_do_not_fit() -> None:
    with pytest.raises(
        ValueError, match=r"\(H, W, C\) = \(4, 5, 1\) do not fit samples of shapes \(4, 16\), \(3, 16\)"
    ):
        split_of(np.zeros((4, 16)), image_shape=(4, 5, 1))
    part = Dataset(X, [0, 1, 1, 1], 2)
    with pytest.raises(ValueError, match="3 names for 2 classes"):
        Split(part, part, part, "made", 2, "source", class_names=("a", "b", "c"))


# Tokens ---------------------------------------------------------------------------------------------------------------


def test_tokens_may_have_a_label_each() -> None:
    tokens = np.arange(12, dtype=np.int32).reshape(4, 3)
    made = Dataset(tokens, tokens % 5, classes=5)
    assert repr(made) == "Dataset(x (4, 3) int32, y (4, 3) int64, 5 classes)" and made.take(2).y.shape == (2, 3)
    with pytest.raises(ValueError, match=r"^label 7 \(sample 2\) is out of range: 5 classes have the labels 0 to 4$"):
        Dataset(tokens, [[0, 1, 2], [3, 4, 0], [0, 7, 0], [9, 0, 0]], classes=5)
    for x, y in ((X, np.zeros((4, 3), int)), (tokens, np.zeros((4, 2), int))):
        with pytest.raises(ValueError, match="labels must have shape"):
            Dataset(x, y, classes=5)


def test_a_split_carries_its_vocabulary() -> None:
    part = Dataset(np.arange(5), np.arange(5), classes=5)
    made = Split(part, part, part, "made", 5, "source", vocabulary=data.Vocabulary(tuple("abcde")))
    assert pickle.loads(pickle.dumps(made)).vocabulary == made.vocabulary == made.flat().vocabulary
    assert Split(part, part, part, "made", 5, "source").vocabulary is None
