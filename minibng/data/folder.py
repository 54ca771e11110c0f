"""Folders of image files, one folder a class: any photographs, in the layout of ImageNet."""

import hashlib
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minibng.backend.threads import cores
from minibng.data.dataset import Dataset, Split, check_whole
from minibng.data.download import downloads, size_text
from minibng.data.prepare import frozen, stratified
from minibng.extras import require

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".tif", ".tiff", ".webp"})
"""Endings of image files, small or capital; all other files in a class folder are passed over."""

_NEEDS = "a folder of images"
_VERSION = "1"  # of how pixels are made: another one makes them anew
_TASK = 64  # files that a worker process decodes at a time
_SAMPLED = 1 << 26  # most pixels that the mean and the deviation are taken of
_MANY_FILES, _MANY_BYTES = 20_000, 500_000_000  # from where on several processes decode
_HOUR = 3600.0


class _Part(NamedTuple):
    files: list[str]
    labels: NDArray[np.int64]

    def take(self, chosen: NDArray[np.int64]) -> "_Part":
        return _Part([self.files[i] for i in chosen], self.labels[chosen])


def image_folder(
    path: str | os.PathLike[str],
    size: int = 64,
    *,
    workers: int | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> Split:
    """Read a folder of class folders as a data set of size × size colour images.

    The layouts are ``path/train/CLASS/*.jpg`` beside ``val`` and perhaps ``test`` (ImageNet, Imagenette); the same with
    ``val/images`` and ``val/val_annotations.txt`` (Tiny ImageNet); and ``path/CLASS/*.jpg`` without parts. Images may
    lie deeper inside a class folder. The classes are the folders of the training part, sorted by name.

    Which sample is for what: where ``val`` and ``test`` both have labels, they are these. Where only one of them has,
    it is the test set, and a tenth of each class of ``train`` becomes the validation set. Otherwise 70 %, 10 % and 20 %
    of every class are drawn, as everywhere in this package.

    The shorter side becomes ``size`` and the middle is cut out. JPEG files are decoded at a half, a quarter or an
    eighth of their size where that is still twice what is needed. How a camera was held (EXIF) is not looked at, as in
    most readers of ImageNet.

    The pixels stay bytes, in a file that is mapped into memory and made once for the same image files (by places,
    lengths and times of change) and size; batches get them standardized in float32, each channel by its mean and
    deviation in the training part (in a sample of it where it has more than 67 million pixels).

    Parameters
    ----------
    path
        The folder.
    size
        Pixels along a side.
    workers
        Processes that decode. Default: this one alone, which takes seconds, for up to 20,000 files of 500 MB together;
        for more, one a core. They are spawned, so a script must call this below ``if __name__ == "__main__":``.
    cache
        Where the file with the pixels is kept. Default: ``folders`` in the folder for downloads.

    Returns
    -------
    Split
        x (N, size, size, 3) uint8 with a ``scale``, in random order; y (N,) int64; ``class_names`` are the folders'.

    Raises
    ------
    FileNotFoundError
        Where there is no such folder, or no images in class folders.
    ValueError
        Where images cannot be read, naming them; a class folder has no images, a validation or test image no class;
        there is one class only, or too few images for three parts; or ``size`` or ``workers`` is below 1.
    TypeError
        Where ``size`` or ``workers`` is not a whole number.
    OSError
        Where a folder cannot be looked into, or the pixels cannot be written. Nothing incomplete is kept.
    MissingExtraError
        Where Pillow is not installed.
    """
    root = Path(path).expanduser()
    check_whole("size", size, least=1)
    if workers is not None:
        check_whole("workers", workers, least=1)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder; name one that holds a folder of images for each class")
    names, parts = _parts(root)
    files = [file for part in parts for file in part.files]
    digest, length = _digest(root, files, size)
    place = (downloads() / "folders" if cache is None else Path(cache).expanduser()) / f"{digest}.npy"
    if place not in _SPLITS:
        if not place.exists():
            many = len(files) > _MANY_FILES or length > _MANY_BYTES
            _keep(root, files, size, place, workers or (cores() if many else 1))
        _SPLITS[place] = _split(np.load(place, mmap_mode="r"), parts, root.resolve().name, names)
    return _SPLITS[place]


_SPLITS: dict[Path, Split] = {}


def _split(pixels: NDArray[np.uint8], parts: Sequence[_Part], name: str, names: tuple[str, ...]) -> Split:
    """Cut the pixels of all parts, one after the other, into data sets with the scale of the first."""
    ends = np.cumsum([len(part.files) for part in parts])
    scale = channel_scale(pixels[: ends[0]])
    train, val, test = (
        Dataset(pixels[end - len(part.files) : end], frozen(part.labels), len(names), scale)
        for end, part in zip(ends, parts, strict=True)
    )
    size = pixels.shape[1]
    source = (
        f"image folder {name}; the middle at {size}×{size} pixels, "
        "each channel standardized by its mean and deviation in the training part"
    )
    return Split(train, val, test, name, len(names), source, class_names=names)


def channel_scale(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and deviation of each channel, (C,), of images (N, H, W, C), evenly taken where there are many.

    Counted by value, so that they are exact whatever the number of pixels. A constant channel has the deviation 1.

    Examples
    --------
    >>> channel_scale(np.array([[[[0, 7]]], [[[2, 7]]]], np.uint8))
    (array([1., 7.]), array([1., 1.]))
    """
    n, h, w, c = pixels.shape
    step = max(1, n * h * w // _SAMPLED)
    counts = np.zeros((c, 256), np.int64)
    for start in range(0, n, _TASK * step):
        images = pixels[start : start + _TASK * step : step]
        counts += [np.bincount(images[..., k].ravel(), minlength=256) for k in range(c)]
    share, value = counts / counts.sum(axis=1, keepdims=True), np.arange(256)
    mean = share @ value
    deviation = np.sqrt((share * (value - mean[:, None]) ** 2).sum(axis=1))
    return mean, np.where((counts > 0).sum(axis=1) == 1, 1.0, deviation)


# Which files there are ------------------------------------------------------------------------------------------------


def _parts(root: Path) -> tuple[tuple[str, ...], list[_Part]]:
    """Return the names of the classes and the images of the three parts, each in random order."""
    given = _folders(root / "train")
    top = root / "train" if given else root
    names = tuple(given or _folders(root))
    train = _labelled(root, [(top / name, label) for label, name in enumerate(names)])
    if not train.files:
        raise FileNotFoundError(
            f"no images in {root}: it must hold a folder of images for each class, or the folders train, val and "
            f"perhaps test that do; images are files that end in {', '.join(sorted(SUFFIXES))}"
        )
    if len(names) < 2:
        raise ValueError(f"{top} holds one class folder only, {names[0]}: there is nothing to tell apart")
    empty = np.flatnonzero(np.bincount(train.labels, minlength=len(names)) == 0)
    if empty.size:
        raise ValueError(f"the class folder {top / names[empty[0]]} holds no images; fill it, or remove it")
    others = [_other(root, part, names) for part in ("val", "test")] if given else [None, None]
    official = [part for part in others if part is not None]
    draw = stratified(train.labels, val=0 if len(official) == 2 else 10, test=0 if official else 20)
    parts = [train.take(chosen) for chosen in draw]
    for i, part in enumerate(reversed(official)):  # the test set first: where there is one alone, it is that
        parts[2 - i] = part.take(stratified(part.labels, val=0, test=0)[0])
    for what, part in zip(("training", "validation", "test"), parts, strict=True):
        if not part.files:
            raise ValueError(f"{root} has too few images: none is left for the {what} set; 10 a class are enough")
    return names, parts


def _other(root: Path, part: str, names: tuple[str, ...]) -> _Part | None:
    """Return the images of ``val`` or ``test``; None where there are none with labels."""
    folder, labels = root / part, {name: label for label, name in enumerate(names)}
    listed, folders = folder / f"{part}_annotations.txt", _folders(folder)
    if listed.is_file():
        rows = [line.split("\t") for line in listed.read_text(encoding="utf-8").splitlines() if line]
        unknown = [row for row in rows if len(row) < 2 or row[1] not in labels]
        if unknown:
            raise ValueError(f"{listed}: {' '.join(unknown[0][:2])!r} is no image with a class folder of train")
        return _Part(
            [f"{part}/images/{row[0]}" for row in rows], np.array([labels[row[1]] for row in rows], dtype=np.int64)
        )
    unknown_folders = [name for name in folders if name not in labels]
    if part == "test" and len(unknown_folders) == len(folders):
        return None  # images without labels, as published for competitions
    if unknown_folders:
        raise ValueError(f"{folder / unknown_folders[0]} is of no class: there is no {root / 'train'} folder like it")
    if not folders and folder.is_dir():
        raise ValueError(
            f"{folder} has no class folders: sort its images into folders as in train, or rename {folder.name} to "
            "have a validation and a test set drawn from train"
        )
    found = _labelled(root, [(folder / name, labels[name]) for name in folders])
    return found if found.files else None


def _folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _labelled(root: Path, folders: Sequence[tuple[Path, int]]) -> _Part:
    """Return the images in some folders, and below, each with the label of its folder."""
    files, labels = [], []
    for folder, label in folders:
        for place, below, inside in os.walk(folder, onerror=_raise):
            below[:] = sorted(name for name in below if not name.startswith("."))
            images = sorted(n for n in inside if Path(n).suffix.lower() in SUFFIXES and not n.startswith("."))
            files += [(Path(place) / name).relative_to(root).as_posix() for name in images]
            labels += [label] * len(images)
    return _Part(files, np.array(labels, dtype=np.int64))


def _raise(error: OSError) -> None:
    raise error


def _digest(root: Path, files: Sequence[str], size: int) -> tuple[str, int]:
    """Return what the pixels depend on in short: the folder, size, and name, length and time of change of every file.

    Also return the length of all files together. Without the folder, two with files of equal names, lengths and times,
    as unpacked archives have them, would be taken for one another.
    """
    digest, length = hashlib.sha256(os.fsencode(f"{_VERSION} {size} {root.resolve()}\n")), 0
    for file in files:
        try:
            told = (root / file).stat()
        except FileNotFoundError:
            raise ValueError(f"{root / file} is listed, but is not there, or is a link to nothing") from None
        digest.update(os.fsencode(f"{file}\0{told.st_size}\0{told.st_mtime_ns}\n"))
        length += told.st_size
    return digest.hexdigest()[:32], length


# Their pixels ---------------------------------------------------------------------------------------------------------


def _keep(root: Path, files: Sequence[str], size: int, place: Path, workers: int) -> None:
    """Decode all files into one .npy file, which gets its name when it is whole."""
    require("PIL.Image", "experiments", _NEEDS)
    unfinished = place.with_name(f".{place.name}.{os.getpid()}-{threading.get_ident()}.part")
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(files), size, size, 3)}
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        for left in place.parent.glob(f".{place.name}.*.part"):
            with suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > _HOUR:  # of a process that was killed: others keep writing
                    left.unlink()
        with unfinished.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            start = file.tell()
        starts = range(0, len(files), _TASK)
        paths = [[str(root / file) for file in files[i : i + _TASK]] for i in starts]
        tasks = [(part, start + i * size * size * 3) for part, i in zip(paths, starts, strict=True)]
        unreadable = [
            line for lines in _done(partial(_decode, str(unfinished), size), tasks, workers) for line in lines
        ]
        if unreadable:
            raise ValueError(_complaint(unreadable))
        with unfinished.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(unfinished, place)
    except OSError as error:
        needed = size_text(len(files) * size * size * 3)
        raise OSError(
            f"the pixels of {root} cannot be kept in {place.parent} ({error.strerror or error}); {needed} are needed. "
            "Nothing incomplete was kept. Make room, or name another folder with cache="
        ) from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _complaint(unreadable: Sequence[str]) -> str:
    listed = "\n  ".join(unreadable[:5])
    more = f"\n  and {len(unreadable) - 5} more" if len(unreadable) > 5 else ""
    return (
        f"{len(unreadable)} image files cannot be read; delete them or put good ones in their place "
        f"(nothing was left out, and nothing kept):\n  {listed}{more}"
    )


def _done(
    task: Callable[[tuple[list[str], int]], list[str]], tasks: Sequence[tuple[list[str], int]], workers: int
) -> Iterator[list[str]]:
    """Yield what the tasks return, in their order, with a progress bar on a terminal."""
    tqdm = require("tqdm", "experiments", _NEEDS).tqdm
    bar = partial(
        tqdm, desc="decoding", total=len(tasks), unit_scale=_TASK, unit=" images", leave=False, file=sys.stderr
    )
    off = not sys.stderr.isatty()
    if workers == 1:
        yield from bar(map(task, tasks), disable=off)
        return
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.exit(1)  # this is a worker that imports a script without the __main__ line: its parent will tell of it
    # Ctrl-C is this process's affair; the workers end with it.
    ignore = (signal.SIGINT, signal.SIG_IGN)
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), signal.signal, ignore)
    try:
        yield from bar(pool.map(task, tasks), disable=off)
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a process that decodes images died: in a script, call image_folder below "
            "if __name__ == '__main__':, or pass workers=1 (or was there too little memory?)"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _decode(target: str, size: int, task: tuple[list[str], int]) -> list[str]:
    """Write the pixels of some files to their place; return a line for each file that cannot be read."""
    paths, start = task
    pixels, unreadable = np.zeros((len(paths), size, size, 3), np.uint8), []
    for i, path in enumerate(paths):
        try:
            pixels[i] = _square(path, size)
        except Exception as error:  # Pillow raises nearly anything, by format and by damage
            unreadable.append(f"{path}: {error}")
    with open(target, "rb+") as file:  # written, not mapped: a full disk is then an error and not a signal
        file.seek(start)
        file.write(pixels.tobytes())
    return unreadable


def _square(path: str, size: int) -> Any:
    """Return the middle of an image file in colour, size × size."""
    pillow = require("PIL.Image", "experiments", _NEEDS)
    with pillow.open(path) as image:
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"its pixels are no bytes (mode {image.mode}); convert it to 8 bits a channel")
        image.draft(None, (2 * size, 2 * size))
        see_through = image.mode == "P" and "transparency" in image.info  # without this step Pillow warns
        colour = (image.convert("RGBA") if see_through else image).convert("RGB")
    side = min(colour.size)
    left, top = (colour.width - side) // 2, (colour.height - side) // 2
    return colour.resize((size, size), pillow.Resampling.BILINEAR, box=(left, top, left + side, top + side))


# The other way --------------------------------------------------------------------------------------------------------


def write_image_folder(split: Split, path: str | os.PathLike[str]) -> Path:
    """Write a data set of images as ``path/train/CLASS/00000.png``, ``val`` and ``test`` likewise.

    Bytes are written as they are; other numbers by one linear map that takes the least of the data set to 0 and the
    largest to 255. `image_folder` reads the folder back.

    Parameters
    ----------
    split
        Images of one or three channels. Where the classes have no names, they are called by their numbers; what no
        folder can be called, such as a slash, becomes an underscore.
    path
        A folder that is not there yet, or empty. It appears when all is written.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    FileExistsError
        Where there is something at ``path``.
    ValueError
        Where the samples are no images, or have two or more than three channels, or no classes, or two classes would
        share a folder.
    MissingExtraError
        Where Pillow is not installed.
    """
    pillow = require("PIL.Image", "experiments", _NEEDS)
    target, split = Path(path).expanduser(), split.as_images()
    channels = split.train.x.shape[-1]
    if channels not in (1, 3) or split.classes is None:
        raise ValueError(f"{split.name}: images of {channels} channels and {split.classes} classes cannot be written")
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise FileExistsError(f"{target} is there already; name a folder that is not")
    digits = len(str(split.classes - 1))
    names = _folder_names(split.class_names or [f"{label:0{digits}d}" for label in range(split.classes)])
    parts = {"train": split.train, "val": split.val, "test": split.test}
    least = min(part.x.min() for part in parts.values())
    step = (max(part.x.max() for part in parts.values()) - least) / 255 or 1
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as unfinished:
        whole = Path(unfinished) / "whole"
        for part, dataset in parts.items():
            for name in names:
                (whole / part / name).mkdir(parents=True)
            for i, (x, y) in enumerate(zip(dataset.x, dataset.y, strict=True)):
                pixels = x if x.dtype == np.uint8 else np.rint((x - least) / step).astype(np.uint8)
                image = pillow.fromarray(pixels[..., 0] if channels == 1 else pixels)
                image.save(whole / part / names[y] / f"{i:05d}.png")
        if target.exists():
            target.rmdir()
        whole.rename(target)
    return target


def _folder_names(names: Sequence[str]) -> list[str]:
    """Return what the folders of classes are called, on every system; one that begins with a dot would be hidden."""
    called = [re.sub(r'^\.|^$|[\x00-\x1f/\\:*?"<>|]', "_", name) for name in names]
    if len(set(called)) < len(called):
        twice = next(name for name in called if called.count(name) > 1)
        raise ValueError(f"two classes would be in one folder, {twice}: give them other names")
    return called
