"""A comparison told: the table, the verdicts, the records and the figures."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minibng import plot
from minibng.backend import get_backend, gpu_name
from minibng.experiments import certified
from minibng.experiments.comparison import Comparison, Effect, Row, Run, Verdict
from minibng.experiments.declaration import PLACE, Experiment, Setting, key_of
from minibng.experiments.metrics import METRICS
from minibng.experiments.statistics import EXPLORATORY, Interval
from minibng.train import History, perplexity, records


def run_records(run: Run) -> list[dict[str, Any]]:
    """Return one record an epoch."""
    return run.history.records(**_labels(run))


def norm_records(run: Run) -> list[dict[str, Any]]:
    """Return one record a step that was kept, with the norms of every block's gradient, update and parameters."""
    return run.history.norm_records(**_labels(run))


def _labels(run: Run) -> dict[str, Any]:
    job = run.job
    fixed = {"batch": job.batch or None, "seed": job.seed, "stage": run.stage}
    return {"run": run.number, "optimizer": job.optimizer, "lr": job.lr, **job.setting, **fixed}


def save_records(comparison: Comparison, out: Path, **asked: Any) -> list[Path]:
    """Write records.jsonl (every run) and norms.jsonl (those reported) into a folder; return what was written.

    Their first line holds what was asked for and the declaration: centres, claims, budget, clip's threshold.
    """
    e = comparison.experiment
    declaration = {
        "claims": [vars(claim) for claim in e.claims],
        "trends": [trend._asdict() for trend in e.trends],
        "centre_source": e.centre_source,
        **{name: getattr(e, name) for name in ("columns", "clip", "epochs", "batch", "rates", "full_rates", "seeds")},
    }
    state = {
        **device_labels(comparison.device),
        "blas_threads": 1,
        "interrupted": comparison.interrupted,
        "declaration": declaration,
    }
    head = records.header(experiment=e.name, **asked, **state)
    records.write(out / "records.jsonl", [head, *(r for run in comparison.runs for r in run_records(run))])
    records.write(out / "norms.jsonl", [head, *(r for run in comparison.reported for r in norm_records(run))])
    if not comparison.certified:
        return [out / "records.jsonl", out / "norms.jsonl"]
    said = [r for one in (*comparison.certified, *comparison.theory) for r in one.records()]
    records.write(out / "certificates.jsonl", [head, *said])
    return [out / "records.jsonl", out / "norms.jsonl", out / "certificates.jsonl"]


def device_labels(device: str) -> dict[str, str]:
    """Return what the head of a record file says of the device: its name, and of a GPU which one it is, and CuPy's."""
    if not device.startswith("cuda"):
        return {"device": device}
    return {"device": device, "gpu": gpu_name(device), "cupy": get_backend(device).xp.__version__}


def save_figures(comparison: Comparison, out: Path) -> list[Path]:
    """Draw the figures of the experiment into a folder; return what was written.

    The norms are those of the first claim's setting where it was run, else of the first setting.
    """
    reported, validated = (
        [r for run in runs for r in run_records(run)] for runs in (comparison.reported, comparison.validated)
    )
    searched = [r for run in comparison.runs if run.stage != "fresh" for r in run_records(run)]
    e, settings = comparison.experiment, [row.setting for row in comparison.rows]
    shown = next((s for claim in e.claims for s in settings if key_of(s) == key_of(claim.setting)), settings[0])
    norms = [r for run in comparison.reported if run.job.setting == shown for r in norm_records(run)]
    drawn: dict[str, Callable[[], Any]] = {
        "training": lambda: plot.training_curves(
            records.plain(reported), errors=records.plain(validated), columns=e.columns
        ),
        "rates": lambda: plot.rate_sensitivity(records.plain(searched), column=e.columns[0]),
        **_norm_figures(norms),
        "effect": lambda: plot.effects([_point(effect) for effect in comparison.effects], e.training.words),
        "certificates": lambda: plot.bounds(certified.panels(comparison.certified, _short(settings))),
        "theory": lambda: plot.bounds(certified.panels(comparison.theory, _short(settings))),
    }
    left_out = {"effect": not _spans(comparison.effects), "theory": not comparison.theory}
    names = [name for name in e.figures if not left_out.get(name)]
    return [plot.save(drawn[name](), out / f"{name}.png") for name in names]


