"""Deep multi-layer perceptrons on handwritten digits: the paper's first experiment, at smaller scale."""

from __future__ import annotations

from minibng import data, nn, optim
from minibng.data import Split
from minibng.experiments.declaration import Claim, Experiment, Job, Setting
from minibng.experiments.options import Axis, one_of, whole
from minibng.experiments.training import FORMS, SCHEDULES, fit_job
from minibng.train import History

WIDTH = 100
FAMILIES = ("sgd", "momentum", "adagrad", "rmsprop", "adadelta", "adam")

# Centres of the grids, in the order of FORMS: the best of seven rates with ratio √10 on digits, 15 epochs, batch 64,
# constant rate, seed 100, which no reported run uses; sigmoid at depth 6, tanh and relu at depth 18. Where none of the
# rates left the plateau (raw and clipped SGD and momentum with sigmoid), the middle of those that did not diverge.
_CENTRES = {
    "sigmoid": {
        "sgd": (0.1, 0.1, 0.316, 0.0316),
        "momentum": (0.1, 0.1, 0.1, 0.01),
        "adagrad": (0.0316, 0.0316, 0.0316, 0.0316),
        "rmsprop": (0.00316, 0.00316, 0.00316, 0.00316),
        "adadelta": (3.16, 3.16, 3.16, 3.16),
        "adam": (0.01, 0.01, 0.01, 0.01),
    },
    "tanh": {
        "sgd": (0.1, 0.1, 0.0316, 0.01),
        "momentum": (0.01, 0.01, 0.00316, 0.000316),
        "adagrad": (0.00316, 0.00316, 0.00316, 0.00316),
        "rmsprop": (0.000316, 0.000316, 0.000316, 0.000316),
        "adadelta": (0.316, 0.316, 0.1, 0.1),
        "adam": (0.001, 0.000316, 0.000316, 0.000316),
    },
    "relu": {
        "sgd": (0.0316, 0.0316, 0.0316, 0.00316),
        "momentum": (0.00316, 0.00316, 0.01, 0.0001),
        "adagrad": (0.00316, 0.00316, 0.00316, 0.00316),
        "rmsprop": (0.000316, 0.001, 0.000316, 0.000316),
        "adadelta": (0.316, 1, 0.1, 0.1),
        "adam": (0.000316, 0.000316, 0.000316, 0.000316),
    },
}


_ALIKE = {
    **{"nesterov": "momentum", "amsgrad": "adam", "nadam": "adam", "signsgd": "adam", "novograd": "momentum-ng"},
    **{"lars": "momentum-ng-adaptive", "lamb": "sgd-ng-adaptive"},
}
"""Optimizers whose rate means what that of a measured one means; their own centres have not been measured."""


ACTIVATIONS = {**{name: name for name in _CENTRES}, "leaky_relu": "relu", "gelu": "relu"}
"""Activation → the one whose measured centres are used for it."""


def centre(optimizer: str, setting: Setting) -> float:
    """Return the middle of an optimizer's grid; for a rule that was registered, that of SGD in the same form."""
    optim.get(optimizer)
    family = optimizer.partition("-")[0]
    optimizer = optimizer.replace(family, _ALIKE.get(family, family), 1)
    form = max((f for f in FORMS if optimizer.endswith(f)), key=len)
    table = _CENTRES[ACTIVATIONS[setting["activation"]]]
    return table.get(optimizer.removesuffix(form), table["sgd"])[FORMS.index(form)]


def build(setting: Setting, split: Split) -> nn.Sequential:
    """Return the model of a setting: ``depth`` hidden layers of 100 units."""
    if split.classes is None:
        raise ValueError(f"the deep MLP is a classifier, and {split.name} has numbers to predict, not classes")
    return nn.models.mlp(split.train.x.shape[1], [WIDTH] * setting["depth"], split.classes, setting["activation"])


def split_of(setting: Setting) -> Split:
    """Return the data of a setting, images as rows."""
    split = data.load(setting["dataset"])
    if split.vocabulary is not None:
        raise ValueError(f"the deep MLP takes numbers, and {split.name} is text: see minibng compare sentiment")
    return split if split.image_shape is None else split.flat()


def train_one(job: Job) -> History:
    """Run one job: everything depends on it alone."""
    split = split_of(job.setting)
    return fit_job(job, split, build(job.setting, split))


def describe(setting: Setting) -> str:
    """Return the model's table and where the data come from."""
    split = split_of(setting)
    return f"{build(setting, split).summary(split.train.scaled(split.train.x[:1]))}\n{split.source}"


def dataset(text: str) -> str:
    """Accept the name of a data set with classes."""
    if text in data.DATASETS and not data.DATASETS[text].classes:
        raise ValueError(f"{text} has no classes, mlp classifies")
    return one_of({name: entry for name, entry in data.DATASETS.items() if entry.classes}, "data set")(text)


EXPERIMENT = Experiment(
    name="mlp",
    about="deep MLPs on handwritten digits: six rules, raw, clipped, NG and adaptive NG (claim C1)",
    train=train_one,
    centre=centre,
    centre_source="best of a grid with ratio √10 at seed 100, which no reported run uses",
    describe=describe,
    prepare=split_of,
    axes={
        "dataset": Axis(("digits",), dataset, "digits, mnist5k, mnist1d, …, see minibng list"),
        "depth": Axis((6,), whole(1), "hidden layers", full=(6, 12, 18)),
        "activation": Axis(
            ("sigmoid",), one_of(ACTIVATIONS, "activation"), ", ".join(ACTIVATIONS), full=("sigmoid", "tanh", "relu")
        ),
        "schedule": Axis(tuple(SCHEDULES), one_of(SCHEDULES, "schedule"), ", ".join(SCHEDULES)),
    },
    optimizers=("momentum", "momentum-clip", "momentum-ng", "momentum-ng-adaptive", "adam", "adam-ng"),
    full_optimizers=tuple(f + form for f in FAMILIES for form in FORMS),
    claims=(
        Claim(
            number="C1",
            statement="block normalization accelerates the training of a deep network",
            baseline="momentum",
            treatment="momentum-ng",
            setting={"dataset": "digits", "depth": 6, "activation": "sigmoid", "schedule": "constant"},
        ),
    ),
    epochs=12,
)
