import json
import math

import numpy as np
import pytest

import minibng as bng
from minibng import cli, data, nn, optim
from minibng.experiments import IMAGENET, RESNET, images
from minibng.experiments.declaration import Job, combine

SETTING = combine(RESNET.axes_of(False))[0] | {"size": 8, "samples": 40, "width": 2}


def named(params):
    return dict(zip(params.layout.names, params.__leaves__(), strict=True))


def test_a_job_is_the_loop_written_out():
    setting = SETTING | {"augment": "crop", "weight_decay": 0.5}
    history = images.train_one(Job(setting, "momentum-ng", 0.1, seed=4, epochs=2, batch=16))
    split = data.load("mnist5k").as_images(8)
    model = nn.models.resnet(8, 10, 2, channels=1)
    params = model.init(seed=4)
    opt = optim.MomentumNG(params, lr=optim.step_decay(0.1, [3, 4]), weight_decay={"*.W": 0.5})  # 3 steps an epoch
    step = bng.value_and_grad(lambda p, x, y: nn.cross_entropy(model(p, x, train=True), y))
    losses = []
    for epoch in range(2):
        batches = data.batches(split.train.take(40), 16, seed=4, epoch=epoch, augment=data.CropMirror(4, mirror=False))
        for x, y in batches:
            value, grad = step(params, x, y)
            losses.append(float(value))
            opt.step(grad)
    assert history.step_losses.tolist() == losses


def optimizer(kind, name="momentum-ng", depth=8):
    setting = SETTING | {"norm_blocks": kind, "depth": depth}
    model = images.build(setting, images.split_of(setting))
    params = model.init(0)
    return optim.get(name)(
        params, lr=0.1, **images.optimizer_settings(Job(setting, name, 0.1, 0, 1, 16), model)
    ), params


def test_batch_norms_are_blocks_of_their_own_merged_or_excluded():
    own, params = optimizer("own")
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in params.layout.names))
    assert list(own.block_names) == layers and own.exclude == ()
    merged, _ = optimizer("merged")
    assert list(merged.block_names) == [layer for layer in layers if "norm" not in layer]
    inside = {name: sum(v.size for v in views) for name, views in Blocks(merged)}
    assert inside["stage1.0.conv1"] == 3 * 3 * 2 * 2 + 2 + 2
    excluded, params = optimizer("excluded")
    assert list(excluded.block_names) == layers
    rng = np.random.default_rng(0)
    grad = bng.Params(params.layout, rng.standard_normal(params.flat.shape).astype("float32"))
    before = params.copy()
    excluded.step(grad)
    for layer, views in before.blocks():
        moved = np.concatenate([np.ravel(v) for v in views]) - np.concatenate(
            [np.ravel(v) for v in dict(params.blocks())[layer]]
        )
        g = np.concatenate([np.ravel(v) for v in dict(grad.blocks())[layer]])
        length = np.linalg.norm(g) if "norm" in layer else 1.0
        assert np.linalg.norm(moved) == pytest.approx(0.1 * length, rel=2e-3)  # weights decay a little besides
    raw, _ = optimizer("excluded", "momentum")
    assert raw.exclude == ()


def Blocks(opt):
    """Block → views, by the optimizer's own partition."""
    tensors, groups = opt._target.tensors, opt._target.groups
    return [(group.label, [tensors[i] for i in group.tensors]) for group in groups]


def test_decay_is_of_weights_alone():
    opt, params = optimizer("own")
    assert {name: λ for name, λ in zip(params.layout.names, opt.decays, strict=True) if λ} == {
        name: 1e-3 for name in params.layout.names if name.endswith(".W")
    }


def test_parameters_in_front_of_a_batch_norm_grow_as_theory_says():
    """I13: ‖x^i‖² gains lr² a step under SGD-NG, a factor of 1 + lr² under adaptive NG."""
    lr, steps = 0.05, 12
    setting = SETTING | {"weight_decay": 0.0, "schedule": "constant", "samples": 48}
    job = Job(setting, "sgd-ng", lr, seed=1, epochs=4, batch=16, record_norms=True)
    for name in ("sgd-ng", "sgd-ng-adaptive"):
        history = images.train_one(job._replace(optimizer=name))
        assert history.norm_steps.tolist() == list(range(steps))
        for block, norms in zip(history.blocks, history.parameter_norms.T, strict=True):
            if "conv" in block:
                told = norms[0] ** 2 + lr**2 * np.arange(steps)
                if name.endswith("adaptive"):
                    told = norms[0] ** 2 * (1 + lr**2) ** np.arange(steps)
                np.testing.assert_allclose(norms**2, told, rtol=1e-4)


