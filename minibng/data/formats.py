"""The file formats that images are published in: IDX (MNIST and its kin) and the binary version of CIFAR."""

import gzip
import io
import math
import tarfile
import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

_BROKEN = (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError)
"""What gzip and tar raise where a file was cut off or changed."""

_KINDS = {0x0801: "labels", 0x0803: "grey images"}


def contents(path: Path, raw: bytes | None = None) -> bytes:
    """Return the bytes of a file, or those given, which were in it, unpacked if they are gzip, whatever its name says.

    Raises
    ------
    ValueError
        Where gzip finds it damaged.
    """
    raw = path.read_bytes() if raw is None else raw
    if not raw.startswith(b"\x1f\x8b"):
        return raw
    try:
        return gzip.decompress(raw)
    except _BROKEN as error:
        raise damaged(path, f"gzip cannot unpack it ({error})") from error


def members(
    path: Path, names: Collection[str], optional: Collection[str] = (), raw: bytes | None = None
) -> dict[str, bytes]:
    """Return the contents of some files of a tar archive, packed or not, found by their names without folders.

    The archive is the file, or ``raw``, which was in it. Nothing is written to disk, and members that were not asked
    for are passed over. Those that are ``optional`` may be missing.

    Raises
    ------
    ValueError
        Where the archive is damaged, or one of the files is not in it.
    """
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(contents(path, raw)), mode="r:") as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                if (name in names or name in optional) and member.isreg() and (file := archive.extractfile(member)):
                    found[name] = file.read()
    except _BROKEN as error:
        raise damaged(path, f"tar cannot unpack it ({error})") from error
    if absent := [name for name in names if name not in found]:
        raise damaged(path, f"there is no {absent[0]} in it")
    return found


def parse_idx(data: bytes, kind: str, name: object) -> Bytes:
    """Parse an IDX file of unsigned bytes: a magic number, the sizes of the axes, the entries in C order.

    The magic number is 0x0000080d, 8 for unsigned bytes and d for the number of axes; all numbers are big-endian, of 32
    bits (Y. LeCun, C. Cortes and C. Burges, "The MNIST database of handwritten digits").

    Parameters
    ----------
    data
        The file, unpacked.
    kind
        ``"labels"``, one axis, or ``"grey images"``, three.
    name
        What errors call the file.

    Returns
    -------
    array
        Labels (N,), or images (N, H, W, 1): a view of ``data``.

    Raises
    ------
    ValueError
        Where the header is of something else, or promises more or fewer bytes than there are.

    Examples
    --------
    >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]), "labels", "example")
    array([7, 2, 1], dtype=uint8)
    >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7]), "labels", "example")
    Traceback (most recent call last):
        ...
    ValueError: example is damaged: its header says 3 labels, 11 bytes in all, but it has 9 bytes;
    download or copy it again
    """
    expected = next(magic for magic, known in _KINDS.items() if known == kind)
    magic = int.from_bytes(data[:4], "big")
    if len(data) < 4 or magic != expected:
        found = f"with 0x{magic:08x}{_found(magic)}" if len(data) >= 4 else f"ends after {len(data)} bytes"
        raise damaged(name, f"an IDX file of {kind} begins with 0x{expected:08x}, this one {found}")
    axes = magic & 0xFF
    start = 4 + 4 * axes
    if len(data) < start:
        raise damaged(name, f"it has {len(data)} bytes, and the header alone has {start}")
    shape = tuple(int(n) for n in np.frombuffer(data, ">u4", axes, offset=4))
    size = start + math.prod(shape)
    if len(data) != size:
        told = " × ".join(map(str, shape))
        raise damaged(name, f"its header says {told} {kind}, {size} bytes in all, but it has {len(data)} bytes")
    entries = np.frombuffer(data, np.uint8, offset=start).reshape(shape)
    return entries if kind == "labels" else entries[..., None]


def parse_cifar(data: bytes, labels: int, classes: int, name: object) -> tuple[Bytes, Bytes]:
    """Parse a file of CIFAR's binary version: records of labels and 3072 pixels.

    A record is one byte a label, then 32×32 bytes of red, as many of green, and of blue, each row by row
    (A. Krizhevsky, "The CIFAR-10 and CIFAR-100 datasets"). CIFAR-100 has two labels, the coarse and the fine one.

    Parameters
    ----------
    data
        The file.
    labels
        Labels in a record, 1 or 2. The last one is taken.
    classes
        The number of classes K, for the labels' range.
    name
        What errors call the file.

    Returns
    -------
    images, labels
        Shapes (N, 32, 32, 3), a view of ``data``, and (N,).

    Raises
    ------
    ValueError
        Where the file is no whole number of records, or a label is out of range.

    Examples
    --------
    >>> images, labels = parse_cifar(bytes([7]) + bytes(1024 * [1] + 1024 * [2] + 1024 * [3]), 1, 10, "example")
    >>> images.shape, images[0, 0, 0], labels
    ((1, 32, 32, 3), array([1, 2, 3], dtype=uint8), array([7], dtype=uint8))
    """
    record = labels + 3072
    if not data or len(data) % record:
        told = f"it has {len(data)} bytes, which is no whole number of records of {record} ({labels} + 3 × 32 × 32)"
        raise damaged(name, told)
    rows = np.frombuffer(data, np.uint8).reshape(-1, record)
    chosen = rows[:, labels - 1]
    check_labels(chosen, classes, name)
    return rows[:, labels:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), chosen


def check_labels(labels: Bytes, classes: int, name: object) -> None:
    """Raise ValueError, naming the file, where a label is not one of 0 ... K - 1."""
    wrong = np.flatnonzero(labels >= classes)
    if wrong.size:
        first = int(wrong[0])
        told = f"label {labels[first]} (sample {first}) is out of range: {classes} classes have 0 to {classes - 1}"
        raise damaged(name, told)


def _found(magic: int) -> str:
    return f", as a file of {_KINDS[magic]} does" if magic in _KINDS else ""


def damaged(name: object, why: str) -> ValueError:
    """Return the error of a file that is not what it should be."""
    return ValueError(f"{name} is damaged: {why}; download or copy it again")
