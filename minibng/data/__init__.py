"""Data sets and batches.

>>> from minibng import data
>>> split = data.load("digits")
>>> for x, y in data.batches(split.train, 128, seed=0, epoch=0):
...     pass
"""

from minibng.data.batching import Batches, batches
from minibng.data.dataset import Dataset, Split
from minibng.data.prepare import standardize, stratified
from minibng.data.table import DATASETS, Entry, load

__all__ = ["DATASETS", "Batches", "Dataset", "Entry", "Split", "batches", "load", "standardize", "stratified"]
