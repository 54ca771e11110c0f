"""Losses: functions of a model's output and its targets, averaged over the batch."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from minibng.autodiff import fused, ops, raw
from minibng.backend import Array, backend_of

# Cross-entropy ---------------------------------------------------------------------------------------------------


def _targets(logits: Array, labels: Array, ignore: int | None) -> tuple[Any, Any, Any]:
    """Return the index of each row's target, which rows count (None: all) and how many do."""
    t = labels.reshape(-1)
    rows = backend_of(t).xp.arange(t.shape[0])
    if ignore is None:
        return (rows, t), None, t.shape[0]
    counts = t != ignore
    return (rows, np.where(counts, t, 0)), counts, np.sum(counts, dtype=logits.dtype)


LEAST, MOST = 1e-20, 1e15
"""Exponentials are taken as they are where no target's is smaller, and no row's sum of them larger."""

LARGE = 1 << 16
"""Logits from which on it pays: fewer stay in the cache, and the host keeps the bits of a device."""


def _exponentials(z: Array, target: Any, smoothing: float) -> tuple[Array, Array, Array]:
    """Return e = exp(z − s) (M, K), its sums over K, and the rows' losses.

    s is the largest entry of each row, which takes two more passes over z, or, of many logits on the host, 0 where that
    loses nothing: where the target's exponential and the sum are far from the ends of the range, log(Σe/e[target]) is
    as exact as with s. To know that, a device would have to be waited for.
    """
    if not smoothing and z.size >= LARGE and z.dtype.itemsize > 2 and backend_of(z).on_host:
        e = np.exp(z)
        total, aimed = np.sum(e, axis=1), e[target]
        if np.min(aimed) > LEAST and np.max(total) < MOST:
            return e, total, np.log(total / aimed)
    z = z - np.max(z, axis=1, keepdims=True)
    aimed = z[target]
    if smoothing:
        aimed = (1 - smoothing) * aimed + smoothing / z.shape[1] * np.sum(z, axis=1)
    e = np.exp(z, out=z)
    total = np.sum(e, axis=1)
    return e, total, np.log(total) - aimed


def _forward(logits: Array, labels: Array, smoothing: float = 0.0, ignore: int | None = None) -> tuple[Array, Any]:
    target, counts, n = _targets(logits, labels, ignore)
    e, total, losses = _exponentials(logits.reshape(-1, logits.shape[-1]), target, smoothing)
    return np.sum(losses if counts is None else np.where(counts, losses, 0)) / n, (e, total, target, counts, n)


def _backward(
    g: Array,
    y: Array,
    residual: Any,
    argnums: Sequence[int],
    logits: Array,
    labels: Array,
    smoothing: float = 0.0,
    ignore: int | None = None,
) -> list[Any]:
    e, total, target, counts, n = residual
    scale = g / n
    d = e * (scale / total)[:, None]
    if smoothing:
        d -= smoothing / d.shape[1] * scale
    d[target] -= (1 - smoothing) * scale
    return [(d if counts is None else np.where(counts[:, None], d, 0)).reshape(logits.shape), None]


@fused(_forward, _backward)
def _softmax_cross_entropy(logits: Array, labels: Array, smoothing: float = 0.0, ignore: int | None = None) -> Array:
    """Return the mean of logsumexp(z) − (1−ε)·z[label] − ε·mean(z) over the rows that count."""
    target, counts, n = _targets(logits, labels, ignore)
    z = ops.reshape(logits, (-1, logits.shape[-1]))
    if counts is not None:
        z = ops.where(counts[:, None], z, 0)  # nothing that stands in an ignored row reaches the derivatives
    aimed = z[target]
    if smoothing:
        aimed = (1 - smoothing) * aimed + smoothing * ops.mean(z, axis=1)
    losses = ops.logsumexp(z, axis=1) - aimed
    return ops.sum(losses if counts is None else ops.where(counts, losses, 0)) / n


