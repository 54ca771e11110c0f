"""Residual networks of growing depth on small images: the paper's second experiment, at smaller scale."""

from __future__ import annotations

from minibng.experiments import images
from minibng.experiments.declaration import Claim, Experiment, Preset, Setting, Trend
from minibng.experiments.options import last_of
from minibng.experiments.training import FORMS, Centres, centre_from

# Centres of the grids, in the order of FORMS: the best of three rates with ratio √10 at seed 100, which no
# reported run uses, by training loss in the default setting and budget (512 images, 4 epochs, batch 32, step decay) at
# depth 20; of momentum, momentum-ng, momentum-ng-adaptive and adam-ng by the geometric mean of depths 20 and 32.
_CENTRES: Centres = {
    "momentum": (0.1, 0.1, 0.0316, 0.01),
    "adam": (0.01, 0.01, 0.01, 0.01),
}

AXES = images.axes(
    dataset=("mnist5k",), size=(16,), samples=(512,), depth=(8, 20, 32), full_depth=(8, 20, 32, 44), width=(8,)
)
PAPER = {
    "dataset": ("cifar10",),
    "size": (None,),
    "samples": (None,),
    "depth": (20, 32, 44, 56, 110),
    "width": (16,),
    "augment": ("crop-mirror",),
}


def centre(optimizer: str, setting: Setting) -> float:
    """Return the middle of an optimizer's grid."""
    return centre_from(_CENTRES, optimizer)


def claims(setting: Setting) -> tuple[Claim, ...]:
    """Return the claims about one setting."""
    return (
        Claim(
            number="C2",
            statement="constant step sizes with occasional decay do better in deep convolutional networks",
            baseline="adam-ng",
            treatment="momentum-ng",
            setting=setting,
        ),
        Claim(
            number="C4",
            statement="the solutions generalize better than strong baselines",
            baseline="momentum",
            treatment="momentum-ng",
            setting=setting,
            metric="test_error",
        ),
    )


EXPERIMENT = Experiment(
    name="resnet",
    about="residual networks of growing depth: momentum and Adam, raw, clipped, NG and adaptive NG (claims C2, C4)",
    train=images.train_one,
    centre=centre,
    centre_source="best of a grid with ratio √10 at seed 100, which no reported run uses",
    describe=images.describe,
    prepare=images.prepare,
    axes=AXES,
    optimizers=("momentum", "momentum-ng", "momentum-ng-adaptive", "adam-ng"),
    full_optimizers=tuple(family + form for family in ("momentum", "adam") for form in FORMS),
    claims=claims(last_of(AXES)),
    trends=(
        Trend(
            "Does the effect grow with depth?",
            "depth",
            (("momentum", "momentum-ng"), ("momentum", "momentum-ng-adaptive"), ("adam", "adam-ng")),
        ),
    ),
    presets={
        "paper": Preset(
            "the paper's settings, CIFAR-10 (or --dataset cifar100), depths 20 to 110, 64,000 steps: for a GPU, days",
            PAPER,
            # 45,000 images are 352 batches of 128 an epoch; the rate falls at 32,000 and 48,000 steps (He et al., 2016)
            {"epochs": 182, "batch": 128, "measure_every": 7, "claims": claims(last_of(AXES, **PAPER))},
        )
    },
    figures=("training", "rates", "norms", "parameters", "effect"),
    epochs=4,
    batch=32,
    measure_every=2,
)
