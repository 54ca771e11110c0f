"""Layers, losses and models."""

from typing import TYPE_CHECKING, NoReturn

from minibng.names import UnknownNameError, choose
from minibng.nn import init, models
from minibng.nn.activations import ACTIVATIONS, gelu, leaky_relu, relu, sigmoid, softmax, tanh
from minibng.nn.batchnorm import BatchNorm
from minibng.nn.containers import Composite, Dropout, Flatten, Residual, Sequential
from minibng.nn.convolution import Conv1d, Conv2d, conv2d
from minibng.nn.embedding import Embedding
from minibng.nn.layer import Layer
from minibng.nn.linear import Linear, affine
from minibng.nn.losses import binary_cross_entropy, cross_entropy, hinge, mse, multiclass_hinge
from minibng.nn.normalization import LayerNorm
from minibng.nn.pooling import AvgPool1d, AvgPool2d, GlobalAvgPool, GlobalMaxPool, MaxPool1d, MaxPool2d
from minibng.nn.recurrent import GRU, LSTM, RNN
from minibng.params import Spec

__all__ = [
    "ACTIVATIONS",
    "GRU",
    "LSTM",
    "RNN",
    "AvgPool1d",
    "AvgPool2d",
    "BatchNorm",
    "Composite",
    "Conv1d",
    "Conv2d",
    "Dropout",
    "Embedding",
    "Flatten",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "Layer",
    "LayerNorm",
    "Linear",
    "MaxPool1d",
    "MaxPool2d",
    "Residual",
    "Sequential",
    "Spec",
    "affine",
    "binary_cross_entropy",
    "conv2d",
    "cross_entropy",
    "gelu",
    "hinge",
    "init",
    "leaky_relu",
    "models",
    "mse",
    "multiclass_hinge",
    "relu",
    "sigmoid",
    "softmax",
    "tanh",
]

if not TYPE_CHECKING:  # a type checker is to find a name that does not exist

    def __getattr__(name: str) -> NoReturn:
        """Offer the nearest name: Relu is relu here."""
        if not name.startswith("_"):
            try:
                choose(dict.fromkeys(__all__), name, "name in minibng.nn")
            except UnknownNameError as error:
                raise AttributeError(str(error)) from None
        raise AttributeError(name)


def __dir__() -> list[str]:
    return sorted(__all__)