def cross_entropy(
    logits: Array, labels: Array, *, label_smoothing: float = 0.0, ignore_index: int | None = None
) -> Array:
    """Return the mean negative log-likelihood, −(1/N) Σ log softmax(logits)[label], in nats.

    With label smoothing ε (Szegedy et al., 2016, section 7) the target of a sample is not its label alone but
    (1−ε)·onehot(label) + ε/K, so that its loss is −(1−ε) log p[label] − (ε/K) Σₖ log p[k].

    Parameters
    ----------
    logits
        (…, K), floating point; any finite size is safe.
    labels
        (…), integers in 0 … K−1.
    label_smoothing
        ε, from 0 (default) to 1.
    ignore_index
        A label whose samples do not count: no loss, no gradient, and the mean is over the others. It may lie outside
        0 … K−1. None (default): all count.

    Raises
    ------
    ValueError
        Where the shapes do not fit, the batch is empty or all of it is ignored (checked on the host, and on a device
        under `bng.debug`), or the label smoothing lies outside [0, 1].
    TypeError
        Where the labels are not integers, or on another device than the logits.
    IndexError
        For a label outside 0 … K−1 (checked on the host, and on a device under `bng.debug`).

    Examples
    --------
    >>> cross_entropy(np.zeros((2, 10)), np.array([3, 7])).item()
    2.302585092994046
    >>> z = np.log([[0.8, 0.2], [0.5, 0.5]])
    >>> round(cross_entropy(z, np.array([0, -1]), ignore_index=-1).item(), 4)  # −log 0.8
    0.2231
    """
    _check_labels(logits, labels)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must lie in [0, 1], got {label_smoothing}")
    options: dict[str, Any] = {"smoothing": float(label_smoothing)} if label_smoothing else {}
    checked = labels
    if ignore_index is not None and _can_be(labels, operator.index(ignore_index)):
        options["ignore"] = ignore_index = operator.index(ignore_index)
        checked = np.where(labels == ignore_index, 0, labels)
        if backend_of(labels).reads_values and np.all(labels == ignore_index):
            raise ValueError(
                f"all {labels.size} labels are {ignore_index}, the ignored one: there is nothing to average"
            )
    backend_of(labels).check_indices(checked, logits.shape[-1], f"labels for {logits.shape[-1]} classes")
    with np.errstate(over="ignore"):  # a difference of logits may be −inf: its exponential is 0
        return _softmax_cross_entropy(logits, labels, **options)


def _can_be(labels: Array, number: int) -> bool:
    """Tell whether the dtype of the labels holds a number: CuPy does not compare them with one that it does not."""
    kind = np.iinfo(labels.dtype)
    return bool(kind.min <= number <= kind.max)


def is_label_array(x: Any) -> bool:
    """Tell whether x is an array of integers."""
    return getattr(getattr(x, "dtype", None), "kind", "") in ("i", "u")


def _check_labels(logits: Array, labels: Array) -> None:
    """Refuse labels that are no integers (…), one for each row of the logits (…, K), and an empty batch."""
    shape = getattr(logits, "shape", None)
    if shape is None:
        raise TypeError(f"logits are an array (…, K), got a {type(logits).__name__}: use np.array")
    if not is_label_array(labels):
        got = getattr(labels, "dtype", type(labels).__name__)
        raise TypeError(f"labels are integers, got {got}{_label_hint(logits, labels)}")
    if len(shape) == 0 or labels.shape != shape[:-1]:
        told = f"got {labels.shape}{_label_hint(logits, labels)}"
        raise ValueError(f"logits (…, K) of shape {shape} need labels of shape {shape[:-1]}, {told}")
    _check_device("logits", logits, "labels", labels)
    if labels.size == 0:
        raise ValueError("the mean loss of an empty batch is not defined")


def _check_device(output: str, x: Array, target: str, y: Array) -> None:
    """Refuse targets that are on another device than the model's output."""
    here, there = backend_of(raw(x)), backend_of(raw(y))
    if here is not there:
        told = f"the {output} are on {here.device!r}, the {target} on {there.device!r}"
        raise TypeError(f"{told}: use bng.asarray({target}, device={here.device!r})")


def _label_hint(logits: Array, labels: Any) -> str:
    """Return what to do with labels that do not fit, where that can be told."""
    if not hasattr(labels, "shape"):
        return ": use np.array(labels)" if isinstance(labels, (list, tuple)) else ""
    if is_label_array(logits) and not is_label_array(labels):
        return ": the logits come first, then the labels"
    return ": one-hot rows become labels by y.argmax(axis=1)" if labels.shape == logits.shape != () else ""


# Elementwise losses ----------------------------------------------------------------------------------------------


def _check_pair(name: str, output: Array, target: Array) -> None:
    """Refuse shapes that would broadcast, two devices, mixed dtypes and an empty batch."""
    a, b = raw(output), raw(target)
    for x in (a, b):
        if not hasattr(x, "shape"):
            raise TypeError(f"{name} takes two arrays, got a {type(x).__name__}")
    if a.shape != b.shape:
        hint = _ONE_OUTPUT if a.shape == (*b.shape, 1) or b.shape == (*a.shape, 1) else ""
        raise ValueError(f"{name} needs two equal shapes, got {a.shape} and {b.shape}{hint}")
    _check_device("outputs", a, "targets", b)
    if a.dtype != b.dtype:
        raise TypeError(f"{name} needs one dtype, got {a.dtype} and {b.dtype}: use .astype")
    if a.size == 0:
        raise ValueError("the mean loss of an empty batch is not defined")


def _numbers(labels: Array, like: Array) -> Array:
    """Return labels that are integers or booleans as numbers in the dtype of the outputs."""
    kind = getattr(getattr(labels, "dtype", None), "kind", "")
    return labels.astype(raw(like).dtype) if kind in ("b", "i", "u") else labels


_ONE_OUTPUT = ": a model with one output gives (N, 1); use output[:, 0] with labels (N,)"


def mse(prediction: Array, target: Array) -> Array:
    """Return the mean squared error over all entries, (1/n) Σ (prediction − target)².

    Raises
    ------
    ValueError
        Where the shapes differ: broadcasting (N, 1) against (N,) would be N² differences.
    TypeError
        Where the dtypes differ, or the devices.

    Examples
    --------
    >>> mse(np.array([1.0, 2.0]), np.array([0.0, 0.0])).item()
    2.5
    """
    _check_pair("mse", prediction, target)
    return ops.mean(ops.square(prediction - target))


