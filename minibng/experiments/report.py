"""A comparison told: the table, the verdicts, the records and the figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minibng import plot
from minibng.backend import get_backend, gpu_name
from minibng.experiments.comparison import Comparison, Effect, Row, Run, Verdict
from minibng.experiments.declaration import PLACE, Experiment, Setting, key_of
from minibng.experiments.statistics import EXPLORATORY, Interval
from minibng.optim.normalize import Clip
from minibng.train import History, records


def run_records(run: Run) -> list[dict[str, Any]]:
    """Return one record an epoch."""
    return run.history.records(**_labels(run))


def norm_records(run: Run) -> list[dict[str, Any]]:
    """Return one record a step that was kept, with the norms of every block's gradient, update and parameters."""
    return run.history.norm_records(**_labels(run))


def _labels(run: Run) -> dict[str, Any]:
    job = run.job
    fixed = {"batch": job.batch, "seed": job.seed, "stage": run.stage}
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
        "clip": Clip().clip,
        **{name: getattr(e, name) for name in ("epochs", "batch", "rates", "full_rates", "seeds")},
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
    return [out / "records.jsonl", out / "norms.jsonl"]


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
        "training": lambda: plot.training_curves(records.plain(reported), errors=records.plain(validated)),
        "rates": lambda: plot.rate_sensitivity(records.plain(searched)),
        **_norm_figures(norms),
        "effect": lambda: plot.effects([_point(effect) for effect in comparison.effects]),
    }
    names = [name for name in e.figures if name != "effect" or _spans(comparison.effects)]
    return [plot.save(drawn[name](), out / f"{name}.png") for name in names]


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
    """Return a table with one line an epoch."""
    lines = [f"{'epoch':>5}  {'training loss':>13}  {'validation error':>16}  {'test error':>10}  {'seconds':>7}"]
    for e in history.epochs:
        val, test = (f"{v:.2%}" if v is not None else "–" for v in (e.val_error, e.test_error))
        lines.append(f"{e.epoch:>5}  {e.train_loss:>13.5g}  {val:>16}  {test:>10}  {e.seconds:>7.2f}")
    return "\n".join(lines)


def save_run(run: Run, out: Path, header: dict[str, Any], figures: Iterable[str] = ("norms",)) -> list[Path]:
    """Write one run's records.jsonl, norms.jsonl and figures into a folder; return what was written."""
    rows, norms = run_records(run), norm_records(run)
    records.write(out / "records.jsonl", [header, *rows])
    records.write(out / "norms.jsonl", [header, *norms])
    paths = [plot.save(plot.training_curves(records.plain(rows)), out / "training.png")]
    if norms:
        drawn = _norm_figures(norms)
        paths += [plot.save(drawn[name](), out / f"{name}.png") for name in figures if name in drawn]
    return [*paths, out / "records.jsonl", out / "norms.jsonl"]


def _spread(v: Interval, scale: float, digits: str) -> str:
    """Return a mean with the ends of its interval in brackets, as far as there are any."""
    if math.isnan(v.mean):
        return "–"
    middle = f"{v.mean * scale:{digits}}"
    return middle if math.isnan(v.low) else f"{middle} [{v.low * scale:{digits}}, {v.high * scale:{digits}}]"


def _cells(row: Row) -> list[str]:
    error = _spread(Interval(*np.clip(row.error, 0, 1)), 100, ".1f")  # an error rate is no more than 1
    return [
        row.optimizer,
        str(row.setting.get("schedule", "")),
        _rate(row.lr, row.edge),
        _spread(row.loss, 1, ".3g"),
        _rate(row.error_lr, row.error_edge),
        error,
        f"{row.seconds:.2f}",
        f"{row.diverged}/{row.seeds}" if row.diverged else "",
    ]


def _rate(lr: float, edge: bool) -> str:
    return f"{lr:.3g}{'*' if edge else ''}"


BY_ERROR = "rate by val. error"
HEAD = ["optimizer", "schedule", "rate", "final training loss", BY_ERROR, "test error %", "seconds", "diverged"]


def table(comparison: Comparison) -> str:
    """Return the table as text: one part for each setting but the schedule, which is a column."""
    details = _details(comparison)
    parts = [text] if (text := _words({k: comparison.rows[0].setting[k] for k in details})) else []
    twice = len(comparison.experiment.metrics) > 1
    titles = [_words(_plain(row.setting, "schedule", *details)) for row in comparison.rows]
    for title in dict.fromkeys(titles):
        members = [row for row, its in zip(comparison.rows, titles, strict=True) if its == title]
        order = {row.optimizer: k for k, row in reversed(list(enumerate(members)))}
        rows = [HEAD, *(_cells(row) for row in sorted(members, key=lambda r: order[r.optimizer]))]
        used = [c for c, name in enumerate(HEAD) if any(r[c] for r in rows[1:]) and (twice or name != BY_ERROR)]
        parts.append("\n".join([title, *_columns([[r[c] for c in used] for r in rows])]))
    seeds, clock = comparison.rows[0].seeds, "wall-clock" if comparison.device.startswith("cuda") else "CPU"
    chosen = "Rates chosen by final training loss; test error of the last epoch. "
    if twice:
        chosen = "Rates chosen by final training loss, for the test error\n(of the last epoch) by validation error. "
    notes = [
        f"Loss: geometric mean of the final training loss over {seeds} seeds; brackets: 95 % intervals over seeds on",
        f"this one data split. {chosen}seconds: {clock} a run.",
    ]
    if any(row.edge or (twice and row.error_edge) for row in comparison.rows):
        notes.append("* best rate at the edge of its grid, which was extended once.")
    return "\n\n".join([*parts, "\n".join(notes)])


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
    """Return a table for each trend: the ratio of final training losses at every value of its axis."""
    parts = []
    for trend in comparison.experiment.trends:
        points = [effect for effect in comparison.effects if effect.trend == trend]
        if not _spans(points):
            continue
        pairs = list(dict.fromkeys((e.baseline, e.treatment) for e in points))
        lines = [f"{trend.question} Ratio of final training losses, 95 % intervals; exploratory."]
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
    return _spread(ratio, 1, ".3g") + (
        f" ({effect.finite} of {effect.pairs} pairs)" if effect.finite < effect.pairs else ""
    )


def _difference(v: Verdict) -> str:
    """Return the interval of a primary comparison in words."""
    f = v.finding
    if v.claim.metric == "test_error":
        mean, low, high = f.difference
        return f"difference of test errors {mean:+.2f} [{low:+.2f}, {high:+.2f}] percentage points"
    with np.errstate(over="ignore"):
        ratio, low, high = np.exp(f.difference)
    return f"ratio of final training losses {ratio:.3g} [{low:.3g}, {high:.3g}]"


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
        f"    {_difference(v)}, {pairs}"
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
    lines.append("Everything else in the table is exploratory.")
    if trends := effects(comparison):
        lines.append("\n" + trends)
    return "\n".join(lines)
