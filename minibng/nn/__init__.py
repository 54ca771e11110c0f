"""Layers, losses and models."""

from minibng.nn import init, models
from minibng.nn.activations import ACTIVATIONS, gelu, leaky_relu, relu, sigmoid, softmax, tanh
from minibng.nn.containers import Dropout, Flatten, Residual, Sequential
from minibng.nn.layer import Layer
from minibng.nn.linear import Linear, affine
from minibng.nn.losses import binary_cross_entropy, cross_entropy, hinge, mse, multiclass_hinge
from minibng.nn.normalization import LayerNorm
from minibng.params import Spec

__all__ = [
    "ACTIVATIONS",
    "Dropout",
    "Flatten",
    "Layer",
    "LayerNorm",
    "Linear",
    "Residual",
    "Sequential",
    "Spec",
    "affine",
    "binary_cross_entropy",
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
