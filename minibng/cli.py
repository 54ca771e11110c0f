"""The command line: minibng run, compare, list, doctor."""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import minibng
from minibng import data, nn, optim
from minibng.backend import DEVICES, DeviceError, cuda_checks, device_name, get_backend
from minibng.backend.threads import cores
from minibng.experiments import EXPERIMENTS, Job, compare, mlp, report
from minibng.experiments.comparison import Run
from minibng.experiments.declaration import combine
from minibng.experiments.pool import workers_for
from minibng.extras import MissingExtraError, require
from minibng.names import UnknownNameError, choose
from minibng.train import records

EXAMPLES = """examples:
  minibng compare mlp                                  the short comparison, about a minute on two cores
  minibng compare mlp --activation relu --depth 6      another setting
  minibng compare mlp --optimizers adam,adam-ng --seeds 10
  minibng compare mlp --full                           the whole table: hours
  minibng run mlp --optimizer momentum-ng --lr 0.1     one training run
  minibng run mlp --device cuda                        the same on a GPU; auto: on a GPU if one works
  minibng list                                         what there is to name
  minibng doctor                                       what is installed, and what works
"""


def _one_of(table: Mapping[str, Any], what: str) -> Callable[[str], str]:
    """Return an argument type that accepts the names of a table, and offers the nearest for another."""

    def accept(text: str) -> str:
        try:
            choose(table, text, what)
        except UnknownNameError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text

    return accept


def _whole(least: int) -> Callable[[str], int]:
    def accept(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f"a whole number of at least {least} is needed, got {text!r}")
        return number

    return accept


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"a finite rate of 0 or more is needed, got {text!r}")
    return value


def _dataset(text: str) -> str:
    """Accept the name of a data set with classes."""
    if text in data.DATASETS and not data.DATASETS[text].classes:
        raise argparse.ArgumentTypeError(f"{text} is a regression, mlp classifies")
    return _one_of({name: entry for name, entry in data.DATASETS.items() if entry.classes}, "data set")(text)


ACTIVATION = _one_of(mlp.ACTIVATIONS, "activation")
SCHEDULE = _one_of(mlp.SCHEDULES, "schedule")


def _optimizer(text: str) -> str:
    """Accept an optimizer's name; the table is read when it is needed, since rules can be registered."""
    return _one_of(dict.fromkeys(optim.names()), "optimizer")(text)


def _device(text: str) -> str:
    """Accept the name of a device; whether it works is another question."""
    try:
        return text if text == "auto" else device_name(text)
    except UnknownNameError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


