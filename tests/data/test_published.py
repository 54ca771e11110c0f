"""The data sets that are downloaded, on small files in the published formats."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from minibng import data
from minibng.data import table

NAMES = ("mnist", "fashion_mnist", "cifar10", "cifar100")
PARTS = ("train", "val", "test")


def standardized(split, part):
    """A part as a model takes it."""
    dataset = getattr(split.as_images(), part)
    return dataset.scaled(dataset.x)


@pytest.mark.parametrize("name", NAMES)
def test_the_parts_are_the_published_ones_standardized_by_the_training_part(name: str, examples, small) -> None:
    example, split = examples[name], data.load(name)
    assert (split.name, split.classes) == (name, data.DATASETS[name].classes)
    assert split.source and "\n" not in split.source and split.image_shape == example.images.shape[1:]
    train, val, empty = data.stratified(example.labels, test=0)
    assert len(empty) == 0
    order = data.stratified(example.test_labels, val=0, test=0)[0]
    raw = {
        "train": (example.images[train], example.labels[train]),
        "val": (example.images[val], example.labels[val]),
        "test": (example.test_images[order], example.test_labels[order]),
    }
    expected = data.standardize(*(raw[part][0] for part in PARTS), axis=(0, 1, 2))
    for part, x in zip(PARTS, expected, strict=True):
        dataset = getattr(split, part)
        np.testing.assert_array_equal(dataset.y, raw[part][1])
        np.testing.assert_allclose(standardized(split, part), x, rtol=0, atol=1e-6)
        assert dataset.y.dtype == np.int64 and dataset.x.flags.c_contiguous and standardized(split, part).dtype == "f4"
    np.testing.assert_array_equal(10 * np.bincount(split.val.y), np.bincount(example.labels))


def test_mnist_comes_as_rows_of_float32_and_cifar_as_images_of_bytes(examples, small) -> None:
    rows, images = data.load("mnist").train, data.load("cifar10").train
    assert (rows.x.shape, rows.x.dtype, rows.scale) == ((180, 784), np.float32, None)
    assert (images.x.shape, images.x.dtype) == ((180, 32, 32, 3), np.uint8)
    x, _ = next(iter(data.batches(images, 180, shuffle=False)))
    assert x.dtype == np.float32
    np.testing.assert_allclose(x.mean(axis=(0, 1, 2), dtype=float), 0, atol=1e-6)
    np.testing.assert_allclose(x.std(axis=(0, 1, 2), dtype=float), 1, atol=1e-6)


def test_class_names_come_from_the_files_or_are_known(small) -> None:
    names = {name: data.load(name).class_names for name in NAMES}
    assert names["mnist"] == tuple("0123456789") and names["fashion_mnist"][-1] == "ankle boot"
    assert names["cifar10"] == tuple("CIFARfghij") and names["cifar100"] is None


@pytest.mark.parametrize("name", NAMES)
def test_nobody_can_write_to_them(name: str, small) -> None:
    split = data.load(name)
    for part in PARTS:
        for array in (getattr(split, part).x, getattr(split, part).y):
            with pytest.raises(ValueError, match="WRITEABLE"):
                array.flags.writeable = True


@pytest.mark.parametrize("name", NAMES)
def test_load_downloads_once_and_then_reads_without_asking(name: str, server, small) -> None:
    assert not data.is_here(name)
    first = data.load(name)
    assert data.is_here(name) and data.load(name) is first
    asked = dict(server.asked)
    assert all(count == 1 for count in asked.values()) and len(asked) == len(data.DATASETS[name].files)
    table._load_once.cache_clear()
    server.content.clear()
    again = data.load(name)
    np.testing.assert_array_equal(again.train.x, first.train.x)
    assert dict(server.asked) == asked
    assert {path.name for path in (small / name).iterdir()} == {file.name for file in data.DATASETS[name].files}


def test_a_failed_download_is_not_remembered(server, small) -> None:
    server.trouble["mnist/t10k-images-idx3-ubyte.gz"] = 404
    with pytest.raises(data.DownloadError, match="mnist was not downloaded"):
        data.load("mnist")
    assert not data.is_here("mnist")
    server.trouble.clear()
    assert data.load("mnist").name == "mnist"


def layouts(name, example):
    """The ways that the files may lie in a folder: file name to content."""
    folder = {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary"}.get(name, "raw")
    yield "published", dict(example.files)
    yield "in a folder called as the data set", {f"{name}/{file}": body for file, body in example.files.items()}
    yield "unpacked", dict(example.plain)
    if name.startswith("cifar"):
        yield "unpacked with its folder", {f"{folder}/{file}": body for file, body in example.plain.items()}
        ((file, body),) = example.files.items()
        yield "a tar file", {file.removesuffix(".gz"): gzip.decompress(body)}
    else:
        yield "with dots", {file.replace("-idx", ".idx"): body for file, body in example.plain.items()}
        yield (
            "where PyTorch puts it",
            {
                f"{'MNIST' if name == 'mnist' else 'FashionMNIST'}/raw/{file}": body
                for file, body in example.plain.items()
            },
        )


@pytest.mark.parametrize("name", NAMES)
def test_files_that_are_there_already_are_read_wherever_they_lie(name: str, examples, server, small, tmp_path) -> None:
    expected, asked = data.load(name), dict(server.asked)
    for title, files in layouts(name, examples[name]):
        folder = tmp_path / title
        for file, content in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(content)
        split = data.load(name, data_dir=str(folder))
        for part in PARTS:
            np.testing.assert_array_equal(getattr(split, part).x, getattr(expected, part).x, err_msg=title)
            np.testing.assert_array_equal(getattr(split, part).y, getattr(expected, part).y, err_msg=title)
    assert dict(server.asked) == asked


def put(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_folder_is_told_with_what_was_looked_for(name: str, server, small, tmp_path) -> None:
    folder = put(tmp_path / "empty", {})
    with pytest.raises(FileNotFoundError) as caught:
        data.load(name, data_dir=folder)
    assert f"is not in {folder}: there is no " in str(caught.value)
    assert f"minibng data fetch {name} --data-dir {folder}" in str(caught.value)
    with pytest.raises(FileNotFoundError, match="is not in"):
        data.load(name, data_dir=tmp_path / "nowhere")
    (folder / "file").write_text("")
    with pytest.raises(FileNotFoundError, match=r"file is a file; to load .*, name the folder that it is in"):
        data.load(name, data_dir=folder / "file")
    assert not server.asked


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named(name: str, examples, small, tmp_path) -> None:
    plain = dict(examples[name].plain)
    missing = next(file for file in plain if "test" in file or file.startswith("t10k-labels"))
    del plain[missing]
    with pytest.raises(FileNotFoundError, match=f"is incomplete: {missing} is missing"):
        data.load(name, data_dir=put(tmp_path / "some", plain))


def test_the_python_version_of_cifar_is_refused_with_the_reason(small, tmp_path) -> None:
    for name, file in (
        ("cifar10", "cifar-10-python.tar.gz"),
        ("cifar10", "cifar-10-batches-py"),
        ("cifar100", "cifar-100-python"),
    ):
        with pytest.raises(FileNotFoundError, match="The Python version, which is there, is not read: it consists of"):
            data.load(name, data_dir=put(tmp_path / file, {file: b""}))


@pytest.mark.parametrize("name", NAMES)
def test_a_file_cut_off_is_named(name: str, examples, small, tmp_path) -> None:
    for files in (examples[name].files, examples[name].plain):
        for number, (file, content) in enumerate(files.items()):
            if file == "batches.meta.txt":
                continue
            cut = {**files, file: content[:-2000] if len(content) > 4000 else content[:-1]}
            folder = put(tmp_path / f"{len(files)}-{number}", cut)
            with pytest.raises(ValueError, match=rf"{file}.* is damaged: .*; download or copy it again"):
                data.load(name, data_dir=folder)


def changed(example, file, old, new, at=0):
    """The plain files with bytes replaced in one."""
    content = example.plain[file]
    assert content[at : at + len(old)] == old
    return {**example.plain, file: content[:at] + new + content[at + len(old) :]}


def test_files_that_do_not_belong_together_are_told(examples, small, tmp_path) -> None:
    mnist, cifar = examples["mnist"], examples["cifar10"]
    other = {**mnist.plain, "train-labels-idx1-ubyte": mnist.plain["t10k-labels-idx1-ubyte"]}
    with pytest.raises(ValueError, match=r"has 200 images and .*train-labels-idx1-ubyte has 40 labels"):
        data.load("mnist", data_dir=put(tmp_path / "a", other))
    swapped = {**mnist.plain, "train-images-idx3-ubyte": mnist.plain["train-labels-idx1-ubyte"]}
    with pytest.raises(
        ValueError, match="grey images begins with 0x00000803, this one with 0x00000801, as a file of l"
    ):
        data.load("mnist", data_dir=put(tmp_path / "b", swapped))
    label = changed(mnist, "t10k-labels-idx1-ubyte", b"", b"\x0a", at=8)
    label["t10k-labels-idx1-ubyte"] = label["t10k-labels-idx1-ubyte"][:-1]
    with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte is damaged: label 10 \(sample 0\) is out of range"):
        data.load("mnist", data_dir=put(tmp_path / "c", label))
    small_test = mnist.plain["t10k-images-idx3-ubyte"][:16].replace(bytes([28]), bytes([14])) + bytes(40 * 14 * 14)
    with pytest.raises(ValueError, match=r"has images of 28×28 pixels and .* of 14×14"):
        data.load("mnist", data_dir=put(tmp_path / "d", {**mnist.plain, "t10k-images-idx3-ubyte": small_test}))
    names = {**cifar.plain, "batches.meta.txt": b"airplane\ncat\n"}
    with pytest.raises(ValueError, match=r"batches\.meta\.txt in .* is damaged: it names 2 classes, there are 10"):
        data.load("cifar10", data_dir=put(tmp_path / "e", names))


def test_mnist_and_its_kin_are_told_apart(examples, small, tmp_path) -> None:
    """Their files have the same names. In the whole training set only MNIST has classes of different sizes."""
    for name, other in (("mnist", "fashion_mnist"), ("fashion_mnist", "mnist")):
        for files in (examples[other].plain, examples[other].files):
            with pytest.raises(
                ValueError, match=r"train-labels.* is not of .*, but of a data set whose files have the"
            ):
                data.load(name, data_dir=put(tmp_path / f"{name} {len(next(iter(files)))}", files))


def test_only_published_files_may_be_in_a_folder_of_ones_own(small, tmp_path) -> None:
    with pytest.raises(
        ValueError, match=r"'digits' is not read from files of yours: leave out data_dir \(--data-dir\)"
    ):
        data.load("digits", data_dir=tmp_path)
    with pytest.raises(ValueError, match="'digits' needs no download"):
        data.fetch("digits")


def test_fetch_to_a_folder_of_ones_own_and_load_from_there(server, small, tmp_path) -> None:
    mine = tmp_path / "mine"
    assert data.fetch("cifar100", data_dir=mine) == mine / "cifar100"
    assert len(data.load("cifar100", data_dir=mine).train) == 900 and not data.is_here("cifar100")
