import errno
import io
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minibng import data
from minibng.data import Dataset, Split, folder, image_folder, write_image_folder

PARTS = ("train", "val", "test")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("MINIBNG_DATA", str(tmp_path / ".cache"))
    monkeypatch.setattr(folder, "_SPLITS", {})
    return tmp_path / ".cache" / "folders"


def save(path: Path, value: int, shape=(6, 8), **settings) -> None:
    """An image of one colour, that tells which it is: (value, value + 1, value + 2)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.empty((*shape, 3), np.uint8)
    pixels[:] = value, value + 1, value + 2
    Image.fromarray(pixels).save(path, **settings)


def classes(root: Path, each: int, names=("cat", "dog"), suffix=".png") -> None:
    for label, name in enumerate(names):
        for i in range(each):
            save(root / name / f"{i}{suffix}", 100 * label + i)


def told(part: Dataset) -> list[tuple[int, int]]:
    """The value and the label of each image."""
    return sorted(zip(part.x[:, 0, 0, 0].tolist(), part.y.tolist(), strict=True))


# Layouts --------------------------------------------------------------------------------------------------------------


def test_class_folders_alone_are_divided_as_every_data_set_is(tmp_path) -> None:
    classes(tmp_path / "pets", 10)
    split = image_folder(tmp_path / "pets", size=4)
    assert (split.name, split.classes, split.class_names, split.image_shape) == ("pets", 2, ("cat", "dog"), (4, 4, 3))
    assert [len(getattr(split, part)) for part in PARTS] == [14, 2, 4]
    seen = [pair for part in PARTS for pair in told(getattr(split, part))]
    assert sorted(seen) == [(100 * label + i, label) for label in (0, 1) for i in range(10)]
    expected = data.stratified(np.repeat([0, 1], 10))
    for part, chosen in zip(PARTS, expected, strict=True):
        np.testing.assert_array_equal(getattr(split, part).x[:, 0, 0, 0], 100 * (chosen // 10) + chosen % 10)
    assert split.train.x.dtype == np.uint8 and not split.train.x.flags.writeable
    assert str(tmp_path) not in split.source


def test_imagenette_train_and_val_whose_val_is_the_test_set(tmp_path) -> None:
    classes(tmp_path / "train", 10, suffix=".JPEG")
    classes(tmp_path / "val", 3)
    split = image_folder(tmp_path, size=4)
    assert [len(getattr(split, part)) for part in PARTS] == [18, 2, 6]
    assert told(split.test) == [(0, 0), (1, 0), (2, 0), (100, 1), (101, 1), (102, 1)]


def test_three_parts_are_taken_as_they_are_and_classes_may_be_absent_but_in_training(tmp_path) -> None:
    classes(tmp_path / "train", 3)
    classes(tmp_path / "val", 2, names=("cat",))
    save(tmp_path / "test" / "dog" / "deep" / "er" / "7.bmp", 107)
    split = image_folder(tmp_path, size=4)
    assert len(split.train) == 6
    assert told(split.val) == [(0, 0), (1, 0)] and told(split.test) == [(107, 1)]


def test_tiny_imagenet(tmp_path) -> None:
    for label, name in enumerate(("n01", "n02")):
        for i in range(10):
            save(tmp_path / "train" / name / "images" / f"{name}_{i}.JPEG", 100 * label + i, (8, 8), quality=100)
        (tmp_path / "train" / name / f"{name}_boxes.txt").write_text("n01_0.JPEG\t0\t0\t1\t1\n")
    for i in range(3):
        save(tmp_path / "val" / "images" / f"val_{i}.JPEG", 50 + i)
    save(tmp_path / "test" / "images" / "test_0.JPEG", 0)  # without a label
    annotations = tmp_path / "val" / "val_annotations.txt"
    annotations.write_text("".join(f"val_{i}.JPEG\tn0{k}\t0\t0\t63\t63\n" for i, k in enumerate((2, 1, 2))))
    split = image_folder(tmp_path, size=8)
    assert [len(getattr(split, part)) for part in PARTS] == [18, 2, 3]
    np.testing.assert_array_equal(split.test.y[np.argsort(split.test.x[:, 0, 0, 0])], [1, 0, 1])
    annotations.write_text("val_0.JPEG\tn07\t0\t0\t63\t63\n")
    with pytest.raises(ValueError, match=r"val_annotations\.txt: 'val_0\.JPEG n07' is no image with a class folder"):
        image_folder(tmp_path, size=8)
    annotations.write_text("val_9.JPEG\tn01\t0\t0\t63\t63\n")
    with pytest.raises(ValueError, match=r"val_9\.JPEG is listed, but is not there"):
        image_folder(tmp_path, size=8)


def test_a_class_may_be_called_train_and_hidden_files_are_no_images(tmp_path) -> None:
    classes(tmp_path, 10, names=("bus", "train"))
    (tmp_path / "bus" / "._0.png").write_bytes(b"what macOS leaves")
    (tmp_path / "bus" / "notes.txt").write_text("no image")
    classes(tmp_path / ".hidden", 1)
    split = image_folder(tmp_path, size=4)
    assert split.class_names == ("bus", "train") and sum(len(getattr(split, part)) for part in PARTS) == 20


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda root: None, FileNotFoundError, "no images in .*a folder of images for each class"),
        (lambda root: classes(root, 9, names=("cat",)), ValueError, "one class folder only, cat"),
        (lambda root: (classes(root, 9), (root / "emu").mkdir()), ValueError, "emu holds no images; fill it"),
        (lambda root: classes(root, 2), ValueError, "too few images: none is left for the validation set"),
        (
            lambda root: (classes(root / "train", 9), classes(root / "val", 1, names=("cow",))),
            ValueError,
            "val/cow is of no class",
        ),
        (
            lambda root: (classes(root / "train", 9), save(root / "val" / "0.png", 1)),
            ValueError,
            "val has no class folders: sort its images",
        ),
    ],
)
def test_folders_that_are_none_of_these(tmp_path, make, error, words) -> None:
    (tmp_path / "root").mkdir()
    make(tmp_path / "root")
    with pytest.raises(error, match=words):
        image_folder(tmp_path / "root", size=4)


def test_arguments_that_make_no_sense(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        image_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="size must be at least 1; got 0"):
        image_folder(tmp_path, size=0)
    with pytest.raises(ValueError, match="workers must be at least 1; got 0"):
        image_folder(tmp_path, workers=0)
    for settings, told in (({"size": 2.5}, "size must .* got 2.5"), ({"workers": "2"}, "workers must .* got '2'")):
        with pytest.raises(TypeError, match=told):
            image_folder(tmp_path, **settings)


# Pixels ---------------------------------------------------------------------------------------------------------------


def only_pixels(root: Path, image: Image.Image, size: int, suffix=".png", **settings) -> np.ndarray:
    classes(root, 10)
    image.save(root / "cat" / f"0{suffix}", **settings)
    if suffix != ".png":
        (root / "cat" / "0.png").unlink()
    split = image_folder(root, size=size)
    plain = [x for part in PARTS for x in getattr(split, part).x]
    (found,) = (x for x in plain if (x != x[0, 0]).any())
    return found


@pytest.mark.parametrize("shape", [(6, 9), (10, 6)])
def test_the_middle_is_cut_out(tmp_path, shape) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    top, left = (shape[0] - 6) // 2, (shape[1] - 6) // 2
    found = only_pixels(tmp_path, Image.fromarray(pixels), 6)
    np.testing.assert_array_equal(found, pixels[top : top + 6, left : left + 6])


@pytest.mark.parametrize(("suffix", "tolerance"), [(".png", 1), (".jpg", 3)])
def test_a_ramp_stays_a_ramp_when_it_is_made_smaller(tmp_path, suffix, tolerance) -> None:
    """Averages with symmetric weights leave what is linear as it is, but at the edges."""
    ramp = np.broadcast_to(np.arange(240, dtype=np.uint8)[:, None, None], (240, 240, 3))
    settings = {"quality": 100} if suffix == ".jpg" else {}
    found = only_pixels(tmp_path, Image.fromarray(ramp), 12, suffix, **settings).astype(float)
    expected = np.broadcast_to(20 * np.arange(12)[:, None, None] + 9.5, (12, 12, 3))
    np.testing.assert_allclose(found[1:-1], expected[1:-1], rtol=0, atol=tolerance)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_whatever_the_file_holds_becomes_three_channels(tmp_path, mode) -> None:
    ramp = np.broadcast_to(np.uint8([0, 0, 0, 255, 255, 255])[:, None], (6, 6))
    image = Image.fromarray(ramp).convert("RGB").convert(mode)
    found = only_pixels(tmp_path, image, 6, ".tif" if mode == "CMYK" else ".png")
    np.testing.assert_array_equal(found, np.stack([ramp] * 3, axis=-1))


def test_batches_are_standardized_by_channel_of_the_training_part(tmp_path) -> None:
    split = data.load("textures")
    root = write_image_folder(
        Split(*(part.take(40) for part in (split.train, split.val, split.test)), "t", 3, "s"), tmp_path / "t"
    )
    read = image_folder(root, size=32)
    pixels = read.train.x.astype(np.float64)
    mean, std = pixels.mean(axis=(0, 1, 2)), pixels.std(axis=(0, 1, 2))
    for part in (read.train, read.test):
        (x, _), *_ = data.batches(part, len(part), shuffle=False)
        np.testing.assert_allclose(x, (part.x - mean) / std, rtol=1e-5, atol=1e-6)
        assert x.dtype == np.float32


def test_the_scale_is_exact_and_taken_evenly_of_many_images(monkeypatch) -> None:
    x = np.random.default_rng(0).integers(0, 256, (300, 2, 2, 3), np.uint8)
    mean, std = folder.channel_scale(x)
    np.testing.assert_allclose(mean, x.mean(axis=(0, 1, 2)), rtol=1e-14)
    np.testing.assert_allclose(std, x.std(axis=(0, 1, 2)), rtol=1e-14)
    monkeypatch.setattr(folder, "_SAMPLED", 300)
    np.testing.assert_allclose(folder.channel_scale(x)[0], x[::4].mean(axis=(0, 1, 2)), rtol=1e-14)


# The file with the pixels ---------------------------------------------------------------------------------------------


def test_made_once_for_the_same_files_and_anew_for_others(tmp_path, own_cache, monkeypatch) -> None:
    root = tmp_path / "pets"
    classes(root, 10)
    first = image_folder(root, size=4)
    assert image_folder(root, size=4) is first
    monkeypatch.setattr(folder, "_SPLITS", {})
    with monkeypatch.context() as patch:
        patch.setattr(folder, "_keep", None)  # another process finds the file, and decodes nothing
        again = image_folder(root, size=4)
    np.testing.assert_array_equal(again.train.x, first.train.x)
    assert len(list(own_cache.iterdir())) == 1
    image_folder(root, size=5)
    assert len(list(own_cache.iterdir())) == 2
    save(root / "cat" / "0.png", 90)
    os.utime(root / "cat" / "0.png", ns=(0, 1))
    changed = image_folder(root, size=4)
    assert (90, 0) in [pair for part in PARTS for pair in told(getattr(changed, part))]
    assert image_folder(root, size=4, cache=tmp_path / "mine").train.x.shape == first.train.x.shape
    assert len(list((tmp_path / "mine").iterdir())) == 1


def test_worker_processes_write_what_one_process_writes(tmp_path, monkeypatch) -> None:
    classes(tmp_path / "pets", 10)
    monkeypatch.setattr(folder, "_TASK", 3)
    alone = image_folder(tmp_path / "pets", size=4, workers=1, cache=tmp_path / "one")
    shared = image_folder(tmp_path / "pets", size=4, workers=2, cache=tmp_path / "two")
    assert alone is not shared
    for part in PARTS:
        np.testing.assert_array_equal(getattr(alone, part).x, getattr(shared, part).x)
        np.testing.assert_array_equal(getattr(alone, part).y, getattr(shared, part).y)


def test_a_folder_of_ordinary_size_is_decoded_in_this_process(tmp_path, monkeypatch) -> None:
    """So a script of a few lines needs no __main__ guard."""
    classes(tmp_path / "pets", 10)
    asked = []
    monkeypatch.setattr(folder, "cores", lambda: asked.append("cores") or 1)
    image_folder(tmp_path / "pets", size=4)
    assert asked == []
    for limit in ("_MANY_FILES", "_MANY_BYTES"):
        monkeypatch.setattr(folder, limit, 19)
        image_folder(tmp_path / "pets", size=4, cache=tmp_path / limit)
        monkeypatch.undo()
        monkeypatch.setattr(folder, "cores", lambda: asked.append("cores") or 1)
    assert asked == ["cores", "cores"]


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_once(tmp_path) -> None:
    classes(tmp_path / "pets", 10)
    script = tmp_path / "script.py"
    script.write_text("from minibng import data\ndata.image_folder('pets', size=4, workers=2, cache='cache')\n")
    run = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith("RuntimeError: a process that decodes images died: in a script, call")
    assert "bootstrapping" not in run.stderr and run.stderr.count("image_folder('pets'") == 1
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_a_killed_process_left_goes_and_what_another_writes_stays(tmp_path, own_cache) -> None:
    classes(tmp_path / "pets", 10)
    image_folder(tmp_path / "pets", size=4)
    (whole,) = own_cache.iterdir()
    whole.unlink()
    folder._SPLITS.clear()
    old, new = (own_cache / f".{whole.name}.{number}.part" for number in (1, 2))
    for path in (old, new):
        path.write_bytes(b"unfinished")
    os.utime(old, (0, 0))
    image_folder(tmp_path / "pets", size=4)
    assert sorted(own_cache.iterdir()) == sorted([new, whole])


def test_names_that_are_no_text_are_read_too(tmp_path) -> None:
    classes(tmp_path / "pets", 10, names=("größe", "日本"))
    try:
        os.rename(tmp_path / "pets" / "größe" / "0.png", os.fsencode(tmp_path / "pets" / "größe") + b"/\xff.png")
    except OSError:
        pytest.skip("this file system knows text only")
    split = image_folder(tmp_path / "pets", size=4)
    assert split.class_names == ("größe", "日本") and len(split.train) == 14


def test_a_folder_that_cannot_be_looked_into_is_told(tmp_path) -> None:
    """os.walk would pass over it in silence."""
    with pytest.raises(FileNotFoundError):
        folder._labelled(tmp_path, [(tmp_path / "gone", 0)])


def test_folders_whose_files_have_equal_names_lengths_and_times_are_told_apart(tmp_path) -> None:
    for root, names in (("one", ("cat", "dog")), ("two", ("dog", "cat"))):
        classes(tmp_path / root, 10, names, suffix=".bmp")
        for path in (tmp_path / root).rglob("*.bmp"):
            os.utime(path, (0, 0))
    one, two = (image_folder(tmp_path / root, size=4) for root in ("one", "two"))
    assert (one.train.x[one.train.y == 0] < 100).all() and (two.train.x[two.train.y == 0] >= 100).all()


def test_threads_that_want_the_same_folder_do_not_meet(tmp_path) -> None:
    classes(tmp_path / "pets", 10)
    with ThreadPoolExecutor(4) as pool:
        splits = list(pool.map(lambda _: image_folder(tmp_path / "pets", size=4), range(8)))
    assert all(told(split.train) == told(splits[0].train) for split in splits)


def test_a_link_to_nothing_is_told(tmp_path) -> None:
    classes(tmp_path, 10)
    (tmp_path / "cat" / "link.png").symlink_to(tmp_path / "nothing.png")
    with pytest.raises(ValueError, match=r"cat/link\.png is listed, but is not there, or is a link to nothing"):
        image_folder(tmp_path, size=4)


def test_a_palette_that_one_can_see_through_is_read_without_a_warning(tmp_path) -> None:
    classes(tmp_path, 10)
    colours = np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)
    image = Image.fromarray(colours).quantize(8)
    image.save(tmp_path / "cat" / "0.png", transparency=bytes(range(0, 240, 30)))
    split = image_folder(tmp_path, size=6)
    found = np.concatenate([getattr(split, part).x for part in PARTS])
    assert (found == np.asarray(image.convert("RGB"))).all(axis=(1, 2, 3)).sum() == 1


def damaged() -> dict[str, bytes]:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(buffer, "JPEG")
    return {"truncated": buffer.getvalue()[:2000], "empty": b"", "text": b"<html>not found</html>"}


@pytest.mark.parametrize("kind", ["truncated", "empty", "text"])
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_damaged_file_is_named_and_nothing_is_kept(tmp_path, own_cache, kind, workers) -> None:
    classes(tmp_path / "pets", 10)
    (tmp_path / "pets" / "dog" / "bad.jpg").write_bytes(damaged()[kind])
    with pytest.raises(ValueError, match=r"1 image files cannot be read; delete them[^\n]*\n  \S*dog/bad\.jpg: \w"):
        image_folder(tmp_path / "pets", size=4, workers=workers)
    assert list(own_cache.iterdir()) == []
    (tmp_path / "pets" / "dog" / "bad.jpg").unlink()
    assert len(image_folder(tmp_path / "pets", size=4).train) == 14


def test_many_damaged_files_are_counted(tmp_path) -> None:
    classes(tmp_path, 10)
    for i in range(7):
        (tmp_path / "cat" / f"bad{i}.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"7 image files(.|\n)*and 2 more"):
        image_folder(tmp_path, size=4)


def test_sixteen_bits_a_channel_are_refused_not_cut_off(tmp_path) -> None:
    classes(tmp_path, 10)
    Image.fromarray(np.full((6, 6), 40000, np.uint16)).save(tmp_path / "cat" / "deep.png")
    with pytest.raises(ValueError, match=r"deep\.png: its pixels are no bytes \(mode I;16\); convert it"):
        image_folder(tmp_path, size=4)


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, own_cache, monkeypatch) -> None:
    def full(target, size, task):
        raise OSError(errno.ENOSPC, "No space left on device")

    classes(tmp_path / "pets", 10)
    monkeypatch.setattr(folder, "_decode", full)
    with pytest.raises(OSError, match=r"cannot be kept in .*No space left.*1 kB are needed.*name another folder"):
        image_folder(tmp_path / "pets", size=4)
    assert list(own_cache.iterdir()) == []


def test_a_place_where_no_folder_can_be_made_is_told(tmp_path) -> None:
    classes(tmp_path / "pets", 10)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"cannot be kept in .*file.*cache="):
        image_folder(tmp_path / "pets", size=4, cache=tmp_path / "file")


# Writing --------------------------------------------------------------------------------------------------------------


def test_names_that_no_folder_can_have_are_changed(tmp_path) -> None:
    part = Dataset(np.arange(8 * 48, dtype=np.uint8).reshape(8, 4, 4, 3), np.arange(8) % 4, 4)
    split = Split(part, part, part, "made", 4, "source", class_names=("T-shirt/top", "..", ".x", "what?"))
    write_image_folder(split, tmp_path / "made")
    assert sorted(path.name for path in (tmp_path / "made" / "train").iterdir()) == ["T-shirt_top", "_.", "_x", "what_"]
    assert len(list((tmp_path / "made" / "train" / "T-shirt_top").iterdir())) == 2
    split = Split(part, part, part, "made", 4, "source", class_names=("a", "b/c", "b:c", "d"))
    with pytest.raises(ValueError, match="two classes would be in one folder, b_c"):
        write_image_folder(split, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_bytes_that_are_written_are_read_again(tmp_path) -> None:
    rng = np.random.default_rng(0)
    parts = [Dataset(rng.integers(0, 256, (n, 8, 8, 3), np.uint8), np.arange(n) % 3, 3) for n in (9, 4, 5)]
    split = Split(*parts, "made", 3, "source", class_names=("a", "b", "c"))
    read = image_folder(write_image_folder(split, tmp_path / "made"), size=8)
    assert read.class_names == ("a", "b", "c")
    for part in PARTS:
        there, here = getattr(split, part), getattr(read, part)
        assert sorted((x.tobytes(), y) for x, y in zip(there.x, there.y, strict=True)) == sorted(
            (x.tobytes(), y) for x, y in zip(here.x, here.y, strict=True)
        )


def test_standardized_grey_images_are_written_as_the_grey_they_were(tmp_path) -> None:
    split = data.load("mnist5k")
    few = Split(*(part.take(30) for part in (split.train, split.val, split.test)), "few", 10, "s", (28, 28, 1))
    root = write_image_folder(few, tmp_path / "few")
    assert sorted(path.name for path in (root / "train").iterdir()) == [str(k) for k in range(10)]
    first = next((root / "train" / str(few.train.y[0])).glob("00000.png"))
    levels = np.rint((few.train.x[0] - split.train.x.min()) * 255 / (split.train.x.max() - split.train.x.min()))
    np.testing.assert_array_equal(np.asarray(Image.open(first)).ravel(), levels)


def test_a_folder_that_is_there_is_left_alone(tmp_path, monkeypatch) -> None:
    split = data.load("digits")
    few = Split(*(part.take(9) for part in (split.train, split.val, split.test)), "few", 10, "s", (8, 8, 1))
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="there is there already; name a folder that is not"):
        write_image_folder(few, tmp_path / "there")
    (tmp_path / "there" / "mine.txt").unlink()
    assert write_image_folder(few, tmp_path / "there") == tmp_path / "there"
    shutil.rmtree(tmp_path / "there")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space"):
        write_image_folder(few, tmp_path / "there")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_image_cannot_be_written(tmp_path) -> None:
    with pytest.raises(ValueError, match="no images"):
        write_image_folder(data.load("breast_cancer"), tmp_path / "x")
    part = Dataset(np.zeros((3, 4, 4, 2)), [0, 1, 0], 2)
    with pytest.raises(ValueError, match="images of 2 channels"):
        write_image_folder(Split(part, part, part, "two", 2, "s"), tmp_path / "x")
