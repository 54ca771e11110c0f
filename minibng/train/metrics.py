"""What is measured of a model on a data set, without training it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from minibng.backend import Array, Backend, backend_of
from minibng.data import Dataset, batches
from minibng.params import Params

Evaluate = Callable[..., Any]
"""(params, x, y) → (mean loss of the batch, the model's output); of one sequence (params, x, y, state) → (loss, output,
state), where the state is None at the start."""

CHUNK, ENTRIES = 1024, 1 << 22
"""Most samples, and (but for a single one) most of their numbers, that are evaluated at once."""


class Scores(NamedTuple):
    """Mean loss (of cross-entropy in nats) and error: the fraction of wrong decisions, None for real-valued targets."""

    loss: float
    error: float | None


def mistaken(output: Array, labels: Array) -> Array:
    """Tell for each label whether the decision is wrong: the largest of K outputs, or the sign of a single one.

    With one output a label, of shape (…) or (…, 1), the labels are 0 and 1, or −1 and +1.

    Raises
    ------
    ValueError
        Where the shapes are neither those nor outputs (…, K) and labels (…).

    Examples
    --------
    >>> mistaken(np.array([[2.0, 1.0], [0.0, 1.0]]), np.array([0, 0]))
    array([False,  True])
    >>> mistaken(np.array([0.5, -3.0]), np.array([1, 1]))
    array([False,  True])
    """
    if output.shape[:-1] != labels.shape and output.shape != labels.shape:
        raise ValueError(f"labels of shape {labels.shape} do not fit outputs of shape {output.shape}: no error rate")
    if output.shape == labels.shape or output.shape[-1] == 1:
        return (output.reshape(labels.shape) > 0) != (labels > 0)
    return np.argmax(output, axis=-1) != labels


def score(
    evaluate: Evaluate, params: Params, dataset: Dataset, *, batch: int | None = None, length: int | None = None
) -> Scores:
    """Return the mean loss and the error over a whole data set, in chunks; a loss that is not finite is nan.

    With a ``length`` the data set is one sequence: it is read in the windows of `data.batches`, ``batch`` rows of
    ``length`` steps, and the state is carried from one to the next. On a device both numbers are summed there, in
    double precision as on the host, and fetched once.
    """
    backend = backend_of(params.flat)
    total = wrong = backend.asarray(0.0)
    states, count, labels = [] if length is None else [None], 0, dataset.y.dtype.kind in "iu"
    chunks = _chunks(dataset, backend)
    if length is not None:
        chunks = iter(batches(dataset, batch or 1, shuffle=False, length=length, device=backend.device))
    with np.errstate(over="ignore", invalid="ignore"):
        for x, y in chunks:
            loss, output, *states = evaluate(params, x, y, *states)
            if np.shape(loss) != ():
                raise ValueError(f"the loss must be a scalar, got shape {np.shape(loss)}: take its np.mean")
            total = total + backend.asarray(loss, dtype="float64") * y.size
            count += y.size
            if labels:
                wrong = wrong + np.sum(mistaken(output, y))
    summed, errors = backend.to_host(backend.xp.stack([total, wrong])).tolist()
    return Scores(summed / count if math.isfinite(summed) else math.nan, errors / count if labels else None)


def perplexity(loss: float) -> float:
    """Return exp(loss), for a mean cross-entropy a label in nats; inf where it is too large for a number.

    It is the number of equally likely labels that would be as hard to guess.

    Examples
    --------
    >>> round(perplexity(math.log(2888)), 6)
    2888.0
    """
    with np.errstate(over="ignore"):
        return float(np.exp(loss))


def _chunks(dataset: Dataset, backend: Backend) -> Iterator[tuple[Array, Array]]:
    """Yield the samples in their order, as many at once as fit well into memory."""
    inputs, targets = dataset.arrays_for(backend)
    n = len(dataset)
    size = min(CHUNK, max(1, ENTRIES * n // dataset.x.size))
    for start in range(0, n, size):
        x, y = (_own(backend, a[start : start + size]) for a in (inputs, targets))
        yield dataset.scaled(x), y


def _own(backend: Backend, part: Array) -> Array:
    """Return part of a data set where the parameters are; on a device, where nothing is read-only, a copy of it."""
    return part if backend.on_host else backend.asarray(part).copy()
