"""The report of one GPU: what was measured on what, as JSON and as a page, ``docs/gpu/<name of the GPU>.*``."""

import importlib
import json
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from minibng.train import records
from tests.benchmarks.device import Device, Row

FOLDER = Path(__file__).parents[2] / "docs" / "gpu"

Record = dict[str, Any]

PACKAGES = {"CuPy": ("cupy-cuda13x", "cupy-cuda12x", "cupy"), "PyTorch": ("torch",), "NumPy": ("numpy",)}
SHOWN = ("device", "GPU", "driver", "CUDA driver", "CUDA runtime of CuPy", "CUDA of PyTorch", *PACKAGES, "date")


def machine(device: Device) -> dict[str, str | None]:
    """Return what was measured on: the device, its driver, the versions of the libraries, the date."""
    versions = {k: next((v for p in wheels if (v := records.version(p))), None) for k, wheels in PACKAGES.items()}
    told = {"device": device.name, "GPU": None, **versions, "date": datetime.now(UTC).strftime("%Y-%m-%d")}
    if not device.is_gpu:
        return told
    runtime = importlib.import_module("cupy").cuda.runtime
    index = int(device.name.removeprefix("cuda:"))
    properties = runtime.getDeviceProperties(index)
    bus = runtime.deviceGetPCIBusId(index)
    return told | {
        "GPU": properties["name"].decode(),
        "driver": _driver(bus),
        "CUDA driver": cuda_version(runtime.driverGetVersion()),
        "CUDA runtime of CuPy": cuda_version(runtime.runtimeGetVersion()),
        "CUDA of PyTorch": None if device.torch is None else device.torch.version.cuda,
    }


def cuda_version(number: int) -> str:
    """Return 13000 as "13.0"."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _driver(bus: str) -> str | None:
    """Return the driver's own version, which only its tool tells."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", f"--id={bus}"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def record(machine: dict[str, str | None], rows: list[Row]) -> Record:
    """Return all that is kept of a run."""
    return {**records.header(), "machine": machine, "rows": rows}


def write(found: Record, folder: Path) -> list[Path]:
    """Write the record and its page, named after the GPU; an older report of the same GPU is replaced."""
    name = slug(found["machine"]["GPU"] or found["machine"]["device"])
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.json", folder / f"{name}.md"]
    text = json.dumps(records.plain(found), indent=1, ensure_ascii=False, allow_nan=False)
    for path, content in zip(paths, (text, page(found)), strict=True):
        path.write_text(content.rstrip() + "\n", encoding="utf-8")
    return paths


def slug(name: str) -> str:
    """Return a name as a file can have it.

    >>> slug("NVIDIA H100 80GB HBM3")
    'nvidia-h100-80gb-hbm3'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def page(found: Record) -> str:
    """Return the report as Markdown."""
    on, command = found["machine"], found["command"].replace("__main__.py", "python -m tests.benchmarks")
    steps, traffic = ([row for row in found["rows"] if row["kind"] == kind] for kind in ("step", "traffic"))
    lines = [f"# {on['GPU'] or on['device']}", "", f"Measured by `{command}`."]
    if on["GPU"] is None:
        lines += ["", NO_GPU]
    if "error" in found:
        lines += ["", f"Not complete: the run ended with an error, `{found['error']}`."]
    lines += ["", *table(["", ""], [[name, on[name]] for name in SHOWN if on.get(name)])]
    if steps:
        head = ["work", "peer", "ours, ms", "peer's, ms", "ratio", "quartiles", "target", "kernels, ours", "peer's"]
        lines += ["", "## Steps", "", STEPS, "", *table(head, [_step(row) for row in steps])]
    if traffic:
        told = f"{TRAFFIC} Here a copy moves {traffic[0]['copy_bytes_per_second'] / 1e9:,.0f} GB/s."
        head = ["work", "MB", "GPU busy, ms", "in a loop, ms", "share", "target", "kernels"]
        lines += ["", "## Share of the copy bandwidth", "", told, "", *table(head, [_traffic(row) for row in traffic])]
    return "\n".join(lines)


NO_GPU = "This is no GPU: the numbers show that the code runs, and nothing else."

STEPS = """\
A step in a loop, from an idle GPU until the last step is done: the GPU's time or the host's, whichever is longer. Both
sides in turn on this GPU, in one process, float32, no TF32. The ratio is the median of the pairwise ratios, ours / the
peer's."""

TRAFFIC = """\
The bytes that must move (the norms read g; the step reads g, x and the state, and writes x and the state), a second
that the GPU works, divided by what a copy of a large array reads and writes a second. The host's time is hidden behind
copies; "in a loop" has it."""


def table(head: list[str], rows: list[list[Any]]) -> list[str]:
    """Return a table in Markdown; what is None stays empty."""
    cells = [head, ["---"] * len(head), *([("" if c is None else str(c)) for c in row] for row in rows)]
    return [f"| {' | '.join(row)} |" for row in cells]


def _step(row: Row) -> list[Any]:
    with_peer = row["ratio"] is not None
    compared = [
        f"{row['theirs']:.3f}" if with_peer else None,
        f"{row['ratio']:.2f}" if with_peer else None,
        f"{row['low']:.2f} – {row['high']:.2f}" if with_peer else None,
    ]
    peer = {"torch": "PyTorch", "ours": "our Adam"}[row["peer"]]
    target = f"≤ {row['target']}" if row["target"] else None
    times = [peer if with_peer else None, f"{row['ours']:.3f}", *compared]
    return [row["work"], *times, target, row["launches"], row["their_launches"]]


def _traffic(row: Row) -> list[Any]:
    target = f"≥ {row['target']:.0%}" if row["target"] else None
    times = f"{row['bytes'] / 1e6:,.0f}", f"{row['busy']:.3f}", f"{row['ours']:.3f}", f"{row['share']:.0%}"
    return [row["work"], *times, target, row["launches"]]
