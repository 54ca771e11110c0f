"""Training: the loop, what it measures, its records."""

from minibng.train import records
from minibng.train.loop import Epoch, History, fit
from minibng.train.metrics import Scores, perplexity, score
from minibng.train.parallel import Workers
from minibng.train.progress import progress

__all__ = ["Epoch", "History", "Scores", "Workers", "fit", "perplexity", "progress", "records", "score"]
