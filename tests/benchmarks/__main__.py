"""Print the table of ratios, and write it as JSON: ``python -m tests.benchmarks [NAME …] [--json FILE]``."""

import argparse
import importlib.util
import json
from pathlib import Path

from minibng.train import records
from tests.benchmarks.timing import compare
from tests.benchmarks.works import WORKS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"works to time (default all): {', '.join(WORKS)}")
    parser.add_argument("--pairs", type=int, default=16, help="pairs of measurements, default 16")
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    args = parser.parse_args()
    if unknown := set(args.names) - set(WORKS):
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(WORKS)}")
    rows = []
    print(f"{'work':22} {'peer':9} {'ours ms':>8} {'peer ms':>8} {'ratio':>6}  {'quartiles':14} target")
    for name in args.names or WORKS:
        make, peer, target = WORKS[name]
        if peer and importlib.util.find_spec(peer) is None:
            print(f"{name:22} {peer:9} not installed")
            continue
        pair = compare(*make(), pairs=args.pairs)
        rows.append({"work": name, "peer": peer or "ours, raw", "target": target, **pair._asdict()})
        times = f"{pair.ours:8.2f} {pair.theirs:8.2f} {pair.ratio:6.2f}"
        quartiles = f"[{pair.low:.2f}, {pair.high:.2f}]"
        aim = f"≤ {target}" if target else ""
        print(f"{name:22} {peer or 'ours, raw':9} {times}  {quartiles:14} {aim}", flush=True)
    if args.json:
        args.json.write_text(json.dumps({**records.header(), "rows": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
