"""Data sets that are downloaded: into one folder, each file whole and with the published checksum, or not at all."""

import errno
import hashlib
import importlib.util
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from minibng.extras import require

FOLDER_VARIABLE = "MINIBNG_DATA"
"""The environment variable that names the folder for downloads."""

ATTEMPTS = 3
"""How often each address of a file is tried, with a pause in between, before the download is given up."""

PAUSE = 1.0
"""Seconds before the second attempt; twice as many before the third."""

LOG = logging.getLogger("minibng")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class DownloadError(OSError):
    """A file that could not be downloaded or kept; the message says why and what to do."""


class Remote(NamedTuple):
    """A published file.

    Attributes
    ----------
    name
        What it is called.
    size
        Its length in bytes.
    sha256
        Its checksum, hexadecimal.
    urls
        Where it is, the first choice first.
    bring
        For a file that no address leads to: ``bring(path)`` makes it, or raises DownloadError.
    """

    name: str
    size: int
    sha256: str
    urls: tuple[str, ...] = ()
    bring: Callable[[Path], None] | None = None

    def is_sound(self, path: Path) -> bool:
        """Tell whether a file is there and is the published one, byte by byte."""
        if _size(path) != self.size:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256

    def is_in(self, folder: Path) -> bool:
        """Tell whether a folder has a file of this name and length, without reading it."""
        return _size(folder / self.name) == self.size


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return None


def downloads() -> Path:
    """Return the folder of all downloads: what MINIBNG_DATA names, else ``minibng`` in the user's cache folder.

    Raises
    ------
    MissingExtraError
        Where the variable is not set and pooch, which knows the cache folder, is not installed.
    """
    if chosen := os.environ.get(FOLDER_VARIABLE):
        return Path(chosen).expanduser()
    pooch = require("pooch", "experiments", f"the folder for downloads (unless {FOLDER_VARIABLE} names it)")
    return Path(pooch.os_cache("minibng"))


def fetch(what: str, files: Sequence[Remote], folder: Path) -> Path:
    """Make sure that all files are in a folder, and download those that are not.

    A file gets its name only when all of it has arrived and its checksum is right, so that whatever happens, a file in
    the folder is whole. Processes that want the same data set at the same time wait for the first of them.

    Parameters
    ----------
    what
        The name of the data set, for messages.
    files
        What it consists of.
    folder
        Where they belong. It need not be writable where they all are there.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    DownloadError
        Where there is no network, the server fails or sends something else, the disk is full, or the folder cannot be
        written to. What had arrived whole is kept, nothing else.
    MissingExtraError
        Where pooch is not installed.
    """
    if all(file.is_sound(folder / file.name) for file in files):
        return folder
    if any(file.urls for file in files):
        require("pooch", "experiments", f"the download of {what}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder, what):
            absent = [file for file in files if not file.is_sound(folder / file.name)]
            _check_space(sum(file.size for file in absent), folder)
            for file in absent:
                _download(file, folder)
    except DownloadError as error:
        raise DownloadError(f"{what} was not downloaded: {error}") from error.__cause__
    except OSError as error:
        raise DownloadError(f"{what} was not downloaded: {_disk_trouble(error, folder)}") from error
    return folder


def _download(file: Remote, folder: Path) -> None:
    """Bring one file, trying its addresses in turn, several times; raise DownloadError after the last."""
    bar = sys.stderr.isatty() and importlib.util.find_spec("tqdm") is not None
    level = logging.INFO if bar else logging.WARNING  # without a bar, say what takes minutes
    LOG.log(level, "downloading %s (%s) to %s", file.name, size_text(file.size), folder)
    if file.bring is not None:
        try:
            with _whole(file, folder) as part:
                return file.bring(part)
        except _Unusable as error:
            raise DownloadError(str(error)) from error.__cause__
    failures: dict[str, _Unusable] = {}
    for attempt in range(ATTEMPTS):  # rounds over all addresses; one that cannot do better is left out of the next
        if urls := [url for url in file.urls if url not in failures or not failures[url].final]:
            time.sleep(PAUSE * attempt)
        for url in urls:
            try:
                with _whole(file, folder) as part:
                    return _transfer(url, part, bar)
            except _Unusable as error:
                LOG.info("%s: %s", url, error)
                failures[url] = error
    told = "; ".join(f"{url}: {error}" for url, error in failures.items())
    raise DownloadError(
        f"{told}. Nothing incomplete was kept. Try again later, or get {file.name} another way, put it in a folder, "
        "and name the folder with --data-dir (in Python: data_dir=)"
    ) from next(reversed(failures.values())).__cause__


class _Unusable(Exception):
    """An attempt that brought nothing; ``final`` where the same address will not do better."""

    def __init__(self, why: str, final: bool = False) -> None:
        super().__init__(why)
        self.final = final


@contextmanager
def _whole(file: Remote, folder: Path) -> Iterator[Path]:
    """Give a temporary name to write to; check what is there then, and only after that give it the file's own name."""
    part = folder / f".{file.name}.{os.getpid()}.part"
    try:
        yield part
        if (size := part.stat().st_size) != file.size:
            raise _Unusable(f"{size} bytes arrived, the published file has {file.size}")
        if not file.is_sound(part):
            raise _Unusable("what arrived has another checksum than the published file", final=True)
        with part.open("rb+") as whole:
            os.fsync(whole.fileno())
        os.replace(part, folder / file.name)
    finally:
        part.unlink(missing_ok=True)


def _transfer(url: str, part: Path, bar: bool) -> None:
    """Write what is at an address to a file."""
    pooch, requests = (require(name, "experiments", "a download") for name in ("pooch", "requests"))
    answers: list[Any] = []
    how = {
        "headers": {"Accept-Encoding": "identity"},  # what is packed on the way, requests unpacks: the files are gzip
        "hooks": {"response": lambda answer, **_: answers.append(answer)},  # to close, which pooch leaves to chance
    }
    download = pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 16, **how)
    try:
        download(url, str(part), None)
    except requests.HTTPError as error:
        status = error.response.status_code
        raise _Unusable(f"the server answers {status} {error.response.reason}", final=400 <= status < 500) from error
    except requests.Timeout as error:
        raise _Unusable("the server does not answer") from error
    except requests.ConnectionError as error:
        raise _Unusable("there is no connection, or it broke off") from error
    except requests.exceptions.ChunkedEncodingError as error:
        raise _Unusable("the connection broke off before the end") from error
    except requests.RequestException as error:
        raise _Unusable(f"the transfer failed ({type(error).__name__})") from error
    finally:
        for answer in answers:
            answer.close()


