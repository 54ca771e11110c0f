"""The command line: minibng run, compare, list, doctor."""

from __future__ import annotations

import argparse
import importlib.util
import math
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import minibng
from minibng import data, nn, optim, plot
from minibng.backend import get_backend
from minibng.experiments import EXPERIMENTS, Job, compare, mlp, report
from minibng.experiments.comparison import Run
from minibng.extras import MissingExtraError
from minibng.names import UnknownNameError, choose
from minibng.train import records

EXAMPLES = """examples:
  minibng compare mlp                                  the short comparison, about a minute on two cores
  minibng compare mlp --activation relu --depth 6      another setting
  minibng compare mlp --optimizers adam,adam-ng --seeds 10
  minibng compare mlp --full                           the whole table: hours
  minibng run mlp --optimizer momentum-ng --lr 0.1     one training run
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


def _several(accept: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    """Return an argument type that accepts a comma-separated list."""
    return lambda text: tuple(accept(part.strip()) for part in text.split(",") if part.strip())


def _whole(least: int) -> Callable[[str], int]:
    def accept(text: str) -> int:
        if not text.lstrip("-").isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"a whole number of at least {least} is needed, got {text!r}")
        return int(text)

    return accept


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"a finite rate of 0 or more is needed, got {text!r}")
    return value


def _parser() -> argparse.ArgumentParser:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="minibng",
        description="Block-normalized gradients, compared on real data.",
        epilog=EXAMPLES,
        formatter_class=shape,
    )
    parser.add_argument("--version", action="version", version=f"minibng {minibng.__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    names = dict.fromkeys(optim.names())
    optimizer, experiment = _one_of(names, "optimizer"), _one_of(EXPERIMENTS, "experiment")
    dataset, activation = _one_of(data.DATASETS, "data set"), _one_of(nn.ACTIVATIONS, "activation")
    schedule = _one_of(dict.fromkeys(mlp.SCHEDULES), "schedule")

    comparing = commands.add_parser(
        "compare",
        help="train with each optimizer and its twins; table, verdicts, figures",
        epilog=EXAMPLES,
        formatter_class=shape,
    )
    comparing.add_argument("experiment", type=experiment, help=", ".join(EXPERIMENTS))
    comparing.add_argument(
        "--full",
        action="store_true",
        help="every optimizer, depth and activation; fresh seeds for the report",
    )
    comparing.add_argument(
        "--dataset", type=_several(dataset), help="digits (default), mnist5k; several with commas"
    )
    comparing.add_argument(
        "--depth", type=_several(_whole(1)), help="hidden layers (default 6); several with commas"
    )
    comparing.add_argument(
        "--activation", type=_several(activation), help="sigmoid (default), tanh, relu; several with commas"
    )
    comparing.add_argument("--schedule", type=_several(schedule), help="constant, step (default: both)")
    comparing.add_argument(
        "--optimizers", type=_several(optimizer), help="names with commas, see minibng list"
    )
    comparing.add_argument(
        "--seeds", type=_whole(1), help="number of seeds (default 5; below that nothing is decided)"
    )
    comparing.add_argument("--workers", type=_whole(1), help="processes (default: one a core)")

    running = commands.add_parser("run", help="one training run", epilog=EXAMPLES, formatter_class=shape)
    running.add_argument("experiment", type=experiment, help=", ".join(EXPERIMENTS))
    running.add_argument("--optimizer", type=optimizer, default="momentum-ng", help="default momentum-ng")
    running.add_argument(
        "--lr", type=_rate, help="learning rate (default: the centre of the optimizer's grid)"
    )
    running.add_argument("--dataset", type=dataset, default="digits", help="default digits")
    running.add_argument("--depth", type=_whole(1), default=6, help="hidden layers, default 6")
    running.add_argument("--activation", type=activation, default="sigmoid", help="default sigmoid")
    running.add_argument("--schedule", type=schedule, default="constant", help="constant (default) or step")
    running.add_argument("--seed", type=_whole(0), default=0, help="default 0")

    for command in (comparing, running):
        command.add_argument("--epochs", type=_whole(1), help="default 10")
        command.add_argument("--out", help="folder for records and figures (default results/EXPERIMENT)")
        command.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
        )
    commands.add_parser("list", help="experiments, optimizers, data sets, activations")
    commands.add_parser("doctor", help="what is installed, and what works")
    return parser


def _compare(args: argparse.Namespace) -> int:
    experiment = EXPERIMENTS[args.experiment]
    out = records.output_folder(args.out or f"results/{experiment.name}")
    base = experiment.full_settings if args.full else experiment.settings
    axes = {
        key: tuple(dict.fromkeys(s[key] for s in base))
        for key in ("dataset", "depth", "activation", "schedule")
    }
    axes |= {key: given for key in axes if (given := getattr(args, key))}
    chosen = mlp.settings(axes["dataset"], axes["depth"], axes["activation"], axes["schedule"])
    optimizers = args.optimizers or (experiment.full_optimizers if args.full else experiment.optimizers)
    seeds, rates = args.seeds or experiment.seeds, experiment.full_rates if args.full else experiment.rates
    n = len(chosen) * len(optimizers) * rates * seeds
    print(f"{experiment.name}: {experiment.about}")
    print(f"{len(optimizers)} optimizers × {len(chosen)} settings × {rates} rates × {seeds} seeds = {n} runs, "
          f"on {args.workers or records.cores()} processes; output in {out}", flush=True)  # fmt: skip
    result = compare(
        experiment,
        settings=chosen,
        optimizers=optimizers,
        seeds=args.seeds,
        epochs=args.epochs,
        full=args.full,
        workers=args.workers,
    )
    paths = report.save(
        result, out, optimizers=list(optimizers), settings=[dict(s) for s in chosen], full=args.full
    )
    print(f"\n{report.table(result)}\n\n{report.verdicts(result)}\n")
    print("written: " + ", ".join(str(path) for path in paths))
    return 0


def _run(args: argparse.Namespace) -> int:
    experiment = EXPERIMENTS[args.experiment]
    out = records.output_folder(args.out or f"results/{experiment.name}-run")
    setting = {key: getattr(args, key) for key in ("dataset", "depth", "activation", "schedule")}
    lr = experiment.centre(args.optimizer, setting) if args.lr is None else args.lr
    job = Job(
        setting, args.optimizer, lr, args.seed, args.epochs or experiment.epochs, experiment.batch, True
    )
    split = data.load(args.dataset)
    print(mlp.build(setting, split).summary(split.train.x[:1]))
    print(f"\n{args.optimizer}, rate {lr:g}, {args.schedule} schedule, seed {args.seed}, {split.source}\n")
    history = experiment.train(job)
    print(
        f"{'epoch':>5}  {'training loss':>13}  {'validation error':>16}  {'test error':>10}  {'seconds':>7}"
    )
    for e in history.epochs:
        errors = [f"{v:.2%}" if v is not None else "–" for v in (e.val_error, e.test_error)]
        print(f"{e.epoch:>5}  {e.train_loss:>13.5g}  {errors[0]:>16}  {errors[1]:>10}  {e.seconds:>7.2f}")
    run = Run(0, job, history)
    rows, norms = report.run_records(run), report.norm_records(run)
    records.write(out / "records.jsonl", [records.header(experiment=experiment.name), *rows])
    records.write(out / "norms.jsonl", [records.header(experiment=experiment.name), *norms])
    plot.save(plot.training_curves(records.plain(rows)), out / "training.png")
    if norms:
        plot.save(plot.norm_heatmap(records.plain(norms)), out / "norms.png")
    if history.diverged:
        print(f"\nThe run diverged: {history.error or 'the training loss is not finite'}")
    print(f"\nwritten to {out}")
    return 0


def _list(args: argparse.Namespace) -> int:
    forms = [name for name in optim.names() if "-" not in name]
    parts: dict[str, dict[str, str]] = {
        "experiments": {name: e.about for name, e in EXPERIMENTS.items()},
        "data sets": {name: entry.about for name, entry in data.DATASETS.items()},
        "optimizers (each also …-clip, …-ng, …-ng-adaptive)": {
            name: (optim.get(name).__doc__ or "").splitlines()[0] for name in forms
        },
        "activations": {name: (f.__doc__ or "").splitlines()[0] for name, f in nn.ACTIVATIONS.items()},
        "schedules": {
            "constant": "one rate throughout",
            "step": "a tenth after half of all steps, again after three quarters",
        },
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
    print(
        f"minibng {minibng.__version__}, Python {platform.python_version()}, {platform.platform(terse=True)}"
    )
    print(f"processor  {records.processor()}, {records.cores()} cores usable")
    config: Any = np.show_config(mode="dicts")
    blas = config["Build Dependencies"]["blas"]
    print(f"numpy      {np.__version__}, BLAS {blas.get('name')} {blas.get('version')}")
    print("\noptional packages (pip install 'minibng[experiments]', 'minibng[verify]')")
    needed = {"matplotlib": "matplotlib", "scikit-learn": "sklearn", "scipy": "scipy", "mlxtend": "mlxtend"}
    for package, module in {**needed, "tqdm": "tqdm", "hypothesis": "hypothesis"}.items():
        found = importlib.util.find_spec(module) is not None
        print(f"  {package:<13} {records.version(package) or 'present' if found else 'missing'}")
    print("\ndevices")
    value, gradient = minibng.value_and_grad(lambda x: (x * x).sum())(get_backend("cpu").asarray([3.0, 4.0]))
    works = float(value) == 25.0 and gradient.tolist() == [6.0, 8.0]
    print(f"  cpu           {'works' if works else 'gives a wrong gradient: please report this'}")
    print("\ndata sets")
    sound = works
    for name in data.DATASETS:
        try:
            split = data.load(name)
            print(f"  {name:<13} {len(split.train.y)} + {len(split.val.y)} + {len(split.test.y)} samples")
        except (MissingExtraError, OSError) as error:
            sound = False
            print(f"  {name:<13} {error}")
    return 0 if sound else 1


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "compare": _compare,
    "run": _run,
    "list": _list,
    "doctor": _doctor,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, 1 for an error, 2 for bad usage, 130 after Ctrl-C."""
    args = _parser().parse_args(argv)
    try:
        return COMMANDS[args.command](args)
    except KeyboardInterrupt:
        print("minibng: interrupted; nothing was written", file=sys.stderr)
        return 130
    except Exception as error:
        if args.debug:
            raise
        print(f"minibng: {error or type(error).__name__} (--debug shows where)", file=sys.stderr)
        return 1
