"""Print the table of ratios, and write it as JSON: ``python -m tests.benchmarks [NAME …] [--json FILE]``.

With ``--device cuda`` steps are compared with PyTorch's on the GPU, and with the bandwidth of a copy; the report goes
to docs/gpu. With ``--device strict`` the same functions run without a GPU.
"""

import argparse
import importlib.util
import json
from pathlib import Path
from typing import Any

from minibng.backend import DeviceError
from minibng.names import UnknownNameError
from minibng.train import records
from tests.benchmarks import device, memory, report
from tests.benchmarks.timing import compare
from tests.benchmarks.works import MEMORY, WORKS


def main(argv: list[str] | None = None) -> None:
    on_host = [*WORKS, *(f"memory of {name}" for name in MEMORY if memory.available())]
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure (default all): {', '.join(on_host)}")
    parser.add_argument("--device", default="cpu", help=f"where, default cpu; on others: {', '.join(device.NAMES)}")
    parser.add_argument("--pairs", type=int, default=16, help="pairs of measurements, default 16")
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    parser.add_argument("--out", type=Path, help="folder of the report of a device; for a GPU default docs/gpu")
    args = parser.parse_args(argv)
    names = on_host if args.device == "cpu" else device.NAMES
    if unknown := set(args.names) - set(names):
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(names)}")
    if args.device != "cpu":
        try:
            where = device.Device(args.device)
        except (DeviceError, UnknownNameError) as error:
            parser.error(str(error))
        folder = args.out or (report.FOLDER if where.is_gpu and not args.names else None)
        found = _on_device(where, args.names or names, args.pairs, folder)
    else:
        found = {**records.header(), "rows": _on_host(args.names or names, args.pairs)}
    if args.json:
        args.json.write_text(json.dumps(records.plain(found), indent=1), encoding="utf-8")


def _on_host(names: list[str], pairs: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    print(f"{'work':22} {'peer':9} {'ours':>8} {'peer':>8}     {'ratio':>6}  {'quartiles':14} target")
    for name in names:
        work = WORKS[name.removeprefix("memory of ")]
        if work.peer and importlib.util.find_spec(work.peer) is None:
            print(f"{name:22} {work.peer:9} not installed")
            continue
        rows.append(_memory(name) if name.startswith("memory of ") else _time(name, pairs))
        print(_line(rows[-1]), flush=True)
    return rows


def _on_device(where: device.Device, names: list[str], pairs: int, folder: Path | None) -> dict[str, Any]:
    """Measure on a device, saying what comes; write the report, also of a run that fails halfway; return the record."""
    on = report.machine(where)
    print(*(f"{name}: {value}" for name, value in on.items() if value), sep="\n")
    if where.torch is None:
        print("no PyTorch that uses this device: ours alone")
    found = report.record(on, [])
    try:
        for row in device.measure(where, names, pairs):
            found["rows"].append(row)
            print(_device_line(row), flush=True)
    except Exception as error:
        found["error"] = f"{type(error).__name__}: {error}"
        raise
    finally:
        if folder is not None:
            print(*report.write(found, folder), sep="\n")
    return found


def _device_line(row: dict[str, Any]) -> str:
    """Return a row as one line."""
    if row["kind"] == "traffic":
        aim = f"  ≥ {row['target']:.0%}" if row["target"] else ""
        return f"{row['work']:22} {row['busy']:9.3f} ms busy {row['share']:8.0%} of a copy's bandwidth{aim}"
    times = f"{row['work']:22} {row['ours']:9.3f} ms"
    if row["ratio"] is None:
        return times
    aim = f"  ≤ {row['target']}" if row["target"] else ""
    return f"{times} {row['theirs']:9.3f} {row['ratio']:6.2f} [{row['low']:.2f}, {row['high']:.2f}]{aim}"


def _time(name: str, pairs: int) -> dict[str, Any]:
    work = WORKS[name]
    pair = compare(work.ours(), work.theirs(), pairs)
    return {"work": name, "peer": work.peer or "ours", "unit": "ms", "target": work.target, **pair._asdict()}


def _memory(name: str) -> dict[str, Any]:
    """Measure both sides, each in a fresh process."""
    work = name.removeprefix("memory of ")
    ours, theirs = (memory.peak_of(work, side) / 2**20 for side in ("ours", "theirs"))
    row = {"work": name, "peer": WORKS[work].peer, "unit": "MiB", "target": MEMORY[work]}
    return {**row, "ours": ours, "theirs": theirs, "ratio": ours / theirs, "low": None, "high": None}


def _line(row: dict[str, Any]) -> str:
    quartiles = "" if row["low"] is None else f"[{row['low']:.2f}, {row['high']:.2f}]"
    aim = f"≤ {row['target']}" if row["target"] else ""
    numbers = f"{row['ours']:8.2f} {row['theirs']:8.2f} {row['unit']:3}"
    return f"{row['work']:22} {row['peer']:9} {numbers} {row['ratio']:6.2f}  {quartiles:14} {aim}"


if __name__ == "__main__":
    main()
