"""Checking a subject: each law tried in bounded time, and a report that a student can read and a grader can parse."""

from __future__ import annotations

import json
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from typing import Any

from minibng.names import choose
from minibng.verify import adapters
from minibng.verify.adapters import NotCallableError
from minibng.verify.laws import LAWS, Law
from minibng.verify.search import Before, answered, attempt
from minibng.verify.target import Target

DTYPES = ("float16", "float32", "float64")
VERDICTS = ("holds", "fails", "n/a", "error")
WIDTH = 100

Progress = Callable[["Result"], None]


@dataclass(frozen=True)
class Result:
    """What became of one law.

    Parameters
    ----------
    law
        Its name.
    verdict
        "holds": no counterexample was found; "fails": here is one; "n/a": it cannot be posed, ``note`` says why;
        "error": the subject gave no answer, ended the process or cannot be called, ``note`` says what happened.
    examples
        How many examples were tried, up to the first that broke it.
    counterexample
        What was measured, and the simplest example found; None unless it fails.
    seconds
        How long that took.
    note
        What else there is to say.
    """

    law: str
    verdict: str
    examples: int = 0
    counterexample: str | None = None
    seconds: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class Report:
    """The laws that were tried on a target, one `Result` each, in the order of `LAWS`.

    Parameters
    ----------
    target
        What was checked.
    results
        One a law.
    settings
        What it was checked with: dtypes, examples, seed, and what was inferred.
    by_design
        Law → why the target breaks it on purpose; only told, the verdict stays.
    withheld
        Law → why theory does not promise it of one of minibng's optimizers, and it was not tried.
    laws
        Where the statements of the laws are found.
    kind
        What the results are about: laws, or certificates.
    remark
        What else was seen, without a verdict.
    """

    target: str
    results: list[Result]
    settings: Mapping[str, Any] = field(default_factory=dict)
    by_design: Mapping[str, str] = field(default_factory=dict)
    withheld: Mapping[str, str] = field(default_factory=dict)
    laws: Mapping[str, Law] = field(default_factory=lambda: LAWS, repr=False)
    kind: str = "law"
    remark: str = ""

    @property
    def ok(self) -> bool:
        """Whether no law failed and none ended in an error."""
        return not any(r.verdict in ("fails", "error") for r in self.results)

    @property
    def exit_code(self) -> int:
        """0 if it is ok, else 1."""
        return int(not self.ok)

    def summary(self) -> str:
        """Return how many laws hold, on one line."""
        return f"{self.target}: {self._counts()}"

    def __getitem__(self, law: str) -> Result:
        """Return the result of a law."""
        return choose({r.law: r for r in self.results}, law, "law in this report")

    def __str__(self) -> str:
        """Return the report as text, aligned, for a terminal."""
        parts = [self._head(), "\n".join(self._rows()), self.remark, *map(self._told, self._broken()), *self._left()]
        return "\n\n".join(part for part in parts if part)

    def to_markdown(self) -> str:
        """Return the report as Markdown: a table, then what failed."""
        rows = [f"| {self.kind} | verdict | examples | seconds | |", "|---|---|--:|--:|---|"]
        rows += [
            f"| {r.law} | {_BOLD.get(r.verdict, r.verdict)} | {r.examples or ''} | {r.seconds:.2f} | {_cell(r.note)} |"
            for r in self.results
        ]
        parts = [f"**{self.target}**: {self._counts()}  \n{self._setting()}", "\n".join(rows)]
        parts += [self.remark] * bool(self.remark)
        for r in self._broken():
            heading, *lines = self._told(r).split("\n")
            parts.append("\n".join([f"**{heading}**", "", "```text", textwrap.dedent("\n".join(lines)), "```"]))
        return "\n\n".join([*parts, *_grouped(self.withheld, NOT_PROMISED)]) + "\n"

    def to_json(self) -> str:
        """Return the report as JSON: an object with ``ok``, ``exit_code`` and ``results``, one object a law."""
        rows = []
        for r in self.results:
            law = self.laws[r.law]
            about = {"number": law.number, "statement": law.statement, "formula": law.formula}
            rows.append({**asdict(r), **about, "by_design": self.by_design.get(r.law)})
        told = {"target": self.target, "ok": self.ok, "exit_code": self.exit_code, "settings": dict(self.settings)}
        told |= {"minibng": metadata.version("minibng"), "results": rows, "not_promised": dict(self.withheld)}
        return json.dumps(told, indent=2, ensure_ascii=False)

    def _repr_markdown_(self) -> str:
        return self.to_markdown()

    def _counts(self) -> str:
        n = {v: sum(r.verdict == v for r in self.results) for v in VERDICTS}
        if n["n/a"] == len(self.results):
            return f"no {self.kind} can be posed"
        told = [f"{n['holds']} of {len(self.results) - n['n/a']} {self.kind}s hold"]
        told += [f"{n['fails']} fail{'s' * (n['fails'] == 1)}"] * bool(n["fails"])
        told += [f"{n['error']} ended in an error"] * bool(n["error"])
        return ", ".join([*told, *[f"{n['n/a']} cannot be posed"] * bool(n["n/a"])])

    def _setting(self) -> str:
        s = dict(self.settings)
        first = [s.pop("dtypes", ""), f"{s.pop('examples', '?')} examples a {self.kind}"]
        return "; ".join([*filter(None, first), *(f"{k} {v}" for k, v in s.items())])

    def _head(self) -> str:
        return f"{self.summary()}\n{self._setting()}"

    def _rows(self) -> Iterator[str]:
        if all(r.verdict == "error" and not r.examples for r in self.results) and len(self._broken()) == 1:
            return
        if all(r.verdict == "n/a" for r in self.results):
            return
        width = max(map(len, [self.kind, *(r.law for r in self.results)]))
        yield f"{self.kind:<{width}}  verdict  examples  seconds"
        for r in self.results:
            if r.verdict != "n/a":
                yield row(r, width)

    def _broken(self) -> list[Result]:
        """Return the results to be told at length; an error that several laws share is told once."""
        errors = {r.note: r for r in reversed(self.results) if r.verdict == "error"}
        return [r for r in self.results if r.verdict == "fails" or r in errors.values()]

    def _told(self, r: Result) -> str:
        if r.verdict == "error":
            same = [o.law for o in self.results if o.verdict == "error" and o.note == r.note]
            every = len(same) == len(self.results)
            heading = f"no {self.kind} could be tried" if every else f"error in {', '.join(same)}"
            return "\n".join([heading, textwrap.indent(r.note, "  ")])
        law = self.laws[r.law]
        lines = [f"{r.law} fails", f"  law       {law.statement}"]
        lines.append(f"            {law.formula}    ({law.number}, {law.source})")
        first, *rest = (r.counterexample or "").split("\n")
        lines += [f"  measured  {first}", *(f"  {line}" for line in rest)]
        if why := self.by_design.get(r.law):
            lines.append(f"  by design: {why}")
        return "\n".join(lines)

    def _left(self) -> Iterator[str]:
        yield from _grouped({r.law: r.note for r in self.results if r.verdict == "n/a"}, "Cannot be posed")
        yield from _grouped(self.withheld, NOT_PROMISED)


