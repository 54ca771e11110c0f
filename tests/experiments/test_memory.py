import math

import numpy as np
import pytest

import minibng as bng
from minibng import data, nn, optim
from minibng.experiments import MEMORY, compare, memory, report
from minibng.experiments.comparison import Run
from minibng.experiments.declaration import Job, combine

SETTING = combine(MEMORY.axes_of(False))[0] | {"length": 6, "hidden": 4, "samples": 40}


@pytest.mark.parametrize("task", memory.TASKS)
def test_a_job_is_the_loop_written_out(task):
    history = memory.train_one(Job(SETTING | {"task": task}, "momentum-ng", 0.1, seed=3, epochs=2, batch=16))
    if task == "adding":
        split, loss = data.adding(6, 40), nn.mse
        model = nn.Sequential(nn.LSTM(2, 4), lambda y: y[:, -1], nn.Linear(4, 1))
    else:
        split, loss = data.copying(6, 40), nn.cross_entropy
        model = nn.models.lstm_lm(10, 10, 4, 1)
    params = model.init(seed=3)
    opt = optim.MomentumNG(params, lr=0.1)
    step = bng.value_and_grad(lambda p, x, y: loss(model(p, x, train=True), y))
    losses = []
    for epoch in range(2):
        for x, y in data.batches(split.train, 16, seed=3, epoch=epoch):
            value, grad = step(params, x, y)
            losses.append(float(value))
            opt.step(grad)
    assert history.step_losses.tolist() == losses and not history.language
    last = history.epochs[-1]
    assert (last.test_error is None) == (task == "adding")
    assert last.test_loss == pytest.approx(float(loss(model(params, split.test.x), split.test.y)), rel=1e-5)
    told = report.epochs(history).splitlines()[0].split()
    assert told[-3:] == ["test", "error" if task == "copying" else "loss", "seconds"]
    assert report.run_records(Run(0, Job(SETTING, "momentum-ng", 0.1, 3, 2, 16), history))[0]["val_loss"] > 0


@pytest.mark.parametrize(("cell", "layer"), [("lstm", nn.LSTM), ("gru", nn.GRU), ("rnn", nn.RNN)])
def test_every_cell_is_itself_in_both_tasks(cell, layer):
    for task, inputs in (("adding", 2), ("copying", 10)):
        setting = SETTING | {"task": task, "cell": cell}
        model = memory.build(setting, memory.split_of(setting))
        own = {name: spec.shape for name, spec in layer(inputs, 4).tensors().items()}
        place = "0." if task == "adding" else f"{cell}."
        assert {f"{place}{name}": shape for name, shape in own.items()}.items() <= {
            name: spec.shape for name, spec in model.tensors().items()
        }.items()
        assert math.isfinite(memory.train_one(Job(setting, "adam", 0.01, 0, epochs=1, batch=20)).epochs[-1].train_loss)


def test_clipping_acts_where_it_is_asked_for(monkeypatch):
    clipped, plain = (Job(SETTING, f"sgd{form}", 0.1, seed=0, epochs=1, batch=20) for form in ("-clip", ""))
    assert MEMORY.clip == memory.CLIP
    monkeypatch.setattr(memory, "CLIP", 1e-3)
    history = memory.train_one(clipped._replace(record_norms=True))
    assert history.update_norms.max() <= 0.1 * 1e-3 * (1 + 1e-3)  # a difference of float32 parameters
    assert memory.train_one(plain._replace(record_norms=True)).update_norms.max() > 1e-3


def test_baselines_are_what_it_costs_to_remember_nothing():
    split = memory.split_of(SETTING | {"samples": 4000})
    (found,) = memory.baselines(SETTING).values()
    assert found == (1 / 6, 1 / 6) and np.var(split.train.y) == pytest.approx(1 / 6, rel=0.05)
    (found,) = memory.baselines(SETTING | {"task": "copying"}).values()
    split = memory.split_of(SETTING | {"task": "copying"})
    guess = np.where((np.arange(26) < 16)[:, None] == (np.arange(10) == 0), 0.0, -np.inf)
    guess[16:, 1:9] = -math.log(8)
    guess[16:, 9] = -np.inf
    assert -guess[np.arange(26), split.train.y].mean() == pytest.approx(found[0], rel=1e-12)


def test_the_declaration_is_sound():
    for name in (*MEMORY.optimizers, *MEMORY.full_optimizers, "rmsprop-ng"):
        for setting in combine(MEMORY.axes_of(True) | {"task": tuple(memory.TASKS)}):
            assert MEMORY.centre(name, setting) > 0
    (claim,) = MEMORY.claims
    assert {claim.baseline, claim.treatment} <= set(MEMORY.optimizers)
    assert claim.setting in combine(MEMORY.axes_of(False))
    assert claim.setting["length"] == max(MEMORY.axes_of(False)["length"])


def test_a_comparison_has_losses_in_both_columns():
    settings = [SETTING | {"length": length} for length in (4, 8)]
    result = compare(MEMORY, settings=settings, optimizers=("adam", "adam-ng"), seeds=2, epochs=1)
    table, told = report.table(result), report.verdicts(result)
    assert "final training loss" in table and "test loss" in table and "test error" not in table
    assert table.count("(no memory)") == 2 and table.count("0.167") == 4
    assert "Does the effect grow with the distance" in told and "C1  not tested" in told
