"""minibng verify: the laws of block normalization, tried on an optimizer of ours or of anybody's."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from minibng import optim, verify
from minibng.backend import Array
from minibng.cli.arguments import Commands, device, listed, typed
from minibng.names import UnknownNameError, choose
from minibng.train.parallel import Workers
from minibng.verify.report import DTYPES, Report, Result, chosen, row

EXAMPLES = """what TARGET can be:
  adam-ng                       an optimizer of minibng (minibng list)
  mutant:missing-root           a wrong one: find the mistake
  file.py:step                  a function step(params, grads, state) → (params, state) on lists of arrays,
                                or a normalizer: one list of arrays → another; state is None at first
  module:attribute              the same, from a module in the current directory or installed
  torch.optim:Adam              an optimizer of PyTorch
  optax:normalize_by_update_norm

exit code: 0 all laws hold, 1 one fails or ends in an error, 2 bad usage"""

FORMATS: dict[str, Callable[[Report], str]] = {
    "text": str,
    "markdown": Report.to_markdown,
    "json": Report.to_json,
}


def add(commands: Commands) -> None:
    """Add the command."""
    about = "try the laws of block normalization on an optimizer, anybody's"
    parser = commands.add_parser(
        "verify", help=about, description=about, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", metavar="TARGET", help="what is checked, see below")
    told = "the laws to try, or all; default: those that theory promises of an optimizer of minibng, else all"
    parser.add_argument("--laws", **listed(_law), metavar="LAW", help=told)
    parser.add_argument("--dtype", type=typed(_dtype), metavar="DTYPE", help=f"one of {', '.join(DTYPES)}")
    parser.add_argument("--examples", type=int, default=100, metavar="N", help="examples a law is tried on (100)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="other seeds try other examples (0)")
    parser.add_argument("--lr", type=float, metavar="RATE", help="its own learning rate; a function's is inferred")
    parser.add_argument("--device", type=typed(device), default="cpu", help="where it gets its arrays (cpu)")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds that a law is given (60)")
    parser.add_argument("--format", type=typed(_format), default="text", metavar="F", help=", ".join(FORMATS))
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the report there; what fails is still named")
    parser.acts(check)


def _law(text: str) -> str:
    return text if text == "all" else chosen(None, [text])[0]


def _dtype(text: str) -> str:
    choose(dict.fromkeys(DTYPES), text, "dtype")
    return text


def _format(text: str) -> str:
    choose(FORMATS, text, "format")
    return text


def check(args: argparse.Namespace) -> int:
    """Check, each law in the child process, and print the report."""
    if args.out and (args.out.is_dir() or not args.out.parent.is_dir()):  # said now, not after minutes of work
        args.parser.error(f"--out: {args.out} is a folder, or is to lie in one that there is not")
    if "" not in sys.path:
        sys.path.insert(0, "")
    given: dict[str, Any] = {
        "device": args.device,
        "examples": args.examples,
        "seed": args.seed,
        "timeout": args.timeout,
    }
    try:
        workers: dict[str, Any] = {"workers": WORKERS} if args.target in optim.names() else {}
        report = verify.check(
            args.target, args.lr, args.laws, args.dtype, isolate=True, progress=_tell, **given, **workers
        )
    except (UnknownNameError, TypeError, ValueError, FileNotFoundError) as error:
        args.parser.error(str(error))
    text = FORMATS[args.format](report)
    if args.out:
        args.out.write_text(text if text.endswith("\n") else text + "\n", encoding="utf-8")
        print(f"{report.summary()}; written to {args.out}")
    else:
        print(text)
    return report.exit_code


def _tell(result: Result) -> None:
    """Say how a law came out, on a terminal, while the others are being tried."""
    if sys.stderr.isatty() and result.verdict != "n/a":
        print(f"  {row(result, 24)}", file=sys.stderr, flush=True)


WORKERS = "minibng.cli.verify:averaged_by_workers"
"""What averages the gradients of several processes, by name: the laws are tried in another process."""


class _Mail:
    """What `Workers` needs of a communicator to average gradients, for one worker after another in one process.

    Each worker asks twice: its message is taken the first time, and the sum of all is handed out the second time.
    """

    def __init__(self, rank: int, messages: list[Any]) -> None:
        self.rank, self.size, self.messages = rank, len(messages), messages

    def Allreduce(self, sent: Any, received: Any) -> None:
        """Keep the message, or add up those that were kept."""
        if self.messages[self.rank] is None:
            self.messages[self.rank] = sent.copy()
            raise _Posted
        received[...] = sum(self.messages)


class _Posted(Exception):
    """The message has been taken."""


def averaged_by_workers(grads: list[list[Array]], weights: list[float]) -> list[Array]:
    """Return Σ n_k g_k / Σ n_k as `minibng.train.parallel.Workers` makes it, on the last of the workers."""
    whole, messages = sum(weights), list[Any]([None] * len(grads))
    for _ in range(2):
        for rank, (g, weight) in enumerate(zip(grads, weights, strict=True)):
            try:
                mean: list[Array] = Workers(_Mail(rank, messages)).mean(np.float64(0.0), list(g), weight / whole)[1]
            except _Posted:
                continue
    return mean
