"""Models: functions that put layers together."""

from minibng.nn.models.classifier import RecurrentClassifier, lstm_classifier
from minibng.nn.models.cnn import cnn
from minibng.nn.models.language import LanguageModel, lstm_lm
from minibng.nn.models.mlp import logistic, mlp
from minibng.nn.models.resnet import ResNet, resnet
from minibng.nn.models.textcnn import TextCNN, textcnn

__all__ = [
    "LanguageModel",
    "RecurrentClassifier",
    "ResNet",
    "TextCNN",
    "cnn",
    "logistic",
    "lstm_classifier",
    "lstm_lm",
    "mlp",
    "resnet",
    "textcnn",
]