def test_norms_of_a_long_run_are_kept_now_and_then(monkeypatch):
    monkeypatch.setattr("minibng.experiments.training.ROWS", 3)
    history = images.train_one(Job(SETTING, "momentum-ng", 0.1, 0, epochs=3, batch=16, record_norms=True))
    assert history.norm_steps.tolist() == [0, 3, 6]
    assert len(images.train_one(Job(SETTING, "momentum-ng", 0.1, 0, epochs=1, batch=16)).norm_steps) == 0


def test_settings_that_make_no_sense_are_refused_before_any_run():
    for setting, told in (
        ({"dataset": "breast_cancer"}, "are no images"),
        ({"depth": 9}, "6n"),
        ({"samples": 10**6}, "cannot take 1000000 samples"),
        ({"dataset": "folder"}, "--dataset folder needs --data-dir"),
        ({"data_dir": "/x"}, "not read from files of yours"),
    ):
        with pytest.raises(ValueError, match=told):
            images.prepare(SETTING | setting)
    with pytest.raises(ValueError, match="lars is not one of these"):
        RESNET.centre("lars", SETTING)


@pytest.mark.parametrize("experiment", [RESNET, IMAGENET], ids=lambda e: e.name)
def test_the_declaration_is_sound(experiment):
    for made in (experiment, experiment.preset("paper")):
        for name in (*made.optimizers, *made.full_optimizers, "sgd-ng", "adadelta"):
            assert all(made.centre(name, setting) > 0 for setting in combine(made.axes_of(True)))
        assert {claim.number: claim.metric for claim in made.claims} == {"C2": "train_loss", "C4": "test_error"}
        for claim in made.claims:
            assert {claim.baseline, claim.treatment} <= set(made.optimizers)
            assert claim.setting in combine(made.axes_of(False))
            assert claim.setting["depth"] == max(made.axes_of(False)["depth"])
    assert experiment.preset("paper").claims[1].undecidable == ""


@pytest.mark.parametrize("name", [pytest.param("resnet", marks=pytest.mark.slow), "imagenet"])
def test_a_comparison_from_end_to_end(name, capsys, tmp_path):
    depth, seeds = {"resnet": ("8,14", "2"), "imagenet": ("8", "1")}[name]
    short = ("--size", "8", "--width", "2", "--samples", "64", "--epochs", "1", "--seeds", seeds, "--depth", depth)
    assert cli.main(["compare", name, *short, "--optimizers", "momentum,momentum-ng", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.count("rate by val. error") == len(depth.split(","))
    assert "samples 64, width 2, augment " in out
    assert "C2  not tested" in out and "C4  not tested" in out
    assert ("Does the effect grow with depth?" in out) == (name == "resnet")
    figures = {"training.png", "rates.png", "norms.png", "parameters.png", *["effect.png"] * (name == "resnet")}
    assert {p.name for p in tmp_path.iterdir()} == figures | {"records.jsonl", "norms.jsonl"}
    head, *lines = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    assert head["declaration"]["claims"][1]["metric"] == "test_error"
    assert {"depth", "width", "samples", "norm_blocks", "weight_decay", "val_error"} <= lines[0].keys()
    assert all(math.isfinite(line["train_loss"]) for line in lines)
    norms = [json.loads(line) for line in (tmp_path / "norms.jsonl").read_text().splitlines()][1:]
    assert all(len(n["parameter"]) == len(n["blocks"]) == len(n["gradient"]) for n in norms)


def test_data_of_the_users_own_come_from_their_folder(monkeypatch, tmp_path):
    """What is read from it is tested where the readers are."""
    asked = []
    small = data.load("mnist5k").as_images(8)

    def load(name, *, data_dir=None):
        asked.append((name, data_dir))
        return small

    def image_folder(path, size):
        asked.append((path, size))
        return small

    monkeypatch.setattr(images.data, "load", load)
    monkeypatch.setattr(images.data, "image_folder", image_folder)
    images._split.cache_clear()
    of_cifar = images.split_of(SETTING | {"dataset": "cifar10", "data_dir": str(tmp_path), "size": None})
    images.split_of(SETTING | {"dataset": "folder", "data_dir": str(tmp_path), "size": 24, "samples": None})
    images._split.cache_clear()
    assert asked == [("cifar10", str(tmp_path)), (str(tmp_path), 24)]
    assert len(of_cifar.train) == 40 and of_cifar.val is small.val