def _short(settings: Sequence[Setting]) -> certified.Words:
    """Return a function that tells a setting by what varies, for the title of a panel."""
    known = {key: {setting[key] for setting in settings} for key in settings[0]}
    varying = {key: values for key, values in known.items() if len(values) > 1}
    return lambda setting: ", ".join(str(setting[k]) for k, values in varying.items() if setting[k] in values)


def _norm_figures(norms: Sequence[dict[str, Any]]) -> dict[str, Callable[[], Any]]:
    return {
        "norms": lambda: plot.norm_heatmap(records.plain(list(norms))),
        "parameters": lambda: plot.norm_growth(records.plain(list(norms))),
    }


def _point(effect: Effect) -> dict[str, Any]:
    """Return what `plot.effects` takes: a ratio with its interval, where it is, and what it is of."""
    with np.errstate(over="ignore"):
        ratio, low, high = np.exp(effect.difference)
    pair = {"baseline": effect.baseline, "treatment": effect.treatment}
    where = {"axis": effect.trend.axis, "value": effect.value, "setting": _words(_plain(effect.setting))}
    return {**pair, **where, "ratio": ratio, "low": low, "high": high}


def _spans(effects: Iterable[Effect]) -> bool:
    """Tell whether a trend has more than one point."""
    return len({effect.value for effect in effects}) > 1


def epochs(history: History) -> str:
    """Return a table with one line an epoch: perplexities of a language model, errors of a classifier, else losses."""
    losses = history.language or history.epochs[0].val_error is None
    columns = [("train", "loss"), ("val", "loss" if losses else "error"), ("test", "loss" if losses else "error")]
    parts = {"train": "training", "val": "validation", "test": "test"}

    def told(value: float | None, kind: str) -> str:
        if value is None:
            return "–"
        return f"{value:.2%}" if kind == "error" else f"{perplexity(value) if history.language else value:.5g}"

    head = ["epoch", *(f"{parts[p]} {'perplexity' if history.language else kind}" for p, kind in columns), "seconds"]
    rows = [
        [str(e.epoch), *(told(getattr(e, f"{p}_{kind}"), kind) for p, kind in columns), f"{e.seconds:.2f}"]
        for e in history.epochs
    ]
    width = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join("  ".join(f"{v:>{w}}" for v, w in zip(row, width, strict=True)) for row in [head, *rows])


def save_run(run: Run, out: Path, header: dict[str, Any], experiment: Experiment) -> list[Path]:
    """Write one run's records.jsonl, norms.jsonl and figures into a folder; return what was written."""
    rows, norms = run_records(run), norm_records(run)
    records.write(out / "records.jsonl", [header, *rows])
    records.write(out / "norms.jsonl", [header, *norms])
    curves = plot.training_curves(records.plain(rows), columns=experiment.columns)
    paths = [plot.save(curves, out / "training.png")]
    if norms:
        drawn = _norm_figures(norms)
        paths += [plot.save(drawn[name](), out / f"{name}.png") for name in experiment.figures if name in drawn]
    return [*paths, out / "records.jsonl", out / "norms.jsonl"]


def _spread(v: Interval, told: Callable[[float], str]) -> str:
    """Return a mean with the ends of its interval in brackets, as far as there are any."""
    if math.isnan(v.mean):
        return "–"
    return told(v.mean) if math.isnan(v.low) else f"{told(v.mean)} [{told(v.low)}, {told(v.high)}]"


def _cells(row: Row, e: Experiment) -> list[str]:
    return [
        row.optimizer,
        str(row.setting.get("schedule", "")),
        _rate(row.lr, row.edge),
        _spread(row.loss, e.training.told),
        _rate(row.error_lr, row.error_edge) if len(e.criteria) > 1 else "",
        _spread(row.error, e.generalization.told),
        f"{row.seconds:.2f}",
        f"{row.diverged}/{row.seeds}" if row.diverged else "",
    ]


