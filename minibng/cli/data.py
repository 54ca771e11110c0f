"""minibng data: the data sets, where their files are, and whether they are sound."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from minibng import data
from minibng.cli.arguments import Commands, listed
from minibng.data.download import FOLDER_VARIABLE, downloads, size_text
from minibng.data.published import Published
from minibng.experiments.options import one_of
from minibng.extras import MissingExtraError

EXAMPLES = f"""examples:
  minibng data list                                    what there is, and what of it is on this machine
  minibng data fetch cifar10                           download it, about 170 MB, to be read from then on
  minibng data fetch mnist cifar10 --data-dir DIR      the same to a folder of yours, DIR/mnist and DIR/cifar10
  minibng data check cifar10                           are the files the published ones; how many samples
  minibng data check cifar10 --data-dir DIR            the same for files that you have already: the archive, what
                                                       was in it, or a folder of either called cifar10
  minibng data check pydoc                             sizes, vocabulary, how hard it is: perplexities of counts
  minibng compare mlp --dataset mnist                  downloads what is not there yet by itself

Downloads are kept in the user's cache folder, or in the one that the environment variable {FOLDER_VARIABLE} names.
"""


def add(commands: Commands) -> None:
    """Add the command, with commands of its own."""
    layout = argparse.RawDescriptionHelpFormatter
    about = "list, download and check data sets"
    parser = commands.add_parser("data", help=about, description=about, epilog=EXAMPLES, formatter_class=layout)
    parser.set_defaults(parser=parser)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="what there is, how large it is, and whether it is here").acts(show)
    names = listed(one_of(data.DATASETS, "data set"))
    for action, about, where, act in (
        ("fetch", "download data sets, those files that are not there yet", "where to put a folder for each", fetch),
        ("check", "compare files with the published ones, and load them", "the folder that has the files", check),
    ):
        parser = actions.add_parser(action, help=about, description=about, epilog=EXAMPLES, formatter_class=layout)
        parser.add_argument("names", metavar="NAME", help="data sets, see minibng data list", **names)
        told = f"{where} (default: the folder for downloads)"
        parser.add_argument("--data-dir", metavar="DIR", type=Path, help=told)
        parser.acts(act)


def show(args: argparse.Namespace) -> int:
    """Print a line for each data set."""
    width = max(map(len, data.DATASETS))
    for name, entry in data.DATASETS.items():
        state = "" if not entry.files else "  here" if data.is_here(name) else f"  {_total(name)}, not here"
        print(f"{name:<{width}}  {entry.about}{state}")
    try:
        where = f"in {downloads()}"
    except MissingExtraError as error:
        where = f"not possible: {error}"
    print(f"\ndownloads: {where}\nto get one: minibng data fetch NAME")
    return 0


def fetch(args: argparse.Namespace) -> int:
    """Download the files that are not there."""
    return _each(args, _fetch)


def check(args: argparse.Namespace) -> int:
    """Print what the files are and what is in them; the exit code tells whether all is as published."""
    return _each(args, _check)


def _each(args: argparse.Namespace, act: Callable[[str, Path | None], int]) -> int:
    """Do the same for each data set; what one lacks does not keep the others from their turn."""
    codes = []
    for name in args.names:
        try:
            codes.append(act(name, args.data_dir))
        except (OSError, ValueError, MissingExtraError) as error:
            if args.debug:
                raise
            print(f"minibng: {error} (--debug shows where)", file=sys.stderr)
            codes.append(1)
    return max(codes)


def _fetch(name: str, folder: Path | None) -> int:
    if not data.DATASETS[name].files:
        print(f"{name}: nothing to download ({data.DATASETS[name].about})")
        return 0
    print(f"{name}: {_total(name)}", flush=True)
    print(f"{name}: sound, in {data.fetch(name, data_dir=folder)}", flush=True)
    return 0


def _check(name: str, folder: Path | None) -> int:
    published, sound = data.DATASETS[name].published, True
    if published is not None:
        if folder is None and not data.is_here(name):
            print(f"{name}: not here; minibng data fetch {name} downloads it ({_total(name)})")
            return 1
        sound = _check_files(published, downloads() / name if folder is None else folder)
        if folder is None and not sound:
            print(f"{name}: damaged; minibng data fetch {name} downloads it again")
            return 1
    split = data.load(name, data_dir=folder if published else None)
    print(_contents(split))
    found = len(split.train) + len(split.val), len(split.test)
    if published is not None and (whole := published.samples) not in (None, found):
        print(f"  but {published.title} has {whole[0]} training and {whole[1]} test samples,")
        print(f"  and these are {found[0]} and {found[1]}: they are not all")
        return 1
    print("  sound" if sound else "  readable, but not the published files")
    return 0 if sound else 1


def _contents(split: data.Split) -> str:
    """Return what is in a data set: a line for its parts, indented ones for its samples."""
    parts = {"training": split.train, "validation": split.val, "test": split.test}
    x, words, one = split.train.x, split.vocabulary, split.train.x.ndim == 1
    told = f"{split.name}: " + ", ".join(f"{len(part)} {what}" for what, part in parts.items())
    told += " tokens, one text" if one else " samples"
    image = "×".join(map(str, split.image_shape or ()))
    each = image if x.ndim == 4 else f"{x[0].size} numbers" + f" (images of {image})" * bool(image)
    if words is not None:
        amount, what = "one" if one else f"up to {x.shape[1]}", "words" if words.joint else "characters"
        each = f"{amount} of {len(words)} {what}"
    told += f"\n  each {each}, {x.dtype}" + ("" if split.classes is None or one else f", {split.classes} classes")
    if words is not None and words.unknown is not None:
        tokens = {k: part.x if one else part.x[part.x > 0] for k, part in parts.items()}  # 0 fills up the texts
        told += "\n  unknown: " + ", ".join(f"{(x == words.unknown).mean():.1%} of {k}" for k, x in tokens.items())
    if words is not None and one:
        counted = data.unigram_perplexity(split)["test"], data.bigram_perplexity(split)["test"]
        told += f"\n  test perplexity of counts: {counted[0]:.1f} of single ones, {counted[1]:.1f} of pairs"
    elif split.classes is not None:
        counts = np.bincount(np.concatenate([part.y for part in parts.values()]), minlength=split.classes)
        told += f"\n  samples of a class: {counts.min()} to {counts.max()}"
    return told


def _check_files(published: Published, folder: Path) -> bool:
    """Print a line for each file; tell whether none differs from the published one of its name."""
    known, sound = {file.name: file for file in published.known}, True
    for path in published.locate(folder):
        told = "unpacked, no checksum is published"
        if path.name in known:
            same = known[path.name].is_sound(path)
            told, sound = ("as published", sound) if same else ("differs from the published file", False)
        print(f"  {path}  {size_text(path.stat().st_size)}, {told}")
    return sound


def _total(name: str) -> str:
    return size_text(sum(file.size for file in data.DATASETS[name].files))
