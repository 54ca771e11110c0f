"""The protocol of a fair comparison: equal grids, equal seeds, one rate chosen by a stated rule, verdicts from pairs.

Every optimizer gets the same number of learning rates with the same ratio around a centre of its own. A best rate at
the edge of its grid is marked and that grid extended once. The rate is chosen by final training loss, and where a claim
is about the test set a second time, on the validation set; a diverged run ranks worst. With fresh seeds, rates are
chosen on one set of seeds and everything is reported on another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from minibng.backend import get_backend
from minibng.experiments.certified import Certified
from minibng.experiments.declaration import RATIO, Claim, Experiment, Job, Setting, Trend, combine, key_of
from minibng.experiments.metrics import METRICS, Metric
from minibng.experiments.pool import Pool, workers_for
from minibng.experiments.statistics import Finding, Interval, judge, observe, t_interval
from minibng.extras import require
from minibng.train import Epoch, History


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
    """One line of the table: an optimizer in one setting, over seeds, each number at the rate chosen for it.

    ``loss`` is what the experiment's training metric says, with its interval, at ``lr``: the geometric mean of the
    final training loss, or the training perplexity. ``error`` is that of generalization, at ``error_lr``: the mean test
    error (a fraction), the geometric mean of the test loss, or the test perplexity. The two rates differ only where a
    claim is about generalization: then the second is chosen on the validation set. Both leave out diverged runs, which
    are counted. The edges mark a rate at the edge of the grid.
    """

    setting: Setting
    optimizer: str
    lr: float
    edge: bool
    loss: Interval
    error_lr: float
    error_edge: bool
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


class Effect(NamedTuple):
    """One point of a trend: the log ratio of what the training metric compares, at one value of an axis."""

    trend: Trend
    setting: Setting
    """Without the axis."""
    value: Any
    baseline: str
    treatment: str
    difference: Interval
    pairs: int
    finite: int


@dataclass
class Comparison:
    """Everything that a comparison found: its runs in the order of the declaration, the table, the verdicts."""

    experiment: Experiment
    runs: list[Run] = field(default_factory=list)
    reported: list[Run] = field(default_factory=list)
    """Those at the rates with the lowest final training loss."""
    validated: list[Run] = field(default_factory=list)
    """Those that numbers of the test set are of: where a claim is about generalization, at the rates that are best on
    the validation set, else the same."""
    rows: list[Row] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    declared: bool = True
    """Whether epochs are those of the declaration, and seeds not more: only then claims are judged."""
    device: str = "cpu"
    certified: list[Certified] = field(default_factory=list)
    """What the certificates say of the reported runs, in their order, where the experiment has any."""
    theory: list[Certified] = field(default_factory=list)
    """What they say of runs at the rates that theorems prescribe."""
    interrupted: bool = False
    """Whether Ctrl-C ended it; then it holds the finished runs and nothing else."""


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
    """One optimizer in one setting: its grid, its runs so far, its best rates."""

    def __init__(self, experiment: Experiment, setting: Setting, optimizer: str, rates: int) -> None:
        self.setting, self.optimizer, self.criteria = setting, optimizer, experiment.criteria
        self.centre = experiment.centre(optimizer, setting)
        self.rates = grid(self.centre, rates)
        self.reach = (-(rates // 2), rates - 1 - rates // 2)
        self.runs: dict[float, list[Run]] = {}

    def best(self, metric: Metric) -> float:
        """Return the rate with the fewest diverged runs and then the lowest mean of what the metric chooses by.

        Validation errors can tie; then the training metric decides.
        """
        return min(self.rates, key=lambda lr: self._rank(lr, metric))

    def _rank(self, lr: float, metric: Metric) -> tuple[float, ...]:
        kept = [run.history for run in self.runs[lr] if not run.history.diverged]
        means = [float(np.mean([m.chosen(h) for h in kept])) if kept else math.inf for m in (metric, self.criteria[0])]
        return len(self.runs[lr]) - len(kept), *means

    def at_edge(self, lr: float) -> bool:
        """Tell whether a rate is the smallest or largest that was tried."""
        return lr in (min(self.rates), max(self.rates))

    def extend(self) -> list[float]:
        """Add one rate beyond each edge that a best one is at; return them."""
        ends = {lr == max(self.rates) for lr in map(self.best, self.criteria) if self.at_edge(lr)}
        new = [_rate(self.centre, self.reach[1] + 1 if up else self.reach[0] - 1) for up in sorted(ends)]
        self.rates = sorted([*self.rates, *new])
        return new


@dataclass(frozen=True)
class _Rounds:
    """Rounds of jobs whose runs are added to one comparison."""

    pool: Pool
    result: Comparison
    epochs: int

    def execute(self, todo: Sequence[tuple[_Search, float]], seeds: range, stage: str) -> None:
        """Run every (search, rate) with every seed; KeyboardInterrupt, once what was finished is noted."""
        e, device = self.result.experiment, self.result.device
        jobs = [
            Job(s.setting, s.optimizer, lr, seed, self.epochs, e.batch, seed == seeds[0], device, e.measure_every)
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

    def certify(self, settings: Sequence[Setting]) -> None:
        """Ask the certificates about the reported runs, and about those at the rates that theorems prescribe."""
        e, result = self.result.experiment, self.result
        if e.certify is not None:
            found = self.pool.map(e.certify, [run.job for run in result.reported], "certificates")
            if None in found:
                raise KeyboardInterrupt
            result.certified = [one for one in found if one is not None]
        if e.theory is not None:
            result.theory = list(e.theory(settings, self.epochs))


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
    if experiment.prepare is not None:
        for setting in settings:
            experiment.prepare(setting)
    searches = [_Search(experiment, setting, name, rates) for setting in settings for name in names]
    declared = length == experiment.epochs and count <= experiment.seeds
    result = Comparison(experiment, declared=declared, device=device)
    with Pool(experiment.train, workers_for(device) if workers is None else workers, show) as pool:
        rounds = _Rounds(pool, result, length)
        try:
            rounds.execute([(s, lr) for s in searches for lr in s.rates], range(count), "grid")
            rounds.execute([(s, lr) for s in searches for lr in s.extend()], range(count), "edge")
            chosen = [(s, [s.best(m) for m in experiment.criteria]) for s in searches]
            if full:
                fresh = [(s, lr) for s, best in chosen for lr in dict.fromkeys(best)]
                rounds.execute(fresh, range(count, 2 * count), "fresh")
            result.reported = [run for s, best in chosen for run in s.runs[best[0]]]
            rounds.certify(settings)
        except KeyboardInterrupt:
            result.interrupted = True
            return result
    for s, best in chosen:
        result.validated += s.runs[best[-1]]
        result.rows.append(_row(experiment, s, best[0], best[-1]))
    if result.declared:
        result.verdicts = _verdicts(experiment, result)
    result.effects = [effect for trend in experiment.trends for effect in _effects(trend, result)]
    return result


def _row(experiment: Experiment, search: _Search, lr: float, error_lr: float) -> Row:
    def shown(metric: Metric, at: float) -> Interval:
        values = [metric.compared(run.history) for run in search.runs[at]]
        return metric.shown(t_interval([v for v in values if math.isfinite(v)]))

    runs = search.runs[lr]
    loss, error = shown(experiment.training, lr), shown(experiment.generalization, error_lr)
    seconds = float(np.mean([run.last.seconds for run in runs]))
    diverged = sum(run.history.diverged for run in runs)
    edges = search.at_edge(lr), search.at_edge(error_lr)
    counts = seconds, diverged, len(runs)
    return Row(search.setting, search.optimizer, lr, edges[0], loss, error_lr, edges[1], error, *counts)


def _verdicts(experiment: Experiment, result: Comparison) -> list[Verdict]:
    """Judge every claim whose primary comparison was run; those that the data cannot decide only get an interval."""
    found: list[tuple[Claim, list[float], Row, Row]] = []
    for claim in experiment.claims:
        sides = []
        for name in (claim.baseline, claim.treatment):
            rows = [r for r in result.rows if r.optimizer == name and key_of(r.setting) == key_of(claim.setting)]
            sides += rows[:1]
        if len(sides) == 2:
            pair = (claim.baseline, claim.treatment)
            found.append((claim, _differences(result, claim.metric, *pair, claim.setting), sides[0], sides[1]))
    judged = iter(judge([d for claim, d, _, _ in found if not claim.undecidable]))
    findings = [observe(d) if claim.undecidable else next(judged) for claim, d, _, _ in found]
    return [Verdict(c, f, base, treat) for (c, _, base, treat), f in zip(found, findings, strict=True)]


def _differences(result: Comparison, metric: str, baseline: str, treatment: str, setting: Setting) -> list[float]:
    """Return treatment − baseline of what a metric compares, for each seed, at the rates chosen for it."""
    values: dict[str, dict[int, float]] = {baseline: {}, treatment: {}}
    for run in result.reported if metric == result.experiment.columns[0] else result.validated:
        if run.job.optimizer in values and key_of(run.job.setting) == key_of(setting):
            values[run.job.optimizer][run.job.seed] = METRICS[metric].compared(run.history)
    with np.errstate(invalid="ignore"):
        return [float(np.subtract(values[treatment][seed], value)) for seed, value in values[baseline].items()]


def _effects(trend: Trend, result: Comparison) -> list[Effect]:
    """Return the points of a trend, for every pair of optimizers that was run."""
    found = []
    have = {row.optimizer for row in result.rows}
    for setting in {key_of(row.setting): row.setting for row in result.rows}.values():
        for baseline, treatment in trend.pairs:
            if {baseline, treatment} <= have:
                seen = observe(_differences(result, result.experiment.columns[0], baseline, treatment, setting))
                rest = {k: v for k, v in setting.items() if k != trend.axis}
                found.append(Effect(trend, rest, setting[trend.axis], baseline, treatment, *seen[1:]))
    return found
