"""Data sets and batches.

>>> from minibng import data
>>> split = data.load("digits")
>>> for x, y in data.batches(split.train, 128, seed=0, epoch=0):
...     pass
"""

from minibng.data.augment import CropMirror
from minibng.data.batching import Batches, batches
from minibng.data.dataset import Dataset, Split
from minibng.data.download import DownloadError
from minibng.data.folder import image_folder, write_image_folder
from minibng.data.prepare import standardize, stratified
from minibng.data.table import DATASETS, Entry, fetch, is_here, load

__all__ = [
    "DATASETS",
    "Batches",
    "CropMirror",
    "Dataset",
    "DownloadError",
    "Entry",
    "Split",
    "batches",
    "fetch",
    "image_folder",
    "is_here",
    "load",
    "standardize",
    "stratified",
    "write_image_folder",
]