def _rate(lr: float, edge: bool) -> str:
    return f"{lr:.3g}{'*' if edge else ''}"


def _head(e: Experiment) -> list[str]:
    second = f"rate by {e.generalization.chosen_by.replace('validation', 'val.')}"
    return [
        *("optimizer", "schedule", "rate", e.training.column),
        *(second, e.generalization.column, "seconds", "diverged"),
    ]


def _baselines(e: Experiment, setting: Setting) -> list[list[str]]:
    """Return the lines of the table that are no optimizers: what its numbers are to be read against."""
    found = {} if e.baselines is None else e.baselines(setting)
    columns = e.training, e.generalization
    told = {k: ["" if v is None else m.told(v) for v, m in zip(row, columns, strict=True)] for k, row in found.items()}
    return [[name, "", "", train, "", test, "", ""] for name, (train, test) in told.items()]


def table(comparison: Comparison) -> str:
    """Return the table as text: one part for each setting but the schedule, which is a column."""
    e, details = comparison.experiment, _details(comparison)
    parts = [text] if (text := _words({k: comparison.rows[0].setting[k] for k in details})) else []
    titles = [_words(_plain(row.setting, "schedule", *details)) for row in comparison.rows]
    head = _head(e)
    for title in dict.fromkeys(titles):
        members = [row for row, its in zip(comparison.rows, titles, strict=True) if its == title]
        order = {row.optimizer: k for k, row in reversed(list(enumerate(members)))}
        rows = [head, *(_cells(row, e) for row in sorted(members, key=lambda r: order[r.optimizer]))]
        rows += _baselines(e, members[0].setting)
        used = [c for c in range(len(head)) if any(r[c] for r in rows[1:])]
        parts.append("\n".join([title, *_columns([[r[c] for c in used] for r in rows])]))
    return "\n\n".join([*parts, _notes(comparison)])


