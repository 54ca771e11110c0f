"""minibng list: what there is to name."""

from __future__ import annotations

import argparse

from minibng import data, nn, optim
from minibng.backend import DEVICES
from minibng.cli.arguments import Commands
from minibng.experiments import EXPERIMENTS
from minibng.experiments.training import SCHEDULES


def add(commands: Commands) -> None:
    """Add the command."""
    commands.add_parser("list", help="experiments, optimizers, data sets, activations").acts(show)


def show(args: argparse.Namespace) -> int:
    """Print every table of names."""
    relatives = {cls.__name__.lower(): (cls.__doc__ or "").splitlines()[0] for cls in optim.RELATIVES}
    forms = [name for name in optim.names() if "-" not in name and name not in relatives]
    parts: dict[str, dict[str, str]] = {
        "experiments": {name: e.about for name, e in EXPERIMENTS.items()},
        "data sets": {name: entry.about for name, entry in data.DATASETS.items()},
        "optimizers (each also …-clip, …-ng, …-ng-adaptive)": {
            name: (optim.get(name).__doc__ or "").splitlines()[2] for name in forms
        },
        "relatives": relatives,
        "activations": {name: (f.__doc__ or "").splitlines()[0] for name, f in nn.ACTIVATIONS.items()},
        "schedules": SCHEDULES,
        "devices": DEVICES,
    }
    for title, entries in parts.items():
        print(title)
        width = max(map(len, entries))
        for name, about in entries.items():
            print(f"  {name:<{width}}  {about}")
        print()
    return 0
