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
from minibng.data.ngrams import bigram_perplexity, unigram_perplexity
from minibng.data.prepare import standardize, stratified
from minibng.data.sequences import adding, copying
from minibng.data.table import DATASETS, Entry, fetch, is_here, load
from minibng.data.text import text_file, words
from minibng.data.vocabulary import Vocabulary

__all__ = [
    "DATASETS",
    "Batches",
    "CropMirror",
    "Dataset",
    "DownloadError",
    "Entry",
    "Split",
    "Vocabulary",
    "adding",
    "batches",
    "bigram_perplexity",
    "copying",
    "fetch",
    "image_folder",
    "is_here",
    "load",
    "standardize",
    "stratified",
    "text_file",
    "unigram_perplexity",
    "words",
    "write_image_folder",
]
