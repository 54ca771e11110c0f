"""The paper's experiments at smaller scale, and fair comparisons over them."""

from minibng.experiments import report, statistics
from minibng.experiments.comparison import Comparison, Run, compare
from minibng.experiments.convex import EXPERIMENT as CONVEX
from minibng.experiments.declaration import Claim, Experiment, Job
from minibng.experiments.imagenet import EXPERIMENT as IMAGENET
from minibng.experiments.lstm import EXPERIMENT as LSTM
from minibng.experiments.memory import EXPERIMENT as MEMORY
from minibng.experiments.mlp import EXPERIMENT as MLP
from minibng.experiments.resnet import EXPERIMENT as RESNET
from minibng.experiments.sentiment import EXPERIMENT as SENTIMENT

EXPERIMENTS: dict[str, Experiment] = {e.name: e for e in (MLP, RESNET, IMAGENET, LSTM, MEMORY, SENTIMENT, CONVEX)}
"""By command-line name."""

__all__ = [
    "CONVEX",
    "EXPERIMENTS",
    "IMAGENET",
    "LSTM",
    "MEMORY",
    "MLP",
    "RESNET",
    "SENTIMENT",
    "Claim",
    "Comparison",
    "Experiment",
    "Job",
    "Run",
    "compare",
    "report",
    "statistics",
]
