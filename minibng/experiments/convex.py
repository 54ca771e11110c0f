"""Linear models on small tables: convex problems with known minimizers, where theory says how fast it must go."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from minibng import data, optim
from minibng.backend import HostArray
from minibng.experiments.certified import Certified, certified
from minibng.experiments.declaration import Experiment, Job, Setting
from minibng.experiments.metrics import TINY_LOSS
from minibng.experiments.options import Axis, one_of, rate
from minibng.experiments.training import FORMS, Centres, centre_from, clip_setting
from minibng.experiments.training import schedule as scheduled
from minibng.train import Epoch, History
from minibng.verify import Target
from minibng.verify.certificates import CERTIFICATES, Run, stages
from minibng.verify.convex import Descent, record, rule_of
from minibng.verify.problems import LOSSES, Problem, least_squares, logistic

# Centres of the grids, in the order of FORMS: the best of a grid with ratio √10 at seed 100, which no reported run
# uses, by the gap at the end, in the default setting and budget; other ridges and partitions have the same. Gaps below
# 10⁻¹² count as equal. Adaptive NG with the rate ∝ 1/√t was best on diabetes at 10, one rate below divergence and apart
# from all other good ones: there the next best was taken.
_CENTRES: dict[tuple[str, str], Centres] = {
    ("diabetes", "constant"): {
        "sgd": (0.316, 0.316, 0.0316, 0.0316),
        "momentum": (0.0316, 0.316, 0.00316, 0.01),
        "adagrad": (1, 0.1, 0.1, 0.316),
        "adam": (1, 0.0316, 0.0316, 0.0316),
    },
    ("diabetes", "step"): {
        "sgd": (0.316, 10, 0.1, 0.0316),
        "momentum": (0.316, 1, 0.01, 0.01),
        "adagrad": (1, 3.16, 0.316, 0.316),
        "adam": (1, 0.316, 0.0316, 0.0316),
    },
    ("diabetes", "sqrt"): {
        "sgd": (3.16, 3.16, 0.316, 0.316),
        "momentum": (0.316, 3.16, 0.0316, 0.0316),
        "adagrad": (1, 1, 1, 1),
        "adam": (1, 0.316, 0.316, 0.316),
    },
    ("breast_cancer", "constant"): {
        "sgd": (1, 1, 0.1, 0.0316),
        "momentum": (1, 0.316, 0.01, 0.00316),
        "adagrad": (0.316, 0.316, 0.1, 0.316),
        "adam": (0.316, 0.316, 0.0316, 0.0316),
    },
    ("breast_cancer", "step"): {
        "sgd": (1, 10, 0.1, 0.0316),
        "momentum": (1, 3.16, 0.01, 0.00316),
        "adagrad": (1, 0.316, 1, 0.316),
        "adam": (3.16, 0.316, 0.0316, 0.0316),
    },
    ("breast_cancer", "sqrt"): {
        "sgd": (10, 10, 0.316, 0.1),
        "momentum": (1, 10, 0.1, 0.0316),
        "adagrad": (10, 3.16, 1, 1),
        "adam": (0.316, 1, 0.1, 0.316),
    },
}
CLIP = 0.1
"""Threshold of clipping."""

LOST = 1e6
"""A run that ends so many times higher than it began has diverged."""

MOST = 4000
"""Steps of a run at the rates of a theorem; where one needs more, it is left out."""

PROBLEMS = {"diabetes": "least squares with a ridge", "breast_cancer": "logistic regression with a ridge"}
BLOCKS = {"layer": "all in one", "tensor": "weights and bias apart", "coordinate": "each number alone"}
SCHEDULES = {
    "constant": "one rate throughout",
    "step": "a tenth of it from half of all steps on, a hundredth from 3/4",
    "sqrt": "∝ 1/√(t + 1)",
}
AXES = {
    "dataset": Axis(tuple(PROBLEMS), one_of(PROBLEMS, "problem"), "; ".join(f"{k}: {v}" for k, v in PROBLEMS.items())),
    "ridge": Axis((0.1,), rate, "ρ: ρ/2·‖x‖² is added to the loss", detail=True),
    "blocks": Axis(("layer",), one_of(BLOCKS, "partition"), "; ".join(f"{k}: {v}" for k, v in BLOCKS.items())),
    "schedule": Axis(
        tuple(SCHEDULES), one_of(SCHEDULES, "schedule"), "; ".join(f"{k}: {v}" for k, v in SCHEDULES.items())
    ),
}


def centre(optimizer: str, setting: Setting) -> float:
    """Return the middle of an optimizer's grid."""
    return centre_from(_CENTRES[setting["dataset"], setting["schedule"]], optimizer)


