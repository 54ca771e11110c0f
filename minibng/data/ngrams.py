"""Language models that only count: what a perplexity is to be compared with."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from minibng.data.dataset import Dataset, Split

Numbers = NDArray[np.float64]

WEIGHTS = tuple(2.0**k for k in range(-10, 17))
"""What the weight of a prior is chosen from."""


class _Counted(NamedTuple):
    """What was counted for each token of a part, arrays (M,)."""

    hits: NDArray[np.int64]
    """How often the target was seen in its place."""
    trials: NDArray[np.int64]
    """How often any word was."""
    prior: Numbers
    """Its probability by a simpler model."""

    def probabilities(self, weight: float) -> Numbers:
        return (self.hits + weight * self.prior) / (self.trials + weight)

    def perplexity(self, weight: float) -> float:
        return math.exp(-np.log(self.probabilities(weight)).mean())


def unigram_perplexity(split: Split) -> dict[str, float]:
    """Return the perplexity of knowing how frequent each word is, and no more.

    A word w has the probability (c(w) + a/V)/(M + a), with its count c(w) among the M targets of the training part. The
    weight a is the power of 2 from 1/1024 to 65536 that is best on the validation part.

    Parameters
    ----------
    split
        A text: x (M,) and y (M,), see `text_file`. A model that knows nothing has the perplexity ``split.classes``.

    Returns
    -------
    dict
        exp of the mean of -log p(y[i]) for each part: ``"train"``, ``"val"`` and ``"test"``. The training part is what
        was counted, so that its value is too good.

    Raises
    ------
    ValueError
        Where the split is no text.

    Examples
    --------
    >>> from minibng import data
    >>> 100 < unigram_perplexity(data.load("pydoc"))["test"] < 300
    True
    """
    return _perplexities(_unigrams(split))


def bigram_perplexity(split: Split) -> dict[str, float]:
    """Return the perplexity of knowing how often each word followed each other one.

    After v a word w has the probability (c(v, w) + a p(w))/(c(v) + a), with the counts of the training part, the p of
    `unigram_perplexity`, and a chosen as there (the mean under a Dirichlet prior: D. MacKay and L. Peto, "A
    hierarchical Dirichlet language model", 1995).

    Parameters
    ----------
    split
        A text: x (M,) and y (M,), see `text_file`.

    Returns
    -------
    dict
        exp of the mean of -log p(y[i] | x[i]) for each part: ``"train"``, ``"val"`` and ``"test"``. The training part
        is what was counted, so that its value is too good.

    Raises
    ------
    ValueError
        Where the split is no text.

    Examples
    --------
    >>> from minibng import data
    >>> bigram_perplexity(data.load("pydoc"))["test"] < unigram_perplexity(data.load("pydoc"))["test"] / 2
    True
    """
    unigrams = _unigrams(split)
    weight = _best(unigrams[1])
    size = split.classes or 0
    pairs, often = np.unique(_pairs(split.train, size), return_counts=True)
    before = np.bincount(split.train.x, minlength=size)
    counted = []
    for part, single in zip((split.train, split.val, split.test), unigrams, strict=True):
        pair = _pairs(part, size)
        place = np.minimum(np.searchsorted(pairs, pair), len(pairs) - 1)
        hits = np.where(pairs[place] == pair, often[place], 0)
        counted.append(_Counted(hits, before[part.x], single.probabilities(weight)))
    return _perplexities(counted)


def _pairs(part: Dataset, size: int) -> NDArray[np.int64]:
    """Return a number for each token and its target; V² may be more than the dtype of the tokens holds."""
    return np.asarray(part.x.astype(np.int64) * size + part.y)


def _unigrams(split: Split) -> list[_Counted]:
    parts = (split.train, split.val, split.test)
    if split.classes is None or any(part.x.ndim != 1 or part.x.dtype.kind != "i" for part in parts):
        raise ValueError(f"{split.name} is no text: x and y must be one sequence of tokens, see data.text_file")
    often, prior = np.bincount(split.train.y, minlength=split.classes), 1 / split.classes
    total = len(split.train)
    return [_Counted(often[p.y], np.full(len(p), total), np.full(len(p), prior)) for p in parts]


def _best(validation: _Counted) -> float:
    return min(WEIGHTS, key=validation.perplexity)


def _perplexities(counted: Sequence[_Counted]) -> dict[str, float]:
    weight = _best(counted[1])
    return {name: part.perplexity(weight) for name, part in zip(("train", "val", "test"), counted, strict=True)}