@contextmanager
def _alone(folder: Path, what: str) -> Iterator[None]:
    """Keep other processes from downloading to the same folder at the same time.

    Without this (on Windows, or on a file system that knows no locks) each brings its own copy and the last one stays,
    which is right too, only more work.
    """
    place = None
    try:
        place = _locked(folder, what)
        yield
    finally:
        if place is not None:
            os.close(place)  # which gives the lock back, as the end of the process would


def _locked(folder: Path, what: str) -> int | None:
    """Return a descriptor of the folder that holds the lock, or None where there are no locks."""
    try:
        import fcntl

        place = os.open(folder, os.O_RDONLY)
    except (ImportError, PermissionError):
        return None
    try:
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            LOG.info("waiting for another process that downloads %s", what)
            fcntl.flock(place, fcntl.LOCK_EX)
    except OSError:
        os.close(place)
        return None
    for left in folder.glob(".*.part"):  # by a process that was killed: nobody else is writing now
        left.unlink(missing_ok=True)
    return place


def _check_space(needed: int, folder: Path) -> None:
    free = needed
    with suppress(OSError):  # some file systems do not tell
        free = shutil.disk_usage(folder).free
    if free < needed:
        raise DownloadError(_no_space(folder, f"{size_text(needed)} are needed, {size_text(free)} are free"))


def _disk_trouble(error: OSError, folder: Path) -> str:
    if error.errno in _FULL:
        return _no_space(folder, error.strerror or "no space left")
    return (
        f"cannot write to {folder} ({error.strerror or error}); name a folder of yours by the environment "
        f"variable {FOLDER_VARIABLE}"
    )


def _no_space(folder: Path, told: str) -> str:
    return (
        f"the disk of {folder} is full ({told}). Nothing incomplete was kept. Make room, or name a folder on "
        f"another disk by the environment variable {FOLDER_VARIABLE}"
    )


def size_text(size: int) -> str:
    """Write a number of bytes as people read it.

    Examples
    --------
    >>> size_text(170052171), size_text(4542)
    ('170 MB', '5 kB')
    """
    return f"{size / 1e6:.0f} MB" if size >= 999_500 else f"{max(1, round(size / 1e3))} kB"
