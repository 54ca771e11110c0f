import json
import math
from dataclasses import replace

import numpy as np
import pytest

import minibng as bng
from minibng import data, nn, optim, plot
from minibng.experiments import CONVEX, EXPERIMENTS, compare, convex, report
from minibng.experiments.declaration import Job, combine
from minibng.verify.certificates import SGD

SETTINGS = [s for s in combine(CONVEX.axes_of(False)) if s["schedule"] == "sqrt"]
SHORT = {"epochs": 12, "batch": CONVEX.batch, "measure_every": 5}


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s["dataset"])
def test_the_problem_is_the_linear_models_of_the_package(setting):
    """Value and gradient are those that autodiff finds of the model, its loss and the ridge, in float64."""
    problem, part = convex.problem_of(setting), data.load(setting["dataset"]).train
    logistic = setting["dataset"] == "breast_cancer"
    model = nn.Linear(part.x.shape[1], 1)
    params = model.init(seed=3, dtype="float64")
    x, y = part.x.astype(float), part.y.astype(float).reshape(-1, 1)

    def loss(p):
        output = model(p, x)
        fit = bng.ops.mean(bng.ops.logaddexp(0.0, -(2 * y - 1) * output)) if logistic else nn.mse(output, y) / 2
        return fit + setting["ridge"] / 2 * (bng.ops.sum(p["W"] ** 2) + bng.ops.sum(p["b"] ** 2))

    value, grad = bng.value_and_grad(loss)(params)
    tensors = [params["W"], params["b"]]
    assert problem.f(tensors) == pytest.approx(float(value), rel=1e-12)
    for ours, theirs in zip(problem.grad(tensors), (grad["W"], grad["b"]), strict=True):
        assert np.allclose(ours, theirs, rtol=0, atol=1e-13)
    assert not any(g.any() for g in problem.grad(problem.minimizer))


def test_a_job_is_the_loop_written_out():
    setting = SETTINGS[1]
    job = Job(setting, "momentum-ng", 0.1, seed=3, record_norms=True, **SHORT)
    history = convex.train_one(job)
    problem = convex.problem_of(setting)
    x = problem.tensors(np.random.default_rng(3).standard_normal(31))
    opt = optim.MomentumNG(x, lr=lambda t: 0.1 / math.sqrt(t + 1), blocks=[[0, 1]])
    gaps = []
    for _ in range(12):
        gaps.append(problem.f(x) - problem.minimum)
        opt.step(problem.grad(x))
    assert history.step_losses == pytest.approx(gaps, rel=1e-9)
    assert [e.epoch for e in history.epochs] == [0, 5, 10, 12]
    last = history.epochs[-1]
    assert last.train_loss == pytest.approx(problem.f(x) - problem.minimum, rel=1e-9)
    test = data.load("breast_cancer").test
    output = test.x.astype(float) @ x[0][:, 0] + x[1]
    assert last.test_loss == pytest.approx(np.logaddexp(0, -np.where(test.y > 0, 1, -1) * output).mean(), rel=1e-9)
    assert history.gradient_norms.shape == history.update_norms.shape == history.parameter_norms.shape == (12, 1)
    assert not history.diverged and last.test_error is None


@pytest.mark.parametrize("blocks", convex.BLOCKS)
def test_blocks_are_those_of_the_setting(blocks):
    problem = convex.problem_of(SETTINGS[0] | {"blocks": blocks})
    assert len(problem.blocks) == {"layer": 1, "tensor": 2, "coordinate": 11}[blocks]
    assert problem.separable == (blocks == "layer")
    run = convex.descend(Job(SETTINGS[0] | {"blocks": blocks}, "sgd-ng", 0.1, 0, **SHORT))
    assert run.lengths(np.diff(run.points, axis=0))[0] == pytest.approx(0.1)


