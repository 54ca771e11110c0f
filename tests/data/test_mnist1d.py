"""MNIST-1D against its authors' package, and against the accuracies that they report."""

import subprocess
import sys

import numpy as np
import pytest

import minibng as bng
from minibng import data, nn, optim
from minibng.data.mnist1d import signals, templates

THEIRS = """
import sys, numpy as np
from mnist1d.data import get_dataset_args, make_dataset
for file, changes in eval(sys.argv[1]).items():
    args = get_dataset_args()
    args.__dict__.update(changes)
    made = make_dataset(args)
    arrays = {name: made[name] for name in ("x", "y", "x_test", "y_test")}
    np.savez(file, **arrays, templates=made["templates"]["x"])
"""
NAMES = {
    "samples": "num_samples",
    "seed": "seed",
    "length": "final_seq_length",
    "padding": "padding",
    "scale": "scale_coeff",
    "translation": "max_translation",
    "correlated": "corr_noise_scale",
    "noise": "iid_noise_scale",
    "shear": "shear_scale",
}
"""Our names and theirs."""

SETTINGS = [
    {},
    {"samples": 300, "seed": 0},
    {"samples": 109, "seed": 7, "length": 25, "padding": (10, 30), "translation": 13},
    {"samples": 50, "seed": 1, "scale": 1.0, "correlated": 0.0, "noise": 0.3, "shear": 2.0, "padding": (60, 60)},
]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """What the package makes, in a process of its own: importing it seeds NumPy's global generator."""
    folder = tmp_path_factory.mktemp("mnist1d")
    wanted = {f"{i}.npz": {NAMES[k]: v for k, v in setting.items()} for i, setting in enumerate(SETTINGS)}
    subprocess.run([sys.executable, "-c", THEIRS, repr(wanted)], check=True, capture_output=True, cwd=folder)
    return [np.load(folder / file) for file in wanted]


@pytest.mark.peer("mnist1d")
@pytest.mark.parametrize("which", range(len(SETTINGS)), ids=map(str, SETTINGS))
def test_the_samples_are_those_of_the_authors_package(which, theirs):
    made = theirs[which]
    x, y = signals(**SETTINGS[which])
    np.testing.assert_array_equal(y, np.concatenate([made["y"], made["y_test"]]))
    np.testing.assert_allclose(x, np.concatenate([made["x"], made["x_test"]]), rtol=0, atol=1e-13)
    np.testing.assert_allclose(templates(), made["templates"], rtol=0, atol=1e-15)


@pytest.mark.peer("mnist1d")
def test_the_split_is_the_published_one(theirs):
    split, made = data.load("mnist1d"), theirs[0]
    train = [np.concatenate(pair) for pair in ((split.train.x, split.val.x), (split.train.y, split.val.y))]
    for ours, name in zip((*train, split.test.x, split.test.y), ("x", "y", "x_test", "y_test"), strict=True):
        np.testing.assert_allclose(ours, made[name], rtol=0, atol=1e-6)


def test_equal_classes_mean_zero_deviation_one():
    for samples in (10, 59, 200):
        x, y = signals(samples, seed=3)
        assert np.bincount(y).tolist() == [samples // 10] * 10
        assert x.dtype == np.float64 and y.dtype == np.int64 and x.shape == (samples // 10 * 10, 40)
        np.testing.assert_allclose([x.mean(), x.std()], [0, 1], atol=1e-12)


def test_the_seed_decides_and_the_global_generator_is_left_alone():
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first, again, other = signals(50, seed=1), signals(50, seed=1), signals(50, seed=2)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0]) and not np.array_equal(first[1], other[1])
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_what_remains_without_the_noise_is_the_template():
    """Stretched to a fifth of its width, at a place and with a height of its own."""
    still = {"scale": 0.0, "correlated": 0.0, "noise": 0.0, "shear": 0.0, "padding": (60, 60), "length": 72}
    x, y = signals(10, seed=0, translation=1, **still)
    for signal, digit in zip(x, y, strict=True):
        shape = signal[:12] - signal[-1]
        np.testing.assert_allclose(shape / shape.std() / 6, templates()[digit], atol=1e-6)
        np.testing.assert_allclose(signal[12:], signal[-1], atol=1e-12)


def test_fewer_samples_than_digits_are_refused():
    with pytest.raises(ValueError, match="at least one sample of each of the ten digits, got 9 in all"):
        signals(9)


# The published accuracies: 32 % by logistic regression, 68 % by a perceptron with two hidden layers (the paper's
# table), Adam with rate 0.01, batches of 100 in the order of the data, 6000 steps, no decay.


def accuracy(model, seed):
    """Test accuracy in percent, trained as published on the published 4000 samples."""
    x, y = signals()
    x = x.astype("float32")
    params = model.init(seed)
    opt = optim.Adam(params, lr=1e-2)
    step = bng.value_and_grad(lambda p, x, y: nn.cross_entropy(model(p, x, train=True), y))
    for i in range(6000):
        batch = slice(i * 100 % 4000, i * 100 % 4000 + 100)
        opt.step(step(params, x[batch], y[batch])[1])
    return 100 * np.mean(np.argmax(model(params, x[4000:]), axis=1) == y[4000:])


@pytest.mark.slow
def test_logistic_regression_reaches_the_published_accuracy():
    """A convex problem that starts at zero: there is no seed to choose."""
    assert abs(accuracy(nn.models.logistic(40, 10), seed=0) - 32) <= 2


@pytest.mark.slow
def test_the_perceptron_reaches_the_published_accuracy():
    """The mean over seeds, to within its own error. Seeds differ by 1.4; the table's 68 tells no spread."""
    reached = [accuracy(nn.models.mlp(40, [100, 100], 10), seed) for seed in range(5)]
    error = np.std(reached, ddof=1) / np.sqrt(len(reached))
    assert abs(np.mean(reached) - 68) <= 2 + 2 * error, reached
