"""The multi-layer perceptron, and its case without hidden layers."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from minibng.names import choose
from minibng.nn.activations import ACTIVATIONS
from minibng.nn.containers import Sequential
from minibng.nn.linear import Linear


def mlp(inputs: int, hidden: Sequence[int], outputs: int, activation: str = "relu") -> Sequential:
    """Return Linear, activation, …, Linear: as many layers as ``hidden`` has widths, and one more.

    Parameters
    ----------
    inputs, outputs
        D and K: (N, D) → (N, K).
    hidden
        The widths of the hidden layers.
    activation
        "tanh" or "sigmoid" (weights drawn as Glorot, Bengio, 2010), "relu", "leaky_relu" or "gelu" (as He et al.,
        2015).

    Raises
    ------
    TypeError
        Where ``hidden`` is a number.

    Examples
    --------
    >>> mlp(784, [100] * 2, 10)
    Sequential(Linear(784, 100), relu, Linear(100, 100), relu, Linear(100, 10))
    """
    if not isinstance(hidden, Iterable):
        raise TypeError(f"hidden is a list of widths, one for each hidden layer, such as [100, 100], got {hidden!r}")
    act = choose(ACTIVATIONS, activation, "activation")
    init = "xavier" if activation in ("tanh", "sigmoid") else "he"
    widths = [inputs, *hidden]
    layers: list[Any] = []
    for a, b in pairwise(widths):
        layers += [Linear(a, b, init=init), act]
    return Sequential(*layers, Linear(widths[-1], outputs, init=init))


def logistic(inputs: int, outputs: int) -> Sequential:
    """Return multinomial logistic regression, (N, D) → logits (N, K); W starts at zero, so the first loss is log K.

    Examples
    --------
    >>> logistic(784, 10)
    Sequential(Linear(784, 10))
    """
    return Sequential(Linear(inputs, outputs, init="zeros"))
