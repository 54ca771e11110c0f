"""The paper's experiments at smaller scale, and fair comparisons over them."""

from minibng.experiments import report, statistics
from minibng.experiments.comparison import Comparison, Run, compare
from minibng.experiments.declaration import Claim, Experiment, Job
from minibng.experiments.mlp import EXPERIMENT as MLP

EXPERIMENTS: dict[str, Experiment] = {MLP.name: MLP}
"""By command-line name."""

__all__ = ["EXPERIMENTS", "MLP", "Claim", "Comparison", "Experiment", "Job", "Run", "compare", "report", "statistics"]