def _bce_forward(logits: Array, targets: Array) -> tuple[Array, Array]:
    small = np.exp(-np.abs(logits))
    losses = np.maximum(logits, 0) - logits * targets + np.log1p(small)
    return np.sum(losses) / logits.size, small


def _bce_backward(g: Array, y: Array, small: Array, argnums: Sequence[int], logits: Array, targets: Array) -> list[Any]:
    scale = g / logits.size
    return [
        (np.where(logits < 0, small, 1) / (1 + small) - targets) * scale if 0 in argnums else None,
        logits * -scale if 1 in argnums else None,
    ]


@fused(_bce_forward, _bce_backward)
def _sigmoid_cross_entropy(logits: Array, targets: Array) -> Array:
    """Return the mean of log(1 + exp(z)) − y·z. The larger of 0 and z is taken out as a constant: no kink at z = 0."""
    top = np.maximum(raw(logits), 0)
    return ops.mean(ops.log(np.exp(-top) + ops.exp(logits - top)) + top - logits * targets)


def binary_cross_entropy(logits: Array, labels: Array) -> Array:
    """Return −(1/n) Σ y·log σ(z) + (1−y)·log(1 − σ(z)) over all entries, in nats: the loss of n yes-or-no questions.

    Parameters
    ----------
    logits
        z, floating point, any shape; σ(z) is the probability of a yes. Any finite size is safe.
    labels
        y, of the same shape: integers or booleans 0 and 1, or probabilities in [0, 1] in the dtype of the logits.

    Raises
    ------
    ValueError
        Where the shapes differ, the batch is empty, or a label lies outside [0, 1] (checked on the host, and on a
        device under `bng.debug`).
    TypeError
        Where probabilities have another dtype than the logits, or the labels are on another device.

    Examples
    --------
    >>> binary_cross_entropy(np.array([0.0, 3.0]), np.array([0, 1])).item()
    0.37086726606...
    """
    targets = _numbers(labels, logits)
    _check_pair("binary_cross_entropy", logits, targets)
    plain = raw(targets)
    if backend_of(plain).reads_values and not (np.min(plain) >= 0 and np.max(plain) <= 1):
        raise ValueError(
            f"labels must lie in [0, 1], got {np.min(plain)} to {np.max(plain)}; for −1 and +1 use nn.hinge"
        )
    return _sigmoid_cross_entropy(logits, targets)


def hinge(scores: Array, labels: Array) -> Array:
    """Return the mean of max(0, 1 − y·s): the loss of a support vector machine (Cortes, Vapnik, 1995).

    At the kink, y·s = 1, the derivative is 0.

    Parameters
    ----------
    scores
        s, floating point, any shape; its sign is the decision.
    labels
        y, of the same shape: −1 and +1, integers or in the dtype of the scores.

    Raises
    ------
    ValueError
        Where the shapes differ, the batch is empty, or a label is neither −1 nor +1 (checked on the host, and on a
        device under `bng.debug`).
    TypeError
        Where real-valued labels have another dtype than the scores, or the labels are on another device.

    Examples
    --------
    >>> hinge(np.array([2.0, 0.5, 0.5]), np.array([1, 1, -1])).item()  # (0 + 0.5 + 1.5) / 3
    0.666...
    """
    signs = _numbers(labels, scores)
    _check_pair("hinge", scores, signs)
    if backend_of(raw(signs)).reads_values and not np.all(np.abs(raw(signs)) == 1):
        bad = raw(signs)[np.abs(raw(signs)) != 1].reshape(-1)[0]
        raise ValueError(f"labels of hinge are −1 and +1, got {bad}; from 0 and 1 make 2*y - 1")
    return ops.mean(ops.relu(1 - signs * scores))


def multiclass_hinge(logits: Array, labels: Array) -> Array:
    """Return the mean of max(0, 1 + max_{k≠y} z[k] − z[y]) (Crammer, Singer, 2001): K classes, one margin.

    Where several entries attain the maximum, the target's own 0 among them, they share the derivative equally.

    Parameters
    ----------
    logits
        z (…, K), floating point.
    labels
        y (…), integers in 0 … K−1.

    Raises
    ------
    ValueError, TypeError, IndexError
        As `cross_entropy`.

    Examples
    --------
    >>> multiclass_hinge(np.array([[3.0, 1.0, 2.5]]), np.array([0])).item()  # 1 + 2.5 − 3
    0.5
    """
    _check_labels(logits, labels)
    backend_of(labels).check_indices(labels, logits.shape[-1], f"labels for {logits.shape[-1]} classes")
    target, _, _ = _targets(logits, labels, None)
    z = ops.reshape(logits, (-1, logits.shape[-1]))
    margins = np.ones_like(raw(z))
    margins[target] = 0
    return ops.mean(ops.max(z + margins, axis=1) - z[target])
