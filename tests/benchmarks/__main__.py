"""Print the table of ratios, and write it as JSON: ``python -m tests.benchmarks [NAME …] [--json FILE]``."""

import argparse
import importlib.util
import json
from pathlib import Path
from typing import Any

from minibng.train import records
from tests.benchmarks import memory
from tests.benchmarks.timing import compare
from tests.benchmarks.works import MEMORY, WORKS


def main() -> None:
    names = [*WORKS, *(f"memory of {name}" for name in MEMORY if memory.available())]
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure (default all): {', '.join(names)}")
    parser.add_argument("--pairs", type=int, default=16, help="pairs of measurements, default 16")
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    args = parser.parse_args()
    if unknown := set(args.names) - set(names):
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(names)}")
    rows: list[dict[str, Any]] = []
    print(f"{'work':22} {'peer':9} {'ours':>8} {'peer':>8}     {'ratio':>6}  {'quartiles':14} target")
    for name in args.names or names:
        work = WORKS[name.removeprefix("memory of ")]
        if work.peer and importlib.util.find_spec(work.peer) is None:
            print(f"{name:22} {work.peer:9} not installed")
            continue
        rows.append(_memory(name) if name.startswith("memory of ") else _time(name, args.pairs))
        print(_line(rows[-1]), flush=True)
    if args.json:
        args.json.write_text(json.dumps({**records.header(), "rows": rows}, indent=1), encoding="utf-8")


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
