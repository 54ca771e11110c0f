"""Residual networks on images: what the experiments `resnet` and `imagenet` have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from minibng import data, nn
from minibng.data import Split
from minibng.experiments.declaration import Job, Setting
from minibng.experiments.options import Axis, one_of, or_none, rate, whole
from minibng.experiments.training import FORMS, SCHEDULES, fit_job
from minibng.params import layer_of
from minibng.train import History

AUGMENTATIONS: Mapping[str, data.CropMirror | None] = {
    "none": None,
    "crop": data.CropMirror(4, mirror=False),
    "crop-mirror": data.CropMirror(4),
}
"""What is done to training images: a shift by up to 4 pixels either way, and, of photographs, a mirror."""

NORM_BLOCKS = ("own", "merged", "excluded")
"""What a batch norm's γ and β are to block normalization: a block of their own (one for both), part of the block of the
convolution in front of it, or left as their gradient comes."""

NORM_TENSORS = ("*.gamma", "*.beta")
DECAYED = "*.W"
"""Weight decay is for weights alone, those that a batch norm makes scale-invariant above all (theory I13): decay of γ,
β and biases would change the function."""


def dataset(text: str) -> str:
    """Accept the name of a data set with classes, or "folder"."""
    if text == "folder":
        return text
    return one_of({name: e for name, e in data.DATASETS.items() if e.classes} | {"folder": None}, "data set")(text)


def axes(full_depth: tuple[int, ...] = (), **values: tuple[Any, ...]) -> dict[str, Axis]:
    """Return the axes of an image experiment; the arguments are default values, and the depths of ``--full``."""
    number = or_none(whole(1))
    made = {
        "dataset": Axis((), dataset, "images: mnist5k, textures, cifar10, …, or folder: a folder of classes"),
        "data_dir": Axis((None,), str, "folder with the files of cifar10, …, or with a folder for each class"),
        "size": Axis((None,), number, "pixels: images are brought to size × size; none: as they are", detail=True),
        "samples": Axis((None,), number, "training images, of those that there are; none: all", detail=True),
        "depth": Axis((), whole(8), "layers: 6n + 2, or 18, 34, 50"),
        "width": Axis((), whole(1), "channels of the first stage", detail=True),
        "augment": Axis(("none",), one_of(AUGMENTATIONS, "augmentation"), ", ".join(AUGMENTATIONS), detail=True),
        "weight_decay": Axis(
            (1e-3,),
            rate,
            "λ of decoupled decay of weights; 0.001 is what 0.0001 in the gradient is to momentum",
            detail=True,
        ),
        "norm_blocks": Axis(
            ("own",),
            one_of(dict.fromkeys(NORM_BLOCKS), "kind of batch norm's blocks"),
            "γ and β of a batch norm as blocks: own, merged with the convolution, excluded from normalization",
            detail=True,
        ),
        "schedule": Axis(("step",), one_of(SCHEDULES, "schedule"), ", ".join(SCHEDULES)),
    }
    made |= {name: replace(made[name], values=chosen) for name, chosen in values.items()}
    return made | {"depth": replace(made["depth"], full=full_depth)}


def split_of(setting: Setting) -> Split:
    """Return the images of a setting, and no more for training than it asks for.

    Raises
    ------
    ValueError
        For samples that are no images, a folder that is not named, and where there are fewer than are asked for.
    """
    names = ("dataset", "data_dir", "size", "samples")
    return _split(*(setting[name] for name in names))


@cache
def _split(name: str, folder: str | None, size: int | None, samples: int | None) -> Split:
    if name == "folder":
        if folder is None or size is None:
            raise ValueError("--dataset folder needs --data-dir, a folder of classes, and --size, for their pixels")
        split = data.image_folder(folder, size=size)
    else:
        split = data.load(name, data_dir=folder).as_images(size)
    return split if samples is None else replace(split, train=split.train.take(samples))


def build(setting: Setting, split: Split) -> nn.models.ResNet:
    """Return the residual network of a setting."""
    if split.classes is None:
        raise ValueError(f"a resnet is a classifier, and {split.name} has numbers to predict, not classes")
    channels = split.train.x.shape[3]
    return nn.models.resnet(setting["depth"], split.classes, setting["width"], channels=channels)


def prepare(setting: Setting) -> None:
    """Load the data, which downloads them where that is needed, and refuse a depth that there is not."""
    build(setting, split_of(setting))


def optimizer_settings(job: Job, model: nn.models.ResNet) -> dict[str, Any]:
    """Return the settings of the optimizer: weight decay, and what the blocks are."""
    kind, chosen = job.setting["norm_blocks"], {"weight_decay": {DECAYED: job.setting["weight_decay"]}}
    if kind == "merged":
        pairs = model.pairs
        return {**chosen, "blocks": lambda name: pairs.get(layer_of(name), layer_of(name))}
    if kind == "excluded" and job.optimizer.endswith(FORMS[1:]):
        return {**chosen, "exclude": NORM_TENSORS}
    return chosen


def train_one(job: Job) -> History:
    """Run one job: everything depends on it alone."""
    split = split_of(job.setting)
    model = build(job.setting, split)
    augment = AUGMENTATIONS[job.setting["augment"]]
    return fit_job(job, split, model, optimizer_settings(job, model), every=False, augment=augment)


def describe(setting: Setting) -> str:
    """Return the model's table and where the data come from."""
    split = split_of(setting)
    return f"{build(setting, split).summary(split.train.scaled(split.train.x[:1]))}\n{split.source}"
