"""Small tables that come inside scikit-learn: on them linear models are convex problems with a known answer."""

from minibng.data.dataset import Split
from minibng.data.prepare import make_split
from minibng.extras import require


def breast_cancer() -> Split:
    """Load 569 breast tumours described by 30 measurements, 2 classes: 0 malignant (212), 1 benign (357).

    Source: `sklearn.datasets.load_breast_cancer`, the UCI "Breast Cancer Wisconsin (Diagnostic)" (W. Wolberg,
    O. Mangasarian, N. Street and W. Street, 1995). Each measurement is standardized by its mean and standard
    deviation over the training part.

    Returns
    -------
    Split
        399 training, 57 validation and 113 test samples; x (N, 30) float32, y (N,) int64.

    Raises
    ------
    MissingExtraError
        Where scikit-learn is not installed.

    Examples
    --------
    >>> breast_cancer().train
    Dataset(x (399, 30) float32, y (399,) int64, 2 classes)
    """
    datasets = require("sklearn.datasets", "experiments", "data set 'breast_cancer'")
    features, labels = datasets.load_breast_cancer(return_X_y=True)
    return make_split(
        features,
        labels,
        name="breast_cancer",
        classes=2,
        source="UCI Breast Cancer Wisconsin (Diagnostic), from scikit-learn; "
        "30 measurements, each standardized by its mean and deviation in the training part",
        axis=0,
    )


def diabetes() -> Split:
    """Load 442 diabetes patients described by 10 numbers; to predict: how far the disease is a year later.

    Source: `sklearn.datasets.load_diabetes` (B. Efron, T. Hastie, I. Johnstone and R. Tibshirani, "Least angle
    regression", 2004). A regression, so ``classes`` is None. The features and the target are standardized by their
    means and standard deviations over the training part: the least-squares problem is well scaled, and always to
    predict 0 costs a mean squared error of 1 there. ``source`` says how to return to the units of the data.

    Returns
    -------
    Split
        310 training, 44 validation and 88 test samples; x (N, 10) float32, y (N, 1) float32, the shape of a model's
        output.

    Raises
    ------
    MissingExtraError
        Where scikit-learn is not installed.

    Examples
    --------
    >>> diabetes().train
    Dataset(x (310, 10) float32, y (310, 1) float32)
    """
    datasets = require("sklearn.datasets", "experiments", "data set 'diabetes'")
    features, target = datasets.load_diabetes(return_X_y=True, scaled=False)
    return make_split(
        features,
        target[:, None],
        name="diabetes",
        classes=None,
        source="442 diabetes patients (Efron et al., 2004), from scikit-learn; 10 features and the target, each "
        "standardized by its mean and deviation in the training part: the raw target is 151.42 + 75.94·y",
        axis=0,
    )
