"""A comparison told: the table, the verdicts, the records and the figures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from minibng import plot
from minibng.experiments.comparison import Comparison, Row, Run, Verdict
from minibng.experiments.declaration import Setting
from minibng.experiments.statistics import Interval
from minibng.train import History, records

SCHEDULES = {"constant": "none", "step": "step"}


def run_records(run: Run) -> list[dict[str, Any]]:
    """Return one record an epoch."""
    return run.history.records(**_labels(run))


def norm_records(run: Run) -> list[dict[str, Any]]:
    """Return one record a step, with the norms of every block's gradient and update."""
    return run.history.norm_records(**_labels(run))


def _labels(run: Run) -> dict[str, Any]:
    job = run.job
    fixed = {"batch": job.batch, "seed": job.seed}
    return {"run": run.number, "optimizer": job.optimizer, "lr": job.lr, **job.setting, **fixed}


def save(comparison: Comparison, out: Path, **settings: Any) -> list[Path]:
    """Write records.jsonl, norms.jsonl and the figures into a folder; return what was written."""
    every = [record for run in comparison.runs for record in run_records(run)]
    norms = [record for run in comparison.reported for record in norm_records(run)]
    head = records.header(experiment=comparison.experiment.name, blas_threads=1, **settings)
    records.write(out / "records.jsonl", [head, *every])
    records.write(out / "norms.jsonl", [head, *norms])
    reported = [record for run in comparison.reported for record in run_records(run)]
    first = comparison.rows[0].setting
    of_first = [n for n in norms if all(n[k] == v for k, v in first.items())]
    figures = {
        "training.png": plot.training_curves(records.plain(reported)),
        "rates.png": plot.rate_sensitivity(records.plain(every)),
        "norms.png": plot.norm_heatmap(records.plain(of_first)),
    }
    paths = [plot.save(figure, out / name) for name, figure in figures.items()]
    return [*paths, out / "records.jsonl", out / "norms.jsonl"]


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
    shown = {k: v for k, v in setting.items() if k != "schedule"}
    return ", ".join(f"{k} {v}" for k, v in shown.items())


def _cells(row: Row) -> list[str]:
    def spread(v: Interval, scale: float, digits: str) -> str:
        if math.isnan(v.mean):
            return "–"
        middle = f"{v.mean * scale:{digits}}"
        return middle if math.isnan(v.low) else f"{middle} [{v.low * scale:{digits}}, {v.high * scale:{digits}}]"

    return [
        row.optimizer,
        SCHEDULES.get(str(row.setting.get("schedule")), str(row.setting.get("schedule", ""))),
        f"{row.lr:.3g}{'*' if row.edge else ''}",
        spread(row.loss, 1, ".3g"),
        spread(row.error, 100, ".1f"),
        f"{row.seconds:.2f}",
        f"{row.diverged}/{row.seeds}" if row.diverged else "",
    ]


HEAD = ["optimizer", "decay", "rate", "final training loss", "test error %", "seconds", "diverged"]


def table(comparison: Comparison) -> str:
    """Return the table as text: one part a data set, depth and activation; decay is a column."""
    parts = []
    for title in dict.fromkeys(_title(row.setting) for row in comparison.rows):
        members = [row for row in comparison.rows if _title(row.setting) == title]
        order = {row.optimizer: k for k, row in reversed(list(enumerate(members)))}
        rows = [HEAD, *(_cells(row) for row in sorted(members, key=lambda r: order[r.optimizer]))]
        width = [max(len(r[c]) for r in rows) for c in range(len(HEAD))]
        used = [c for c in range(len(HEAD)) if any(r[c] for r in rows[1:])]
        lines = ["  ".join(f"{r[c]:<{width[c]}}" for c in used).rstrip() for r in rows]
        parts.append("\n".join([title, *lines]))
    seeds = comparison.rows[0].seeds
    notes = [
        f"Loss: geometric mean of the final training loss over {seeds} seeds; brackets: 95 % intervals over seeds on",
        "this one data split. Rates chosen by final training loss; test error of the last epoch. seconds: CPU a run.",
    ]
    if any(row.edge for row in comparison.rows):
        notes.append("* best rate at the edge of its grid, which was extended once.")
    return "\n\n".join([*parts, "\n".join(notes)])


def verdict(v: Verdict) -> str:
    """Return what the runs say of one claim, in words."""
    d = v.finding.difference
    if v.claim.metric == "train_loss":
        ratio = f"ratio of final training losses {math.exp(d.mean):.3g} [{math.exp(d.low):.3g}, {math.exp(d.high):.3g}]"
    else:
        ratio = f"difference of test errors {d.mean * 100:+.2f} [{d.low * 100:+.2f}, {d.high * 100:+.2f}] points"
    setting = ", ".join(f"{k} {x}" for k, x in v.claim.setting.items())
    return (
        f"{v.claim.number}  {v.finding.verdict.upper()}: {v.claim.statement}\n"
        f"    primary comparison: {v.claim.treatment} against {v.claim.baseline} ({setting}):\n"
        f"    {ratio}, {v.finding.pairs} paired seeds"
    )


def verdicts(comparison: Comparison) -> str:
    """Return the verdicts on all claims, and which were not tested by what was run."""
    lines = [verdict(v) for v in comparison.verdicts]
    judged = {v.claim.number for v in comparison.verdicts}
    for claim in comparison.experiment.claims:
        if claim.number not in judged:
            setting = ", ".join(f"{k} {x}" for k, x in claim.setting.items())
            lines.append(
                f"{claim.number}  not tested: its primary comparison is {claim.treatment} against "
                f"{claim.baseline} ({setting})"
            )
    lines.append("Everything else in the table is exploratory.")
    return "\n".join(lines)
