"""An experiment is a declaration: what is run, with which grids, and which claims it tests, written before any run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

from minibng.train import History

RATIO = 10**0.5
"""Ratio of neighbouring learning rates, the same for every optimizer."""

Setting = Mapping[str, Any]
"""What varies between comparisons, not within one: data set, depth, activation, schedule."""


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


@dataclass(frozen=True)
class Claim:
    """A claim about training and its one primary comparison: ``treatment`` against ``baseline`` in one setting.

    Log final training losses are compared, seed by seed; lower is better. It is judged only at the budget that the
    experiment declares (epochs, batch size, rates), and on no more seeds than it declares: to add seeds until a claim
    is decided is to decide by chance.
    """

    number: str
    statement: str
    baseline: str
    treatment: str
    setting: Setting


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
    axes, full_axes
        What varies, name → values, by default and with ``--full``; every combination is compared on its own.
    optimizers, full_optimizers
        Command-line names, baselines first.
    rates, full_rates
        How many learning rates, the same for every optimizer.
    seeds
        How many seeds, the same ones for every optimizer.
    claims
        Written before any run.
    """

    name: str
    about: str
    train: Callable[[Job], History]
    centre: Callable[[str, Setting], float]
    centre_source: str
    describe: Callable[[Setting], str]
    axes: Mapping[str, tuple[Any, ...]]
    full_axes: Mapping[str, tuple[Any, ...]]
    optimizers: tuple[str, ...]
    full_optimizers: tuple[str, ...]
    claims: tuple[Claim, ...]
    epochs: int = 10
    batch: int = 64
    rates: int = 3
    full_rates: int = 5
    seeds: int = 5

    def axes_of(self, full: bool) -> Mapping[str, tuple[Any, ...]]:
        """Return the axes of the short or the full comparison."""
        return self.full_axes if full else self.axes

    def optimizers_of(self, full: bool) -> tuple[str, ...]:
        """Return the optimizers of the short or the full comparison."""
        return self.full_optimizers if full else self.optimizers