NOT_PROMISED = "Not promised by theory, and not tried"
_BOLD = {"fails": "**fails**", "error": "**error**"}


def row(r: Result, width: int = 0) -> str:
    """Return a result on one line."""
    tried = f"{r.examples:8}  {r.seconds:7.2f}" if r.verdict != "n/a" else " " * 17
    note = r.note if r.verdict != "error" else ""
    return f"{r.law:<{width}}  {r.verdict:<7}  {tried}{'  ' + note if note else ''}".rstrip()


def _cell(text: str) -> str:
    return text.split("\n")[0].replace("|", "\\|")


def _grouped(reasons: Mapping[str, str], title: str) -> Iterator[str]:
    """Yield a paragraph with the laws of each reason, if there are any."""
    groups: dict[str, list[str]] = {}
    for law, why in reasons.items():
        groups.setdefault(why, []).append(law)
    filled = [
        textwrap.fill(f"- {', '.join(laws)}: {why}", WIDTH, subsequent_indent="  ", break_on_hyphens=False)
        for why, laws in groups.items()
    ]
    if filled:
        yield "\n".join([f"{title}:", *filled])


def chosen(target: Target | None, laws: str | Iterable[str] | None) -> list[str]:
    """Return the names of the laws to try, in the order of `LAWS`.

    Raises
    ------
    UnknownNameError
        For a law that there is not, with the nearest that there is.
    """
    if laws is None:
        laws = "all" if target is None or target.promises is None else target.promises
    names = [laws] if isinstance(laws, str) else list(laws)
    for name in names:
        choose({**LAWS, "all": None}, name, "law")
    return [name for name in LAWS if name in names or "all" in names]


