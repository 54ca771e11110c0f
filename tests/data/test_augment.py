import numpy as np
import pytest

from minibng import data
from minibng.backend import backend_of
from minibng.data import CropMirror, Dataset, Split, batches, dataset


def numbered(n=11, h=5, w=6, c=2) -> Dataset:
    """Images in which no two pixels are alike, and none is zero."""
    x = 1 + np.arange(n * h * w * c, dtype=np.float32).reshape(n, h, w, c)
    return Dataset(x, np.arange(n))


def naive(x: np.ndarray, drawn: np.ndarray, pad: int) -> np.ndarray:
    """The definition, image by image."""
    new = np.zeros_like(x)
    h, w = x.shape[1:3]
    for image, out, number in zip(x, new, drawn, strict=True):
        turned, place = divmod(int(number), (2 * pad + 1) ** 2)
        top, left = divmod(place, 2 * pad + 1)
        for i in range(h):
            for j in range(w):
                row, column = top + i - pad, left + (w - 1 - j if turned else j) - pad
                if 0 <= row < h and 0 <= column < w:
                    out[i, j] = image[row, column]
    return new


class InTurn:
    """A generator whose draw is 0, 1, 2, … below the bound, over and over."""

    def integers(self, bound, size):
        return np.arange(size) % bound


