"""A convolutional network that classifies sentences (Kim, 2014, "Convolutional neural networks for sentence …")."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from minibng.autodiff import ops
from minibng.backend import Array, backend_of
from minibng.nn.activations import relu
from minibng.nn.containers import Composite, Dropout
from minibng.nn.convolution import Conv1d, conv2d
from minibng.nn.embedding import Embedding
from minibng.nn.init import Uniform
from minibng.nn.layer import ParamsLike, check_array, check_order, check_whole
from minibng.nn.linear import Linear
from minibng.nn.pooling import GlobalMaxPool

SMALL = Uniform(0.1)
"""How the vectors of words are drawn where all are learned from the sentences."""


class Features(Conv1d):
    """The largest value over time of each map of a convolution, after bias and relu: (N, T, D) → (N, maps).

    Bias and relu act after the maximum: they are increasing, so it is the same function, and there is one of them a map
    and sentence in place of T.
    """

    def __call__(self, p: ParamsLike, x: Array, *, train: bool = False) -> Array:
        """Return relu(max over t of the convolution, plus b)."""
        return relu(GlobalMaxPool()(p, self.values(p, x)) + p["b"])

    def values(self, p: ParamsLike, x: Array) -> Array:
        """Return the convolution of x with W, of every window: (N, T − w + 1, maps)."""
        self.check(p, x)
        return ops.squeeze(conv2d(ops.expand_dims(x, 1), ops.expand_dims(p["W"], 0), None, self.geometry), axis=1)


class TextCNN(Composite):
    """Words become vectors, windows of words become features, which are classified; `textcnn` makes it.

    Integers (N, T) → logits (N, K).
    """

    def __init__(
        self,
        vocab: int,
        dim: int,
        widths: Sequence[int],
        maps: int,
        classes: int,
        *,
        dropout: float,
        padding: int | None,
        init: str | Callable[..., Any],
    ) -> None:
        if not isinstance(widths, Iterable) or not (widths := tuple(widths)):
            raise TypeError(f"widths is a list of the words that a window has, such as (3, 4, 5), got {widths!r}")
        check_whole("textcnn", maps, classes, *widths)
        self.widths, self.padding = widths, padding
        if len(set(widths)) < len(widths):
            raise ValueError(f"widths names a width twice: {widths}; use more maps")
        self.layers: dict[str, Any] = {"embedding": Embedding(vocab, dim, padding=padding, init=init)}
        self.layers |= {f"conv{width}": Features(dim, maps, width, padding="valid") for width in widths}
        self.layers |= {"dropout": Dropout(dropout), "head": Linear(len(widths) * maps, classes)}

    def __call__(self, p: ParamsLike, x: Array, *, train: bool = False) -> Array:
        """Return the logits (N, K) of sentences (N, T)."""
        try:
            vectors = self._embedded(p, x)
            names = [f"conv{width}" for width in self.widths]
            features = ops.concatenate([self.layers[n](p.scope(n), vectors) for n in names], axis=1)
            kept = self.layers["dropout"](p.scope("dropout"), features, train=train)
            return self.layers["head"](p.scope("head"), kept)
        except AttributeError:
            check_order(p)
            raise

    def _embedded(self, p: ParamsLike, x: Array) -> Array:
        """Return the vectors (N, T, D) of the words, with padding behind sentences shorter than the widest window."""
        check_array(self, p, x, "of tokens (N, T)")
        if x.ndim != 2:
            raise ValueError(f"{self!r} takes tokens (N, T), got shape {tuple(x.shape)}: one is x[np.newaxis]")
        n, t = x.shape
        if t < max(self.widths):
            if self.padding is None:
                told = f"{self!r}: a window of {max(self.widths)} words does not fit on sentences of {t}"
                raise ValueError(f"{told}: give the model a padding= token")
            longer = backend_of(x).xp.full((n, max(self.widths)), self.padding, dtype=x.dtype)
            longer[:, :t] = x
            x = longer
        return self.layers["embedding"](p.scope("embedding"), x)

    def evidence(self, p: ParamsLike, x: Array) -> Array:
        """Return what each word adds to the logits, (N, T, K): their sum over t, plus the head's b.

        Each map's feature comes from one window, and adds feature·W[map] to the logits; the words of that window share
        it equally. It says which words decide, not what would happen without them. Sentences shorter than the widest
        window have T words with the padding behind them.

        Examples
        --------
        >>> model = textcnn(9, dim=4, maps=5)
        >>> params, x = model.init(), np.array([[1, 5, 2, 7, 3, 0]])
        >>> total = np.sum(model.evidence(params, x), axis=1) + params["head.b"]
        >>> np.allclose(total, model(params, x), atol=1e-6)
        True
        """
        vectors, backend = self._embedded(p, x), backend_of(x)
        n, t, _ = vectors.shape
        shares = backend.xp.zeros((n, t, self.layers["head"].outputs), dtype=vectors.dtype)
        sentences, row = backend.xp.arange(n).reshape(n, 1), 0
        for width in self.widths:
            layer, scope = self.layers[f"conv{width}"], p.scope(f"conv{width}")
            features, first = layer(scope, vectors), np.argmax(layer.values(scope, vectors), axis=1)
            weights = p["head.W"][row : row + layer.outputs] * (1 / width)
            row += layer.outputs
            for k in range(width):
                backend.scatter_add(shares, (sentences, first + k), np.expand_dims(features, 2) * weights)
        return shares

    def __repr__(self) -> str:
        conv = self.layers[f"conv{self.widths[0]}"]
        told = [f"{self.layers['embedding'].vocab}, {conv.inputs}, widths={self.widths}, maps={conv.outputs}"]
        told += [f"classes={self.layers['head'].outputs}"]
        return f"TextCNN({', '.join(told)})"


def textcnn(
    vocab: int,
    dim: int = 128,
    widths: Sequence[int] = (3, 4, 5),
    maps: int = 100,
    classes: int = 2,
    *,
    dropout: float = 0.5,
    padding: int | None = 0,
    init: str | Callable[..., Any] = SMALL,
) -> TextCNN:
    """Return the sentence classifier of Kim (2014): tokens (N, T) → logits (N, classes).

    An embedding; for each width w a convolution over windows of w words with ``maps`` outputs, relu, and the maximum
    over time; these side by side, dropout, and a linear layer. The tensors are called "embedding.W", "conv3.W",
    "conv3.b", …, "head.W", "head.b". Kim also keeps the columns of head.W within a norm of 3 (`optim.max_norm`), and
    starts from word vectors learned elsewhere, which are not here.

    Parameters
    ----------
    vocab, dim
        V words, as vectors of D numbers.
    widths, maps
        Words a window, and convolutions of each width.
    classes
        K.
    dropout
        Rate in front of the linear layer.
    padding
        The token behind the end of a sentence: its vector is zero. Sentences shorter than the widest window are
        lengthened by it; None refuses them.
    init
        Of the embedding, as `Embedding` takes it; default uniform in ±0.1. Of movie reviews N(0, 1) gets 4 % more
        wrong, ±0.25 (Kim's choice for words without a learned vector) 1 % or more.

    Notes
    -----
    A window of nothing but padding counts, with the value relu(b), as in Kim's code: how long a sentence was padded can
    matter.

    Examples
    --------
    >>> textcnn(100, dim=8, widths=(2, 3), maps=4).init()
    block      tensor       shape      size
    embedding  embedding.W  (100, 8)    800
    conv2      conv2.W      (2, 8, 4)    64
               conv2.b      (4,)          4
    conv3      conv3.W      (3, 8, 4)    96
               conv3.b      (4,)          4
    head       head.W       (8, 2)       16
               head.b       (2,)          2
    4 blocks, 7 tensors, 986 numbers
    """
    return TextCNN(vocab, dim, widths, maps, classes, dropout=dropout, padding=padding, init=init)
