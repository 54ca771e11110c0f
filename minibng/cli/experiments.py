"""minibng compare and minibng run: each experiment is a parser of its own, with the options that it declares."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

from minibng import optim
from minibng.backend import get_backend
from minibng.cli.arguments import Commands, Parser, device, listed, typed
from minibng.experiments import EXPERIMENTS, Experiment, Job, report
from minibng.experiments import compare as compared
from minibng.experiments.comparison import Run
from minibng.experiments.declaration import PLACE, combine
from minibng.experiments.options import one_of, rate, whole
from minibng.experiments.pool import workers_for
from minibng.extras import require
from minibng.train import records


def add(commands: Commands) -> None:
    """Add the two commands, each with a command for every experiment."""
    about = {
        "compare": "train with each optimizer and its twins; table, verdicts, figures",
        "run": "one training run",
    }
    options: dict[str, Callable[[Parser, Experiment], None]] = {"compare": _comparing, "run": _running}
    for name, add_options in options.items():
        command = commands.add_parser(name, help=about[name], description=about[name])
        chosen = command.add_subparsers(dest="experiment", required=True, metavar="EXPERIMENT")
        for experiment in EXPERIMENTS.values():
            parser = chosen.add_parser(experiment.name, help=experiment.about, description=experiment.about)
            add_options(parser, experiment)
            _common(parser, experiment)


def _optimizer(text: str) -> str:
    """Accept an optimizer's name; the table is read when it is needed, since rules can be registered."""
    return one_of(dict.fromkeys(optim.names()), "optimizer")(text)


def _comparing(parser: Parser, experiment: Experiment) -> None:
    """Add the options of a comparison; those of the experiment take several values, which are compared apart."""
    add = parser.add_argument
    axes = parser.add_argument_group("settings of the experiment", "several values of one are compared apart")
    for name, axis in experiment.axes.items():
        several = {} if name == PLACE else listed(axis.accept)
        axes.add_argument(_flag(name), **several, help=axis.told(), metavar=name.upper())
    add("--full", action="store_true", help="every optimizer and setting; fresh seeds for the report")
    add("--optimizers", **listed(_optimizer), metavar="NAME", help="names, see minibng list")
    told = f"number of seeds, default {experiment.seeds}; below 5 nothing is decided"
    add("--seeds", type=typed(whole(1)), metavar="N", help=told)
    told = "processes (default: one a core; one on a GPU, which they would share)"
    add("--workers", type=typed(whole(1)), metavar="N", help=told)
    parser.acts(compare)


def _running(parser: Parser, experiment: Experiment) -> None:
    """Add the options of one run."""
    add = parser.add_argument
    axes = parser.add_argument_group("settings of the experiment")
    for name, axis in experiment.axes.items():
        first = axis.values[0]
        told = f"{axis.about}; default {'none' if first is None else first}"
        kind, unless = typed(axis.accept), argparse.SUPPRESS  # None is a value too
        axes.add_argument(_flag(name), type=kind, default=unless, help=told, metavar=name.upper())
    add("--optimizer", type=typed(_optimizer), default="momentum-ng", metavar="NAME", help="default momentum-ng")
    add("--lr", type=typed(rate), help="learning rate (default: the centre of the optimizer's grid)")
    add("--seed", type=typed(whole(0)), default=0, help="default 0")
    parser.acts(run)


def _common(parser: Parser, experiment: Experiment) -> None:
    """Add the options that both commands and all experiments have."""
    add = parser.add_argument
    if experiment.presets:
        told = "; ".join(f"{name}: {preset.about}" for name, preset in experiment.presets.items())
        add("--preset", type=typed(one_of(experiment.presets, "preset")), help=f"a bundle of settings; {told}")
    told = f"passes over the training set, default {experiment.epochs}"
    add("--epochs", type=typed(whole(1)), metavar="N", help=told)
    devices = "cpu (default), cuda, cuda:1, auto (cuda where it works), strict (for tests)"
    add("--device", type=typed(device), default="cpu", help=devices)
    add("--out", help=f"folder for records and figures (default results/{experiment.name})")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _experiment(args: argparse.Namespace) -> Experiment:
    """Return the experiment of the command line, as its preset has it."""
    experiment = EXPERIMENTS[args.experiment]
    name = getattr(args, "preset", None)
    return experiment.preset(name) if name else experiment


def compare(args: argparse.Namespace) -> int:
    """Train with every optimizer; print table and verdicts, write records and figures."""
    experiment, on = _experiment(args), get_backend(args.device).device
    out = records.output_folder(args.out or f"results/{experiment.name}")
    given = {key: getattr(args, key) for key in experiment.axes}
    given = {key: value if isinstance(value, tuple) else (value,) for key, value in given.items() if value is not None}
    axes = {**experiment.axes_of(args.full), **given}
    settings = combine(axes)
    optimizers = args.optimizers or experiment.optimizers_of(args.full)
    seeds, rates = args.seeds or experiment.seeds, experiment.full_rates if args.full else experiment.rates
    n, workers = len(settings) * len(optimizers) * rates * seeds, args.workers or workers_for(on)
    print(f"{experiment.name}: {experiment.about}")
    print(f"optimizers {len(optimizers)} × settings {len(settings)} × rates {rates} × seeds {seeds} = {n} runs")
    print(f"on {on}, {workers} process{'es' * (workers > 1)}; output in {out}", flush=True)
    chosen: dict[str, Any] = {
        "settings": settings,
        "optimizers": optimizers,
        "seeds": seeds,
        "epochs": args.epochs,
        "full": args.full,
    }
    require("matplotlib.figure", "experiments", "a comparison's figures")  # before the work, not after
    result = compared(experiment, **chosen, device=on, workers=workers)
    paths = report.save_records(result, out, **chosen)
    if result.interrupted:
        print(f"minibng: interrupted; {len(result.runs)} finished runs are in {paths[0]}", file=sys.stderr)
        return 130
    print(f"\n{report.table(result)}\n\n{report.verdicts(result)}\n")
    paths += report.save_figures(result, out)
    print("written: " + ", ".join(str(path) for path in paths))
    return 0


def run(args: argparse.Namespace) -> int:
    """Train once; print every epoch, write records and figures."""
    experiment, on = _experiment(args), get_backend(args.device).device
    out = records.output_folder(args.out or f"results/{experiment.name}-run")
    setting = experiment.setting(**{key: getattr(args, key) for key in experiment.axes if hasattr(args, key)})
    lr = experiment.centre(args.optimizer, setting) if args.lr is None else args.lr
    epochs = args.epochs or experiment.epochs
    job = Job(setting, args.optimizer, lr, args.seed, epochs, experiment.batch, record_norms=True, device=on)
    print(experiment.describe(setting))
    print(f"\n{args.optimizer}, rate {lr:g}, {setting['schedule']} schedule, seed {args.seed}, on {on}\n", flush=True)
    history = experiment.train(job)
    print(report.epochs(history))
    run = Run(0, job, history, "run")
    where = {**report.device_labels(on), "blas_threads": os.environ.get("OPENBLAS_NUM_THREADS")}
    paths = report.save_run(run, out, records.header(experiment=experiment.name, **where), experiment)
    if history.diverged:
        print(f"\nThe run diverged: {history.error or 'the training loss is not finite'}")
    print("\nwritten: " + ", ".join(str(path) for path in paths))
    return 0