class _Listed(argparse.Action):
    """Collects names given with commas, with spaces, or both, into one tuple."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        """Store the names, each once."""
        setattr(namespace, self.dest, tuple(dict.fromkeys(v for part in values for v in part)))


def _listed(accept: Callable[[str], Any]) -> dict[str, Any]:
    """Return the settings of an option that takes several names."""

    def several(text: str) -> tuple[Any, ...]:
        if not (parts := [part.strip() for part in text.split(",") if part.strip()]):
            raise argparse.ArgumentTypeError(f"at least one is needed, got {text!r}")
        return tuple(accept(part) for part in parts)

    return {"type": several, "nargs": "+", "action": _Listed}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="minibng",
        description="Block-normalized gradients, compared on real data.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"minibng {minibng.__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    layout: dict[str, Any] = {"epilog": EXAMPLES, "formatter_class": argparse.RawDescriptionHelpFormatter}
    about = "train with each optimizer and its twins; table, verdicts, figures"
    comparing = commands.add_parser("compare", help=about, **layout)
    running = commands.add_parser("run", help="one training run", **layout)
    _add_comparing(comparing)
    _add_running(running)
    for command in (comparing, running):
        command.add_argument("--epochs", type=_whole(1), help="passes over the training set, default 12")
        devices = "cpu (default), cuda, cuda:1, auto (cuda where it works), strict (for tests)"
        command.add_argument("--device", type=_device, default="cpu", help=devices)
        command.add_argument("--out", help="folder for records and figures (default results/EXPERIMENT)")
        told = "show the traceback of an error"
        command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=told)
    commands.add_parser("list", help="experiments, optimizers, data sets, activations")
    commands.add_parser("doctor", help="what is installed, and what works")
    for command in commands.choices.values():
        command.set_defaults(parser=command)  # whose usage is shown for an option that it does not have
    return parser


def _add_comparing(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("experiment", type=_one_of(EXPERIMENTS, "experiment"), help=", ".join(EXPERIMENTS))
    add("--full", action="store_true", help="every optimizer, depth and activation; fresh seeds for the report")
    add(
        "--dataset",
        **_listed(_dataset),
        help="digits (default), mnist5k, mnist1d, …; here and below, several are compared apart",
    )
    add("--depth", **_listed(_whole(1)), help="hidden layers, default 6")
    add("--activation", **_listed(ACTIVATION), help="sigmoid (default), tanh, relu, leaky_relu, gelu")
    add("--schedule", **_listed(SCHEDULE), help="constant, step (default: both)")
    add("--optimizers", **_listed(_optimizer), help="names, see minibng list")
    add("--seeds", type=_whole(1), help="number of seeds, default 5; below that nothing is decided")
    add("--workers", type=_whole(1), help="processes (default: one a core; one on a GPU, which they would share)")


def _add_running(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("experiment", type=_one_of(EXPERIMENTS, "experiment"), help=", ".join(EXPERIMENTS))
    add("--optimizer", type=_optimizer, default="momentum-ng", help="default momentum-ng")
    add("--lr", type=_rate, help="learning rate (default: the centre of the optimizer's grid)")
    add("--dataset", type=_dataset, default="digits", help="default digits")
    add("--depth", type=_whole(1), default=6, help="hidden layers, default 6")
    add("--activation", type=ACTIVATION, default="sigmoid", help="default sigmoid")
    add("--schedule", type=SCHEDULE, default="constant", help="constant (default) or step")
    add("--seed", type=_whole(0), default=0, help="default 0")


def _compare(args: argparse.Namespace) -> int:
    experiment, device = EXPERIMENTS[args.experiment], get_backend(args.device).device
    out = records.output_folder(args.out or f"results/{experiment.name}")
    axes = {key: getattr(args, key) or values for key, values in experiment.axes_of(args.full).items()}
    settings = combine(axes)
    optimizers = args.optimizers or experiment.optimizers_of(args.full)
    seeds, rates = args.seeds or experiment.seeds, experiment.full_rates if args.full else experiment.rates
    n, workers = len(settings) * len(optimizers) * rates * seeds, args.workers or workers_for(device)
    print(f"{experiment.name}: {experiment.about}")
    print(f"optimizers {len(optimizers)} × settings {len(settings)} × rates {rates} × seeds {seeds} = {n} runs")
    print(f"on {device}, {workers} process{'es' * (workers > 1)}; output in {out}", flush=True)
    chosen: dict[str, Any] = {
        "settings": settings,
        "optimizers": optimizers,
        "seeds": seeds,
        "epochs": args.epochs,
        "full": args.full,
    }
    require("matplotlib.figure", "experiments", "a comparison's figures")  # before the work, not after
    result = compare(experiment, **chosen, device=device, workers=workers)
    paths = report.save_records(result, out, **chosen)
    if result.interrupted:
        print(f"minibng: interrupted; {len(result.runs)} finished runs are in {paths[0]}", file=sys.stderr)
        return 130
    print(f"\n{report.table(result)}\n\n{report.verdicts(result)}\n")
    paths += report.save_figures(result, out)
    print("written: " + ", ".join(str(path) for path in paths))
    return 0


def _run(args: argparse.Namespace) -> int:
    experiment, device = EXPERIMENTS[args.experiment], get_backend(args.device).device
    out = records.output_folder(args.out or f"results/{experiment.name}-run")
    setting = {key: getattr(args, key) for key in experiment.axes}
    lr = experiment.centre(args.optimizer, setting) if args.lr is None else args.lr
    epochs = args.epochs or experiment.epochs
    job = Job(setting, args.optimizer, lr, args.seed, epochs, experiment.batch, record_norms=True, device=device)
    print(experiment.describe(setting))
    print(f"\n{args.optimizer}, rate {lr:g}, {args.schedule} schedule, seed {args.seed}, on {device}\n", flush=True)
    history = experiment.train(job)
    print(report.epochs(history))
    run = Run(0, job, history, "run")
    where = {**report.device_labels(device), "blas_threads": os.environ.get("OPENBLAS_NUM_THREADS")}
    paths = report.save_run(run, out, records.header(experiment=experiment.name, **where))
    if history.diverged:
        print(f"\nThe run diverged: {history.error or 'the training loss is not finite'}")
    print("\nwritten: " + ", ".join(str(path) for path in paths))
    return 0


def _list(args: argparse.Namespace) -> int:
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
        "schedules": mlp.SCHEDULES,
        "devices": DEVICES,
    }
    for title, entries in parts.items():
        print(title)
        width = max(map(len, entries))
        for name, about in entries.items():
            print(f"  {name:<{width}}  {about}")
        print()
    return 0


def _doctor(args: argparse.Namespace) -> int:
    """Say what is installed and prove that the essentials work."""
    print(f"minibng {minibng.__version__}, Python {platform.python_version()}, {platform.platform(terse=True)}")
    print(f"processor  {records.processor()}, {cores()} cores usable")
    config: Any = np.show_config(mode="dicts")
    blas = config["Build Dependencies"]["blas"]
    print(f"numpy      {np.__version__}, BLAS {blas.get('name')} {blas.get('version')}")
    print("\noptional packages (pip install 'minibng[experiments]', 'minibng[verify]', 'minibng[mpi]')")
    needed = {"matplotlib": "matplotlib", "scikit-learn": "sklearn", "scipy": "scipy", "mlxtend": "mlxtend"}
    for package, module in {**needed, "tqdm": "tqdm", "hypothesis": "hypothesis", "mpi4py": "mpi4py"}.items():
        found = importlib.util.find_spec(module) is not None
        print(f"  {package:<13} {records.version(package) or 'present' if found else 'missing'}")
    print("\ndevices")
    sound = _check_devices()
    print("\ndata sets")
    for name in data.DATASETS:
        try:
            split = data.load(name)
            print(f"  {name:<13} {len(split.train.y)} + {len(split.val.y)} + {len(split.test.y)} samples")
        except (MissingExtraError, OSError) as error:
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


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "compare": _compare,
    "run": _run,
    "list": _list,
    "doctor": _doctor,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, 1 for an error, 2 bad usage, 130 Ctrl-C, 141 a closed pipe."""
    args, unknown = _parser().parse_known_args(argv)
    if unknown:
        args.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        code = COMMANDS[args.command](args)
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