def _notes(comparison: Comparison) -> str:
    """Say how the table is to be read."""
    e, clock = comparison.experiment, "wall-clock" if comparison.device.startswith("cuda") else "CPU"
    twice = len(e.criteria) > 1
    means = [f"{m.name} ({'geometric' if m.geometric else 'arithmetic'})" for m in (e.training, e.generalization)]
    seeds = comparison.rows[0].seeds
    text = f"Means over {seeds} seed{'s' * (seeds > 1)}, after the last epoch: {', '.join(means)}. Brackets: 95 % "
    text += f"intervals over seeds on this one data split. Rates chosen by {e.training.chosen_by}"
    text += f", for the {e.generalization.name} by {e.generalization.chosen_by}" if twice else ""
    notes = textwrap.wrap(f"{text}. seconds: {clock} a run.", 110)
    if any(row.edge or (twice and row.error_edge) for row in comparison.rows):
        notes.append("* best rate at the edge of its grid, which was extended once.")
    return "\n".join(notes)


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows as lines, their columns below each other."""
    width = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, width, strict=True)).rstrip() for row in rows]


def _details(comparison: Comparison) -> list[str]:
    """Return the axes that are told once: those called details, where all settings have the same value."""
    axes = comparison.experiment.axes
    return [k for k in axes if axes[k].detail and len({row.setting[k] for row in comparison.rows}) == 1]


def _plain(setting: Setting, *without: str) -> Setting:
    return {k: v for k, v in setting.items() if k not in without}


def effects(comparison: Comparison) -> str:
    """Return a table for each trend: the ratio of what the training metric compares at every value of its axis."""
    parts = []
    for trend in comparison.experiment.trends:
        points = [effect for effect in comparison.effects if effect.trend == trend]
        if not _spans(points):
            continue
        pairs = list(dict.fromkeys((e.baseline, e.treatment) for e in points))
        words = comparison.experiment.training.words
        lines = [f"{trend.question} Ratio of {words}, 95 % intervals; exploratory."]
        titles = dict.fromkeys(_words(_plain(e.setting, *_details(comparison))) for e in points)
        for title in titles:
            mine = [e for e in points if _words(_plain(e.setting, *_details(comparison))) == title]
            cells = {(e.value, e.baseline, e.treatment): _effect(e) for e in mine}
            head = [trend.axis, *(f"{treatment} / {baseline}" for baseline, treatment in pairs)]
            body = [[str(v), *(cells[v, *pair] for pair in pairs)] for v in dict.fromkeys(e.value for e in mine)]
            lines += [title] * (len(titles) > 1) + _columns([head, *body])
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _effect(effect: Effect) -> str:
    with np.errstate(over="ignore"):
        ratio = Interval(*(float(v) for v in np.exp(effect.difference)))
    return _spread(ratio, "{:.3g}".format) + (
        f" ({effect.finite} of {effect.pairs} pairs)" if effect.finite < effect.pairs else ""
    )


def verdict(v: Verdict, experiment: Experiment) -> str:
    """Return what the runs say of one claim, in words."""
    f = v.finding
    setting = _words(_plain(v.claim.setting, *(k for k, axis in experiment.axes.items() if axis.detail)))
    pairs = f"{f.pairs} paired seeds" if f.finite == f.pairs else f"{f.finite} of {f.pairs} pairs, the others diverged"
    comparison = (
        "primary comparison" if f.verdict != EXPLORATORY else f"no verdict: {v.claim.undecidable};\n    comparison"
    )
    return (
        f"{v.claim.number}  {f.verdict.upper()}: {v.claim.statement}\n"
        f"    {comparison}: {v.claim.treatment} against {v.claim.baseline} ({setting}):\n"
        f"    {METRICS[v.claim.metric].difference(f.difference)}, {pairs}"
    )


def _words(setting: Setting) -> str:
    """Tell a setting in words; of a folder its name, since where it lies is nobody's business but the records'."""
    told = {k: Path(x).resolve().name if k == PLACE and x is not None else x for k, x in setting.items()}
    return ", ".join(f"{k.replace('_', ' ')} {x}" for k, x in told.items() if x is not None)


def verdicts(comparison: Comparison) -> str:
    """Return the verdicts on all claims, which were not tested by what was run, and the trends."""
    e = comparison.experiment
    lines = [verdict(v, e) for v in comparison.verdicts]
    judged = {v.claim.number for v in comparison.verdicts}
    for claim in e.claims:
        if claim.number not in judged:
            budget = f"{_words(claim.setting)}, {e.epochs} epochs"
            why = "" if comparison.declared else "; epochs or seeds are not those declared"
            lines.append(
                f"{claim.number}  not tested: its primary comparison is {claim.treatment} against "
                f"{claim.baseline} ({budget}, up to {e.seeds} seeds){why}"
            )
    lines.append(f"Everything {'else ' * bool(e.claims)}in the table is exploratory.")
    if trends := effects(comparison):
        lines.append("\n" + trends)
    if comparison.certified:
        lines.append("\n" + certificates(comparison))
    return "\n".join(lines)


def certificates(comparison: Comparison) -> str:
    """Return what the certificates of the convex case say of the reported runs, and of those at theory's rates."""
    found = [*comparison.certified, *comparison.theory]
    wrong, asked = certified.violations(found), sum(s.applies for one in found for s in one.said)
    verdict = f"{len(wrong)} of {asked} are violated" if wrong else f"all {asked} that apply hold"
    text = f"Certificates of the convex case, run by run, each hypothesis checked: {verdict}. gap/bound: at the last "
    text += "step, geometric mean over seeds. slope: of log(least gap) against log(step), observed, mean over seeds."
    parts = [textwrap.fill(text, 110)]
    for title, groups in certified.grouped(
        found, lambda s: _words(_plain(s, "schedule", *_details(comparison)))
    ).items():
        rows = [["run", "schedule", "slope", "certificates that hold"], *map(certified.line, groups)]
        parts.append("\n".join([title, *_columns(rows)]))
    return "\n\n".join([*parts, *wrong])
