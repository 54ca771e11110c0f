"""What a comparison compares: numbers of a finished run, lower is better, infinite where it diverged."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from minibng.train import History

TINY_LOSS = 1e-12
"""Losses are compared as logarithms; smaller ones, which float32 does not tell from 0, count as this."""


def log_loss(history: History) -> float:
    """Return the logarithm of the final training loss; inf for a diverged run."""
    return math.inf if history.diverged else math.log(max(history.epochs[-1].train_loss, TINY_LOSS))


def val_error(history: History) -> float:
    """Return the validation error after the last epoch, a fraction; inf for a diverged run."""
    return _error(history, history.epochs[-1].val_error)


def percent_wrong(history: History) -> float:
    """Return the test error after the last epoch, in percent; inf for a diverged run."""
    return 100 * _error(history, history.epochs[-1].test_error)


def _error(history: History, error: float | None) -> float:
    if error is None:
        raise ValueError("a regression has no error rate to compare: use the metric 'train_loss'")
    return math.inf if history.diverged else error


class Metric(NamedTuple):
    """How runs are compared, and by what the learning rate of each side is chosen before that."""

    chosen_by: Callable[[History], float]
    compared: Callable[[History], float]
    """Its differences, treatment − baseline, are judged."""


METRICS = {"train_loss": Metric(log_loss, log_loss), "test_error": Metric(val_error, percent_wrong)}
"""A claim about training goes by the final training loss in both; one about generalization looks at the test error of
the last epoch only once the rate has been chosen by validation error."""
