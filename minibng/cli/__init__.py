"""The command line: minibng compare, run, list, data, verify, doctor. A command is a module with ``add(commands)``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

import minibng
from minibng.cli import data, doctor, experiments, listing, verify
from minibng.cli.arguments import Parser

EXAMPLES = """examples:
  minibng compare mlp                                  the short comparison, about a minute on two cores
  minibng compare mlp --activation relu --depth 6      another setting
  minibng compare mlp --optimizers adam,adam-ng --seeds 10
  minibng compare mlp --full                           the whole table: hours
  minibng compare resnet                               residual networks on images, about ten minutes
  minibng compare resnet --dataset cifar10 --data-dir DIR
  minibng run mlp --optimizer momentum-ng --lr 0.1     one training run
  minibng run mlp --device cuda                        the same on a GPU; auto: on a GPU if one works
  minibng list                                         what there is to name
  minibng data fetch cifar10                           download a data set
  minibng verify adam-ng                               the laws of block normalization, tried
  minibng verify myfile.py:step                        the same on a function of your own
  minibng doctor                                       what is installed, and what works
"""

COMMANDS = (experiments, listing, data, verify, doctor)
"""Modules that add the parser of their commands, with the function that runs it as its default ``act``."""


def _parser() -> argparse.ArgumentParser:
    layout: dict[str, Any] = {"epilog": EXAMPLES, "formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = Parser(prog="minibng", description="Block-normalized gradients, compared on real data.", **layout)
    parser.add_argument("--version", action="version", version=f"minibng {minibng.__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, 1 for an error, 2 bad usage, 130 Ctrl-C, 141 a closed pipe."""
    args, unknown = _parser().parse_known_args(argv)
    if unknown:
        args.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        code: int = args.act(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader has seen enough, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is not flushed into the pipe
        return 141
    except KeyboardInterrupt:
        print("minibng: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if args.debug:
            raise
        print(f"minibng: {str(error) or type(error).__name__} (--debug shows where)", file=sys.stderr)
        return 1
