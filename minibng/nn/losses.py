"""Losses: functions of a model's output and its targets, averaged over the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minibng.autodiff import fused, ops, raw
from minibng.backend import Array, backend_of


def _rows(logits: Array, labels: Array) -> tuple[Array, Array, Any]:
    """Return logits as (N, K), labels as (N,) and the index of each row's target."""
    z, t = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
    return z, t, (backend_of(z).xp.arange(t.shape[0]), t)


def _forward(logits: Array, labels: Array) -> tuple[Array, Array]:
    z, t, target = _rows(logits, labels)
    z = z - np.max(z, axis=1, keepdims=True)
    picked = z[target]
    p = np.exp(z, out=z)
    total = np.sum(p, axis=1, keepdims=True)
    p /= total
    return np.sum(np.log(total[:, 0]) - picked) / t.shape[0], p


def _backward(g: Array, y: Array, p: Array, argnums: Sequence[int], logits: Array, labels: Array) -> list[Any]:
    _, t, target = _rows(logits, labels)
    scale = g / t.shape[0]
    d = p * scale
    d[target] -= scale
    return [d.reshape(logits.shape), None]


@fused(_forward, _backward)
def _softmax_cross_entropy(logits: Array, labels: Array) -> Array:
    """Return the mean of logsumexp(z) − z[label] over the rows."""
    z = ops.reshape(logits, (-1, logits.shape[-1]))
    t = labels.reshape(-1)
    target = (backend_of(t).xp.arange(t.shape[0]), t)
    return ops.mean(ops.logsumexp(z, axis=1) - z[target])


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Return the mean negative log-likelihood, −(1/N) Σ log softmax(logits)[label], in nats.

    Parameters
    ----------
    logits
        (…, K), floating point; any finite size is safe.
    labels
        (…), integers in 0 … K−1.

    Raises
    ------
    ValueError
        Where the shapes do not fit, or the batch is empty.
    TypeError
        Where the labels are not integers.
    IndexError
        For a label outside 0 … K−1 (checked on the host).

    Examples
    --------
    >>> cross_entropy(np.zeros((2, 10)), np.array([3, 7])).item()
    2.302585092994046
    """
    shape = logits.shape
    if not is_label_array(labels):
        raise TypeError(f"labels are integers, got {getattr(labels, 'dtype', type(labels).__name__)}")
    if len(shape) == 0 or labels.shape != shape[:-1]:
        raise ValueError(f"logits (…, K) of shape {shape} need labels of shape {shape[:-1]}, got {labels.shape}")
    if labels.size == 0:
        raise ValueError("the mean loss of an empty batch is not defined")
    backend_of(labels).check_indices(labels, shape[-1], f"labels for {shape[-1]} classes")
    with np.errstate(over="ignore"):  # a difference of logits may be −inf: its exponential is 0
        return _softmax_cross_entropy(logits, labels)


def is_label_array(x: Any) -> bool:
    """Tell whether x is an array of integers."""
    return getattr(getattr(x, "dtype", None), "kind", "") in ("i", "u")


def mse(prediction: Array, target: Array) -> Array:
    """Return the mean squared error over all entries, (1/n) Σ (prediction − target)².

    Raises
    ------
    ValueError
        Where the shapes differ: broadcasting (N, 1) against (N,) would be N² differences.

    Examples
    --------
    >>> mse(np.array([1.0, 2.0]), np.array([0.0, 0.0])).item()
    2.5
    """
    if raw(prediction).shape != raw(target).shape:
        raise ValueError(f"mse needs two equal shapes, got {raw(prediction).shape} and {raw(target).shape}")
    if raw(prediction).dtype != raw(target).dtype:
        raise TypeError(f"mse needs one dtype, got {raw(prediction).dtype} and {raw(target).dtype}: use .astype")
    if raw(prediction).size == 0:
        raise ValueError("the mean loss of an empty batch is not defined")
    return ops.mean(ops.square(prediction - target))
