"""The paper's experiments at smaller scale, and fair comparisons over them."""

from minibng.experiments import report, statistics
from minibng.experiments.comparison import Comparison, Run, compare
from minibng.experiments.declaration import Claim, Experiment, Job
from minibng.experiments.imagenet import EXPERIMENT as IMAGENET
from minibng.experiments.mlp import EXPERIMENT as MLP
from minibng.experiments.resnet import EXPERIMENT as RESNET

EXPERIMENTS: dict[str, Experiment] = {e.name: e for e in (MLP, RESNET, IMAGENET)}
"""By command-line name."""

__all__ = [
    "EXPERIMENTS",
    "IMAGENET",
    "MLP",
    "RESNET",
    "Claim",
    "Comparison",
    "Experiment",
    "Job",
    "Run",
    "compare",
    "report",
    "statistics",
]
