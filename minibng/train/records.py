"""Records: one JSON object a line, non-finite numbers as null, written whole or not at all."""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import sys
import tempfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from minibng.backend.threads import cores


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it: NumPy numbers as Python's, NaN and infinities as None.

    Examples
    --------
    >>> plain({"loss": float("nan"), "norms": np.array([1.0, np.inf])})
    {'loss': None, 'norms': [1.0, None]}
    """
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Write records to a temporary file beside ``path``, then put it in its place.

    Raises
    ------
    OSError
        Where the folder cannot be written to; nothing is left behind.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            for record in records:
                file.write(json.dumps(plain(record), ensure_ascii=False, allow_nan=False) + "\n")
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the records of a file, header included.

    Raises
    ------
    ValueError
        For a line that is not JSON, by its number.
    """
    records = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number} is not a JSON record: {error}") from None
    return records


def output_folder(path: str | os.PathLike[str]) -> Path:
    """Make the folder and prove that it can be written to, before anything is computed.

    Raises
    ------
    OSError
        Where it cannot, naming the folder and what to do.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f"cannot write to the output folder {folder}: {error.strerror}; choose another with --out"
        ) from None
    return folder


def header(**settings: Any) -> dict[str, Any]:
    """Return the first line of a record file: versions, processor, threads, command, and what was asked for."""
    packages = ("minibng", "numpy", "scipy", "scikit-learn", "mlxtend")
    return {
        "kind": "header",
        "versions": {"python": platform.python_version(), **{p: version(p) for p in packages}},
        "system": platform.platform(terse=True),
        "cpu": processor(),
        "cores": cores(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        **settings,
    }


def version(package: str) -> str | None:
    """Return the version of an installed package, None where it is missing."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
