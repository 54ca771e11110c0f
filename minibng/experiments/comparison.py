"""The protocol of a fair comparison: equal grids, equal seeds, one rate chosen by a stated rule, verdicts from pairs.

Every optimizer gets the same number of learning rates with the same ratio around a centre of its own. A best rate at
the edge of its grid is marked and that grid extended once. The rate is chosen by final training loss; a diverged run
ranks worst. With fresh seeds, rates are chosen on one set of seeds and everything is reported on another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minibng.backend import get_backend
from minibng.experiments.declaration import RATIO, Claim, Experiment, Job, Setting, combine
from minibng.experiments.pool import Pool, workers_for
from minibng.experiments.statistics import Finding, Interval, judge, t_interval
from minibng.extras import require
from minibng.train import Epoch, History

TINY_LOSS = 1e-12
"""Losses are compared as logarithms; smaller ones, which float32 does not tell from 0, count as this."""


@dataclass(frozen=True)
class Run:
    """A finished job."""

    number: int
    job: Job
    history: History
    stage: str = "grid"
    """"grid", "edge" (a grid that was extended), "fresh" (seeds on which no rate was chosen), or "run"."""

    @property
    def last(self) -> Epoch:
        """What was measured at the end of the last epoch."""
        return self.history.epochs[-1]


@dataclass(frozen=True)
class Row:
    """One line of the table: an optimizer at its chosen rate in one setting, over seeds.

    ``loss`` is the geometric mean of the final training loss and its interval, ``error`` the mean test error (a
    fraction); both leave out diverged runs, which are counted. ``edge`` marks a rate at the edge of the grid.
    """

    setting: Setting
    optimizer: str
    lr: float
    edge: bool
    loss: Interval
    error: Interval
    seconds: float
    diverged: int
    seeds: int


@dataclass(frozen=True)
class Verdict:
    """A claim and what the runs say of its primary comparison."""

    claim: Claim
    finding: Finding
    baseline: Row
    treatment: Row


@dataclass
class Comparison:
    """Everything that a comparison found: its runs in the order of the declaration, the table, the verdicts."""

    experiment: Experiment
    runs: list[Run] = field(default_factory=list)
    reported: list[Run] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    declared: bool = True
    """Whether epochs are those of the declaration, and seeds not more: only then claims are judged."""
    device: str = "cpu"
    interrupted: bool = False
    """Whether Ctrl-C ended it; then it holds the finished runs and nothing else."""


def _key(setting: Setting) -> tuple[Any, ...]:
    return tuple(sorted(setting.items()))


def _log_loss(run: Run) -> float:
    """Return the logarithm of the final training loss; inf for a diverged run."""
    return math.inf if run.history.diverged else math.log(max(run.last.train_loss, TINY_LOSS))


def grid(centre: float, rates: int) -> list[float]:
    """Return ``rates`` learning rates with ratio √10 around a centre, rounded to three digits.

    Examples
    --------
    >>> grid(0.01, 3)
    [0.00316, 0.01, 0.0316]
    """
    return [_rate(centre, k - rates // 2) for k in range(rates)]


def _rate(centre: float, k: int) -> float:
    """Return the rate k places above the centre."""
    return float(f"{centre * RATIO**k:.3g}")


class _Search:
    """One optimizer in one setting: its grid, its runs so far, its best rate."""

    def __init__(self, experiment: Experiment, setting: Setting, optimizer: str, rates: int) -> None:
        self.setting, self.optimizer = setting, optimizer
        self.centre = experiment.centre(optimizer, setting)
        self.rates = grid(self.centre, rates)
        self.reach = (-(rates // 2), rates - 1 - rates // 2)
        self.runs: dict[float, list[Run]] = {}

    def best(self) -> float:
        """Return the rate with the fewest diverged runs and then the lowest mean log final training loss."""
        return min(self.rates, key=self._rank)

    def _rank(self, lr: float) -> tuple[int, float]:
        losses = [_log_loss(run) for run in self.runs[lr]]
        finite = [v for v in losses if math.isfinite(v)]
        return len(losses) - len(finite), float(np.mean(finite)) if finite else math.inf

    def at_edge(self) -> bool:
        """Tell whether the best rate is the smallest or largest that was tried."""
        return self.best() in (min(self.rates), max(self.rates))

    def extend(self) -> float | None:
        """Add one rate beyond the edge that the best one is at; return it."""
        if not self.at_edge():
            return None
        up = self.best() == max(self.rates)
        new = _rate(self.centre, self.reach[1] + 1 if up else self.reach[0] - 1)
        self.rates = sorted([*self.rates, new])
        return new


@dataclass(frozen=True)
class _Rounds:
    """Rounds of jobs whose runs are added to one comparison."""

    pool: Pool
    result: Comparison
    epochs: int

    def execute(self, todo: Sequence[tuple[_Search, float]], seeds: range, stage: str) -> None:
        """Run every (search, rate) with every seed; KeyboardInterrupt, once what was finished is noted."""
        batch, device = self.result.experiment.batch, self.result.device
        jobs = [
            Job(s.setting, s.optimizer, lr, seed, self.epochs, batch, record_norms=seed == seeds[0], device=device)
            for s, lr in todo
            for seed in seeds
        ]
        histories, runs = self.pool.run(jobs, stage), self.result.runs
        first = len(runs)
        done = ((job, h) for job, h in zip(jobs, histories, strict=True) if h is not None)
        runs += [Run(first + k, job, h, stage) for k, (job, h) in enumerate(done)]
        if None in histories:
            raise KeyboardInterrupt
        for k, (s, lr) in enumerate(todo):
            s.runs[lr] = runs[first + k * len(seeds) : first + (k + 1) * len(seeds)]


def compare(
    experiment: Experiment,
    *,
    settings: Sequence[Setting] | None = None,
    optimizers: Sequence[str] | None = None,
    seeds: int | None = None,
    epochs: int | None = None,
    full: bool = False,
    device: str = "cpu",
    workers: int | None = None,
    show: bool | None = None,
) -> Comparison:
    """Run an experiment's comparison.

    Parameters
    ----------
    experiment
        The declaration; the other arguments replace parts of it.
    full
        The whole table, with rates chosen on seeds 0 … S−1 and everything reported on seeds S … 2S−1.
    device
        Where every run is trained.
    workers
        Processes; default `workers_for` the device.

    Returns
    -------
    Comparison
        Its records are the same whatever the number of processes. After Ctrl-C it holds the runs that were finished.

    Raises
    ------
    UnknownNameError, DeviceError
        For a device that there is not, or that cannot be used here: before anything is run.
    """
    device = get_backend(device).device
    settings = settings or combine(experiment.axes_of(full))
    names = optimizers or experiment.optimizers_of(full)
    rates = experiment.full_rates if full else experiment.rates
    count, length = seeds or experiment.seeds, epochs or experiment.epochs
    require("scipy.stats", "experiments", "a comparison")  # before hours of work, not after
    searches = [_Search(experiment, setting, name, rates) for setting in settings for name in names]
    declared = length == experiment.epochs and count <= experiment.seeds
    result = Comparison(experiment, declared=declared, device=device)
    with Pool(experiment.train, workers_for(device) if workers is None else workers, show) as pool:
        rounds = _Rounds(pool, result, length)
        try:
            rounds.execute([(s, lr) for s in searches for lr in s.rates], range(count), "grid")
            rounds.execute([(s, lr) for s in searches if (lr := s.extend()) is not None], range(count), "edge")
            chosen = [(s, s.best(), s.at_edge()) for s in searches]
            if full:
                rounds.execute([(s, lr) for s, lr, _ in chosen], range(count, 2 * count), "fresh")
        except KeyboardInterrupt:
            result.interrupted = True
            return result
    for s, lr, edge in chosen:
        result.reported += s.runs[lr]
        result.rows.append(_row(s, lr, edge))
    if result.declared:
        result.verdicts = _verdicts(experiment, result)
    return result


def _row(search: _Search, lr: float, edge: bool) -> Row:
    runs = search.runs[lr]
    kept = [run for run in runs if not run.history.diverged]
    logs = t_interval([_log_loss(run) for run in kept])
    errors = t_interval([run.last.test_error for run in kept if run.last.test_error is not None])
    seconds = float(np.mean([run.last.seconds for run in runs]))
    with np.errstate(over="ignore"):
        loss = Interval(*(float(np.exp(v)) for v in logs))
    return Row(search.setting, search.optimizer, lr, edge, loss, errors, seconds, len(runs) - len(kept), len(runs))


def _verdicts(experiment: Experiment, result: Comparison) -> list[Verdict]:
    """Judge every claim whose primary comparison was run."""
    found: list[tuple[Claim, list[float], Row, Row]] = []
    for claim in experiment.claims:
        sides = []
        for name in (claim.baseline, claim.treatment):
            rows = [r for r in result.rows if r.optimizer == name and _key(r.setting) == _key(claim.setting)]
            sides += rows[:1]
        if len(sides) == 2:
            found.append((claim, _differences(claim, result), sides[0], sides[1]))
    findings = judge([d for _, d, _, _ in found]) if found else []
    return [Verdict(c, f, base, treat) for (c, _, base, treat), f in zip(found, findings, strict=True)]


def _differences(claim: Claim, result: Comparison) -> list[float]:
    """Return treatment − baseline of the log final training losses, for each seed."""
    values: dict[str, dict[int, float]] = {}
    for run in result.reported:
        if _key(run.job.setting) == _key(claim.setting):
            values.setdefault(run.job.optimizer, {})[run.job.seed] = _log_loss(run)
    baseline, treatment = values[claim.baseline], values[claim.treatment]
    with np.errstate(invalid="ignore"):
        return [float(np.subtract(treatment[seed], baseline[seed])) for seed in baseline]
