"""minibng doctor: what is installed, and what works."""

from __future__ import annotations

import argparse
import importlib.util
import platform
from typing import Any

import numpy as np

import minibng
from minibng import data
from minibng.backend import DeviceError, cuda_checks
from minibng.backend.threads import cores
from minibng.cli.arguments import Commands
from minibng.extras import MissingExtraError
from minibng.train import records

PACKAGES = (
    *("matplotlib", "scikit-learn", "scipy", "mlxtend", "scikit-image", "pillow", "pooch", "tqdm"),
    *("hypothesis", "mpi4py"),
)


def add(commands: Commands) -> None:
    """Add the command."""
    commands.add_parser("doctor", help="what is installed, and what works").acts(examine)


def examine(args: argparse.Namespace) -> int:
    """Say what is installed and prove that the essentials work."""
    print(f"minibng {minibng.__version__}, Python {platform.python_version()}, {platform.platform(terse=True)}")
    print(f"processor  {records.processor()}, {cores()} cores usable")
    config: Any = np.show_config(mode="dicts")
    blas = config["Build Dependencies"]["blas"]
    print(f"numpy      {np.__version__}, BLAS {blas.get('name')} {blas.get('version')}")
    print("\noptional packages (pip install 'minibng[experiments]', 'minibng[verify]', 'minibng[mpi]')")
    modules = {"scikit-learn": "sklearn", "scikit-image": "skimage", "pillow": "PIL"}
    for package in PACKAGES:
        module = modules.get(package, package)
        found = importlib.util.find_spec(module) is not None
        print(f"  {package:<13} {records.version(package) or 'present' if found else 'missing'}")
    print("\ndevices")
    sound = _check_devices()
    print("\ndata sets")
    for name in data.DATASETS:
        if not data.is_here(name):
            print(f"  {name:<13} not downloaded: minibng data fetch {name}")
            continue
        try:
            split = data.load(name)
            print(f"  {name:<13} {len(split.train.y)} + {len(split.val.y)} + {len(split.test.y)} samples")
        except (MissingExtraError, OSError, ValueError) as error:
            sound = False
            print(f"  {name:<13} {error}")
    return 0 if sound else 1


def _check_devices() -> bool:
    """Print which devices work, and why one does not; tell whether all is well, which it is without a GPU."""
    sound = True
    for device in ("cpu", "strict", "cuda"):
        lines = []
        try:
            if device == "cuda":
                for line in cuda_checks():
                    lines.append(line)  # what is in order is shown also where a later step fails
            value, gradient = minibng.value_and_grad(lambda x: (x * x).sum())(minibng.asarray([3.0, 4.0], None, device))
            works = [*minibng.to_host(gradient).tolist(), float(value)] == [6.0, 8.0, 25.0]
            sound &= works
            lines.append("works" if works else "gives a wrong gradient: please report this")
        except DeviceError as error:
            lines.append(f"cannot be used: {error}")
        for title, line in zip([device, *[""] * len(lines)], lines, strict=False):
            print(f"  {title:<13} {line}")
    return sound
