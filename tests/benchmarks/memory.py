"""Peak memory of training steps, each side in a fresh process: ``python -m tests.benchmarks.memory NAME ours``."""

import re
import subprocess
import sys
from pathlib import Path

STEPS = 20
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def available() -> bool:
    """Tell whether this system keeps a peak that can be reset (Linux)."""
    return RESET.exists()


def peak_of(name: str, side: str) -> int:
    """Return how many bytes 20 steps need at their peak beyond what is resident once model and data are built.

    The peak is reset before the steps: that of a process includes its imports, and, as getrusage tells it, even the
    process that started it.
    """
    command = [sys.executable, "-m", "tests.benchmarks.memory", name, side]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _resident(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    assert found, f"no {field} in {STATUS}"
    return int(found[1]) * 1024


def _measure(name: str, side: str) -> int:
    from tests.benchmarks.works import WORKS

    step = getattr(WORKS[name], side)()
    RESET.write_text("5")  # the peak starts anew from what is resident
    before = _resident("VmRSS")
    for _ in range(STEPS):
        step()
    return _resident("VmHWM") - before


if __name__ == "__main__":
    print(_measure(*sys.argv[1:]))
