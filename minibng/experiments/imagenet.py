"""An ImageNet-style network on a folder of class images: the paper's third experiment, at smaller scale."""

from __future__ import annotations

from dataclasses import replace

from minibng.experiments import images, resnet
from minibng.experiments.declaration import Experiment, Preset, Setting
from minibng.experiments.options import last_of
from minibng.experiments.training import Centres, centre_from

# Centres of the grids, in the order of FORMS: the best of three rates with ratio √10 at seed 100, which no
# reported run uses, by training loss in the default setting and budget (512 patches, 6 epochs, batch 32, step decay).
_CENTRES: Centres = {
    "momentum": (0.0316, 0.1, 0.1, 0.01),
    "adam": (0.01, 0.01, 0.01, 0.01),
}

AXES = images.axes(dataset=("textures",), samples=(512,), depth=(18,), width=(16,), augment=("crop-mirror",))
PAPER = {"dataset": ("folder",), "size": (224,), "samples": (None,), "depth": (50,), "width": (64,)}


def centre(optimizer: str, setting: Setting) -> float:
    """Return the middle of an optimizer's grid."""
    return centre_from(_CENTRES, optimizer)


C2, C4 = resnet.claims(last_of(AXES))
EXPERIMENT = Experiment(
    name="imagenet",
    about="an ImageNet-style network on a folder of classes, by default textures (claim C2; C4 with a preset)",
    train=images.train_one,
    centre=centre,
    centre_source="best of a grid with ratio √10 at seed 100, which no reported run uses",
    describe=images.describe,
    prepare=images.prepare,
    axes=AXES,
    optimizers=resnet.EXPERIMENT.optimizers,
    full_optimizers=resnet.EXPERIMENT.full_optimizers,
    claims=(
        C2,
        replace(C4, undecidable="all patches come from three photographs, so its interval is about training noise"),
    ),
    trends=resnet.EXPERIMENT.trends,
    presets={
        "paper": Preset(
            "ResNet-50, width 64, 224 pixels, 90 epochs, with --data-dir (ImageNet, Imagenette, …): for a GPU, days",
            PAPER,
            {"epochs": 90, "batch": 256, "claims": resnet.claims(last_of(AXES, **PAPER))},
        )
    },
    figures=resnet.EXPERIMENT.figures,
    epochs=6,
    batch=32,
    measure_every=2,
)