@pytest.mark.parametrize(("pad", "mirror"), [(0, False), (0, True), (1, False), (2, True), (9, True)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_exactly_what_a_loop_does_on_every_device(device, pad, mirror, dtype) -> None:
    x = numbered().x.astype(dtype)
    augment = CropMirror(pad, mirror)
    drawn = augment.draw(len(x), np.random.default_rng(0))
    made = augment.apply(device.array(x), device.array(drawn))
    assert backend_of(made) is device.backend and made.dtype == dtype
    np.testing.assert_array_equal(device.host(made), naive(x, drawn, pad))


@pytest.mark.parametrize(("mirror", "outcomes"), [(False, 81), (True, 162)])
def test_the_numbers_drawn_are_the_81_crops_and_their_mirror_images_each_once(mirror, outcomes) -> None:
    """The generator draws every number below the bound equally often, and the numbers are the outcomes: no more to it.

    An image larger than its edge shows which crop it is.
    """
    augment = CropMirror(4, mirror)
    assert augment.outcomes == outcomes
    drawn = augment.draw(outcomes, InTurn())  # type: ignore[arg-type]
    x = np.repeat(numbered(1, 8, 8, 1).x, outcomes, axis=0)
    made = {image.tobytes() for image in augment.apply(x, drawn)}
    framed = np.pad(x[0], ((4, 4), (4, 4), (0, 0)))
    crops = [framed[i : i + 8, j : j + 8] for i in range(9) for j in range(9)]
    expected = crops + ([crop[:, ::-1] for crop in crops] if mirror else [])
    assert made == {crop.tobytes() for crop in expected} and len(made) == outcomes


def test_without_augmentation_batches_are_what_they_were_and_with_it_the_order_is() -> None:
    part = numbered(20)
    for i, (x, y) in enumerate(batches(part, 6, 3, 2, augment=None)):
        chosen = np.random.default_rng([3, 2]).permutation(20)[6 * i : 6 * i + 6]
        np.testing.assert_array_equal(x, part.x[chosen])
        np.testing.assert_array_equal(y, chosen)
    with_it = [y.tolist() for _, y in batches(part, 6, 3, 2, augment=CropMirror())]
    assert with_it == [y.tolist() for _, y in batches(part, 6, 3, 2)]


def drawn_for(part: Dataset, augment: CropMirror, seed: int, epoch: int, **settings) -> np.ndarray:
    """The number drawn for each place of an epoch, told from the images themselves."""
    every = np.arange(augment.outcomes)
    found = []
    for x, y in batches(part, 4, seed, epoch, augment=augment, **settings):
        for image, label in zip(x, y, strict=True):
            candidates = augment.apply(np.repeat(part.x[label][None], len(every), axis=0), every)
            (number,) = np.flatnonzero((candidates == image).all(axis=(1, 2, 3)))
            found.append(number)
    return np.array(found)


def test_the_draw_depends_on_seed_epoch_and_place_alone() -> None:
    part, augment = numbered(12), CropMirror(2)
    first = drawn_for(part, augment, 1, 0)
    np.testing.assert_array_equal(drawn_for(part, augment, 1, 0), first)
    np.testing.assert_array_equal(drawn_for(part, augment, 1, 0, shuffle=False), first)
    np.testing.assert_array_equal(drawn_for(part, augment, 1, 0, drop_last=True), first)
    stream = np.random.SeedSequence([1, 0], spawn_key=(0,))
    np.testing.assert_array_equal(first, augment.draw(12, np.random.default_rng(stream)))
    assert (drawn_for(part, augment, 1, 1) != first).any()
    assert (drawn_for(part, augment, 2, 0) != first).any()
    large = numbered(300)
    (one,), (other,) = (list(batches(large, 300, epoch=e, shuffle=False, augment=augment)) for e in (0, 1))
    assert np.mean((one[0] == other[0]).all(axis=(1, 2, 3))) < 0.1, "another draw for most, in another epoch"


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("scale", [None, ((3.0, 5.0), (2.0, 0.5))])
def test_every_device_gets_the_same_augmented_batches_and_they_are_the_callers(
    device, monkeypatch, resident, scale
) -> None:
    if not resident:
        monkeypatch.setattr(dataset, "RESIDENT", 0)
    pixels = np.random.default_rng(0).integers(0, 256, (11, 6, 6, 2), np.uint8)
    part = Dataset(pixels if scale else pixels.astype(np.float32), np.arange(11), scale=scale)
    augment = CropMirror(2)
    expected = list(batches(part, 4, 5, 1, augment=augment))
    with device.no_sync():
        there = list(batches(part, 4, 5, 1, device=device.name, augment=augment))
    for (x, y), (hx, hy) in zip(there, expected, strict=True):
        assert backend_of(x) is device.backend and x.dtype == np.float32 and x.flags.c_contiguous
        np.testing.assert_array_equal(device.host(x), hx)
        np.testing.assert_array_equal(device.host(y), hy)
        x[...] = 0
    again = next(iter(batches(part, 4, 5, 1, device=device.name, augment=augment)))[0]
    np.testing.assert_array_equal(device.host(again), expected[0][0])


def test_what_comes_in_at_the_edges_is_the_mean() -> None:
    """Zero after standardization, not before it."""
    part = Dataset(np.full((1, 4, 4, 1), 200, np.uint8), [0], scale=(100.0, 50.0))
    corner = CropMirror(4, mirror=False)
    x = corner.apply(part.scaled(part.x), np.array([0]))
    np.testing.assert_array_equal(x, np.zeros((1, 4, 4, 1)))
    assert {0.0, 2.0} >= set(np.unique(next(iter(batches(part, 1, augment=corner)))[0]).tolist())


def test_rows_of_numbers_are_refused_at_the_call() -> None:
    split = data.load("digits")
    with pytest.raises(ValueError, match=r"needs images \(N, H, W, C\), got samples of shape \(1, 64\).*as_images"):
        batches(split.train, 8, augment=CropMirror())
    part = split.as_images().train
    assert next(iter(batches(part, 8, augment=CropMirror(1, mirror=False))))[0].shape == (8, 8, 8, 1)
    assert isinstance(split.as_images(), Split)


@pytest.mark.parametrize(("pad", "error", "words"), [(-1, ValueError, "0 or more"), (1.5, TypeError, "whole number")])
def test_pads_that_make_no_sense(pad, error, words) -> None:
    with pytest.raises(error, match=f"{words}.*{pad}"):
        CropMirror(pad)
