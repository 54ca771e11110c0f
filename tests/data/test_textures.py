import hashlib

import numpy as np
import pytest
import skimage.data
from sklearn.linear_model import LogisticRegression

from minibng import data
from minibng.data.textures import BANDS, NAMES, SIDE, STEP

PARTS = ("train", "val", "test")


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    return [getattr(skimage.data, name)() for name in NAMES]


def patches_on_the_grid(image: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
    corners = range(0, 512 - SIDE + 1, STEP)
    return {(i, j): image[i : i + SIDE, j : j + SIDE] for i in corners for j in corners}


@pytest.fixture(scope="module")
def owners(photographs) -> dict[str, np.ndarray]:
    """For each part how many of its patches hold each pixel, (3, 512, 512): each patch is found by its pixels."""
    split = data.load("textures")
    grids = [patches_on_the_grid(image) for image in photographs]
    training = np.stack([p for grid in grids for (_, j), p in grid.items() if j + SIDE <= BANDS["train"][1]])
    mean, std = training.mean(), training.std()
    place = {p.tobytes(): (k, *corner) for k, grid in enumerate(grids) for corner, p in grid.items()}
    assert len(place) == sum(map(len, grids)), "no two places look the same, so that a patch tells where it is from"
    seen = {part: np.zeros((3, 512, 512), int) for part in PARTS}
    for part in PARTS:
        dataset = getattr(split, part)
        pixels = np.rint(dataset.x * std + mean).astype(np.uint8)
        for x, y in zip(pixels, dataset.y, strict=True):
            k, i, j = place[x.tobytes()]
            assert k == y
            seen[part][k, i : i + SIDE, j : j + SIDE] += 1
    return seen


def test_the_photographs_are_those_that_the_bands_were_chosen_for(photographs) -> None:
    assert [(image.shape, image.dtype) for image in photographs] == [((512, 512), np.uint8)] * 3


def test_shapes_classes_and_names() -> None:
    split = data.load("textures")
    assert (split.name, split.classes, split.class_names, split.image_shape) == ("textures", 3, NAMES, (32, 32, 1))
    for part, each in zip(PARTS, (651, 93, 155), strict=True):
        dataset = getattr(split, part)
        assert dataset.x.shape == (3 * each, 32, 32, 1) and dataset.x.dtype == np.float32
        assert np.bincount(dataset.y).tolist() == [each] * 3
        assert len(set(dataset.y[:20].tolist())) == 3, "in random order"
    assert "\n" not in split.source and "CC0" in split.source


def test_no_pixel_belongs_to_two_parts_and_each_to_one(owners) -> None:
    held = np.array([owners[part] > 0 for part in PARTS])
    assert held.sum(axis=0).max() == 1
    assert held.any(axis=0).all(), "the bands cover the photographs"


def test_no_patch_twice(owners) -> None:
    for part in PARTS:
        assert owners[part].max() == 4  # neighbours overlap by half, both ways


def test_standardized_by_the_training_part_alone() -> None:
    split = data.load("textures")
    assert abs(split.train.x.mean(dtype=np.float64)) < 1e-6
    assert abs(split.train.x.std(dtype=np.float64) - 1) < 1e-6
    assert 1e-3 < abs(split.test.x.std(dtype=np.float64) - 1) < 0.1


def test_a_linear_model_gets_little_more_than_half_right() -> None:
    """So there is something for a convolution to do, and the labels say something about the pixels."""
    rows = data.load("textures").as_images(16).flat()
    model = LogisticRegression(C=1e-3, max_iter=50).fit(rows.train.x, rows.train.y)
    assert 0.45 < model.score(rows.test.x, rows.test.y) < 0.7


def test_the_same_arrays_on_every_machine() -> None:
    split, digest = data.load("textures"), hashlib.sha256()
    for part in PARTS:
        digest.update(getattr(split, part).x.astype("<f4").tobytes())
        digest.update(getattr(split, part).y.astype("<i8").tobytes())
    assert digest.hexdigest() == "4713597f07cc3f6bfb7311885d47029bb43d805eb1aa0144beb181c32d0b6ce5"
