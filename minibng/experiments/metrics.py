"""What a comparison compares: numbers of a finished run, lower is better, infinite where it diverged."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from minibng.experiments.statistics import Interval
from minibng.train import History

TINY_LOSS = 1e-12
"""Losses are compared as logarithms; smaller ones, which float32 does not tell from 0, count as this."""

_COMPARED: Mapping[str, Callable[[float], float]] = {
    "logarithm": lambda loss: math.log(max(loss, TINY_LOSS)),
    "nats": lambda loss: loss,  # the logarithm of a perplexity
    "percent": lambda error: 100 * error,
}
_CRITERIA = {"train_loss": "final training loss", "val_loss": "validation loss", "val_error": "validation error"}


class Metric(NamedTuple):
    """How runs are compared, by what the learning rate of each side is chosen before that, and how it is told.

    Parameters
    ----------
    quantity, criterion
        What of the last epoch is compared (differences, treatment − baseline, are judged), and what the rate is chosen
        by: fields of `train.Epoch`.
    kind
        How they are compared. "logarithm", of losses, and "nats", losses as they are, which are logarithms of
        perplexities: means are geometric, and differences are told as ratios. "percent", of error rates: differences
        are percentage points.
    name, words
        What the number is called, and what several are.
    """

    quantity: str
    criterion: str
    kind: str
    name: str
    words: str

    def compared(self, history: History) -> float:
        """Return the number that is compared; inf for a diverged run."""
        return self._last(history, self.quantity)

    def chosen(self, history: History) -> float:
        """Return the number that the rate is chosen by; inf for a diverged run."""
        return self._last(history, self.criterion)

    def _last(self, history: History, name: str) -> float:
        last = history.epochs[-1]
        value = getattr(last, name)
        if value is None:
            raise ValueError(f"the runs have no {name} to compare: a regression has no error rate, only losses")
        return math.inf if last.diverged or math.isnan(value) else _COMPARED[self.kind](value)

    @property
    def column(self) -> str:
        """The heading of the table's column."""
        return self.name if self.geometric else f"{self.name} %"

    @property
    def chosen_by(self) -> str:
        """What the rate is chosen by, in words."""
        return _CRITERIA[self.criterion]

    @property
    def geometric(self) -> bool:
        """Whether logarithms are compared."""
        return self.kind != "percent"

    def shown(self, compared: Interval) -> Interval:
        """Return an interval of what is compared as the table has it: powers of logarithms, error rates in 0 … 1."""
        with np.errstate(over="ignore"):
            values = np.exp(compared) if self.geometric else np.clip(np.divide(compared, 100), 0, 1)
        return Interval(*values.tolist())

    def told(self, value: float) -> str:
        """Return a number of the table as text: three digits, or whole from 1000 on; of an error rate its percents."""
        if not self.geometric:
            return f"{100 * value:.1f}"
        return f"{value:.0f}" if 999.5 <= value < 1e6 else f"{value:.3g}"

    def difference(self, compared: Interval) -> str:
        """Tell the interval of a difference."""
        if self.geometric:
            return "ratio of {} {:.3g} [{:.3g}, {:.3g}]".format(self.words, *self.shown(compared))
        return "difference of {} {:+.2f} [{:+.2f}, {:+.2f}] percentage points".format(self.words, *compared)


METRICS = {
    "train_loss": Metric("train_loss", "train_loss", "logarithm", "final training loss", "final training losses"),
    "test_error": Metric("test_error", "val_error", "percent", "test error", "test errors"),
    "gap": Metric("train_loss", "train_loss", "logarithm", "gap f − f*", "gaps f − f*"),
    "test_loss": Metric("test_loss", "val_loss", "logarithm", "test loss", "test losses"),
    "train_perplexity": Metric("train_loss", "train_loss", "nats", "training perplexity", "training perplexities"),
    "test_perplexity": Metric("test_loss", "val_loss", "nats", "test perplexity", "test perplexities"),
}
"""A claim about training goes by the final training loss in both; one about generalization looks at the test set after
the last epoch only once the rate has been chosen on the validation set."""