def check(
    target: Any,
    lr: float | None = None,
    laws: str | Iterable[str] | None = None,
    dtype: str | None = None,
    examples: int = 100,
    seed: int = 0,
    *,
    device: str = "cpu",
    timeout: float = 60.0,
    isolate: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> Report:
    """Try laws on an optimizer, a function or a normalizer, anybody's; the same arguments give the same verdicts.

    Parameters
    ----------
    target
        What is checked: a name ("adam-ng", "module:attribute", "file.py:step"), an optimizer class of minibng or of
        PyTorch, an optax transformation, a function step(params, grads, state) → (params, state), a normalizer, a
        `Target`; see `minibng.verify.adapters.adapt`.
    lr
        Its own learning rate; by default a function's is inferred, and others are told the rates that laws choose.
    laws
        Names, or "all"; by default those that theory promises of one of minibng's optimizers, of others all.
    dtype
        "float16", "float32" or "float64"; by default float32 and float64. Much breaks in float16 for one reason, such
        as an ε that is 0 there, so that it is tried where it is asked for.
    examples
        How many examples each law is tried on.
    seed
        Other seeds try other examples.
    device
        Where it gets its arrays.
    timeout
        Seconds that a law is given; an example that takes longer is interrupted.
    isolate
        Run it in processes of their own, so that one that is ended (by a crash in C, say) ends no more than the law
        that was being tried. Needs a name as the target.
    progress
        Called with each `Result` as it comes.
    **settings
        Settings of the subject (``momentum=0.5`` of an optimizer class), or fields of its `Target`
        (``partition="global"``, ``clip=1.0``).

    Returns
    -------
    Report
        An exception on an example of a law is a law that fails. A subject that does not work on the simplest example,
        that gives no answer in time, or that ends the process is an error.

    Raises
    ------
    UnknownNameError
        For a law, an optimizer or an attribute that there is not.
    TypeError, ValueError, FileNotFoundError
        For what cannot be checked, and for settings that make no sense.

    Examples
    --------
    >>> import numpy as np
    >>> def step(params, grads, state):
    ...     lr = 0.1
    ...     return [x - lr * g / np.sqrt(np.sum(g * g) + 1e-8) for x, g in zip(params, grads)], state
    >>> report = check(step, laws=["unit-norm", "sign-symmetry"], dtype="float64")
    >>> [r.verdict for r in report.results], report.ok
    (['fails', 'holds'], False)
    """
    if dtype is not None:
        choose(dict.fromkeys(DTYPES), dtype, "dtype")
    if examples < 1 or not timeout > 0:
        raise ValueError(f"examples and timeout must be positive, got {examples} and {timeout}")
    asked: dict[str, Any] = {"dtype": dtype, "examples": examples, "seed": seed, "device": device, "timeout": timeout}
    if isolate:
        from minibng.verify.isolated import apart  # which for its part asks for what is below

        names = None if laws is None else chosen(None, laws)
        return apart(target, names, {"lr": lr, **asked, **settings}, progress or _silent)
    prepared = prepare(target, lr, laws, **asked, **settings)
    report = prepared.empty()
    for law in prepared.laws:
        report.results.append(prepared.tried(law))
        (progress or _silent)(report.results[-1])
    return report


@dataclass(frozen=True)
class Prepared:
    """A target and the laws to try on it; ``error`` where it cannot be called."""

    name: str
    laws: list[str]
    target: Target | None
    examples: int
    seed: int
    timeout: float
    withheld: Mapping[str, str] = field(default_factory=dict)
    error: str = ""

    def empty(self) -> Report:
        """Return the report before any law is tried."""
        settings: dict[str, Any] = {"examples": self.examples, "seed": self.seed}
        if self.target is None:
            return Report(self.name, [], settings)
        settings = {"dtypes": ", ".join(self.target.dtypes), **settings, **_inferred(self.target)}
        return Report(self.name, [], settings, dict(self.target.by_design), self.withheld)

    def tried(self, name: str, before: Before | None = None) -> Result:
        """Try one law."""
        if self.target is None:
            return Result(name, "error", note=self.error)
        return tried(LAWS[name], self.target, self.examples, self.seed, self.timeout, before)


def tried(
    law: Law, target: Target, examples: int = 100, seed: int = 0, timeout: float = 60.0, before: Before | None = None
) -> Result:
    """Try one law on a target."""
    if why := law.posed(target):
        return Result(law.name, "n/a", note=why)
    start = time.perf_counter()
    trial = attempt(law, target, examples, seed, timeout=timeout, before=before)
    seconds = time.perf_counter() - start
    if trial.counterexample is not None:
        return Result(law.name, "fails", trial.examples, trial.counterexample.told(), seconds)
    verdict = "error" if trial.error else "holds"
    return Result(law.name, verdict, trial.examples, None, seconds, trial.error)


def prepare(
    target: Any,
    lr: float | None,
    laws: str | Iterable[str] | None,
    *,
    dtype: str | None,
    examples: int,
    seed: int,
    device: str,
    timeout: float,
    **settings: Any,
) -> Prepared:
    """Make a target of the subject, and choose the laws; the arguments are those of `check`."""
    names = chosen(None, laws)
    name = target if isinstance(target, str) else getattr(target, "__name__", type(target).__name__)
    try:
        made: Target = answered(lambda: adapters.adapt(target, lr, device=device, **settings), timeout)
    except (NotCallableError, TimeoutError) as error:
        return Prepared(settings.get("name") or name, names, None, examples, seed, timeout, error=str(error))
    if dtype is not None:
        if dtype not in made.dtypes:
            raise ValueError(f"{made.name} does not take {dtype}: it takes {', '.join(made.dtypes)}")
        made = replace(made, dtypes=(dtype,))
    elif made.promises is None and set(made.dtypes) > {"float16"}:
        made = replace(made, dtypes=tuple(d for d in made.dtypes if d != "float16"))
    withheld = {}
    names = chosen(made, None) if laws is None else names
    if laws is None and made.promises is not None:
        withheld = {n: made.by_design.get(n, "") for n in LAWS if n not in names and not LAWS[n].posed(made)}
    return Prepared(made.name, names, made, examples, seed, timeout, withheld)


def _silent(result: Result) -> None:
    """Say nothing."""


def _inferred(target: Target) -> dict[str, Any]:
    """Return what the report tells of a target beside its name."""
    told: dict[str, Any] = {"lr": target.rate, "momentum": target.momentum or None, "device": target.device}
    told |= {f"{dtype} left out:": why for dtype, why in target.refused.items() if dtype != "float16"}
    return {k: v for k, v in told.items() if v not in (None, "cpu")} | ({"Nesterov": "yes"} if target.ahead else {})
