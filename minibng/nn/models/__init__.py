"""Models: functions that put layers together."""

from minibng.nn.models.cnn import cnn
from minibng.nn.models.mlp import logistic, mlp
from minibng.nn.models.resnet import ResNet, resnet

__all__ = ["ResNet", "cnn", "logistic", "mlp", "resnet"]