def problem_of(setting: Setting) -> Problem:
    """Return the problem of a setting: weights (d, 1), and a bias (1,), which is penalized too.

    Raises
    ------
    ValueError
        Where there is not one minimizer.
    """
    return _problem(*(setting[name] for name in ("dataset", "ridge", "blocks")))


@cache
def _problem(dataset: str, ridge: float, blocks: str) -> Problem:
    rows, targets = table(data.load(dataset).train)
    d = rows.shape[1] - 1
    shapes: list[tuple[int, ...]] = [(1,)] * (d + 1) if blocks == "coordinate" else [(d, 1), (1,)]
    cut = [(0, 1)] if blocks == "layer" else None
    make = least_squares if dataset == "diabetes" else logistic
    name = f"{PROBLEMS[dataset]}, {dataset}"
    return make(rows, targets, shapes, cut, ridge=ridge, name=name, precise=False)


def table(part: data.Dataset) -> tuple[HostArray, HostArray]:
    """Return the features, with a column of ones for the bias, and the targets (N,), in double."""
    x = np.asarray(part.x, dtype=np.float64)
    return np.column_stack([x, np.ones(len(x))]), np.asarray(part.y, dtype=np.float64).reshape(-1)


def start_of(problem: Problem, seed: int) -> HostArray:
    """Return x_0, which is what seeds vary: normally distributed numbers."""
    return np.random.default_rng(seed).standard_normal(problem.flat(problem.minimizer).size)


def descend(job: Job) -> Run:
    """Run one job on all samples at every step: everything depends on it alone."""
    problem = problem_of(job.setting)
    settings: dict[str, Any] = {**clip_setting(job, CLIP)}
    name, steps = job.setting["schedule"], job.epochs
    lr = optim.inverse_sqrt(job.lr) if name == "sqrt" else scheduled(name, job.lr, steps)
    cls = optim.get(job.optimizer)
    descent = Descent(problem, start_of(problem, job.seed), tuple(float(lr(t)) for t in range(steps)))
    with np.errstate(over="ignore", invalid="ignore"):
        return record(Target.of(cls, device=job.device, **settings), descent, rule_of(cls, **settings))


def train_one(job: Job) -> History:
    """Run one job; its training loss is the gap f(x) − f*, its epochs are steps, and its test loss has no ridge.

    A gap below 10⁻¹² counts as that; one that ends `LOST` times as large as it began has diverged, though no number
    overflowed.
    """
    before = time.process_time()
    run = descend(job)
    seconds = time.process_time() - before
    names, last = [f"block {i}" for i in range(len(run.problem.blocks))], len(run.rates)
    with np.errstate(over="ignore", invalid="ignore"):
        history = History(names, step_losses=run.gaps[:-1].astype(np.float64))
    for t in sorted({*range(0, last, job.measure_every), last}):
        gap = float(run.gaps[t])
        lost = not math.isfinite(gap) or (t == last and (last < job.epochs or gap > LOST * float(run.gaps[0])))
        losses = [math.nan] * 2 if lost else [loss_of(job.setting, part, run.points[t]) for part in ("val", "test")]
        taken = seconds * t / last
        kept = math.nan if lost else max(gap, TINY_LOSS)
        history.epochs.append(Epoch(t, kept, None, None, taken, lost, *losses))
        if lost:
            history.error = f"the gap is {gap:.3g} after {t} steps"
            break
    if job.record_norms:
        history.norm_steps, history.gradient_norms = np.arange(last), run.norms.astype(np.float64)
        history.update_norms = run.lengths(np.diff(run.points, axis=0)).astype(np.float64)
        history.parameter_norms = run.lengths(run.points[:-1]).astype(np.float64)
    return history


