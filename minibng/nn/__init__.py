"""Layers, losses and models."""

from minibng.nn import init, models
from minibng.nn.activations import ACTIVATIONS, relu, sigmoid, tanh
from minibng.nn.containers import Dropout, Flatten, Residual, Sequential
from minibng.nn.layer import Layer
from minibng.nn.linear import Linear, affine
from minibng.nn.losses import cross_entropy, mse
from minibng.params import Spec

__all__ = [
    "ACTIVATIONS",
    "Dropout",
    "Flatten",
    "Layer",
    "Linear",
    "Residual",
    "Sequential",
    "Spec",
    "affine",
    "cross_entropy",
    "init",
    "models",
    "mse",
    "relu",
    "sigmoid",
    "tanh",
]