def test_clipping_has_the_declared_threshold():
    job = Job(SETTINGS[0] | {"schedule": "constant"}, "sgd-clip", 0.5, 0, **SHORT)
    run = convex.descend(job)
    assert CONVEX.clip == convex.CLIP and run.lengths(np.diff(run.points, axis=0))[0] == pytest.approx(
        0.5 * convex.CLIP
    )


def test_a_run_that_overflows_ends_there_as_diverged():
    job = Job(SETTINGS[0] | {"schedule": "constant"}, "sgd", 1e60, 0, **SHORT)
    history = convex.train_one(job)
    assert history.diverged and "gap is" in history.error and math.isnan(history.epochs[-1].train_loss)
    assert convex.certify(job).said  # told of all the same


def test_certificates_are_told_below_the_table_recorded_and_drawn(monkeypatch, tmp_path):
    monkeypatch.setattr(convex, "MOST", 400)  # the corollary needs 2559 steps
    names = ("sgd", "sgd-ng", "sgd-ng-adaptive", "adagrad-ng")
    constant = SETTINGS[0] | {"schedule": "constant"}
    result = compare(CONVEX, settings=[constant], optimizers=names, seeds=2, epochs=40)
    assert [one.optimizer for one in result.certified] == [run.job.optimizer for run in result.reported]
    told = report.verdicts(result)
    applied = [s for one in (*result.certified, *result.theory) for s in one.said if s.applies]
    assert f"all {len(applied)} that apply hold" in told and len(applied) >= 2 * (4 + 2 + 1) + 5 + 4 + 1
    lines = {line.split(",")[0].split("  ")[0]: line for line in told.splitlines() if ", lr" in line}
    assert "no theorem" in lines["sgd"] and "Theorem 3 (gap/bound" in lines["adagrad-ng"]
    assert "the identity, certificate A, certificate B, Theorem 2 (gap/bound" in lines["sgd-ng"]
    assert lines["sgd-ng-adaptive"].endswith("the identity, certificate A")
    assert "rates of Theorem 1" in told and "rates of the corollary" not in told
    paths = report.save_records(result, tmp_path) + report.save_figures(result, tmp_path)
    drawn = ["training.png", "rates.png", "certificates.png", "theory.png"]
    assert [p.name for p in paths] == ["records.jsonl", "norms.jsonl", "certificates.jsonl", *drawn]
    rows = [json.loads(line) for line in (tmp_path / "certificates.jsonl").read_text().splitlines()]
    assert {row["verdict"] for row in rows[1:]} == {"holds", "not applicable"}
    assert len(rows) == 1 + 7 * (len(result.certified) + len(result.theory))


def test_a_violation_is_told(monkeypatch):
    monkeypatch.setattr(convex, "rule_of", lambda *args, **settings: SGD)
    short = replace(CONVEX, theory=None)
    result = compare(short, settings=SETTINGS[:1], optimizers=("sgd",), seeds=1, epochs=10)
    told = report.verdicts(result)
    assert "are violated" in told and "the identity violated at step 0" in told


def test_no_gaps_are_refused():
    with pytest.raises(ValueError, match="no gaps"):
        plot.bounds({})


def test_an_experiment_without_certificates_has_neither_text_nor_file():
    assert all(e.certify is None and e.theory is None for e in EXPERIMENTS.values() if e is not CONVEX)


def test_the_declaration_is_sound():
    assert EXPERIMENTS["convex"] is CONVEX and list(EXPERIMENTS)[-1] == "convex" and not CONVEX.claims
    for setting in combine(CONVEX.axes_of(True)):
        for name in (*CONVEX.optimizers, *CONVEX.full_optimizers, "rmsprop-ng"):
            assert CONVEX.centre(name, setting) > 0
        assert convex.describe(setting).startswith(convex.PROBLEMS[setting["dataset"]])
    with pytest.raises(ValueError, match="ridge above 0"):
        CONVEX.prepare(SETTINGS[1] | {"ridge": 0.0})