def loss_of(setting: Setting, part: str, x: HostArray) -> float:
    """Return the mean loss of a part of the data, without the ridge: (ax − y)²/2, or log(1 + exp(∓ax))."""
    rows, targets = table(getattr(data.load(setting["dataset"]), part))
    if setting["dataset"] == "diabetes":
        return float(np.mean(LOSSES["squares"].value(rows @ x - targets)))
    return float(np.mean(LOSSES["logistic"].value(rows @ x * np.where(targets > 0, -1, 1))))


def certify(job: Job) -> Certified:
    """Run one job again, and ask every certificate."""
    return certified(f"{job.optimizer}, lr {job.lr:.3g}", job.setting, descend(job), job.optimizer, job.seed)


def theory(settings: Sequence[Setting], steps: int) -> list[Certified]:
    """Run SGD and AdaGrad behind NG at the rates that the theorems prescribe, once a problem, from the start of seed 0.

    Theorem 1 with LBRη = δ_0/2; three stages of the corollary; Theorem 2 with η = D_0/√T; Theorem 3 with η the largest
    distance of a coordinate.
    """
    found = []
    for setting in {id(problem_of(s)): {**s, "schedule": "its own"} for s in settings}.values():
        problem = problem_of(setting)
        start = start_of(problem, 0)
        for name, rates in _prescribed(problem, start, steps).items():
            if 0 < len(rates) <= MOST:
                rule = "adagrad-ng" if name == "theorem-3" else "sgd-ng"
                cls = optim.get(rule)
                run = record(Target.of(cls), Descent(problem, start, tuple(rates)), rule_of(cls))
                found.append(certified(f"{rule}, rates of {CERTIFICATES[name].title}", setting, run, rule, 0))
    return found


def _prescribed(problem: Problem, start: HostArray, steps: int) -> dict[str, list[float]]:
    e = problem.error(start)
    gap, far = float(problem.objective.gap(e)), float(np.sqrt(e @ e))
    plans = {}
    if (radius := problem.radius(gap)) is not None and problem.L is not None:
        small = gap / (2 * problem.L * len(problem.blocks) * radius)
        plans["theorem-1"] = [small] * (math.ceil(2 * radius / small * math.log(2)) + steps // 10)
        plans["corollary"] = [stage.rate for stage in stages(problem, gap, 3) for _ in range(stage.steps)]
    if problem.separable:
        plans["theorem-2"] = [far / math.sqrt(steps)] * steps
    return plans | {"theorem-3": [float(np.abs(e).max())] * steps}


def describe(setting: Setting) -> str:
    """Return the problem with its constants, and where the data come from."""
    problem = problem_of(setting)
    known = f"L {problem.L:.4g}, μ {problem.mu:.4g}, f* {problem.minimum:.6g}"
    return f"{problem.name}, ρ = {setting['ridge']:g}: {known}\n{data.load(setting['dataset']).source}"


def baselines(setting: Setting) -> dict[str, tuple[float | None, float | None]]:
    """Return what the minimizer itself costs on the test set."""
    problem = problem_of(setting)
    return {"(x*)": (None, loss_of(setting, "test", problem.flat(problem.minimizer)))}


EXPERIMENT = Experiment(
    name="convex",
    about="linear models with known minimizers: gaps, observed slopes, and the certificates of theory",
    train=train_one,
    centre=centre,
    centre_source="best of a grid with ratio √10 at seed 100, which no reported run uses",
    describe=describe,
    prepare=problem_of,
    axes=AXES,
    optimizers=(
        *("sgd", "sgd-clip", "sgd-ng", "sgd-ng-adaptive", "momentum-ng"),
        *("adagrad", "adagrad-ng", "adam", "adam-ng"),
    ),
    full_optimizers=tuple(family + form for family in ("sgd", "momentum", "adagrad", "adam") for form in FORMS),
    claims=(),
    figures=("training", "rates", "certificates", "theory"),
    columns=("gap", "test_loss"),
    clip=CLIP,
    baselines=baselines,
    certify=certify,
    theory=theory,
    epochs=200,
    batch=0,  # all samples at every step
    measure_every=10,
)
