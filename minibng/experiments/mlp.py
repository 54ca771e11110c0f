"""Deep multi-layer perceptrons on handwritten digits: the paper's first experiment, at smaller scale."""

from __future__ import annotations

from minibng import data, nn, optim, train
from minibng.data import Split
from minibng.experiments.declaration import Claim, Experiment, Job, Setting
from minibng.optim.schedules import Schedule
from minibng.train import History

WIDTH = 100
FAMILIES = ("sgd", "momentum", "adagrad", "rmsprop", "adadelta", "adam")
FORMS = ("", "-clip", "-ng", "-ng-adaptive")
SCHEDULES = {"constant": "one rate throughout", "step": "a tenth of it from half of all steps on, a hundredth from 3/4"}
DECAY_AT, DECAY = (0.5, 0.75), 0.1
"""Step decay: the rate is multiplied by DECAY after these fractions of all steps."""

# Centres of the grids: the best rate of a grid with ratio √10 on digits, 15 epochs, batch 64, constant rate, seed 100,
# which no reported run uses; sigmoid at depth 6, relu and tanh at depth 18.
_SIGMOID = {
    "sgd": 1.0, "sgd-clip": 1.0, "sgd-ng": 0.3, "sgd-ng-adaptive": 0.03,
    "momentum": 0.1, "momentum-clip": 0.1, "momentum-ng": 0.1, "momentum-ng-adaptive": 0.01,
    "adagrad": 0.03, "adagrad-clip": 0.03, "adagrad-ng": 0.03, "adagrad-ng-adaptive": 0.03,
    "rmsprop": 0.003, "rmsprop-clip": 0.003, "rmsprop-ng": 0.003, "rmsprop-ng-adaptive": 0.003,
    "adadelta": 10.0, "adadelta-clip": 10.0, "adadelta-ng": 10.0, "adadelta-ng-adaptive": 10.0,
    "adam": 0.01, "adam-clip": 0.01, "adam-ng": 0.01, "adam-ng-adaptive": 0.01,
}  # fmt: skip
_OTHERS = {
    "sgd": 0.1, "sgd-clip": 0.1, "sgd-ng": 0.03, "sgd-ng-adaptive": 0.003,
    "momentum": 0.003, "momentum-clip": 0.003, "momentum-ng": 0.003, "momentum-ng-adaptive": 0.0003,
    "adagrad": 0.003, "adagrad-clip": 0.003, "adagrad-ng": 0.003, "adagrad-ng-adaptive": 0.003,
    "rmsprop": 0.0003, "rmsprop-clip": 0.0003, "rmsprop-ng": 0.0003, "rmsprop-ng-adaptive": 0.0003,
    "adadelta": 1.0, "adadelta-clip": 1.0, "adadelta-ng": 1.0, "adadelta-ng-adaptive": 1.0,
    "adam": 0.0003, "adam-clip": 0.0003, "adam-ng": 0.0003, "adam-ng-adaptive": 0.0003,
}  # fmt: skip


def centre(optimizer: str, setting: Setting) -> float:
    """Return the middle of an optimizer's grid; for one that is not the paper's, that of SGD in the same form."""
    table = _SIGMOID if setting["activation"] == "sigmoid" else _OTHERS
    form = max((f for f in FORMS if optimizer.endswith(f)), key=len)
    return table.get(optimizer, table["sgd" + form])


def schedule(name: str, lr: float, steps: int) -> Schedule:
    """Return a constant rate, or one with two decays on the way through ``steps`` steps."""
    if name == "constant":
        return optim.constant(lr)
    return optim.step_decay(lr, [int(steps * f) for f in DECAY_AT], DECAY)


def build(setting: Setting, split: Split) -> nn.Sequential:
    """Return the model of a setting: ``depth`` hidden layers of 100 units."""
    return nn.models.mlp(split.train.x.shape[1], [WIDTH] * setting["depth"], split.classes, setting["activation"])


def train_one(job: Job) -> History:
    """Run one job: everything depends on it alone."""
    split = data.load(job.setting["dataset"])
    model = build(job.setting, split)
    params = model.init(seed=job.seed)
    steps = len(data.batches(split.train, job.batch)) * job.epochs
    rate = schedule(job.setting["schedule"], job.lr, steps)
    opt = optim.get(job.optimizer)(params, lr=rate)
    return train.fit(
        model,
        params,
        opt,
        nn.cross_entropy,
        split,
        epochs=job.epochs,
        batch=job.batch,
        seed=job.seed,
        record_norms=job.record_norms,
        show=False,
    )


def describe(setting: Setting) -> str:
    """Return the model's table and where the data come from."""
    split = data.load(setting["dataset"])
    return f"{build(setting, split).summary(split.train.x[:1])}\n{split.source}"


EXPERIMENT = Experiment(
    name="mlp",
    about="deep MLPs on handwritten digits: six rules, raw, clipped, NG and adaptive NG (claim C1)",
    train=train_one,
    centre=centre,
    centre_source="best of a grid with ratio √10 at seed 100, which no reported run uses",
    describe=describe,
    axes={"dataset": ("digits",), "depth": (6,), "activation": ("sigmoid",), "schedule": tuple(SCHEDULES)},
    full_axes={
        "dataset": ("digits",),
        "depth": (6, 12, 18),
        "activation": ("sigmoid", "tanh", "relu"),
        "schedule": tuple(SCHEDULES),
    },
    optimizers=("momentum", "momentum-clip", "momentum-ng", "momentum-ng-adaptive", "adam", "adam-ng"),
    full_optimizers=tuple(f + form for f in FAMILIES for form in FORMS),
    claims=(
        Claim(
            number="C1",
            statement="block normalization accelerates training, most where the network is deep",
            baseline="momentum",
            treatment="momentum-ng",
            metric="train_loss",
            setting={"dataset": "digits", "depth": 6, "activation": "sigmoid", "schedule": "constant"},
        ),
    ),
    epochs=15,
)
