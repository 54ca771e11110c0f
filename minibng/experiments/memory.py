"""Tasks of memory: how training goes as what must be remembered lies further and further back."""

from __future__ import annotations

import math
from functools import cache

from minibng import data, nn
from minibng.backend import Array
from minibng.data import Split
from minibng.experiments.declaration import Claim, Experiment, Job, Setting, Trend
from minibng.experiments.options import Axis, last_of, one_of, whole
from minibng.experiments.training import FORMS, SCHEDULES, Centres, centre_from, clip_setting, fit_job
from minibng.train import History

# Centres of the grids, in the order of FORMS: the best of a grid with ratio √10 at seed 100, which no reported run
# uses, by training loss in the default setting and budget at length 20.
_CENTRES: dict[str, Centres] = {
    "adding": {
        "momentum": (0.1, 0.316, 0.1, 0.01),
        "adam": (0.0316, 0.0316, 0.0316, 0.1),
    },
    "copying": {
        "momentum": (0.316, 0.316, 0.1, 0.00316),
        "adam": (0.0316, 0.0316, 0.0316, 0.0316),
    },
}
CLIP = 0.1
"""Threshold of clipping, block by block; at seed 100 the blocks' gradients had medians of 0.02 to 0.18, so that the
usual 1 would hardly ever act."""

TASKS = {
    "adding": "the sum of two marked numbers among T",
    "copying": "ten symbols, to be repeated after T steps",
}
AXES = {
    "task": Axis(("adding",), one_of(TASKS, "task"), "; ".join(f"{name}: {about}" for name, about in TASKS.items())),
    "length": Axis((10, 20, 40), whole(2), "T", full=(10, 20, 40, 80)),
    "cell": Axis(("lstm",), one_of(nn.models.language.CELLS, "cell"), "lstm, gru or rnn", detail=True),
    "hidden": Axis((32,), whole(1), "units", detail=True),
    "samples": Axis((3200,), whole(1), "training sequences", detail=True),
    "schedule": Axis(("constant",), one_of(SCHEDULES, "schedule"), ", ".join(SCHEDULES)),
}


def centre(optimizer: str, setting: Setting) -> float:
    """Return the middle of an optimizer's grid."""
    return centre_from(_CENTRES[setting["task"]], optimizer)


def split_of(setting: Setting) -> Split:
    """Return the sequences of a setting."""
    return _split(setting["task"], setting["length"], setting["samples"])


@cache
def _split(task: str, length: int, samples: int) -> Split:
    return data.adding(length, samples) if task == "adding" else data.copying(length, samples)


def last(y: Array) -> Array:
    """Return the output after the last step: (N, T, H) → (N, H)."""
    return y[:, -1]


def build(setting: Setting, split: Split) -> nn.Layer:
    """Return one recurrent layer with a linear one: behind the last step for sums, behind every step for symbols."""
    hidden = setting["hidden"]
    if split.classes is None:
        return nn.Sequential(nn.models.language.CELLS[setting["cell"]](2, hidden), last, nn.Linear(hidden, 1))
    return nn.models.lstm_lm(split.classes, split.classes, hidden, 1, cell=setting["cell"])


def train_one(job: Job) -> History:
    """Run one job: everything depends on it alone."""
    split = split_of(job.setting)
    loss = nn.mse if split.classes is None else nn.cross_entropy
    return fit_job(job, split, build(job.setting, split), clip_setting(job, CLIP), every=False, loss=loss)


def describe(setting: Setting) -> str:
    """Return the model's table and what the sequences are."""
    split = split_of(setting)
    return f"{build(setting, split).summary(split.train.x[:1])}\n{split.source}"


def baselines(setting: Setting) -> dict[str, tuple[float, float]]:
    """Return the loss of remembering nothing: the variance of a sum, or ten symbols that are guessed."""
    loss = 1 / 6 if setting["task"] == "adding" else 10 * math.log(8) / (setting["length"] + 20)
    return {"(no memory)": (loss, loss)}


EXPERIMENT = Experiment(
    name="memory",
    about="the adding problem and the copying task at growing lengths: raw, clipped, NG and adaptive NG (claim C1)",
    train=train_one,
    centre=centre,
    centre_source="best of a grid with ratio √10 at seed 100, which no reported run uses",
    describe=describe,
    prepare=split_of,
    axes=AXES,
    optimizers=("momentum-ng", "adam", "adam-clip", "adam-ng"),
    full_optimizers=tuple(family + form for family in ("momentum", "adam") for form in FORMS),
    claims=(
        Claim(
            number="C1",
            statement="block normalization accelerates training where dependencies are long",
            baseline="adam",
            treatment="adam-ng",
            setting=last_of(AXES),
        ),
    ),
    trends=(
        Trend(
            "Does the effect grow with the distance of what must be remembered?",
            "length",
            (("adam", "adam-ng"), ("adam-clip", "adam-ng"), ("momentum", "momentum-ng")),
        ),
    ),
    figures=("training", "rates", "norms", "effect"),
    columns=("train_loss", "test_loss"),
    clip=CLIP,
    baselines=baselines,
    epochs=4,
    batch=32,
    measure_every=2,
)
