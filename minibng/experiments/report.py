"""A comparison told: the table, the verdicts, the records and the figures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from minibng import plot
from minibng.backend import get_backend, gpu_name
from minibng.experiments.comparison import Comparison, Row, Run, Verdict
from minibng.experiments.declaration import Setting
from minibng.experiments.statistics import Interval
from minibng.optim.normalize import Clip
from minibng.train import History, records


def run_records(run: Run) -> list[dict[str, Any]]:
    """Return one record an epoch."""
    return run.history.records(**_labels(run))


def norm_records(run: Run) -> list[dict[str, Any]]:
    """Return one record a step, with the norms of every block's gradient and update."""
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
    """Draw training curves, sensitivity to the rate, and the norms of the first setting; return what was written."""
    reported = [r for run in comparison.reported for r in run_records(run)]
    searched = [r for run in comparison.runs if run.stage != "fresh" for r in run_records(run)]
    first = comparison.rows[0].setting
    norms = [r for run in comparison.reported if run.job.setting == first for r in norm_records(run)]
    figures = {
        "training.png": plot.training_curves(records.plain(reported)),
        "rates.png": plot.rate_sensitivity(records.plain(searched)),
        "norms.png": plot.norm_heatmap(records.plain(norms)),
    }
    return [plot.save(figure, out / name) for name, figure in figures.items()]


def epochs(history: History) -> str:
    """Return a table with one line an epoch."""
    lines = [f"{'epoch':>5}  {'training loss':>13}  {'validation error':>16}  {'test error':>10}  {'seconds':>7}"]
    for e in history.epochs:
        val, test = (f"{v:.2%}" if v is not None else "–" for v in (e.val_error, e.test_error))
        lines.append(f"{e.epoch:>5}  {e.train_loss:>13.5g}  {val:>16}  {test:>10}  {e.seconds:>7.2f}")
    return "\n".join(lines)


def save_run(run: Run, out: Path, header: dict[str, Any]) -> list[Path]:
    """Write one run's records.jsonl, norms.jsonl and figures into a folder; return what was written."""
    rows, norms = run_records(run), norm_records(run)
    records.write(out / "records.jsonl", [header, *rows])
    records.write(out / "norms.jsonl", [header, *norms])
    paths = [plot.save(plot.training_curves(records.plain(rows)), out / "training.png")]
    if norms:
        paths.append(plot.save(plot.norm_heatmap(records.plain(norms)), out / "norms.png"))
    return [*paths, out / "records.jsonl", out / "norms.jsonl"]


def _title(setting: Setting) -> str:
    return _words({k: v for k, v in setting.items() if k != "schedule"})


def _cells(row: Row) -> list[str]:
    def spread(v: Interval, scale: float, digits: str) -> str:
        if math.isnan(v.mean):
            return "–"
        middle = f"{v.mean * scale:{digits}}"
        return middle if math.isnan(v.low) else f"{middle} [{v.low * scale:{digits}}, {v.high * scale:{digits}}]"

    return [
        row.optimizer,
        str(row.setting.get("schedule", "")),
        f"{row.lr:.3g}{'*' if row.edge else ''}",
        spread(row.loss, 1, ".3g"),
        spread(Interval(*np.clip(row.error, 0, 1)), 100, ".1f"),  # an error rate is no more than 1
        f"{row.seconds:.2f}",
        f"{row.diverged}/{row.seeds}" if row.diverged else "",
    ]


HEAD = ["optimizer", "schedule", "rate", "final training loss", "test error %", "seconds", "diverged"]


def table(comparison: Comparison) -> str:
    """Return the table as text: one part a data set, depth and activation; the schedule is a column."""
    parts = []
    for title in dict.fromkeys(_title(row.setting) for row in comparison.rows):
        members = [row for row in comparison.rows if _title(row.setting) == title]
        order = {row.optimizer: k for k, row in reversed(list(enumerate(members)))}
        rows = [HEAD, *(_cells(row) for row in sorted(members, key=lambda r: order[r.optimizer]))]
        width = [max(len(r[c]) for r in rows) for c in range(len(HEAD))]
        used = [c for c in range(len(HEAD)) if any(r[c] for r in rows[1:])]
        lines = ["  ".join(f"{r[c]:<{width[c]}}" for c in used).rstrip() for r in rows]
        parts.append("\n".join([title, *lines]))
    seeds, clock = comparison.rows[0].seeds, "wall-clock" if comparison.device.startswith("cuda") else "CPU"
    notes = [
        f"Loss: geometric mean of the final training loss over {seeds} seeds; brackets: 95 % intervals over seeds on",
        "this one data split. Rates chosen by final training loss; test error of the last epoch. "
        f"seconds: {clock} a run.",
    ]
    if any(row.edge for row in comparison.rows):
        notes.append("* best rate at the edge of its grid, which was extended once.")
    return "\n\n".join([*parts, "\n".join(notes)])


def verdict(v: Verdict) -> str:
    """Return what the runs say of one claim, in words."""
    f, setting = v.finding, _words(v.claim.setting)
    with np.errstate(over="ignore"):
        ratio, low, high = np.exp(f.difference)
    pairs = f"{f.pairs} paired seeds" if f.finite == f.pairs else f"{f.finite} of {f.pairs} pairs, the others diverged"
    return (
        f"{v.claim.number}  {f.verdict.upper()}: {v.claim.statement}\n"
        f"    primary comparison: {v.claim.treatment} against {v.claim.baseline} ({setting}):\n"
        f"    ratio of final training losses {ratio:.3g} [{low:.3g}, {high:.3g}], {pairs}"
    )


def _words(setting: Setting) -> str:
    return ", ".join(f"{k} {x}" for k, x in setting.items())


def verdicts(comparison: Comparison) -> str:
    """Return the verdicts on all claims, and which were not tested by what was run."""
    lines = [verdict(v) for v in comparison.verdicts]
    judged = {v.claim.number for v in comparison.verdicts}
    for claim in comparison.experiment.claims:
        if claim.number not in judged:
            e = comparison.experiment
            budget = f"{_words(claim.setting)}, {e.epochs} epochs"
            why = "" if comparison.declared else "; epochs or seeds are not those declared"
            lines.append(
                f"{claim.number}  not tested: its primary comparison is {claim.treatment} against "
                f"{claim.baseline} ({budget}, up to {e.seeds} seeds){why}"
            )
    lines.append("Everything else in the table is exploratory.")
    return "\n".join(lines)
