import numpy as np
import pytest

import minibng as bng
from minibng import data, nn, optim
from minibng.experiments import mlp
from minibng.experiments.declaration import Job
from minibng.experiments.training import schedule

SETTING = {"dataset": "digits", "depth": 3, "activation": "tanh", "schedule": "step"}


def test_step_decay_falls_at_half_and_at_three_quarters():
    rate = schedule("step", 0.2, steps=100)
    assert [rate(t) for t in (0, 49)] == [0.2, 0.2]
    assert rate(50) == rate(74) == pytest.approx(0.02)
    assert rate(75) == rate(99) == pytest.approx(0.002)
    assert schedule("constant", 0.2, steps=100)(99) == 0.2


def test_the_model_has_the_depth_width_and_activation_of_its_setting():
    split = data.load("digits")
    for depth, activation in ((2, "relu"), (5, "sigmoid")):
        model = mlp.build({**SETTING, "depth": depth, "activation": activation}, split)
        linear = [layer for layer in model.layers.values() if isinstance(layer, nn.Linear)]
        assert [layer.outputs for layer in linear] == [100] * depth + [10] and linear[0].inputs == 64
        others = [layer for layer in model.layers.values() if not isinstance(layer, nn.Linear)]
        assert others == [nn.ACTIVATIONS[activation]] * depth


def test_a_job_is_the_loop_written_out():
    job = Job(SETTING, "adam-ng", 0.01, seed=4, epochs=2, batch=128)
    split = data.load("digits")
    model = nn.models.mlp(64, [100] * 3, 10, "tanh")
    params = model.init(seed=4)
    opt = optim.AdamNG(params, lr=optim.step_decay(0.01, [10, 15]))  # 1259 samples: 10 steps an epoch
    step = bng.value_and_grad(lambda p, x, y: nn.cross_entropy(model(p, x, train=True), y))
    losses = []
    for epoch in range(2):
        for x, y in data.batches(split.train, 128, seed=4, epoch=epoch):
            value, grad = step(params, x, y)
            losses.append(float(value))
            opt.step(grad)
    assert np.array_equal(mlp.train_one(job).step_losses, losses)


def test_a_misspelt_optimizer_has_no_centre():
    with pytest.raises(ValueError, match="did you mean 'momentum-ng'"):
        mlp.centre("momentum-gn", SETTING)


def test_text_is_refused_before_any_run():
    with pytest.raises(ValueError, match="the deep MLP takes numbers, and grammar is text"):
        mlp.EXPERIMENT.prepare(SETTING | {"dataset": "grammar"})
