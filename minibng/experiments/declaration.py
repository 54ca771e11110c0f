"""An experiment is a declaration: what is run, with which grids, and which claims it tests, written before any run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from minibng.experiments.metrics import METRICS, Metric
from minibng.experiments.options import Axis
from minibng.names import choose
from minibng.train import History

if TYPE_CHECKING:
    from minibng.experiments.certified import Certified

RATIO = 10**0.5
"""Ratio of neighbouring learning rates, the same for every optimizer."""

Setting = Mapping[str, Any]
"""What varies between comparisons, not within one: data set, depth, activation, schedule."""

PLACE = "data_dir"
"""The entry of a setting that says where files lie, which is no part of what is compared."""


def key_of(setting: Setting) -> tuple[tuple[str, Any], ...]:
    """Return what two settings are equal by."""
    return tuple(sorted((name, value) for name, value in setting.items() if name != PLACE))


def combine(axes: Mapping[str, tuple[Any, ...]]) -> tuple[Setting, ...]:
    """Return every combination of the axes' values, the last axis varying fastest.

    Examples
    --------
    >>> combine({"depth": (6, 12), "activation": ("tanh",)})
    ({'depth': 6, 'activation': 'tanh'}, {'depth': 12, 'activation': 'tanh'})
    """
    return tuple(dict(zip(axes, values, strict=True)) for values in product(*axes.values()))


class Job(NamedTuple):
    """One training run."""

    setting: Setting
    optimizer: str
    lr: float
    seed: int
    epochs: int
    batch: int
    record_norms: bool = False
    device: str = "cpu"
    measure_every: int = 1


@dataclass(frozen=True)
class Claim:
    """A claim about training and its one primary comparison: ``treatment`` against ``baseline`` in one setting.

    What is compared, seed by seed, and by what the rates are chosen before, the metric says: with "train_loss" the
    logarithms of final training losses, at the rates with the lowest training loss; with "test_error" the test errors
    of the last epoch, at the rates with the lowest validation error; and so on (`METRICS`). Lower is better. It is
    judged only at the budget that the experiment declares (epochs, batch size, rates), and on no more seeds than it
    declares: to add seeds until a claim is decided is to decide by chance. Where ``undecidable`` says why the data
    cannot decide it, the interval is told without a verdict.
    """

    number: str
    statement: str
    baseline: str
    treatment: str
    setting: Setting
    metric: str = "train_loss"
    undecidable: str = ""

    def __post_init__(self) -> None:
        choose(METRICS, self.metric, "metric")


class Trend(NamedTuple):
    """An exploratory question: how the effect on the training metric goes along an axis. It gets no verdict."""

    question: str
    axis: str
    pairs: tuple[tuple[str, str], ...]
    """(baseline, treatment), each with a column of its own."""


class Preset(NamedTuple):
    """A bundle of settings: what it is, the values of some axes, and other parts of an experiment, by name."""

    about: str
    axes: Mapping[str, tuple[Any, ...]]
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Experiment:
    """What `compare` and `run` need to know.

    Parameters
    ----------
    name, about
        For the command line.
    train
        ``train(job)`` → History; a module-level function, since runs happen in other processes.
    centre
        ``centre(optimizer, setting)`` → the middle of that optimizer's grid of learning rates.
    centre_source
        Where the centres come from.
    describe
        ``describe(setting)`` → the model and the data in words.
    axes
        What varies, by name, by default and with ``--full``; every combination is compared on its own.
    optimizers, full_optimizers
        Command-line names, baselines first.
    rates, full_rates
        How many learning rates, the same for every optimizer.
    seeds
        How many seeds, the same ones for every optimizer.
    measure_every
        How many epochs lie between two measurements of the whole data set, in a comparison.
    claims, trends
        Written before any run; `report` tells of both, claims alone are judged.
    columns
        The metric of training and that of generalization, by name: two columns of the table, and of the figures. Every
        claim is about one of them.
    clip
        The threshold of clipping, which ``train`` gives to the optimizers named …-clip.
    baselines
        ``baselines(setting)`` → what the table is to be read against: words → the numbers in the two columns, None for
        none.
    presets
        Other bundles of settings, by name.
    prepare
        ``prepare(setting)`` is called in the parent before any run, to download data or to refuse a setting.
    figures
        Which of `report.FIGURES` are drawn.
    certify
        ``certify(job)`` runs a job again and tells what the certificates of the convex case say of it; a module-level
        function. It is asked of the runs that are reported, in the processes that train.
    theory
        ``theory(settings, epochs)`` → the same of runs at the rates that theorems prescribe.
    """

    name: str
    about: str
    train: Callable[[Job], History]
    centre: Callable[[str, Setting], float]
    centre_source: str
    describe: Callable[[Setting], str]
    axes: Mapping[str, Axis]
    optimizers: tuple[str, ...]
    full_optimizers: tuple[str, ...]
    claims: tuple[Claim, ...]
    epochs: int = 10
    batch: int = 64
    rates: int = 3
    full_rates: int = 5
    seeds: int = 5
    measure_every: int = 1
    trends: tuple[Trend, ...] = ()
    presets: Mapping[str, Preset] = field(default_factory=dict)
    prepare: Callable[[Setting], Any] | None = None
    figures: tuple[str, ...] = ("training", "rates", "norms")
    columns: tuple[str, str] = ("train_loss", "test_error")
    clip: float = 1.0
    baselines: Callable[[Setting], Mapping[str, tuple[float | None, float | None]]] | None = None
    certify: Callable[[Job], Certified] | None = None
    theory: Callable[[Sequence[Setting], int], Sequence[Certified]] | None = None

    def __post_init__(self) -> None:
        for claim in self.claims:
            choose(dict.fromkeys(self.columns), claim.metric, f"metric of claim {claim.number}")

    @property
    def training(self) -> Metric:
        """The metric of training."""
        return METRICS[self.columns[0]]

    @property
    def generalization(self) -> Metric:
        """The metric of generalization."""
        return METRICS[self.columns[1]]

    @property
    def criteria(self) -> tuple[Metric, ...]:
        """What rates are chosen for: always training, and generalization where a claim is about it."""
        both = any(claim.metric == self.columns[1] for claim in self.claims)
        return (self.training, self.generalization) if both else (self.training,)

    def preset(self, name: str) -> Experiment:
        """Return the experiment with the values of a preset, which are then its defaults.

        Raises
        ------
        UnknownNameError
            Where it has no such preset.
        """
        chosen = choose(self.presets, name, "preset")
        axes = {k: replace(a, values=chosen.axes[k], full=()) if k in chosen.axes else a for k, a in self.axes.items()}
        return replace(self, axes=axes, **chosen.changes)

    def setting(self, **changed: Any) -> dict[str, Any]:
        """Return the first value of every axis, but for what is changed: what ``minibng run`` takes.

        Raises
        ------
        UnknownNameError
            Where it has no such axis.
        """
        for name in changed:
            choose(self.axes, name, f"axis of {self.name}")
        return {name: axis.values[0] for name, axis in self.axes.items()} | changed

    def axes_of(self, full: bool) -> Mapping[str, tuple[Any, ...]]:
        """Return the axes of the short or the full comparison."""
        return {name: axis.of(full) for name, axis in self.axes.items()}

    def optimizers_of(self, full: bool) -> tuple[str, ...]:
        """Return the optimizers of the short or the full comparison."""
        return self.full_optimizers if full else self.optimizers
