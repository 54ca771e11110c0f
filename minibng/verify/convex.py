"""The convex case tried on an optimizer: random problems with known minimizers, recorded runs, and what theory says."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minibng.backend import HostArray, to_host
from minibng.names import choose
from minibng.optim import Optimizer, rules
from minibng.optim.normalize import Adaptive
from minibng.verify.adapters import find
from minibng.verify.certificates import CERTIFICATES, SGD, Certificate, Rule, Run, slope
from minibng.verify.example import Violation, told
from minibng.verify.laws import Law
from minibng.verify.problems import Problem, Rolled, generator, random_problem
from minibng.verify.report import Report, Result, prepare, tried
from minibng.verify.strategies import Dice
from minibng.verify.target import Target

KINDS = ("sgd", "adagrad", "other")
DTYPES = ("float32", "float64")


@dataclass(frozen=True, eq=False)
class Descent:
    """A problem, a start x_0 as one vector (d,), and the rates η_0 … η_{T−1} of the steps that are to be taken."""

    problem: Problem
    start: HostArray
    rates: tuple[float, ...]

    def at_rate(self, rate: float) -> Descent:
        """Return the same descent in units in which its first rate is another; only a constant one keeps its sense."""
        k = rate / self.rates[0]
        problem = self.problem.rescaled(k)
        start = problem.flat(problem.minimizer) + self.problem.error(self.start) * np.longdouble(k)
        return Descent(problem, start.astype(problem.dtype), (rate,) * len(self.rates))

    def __str__(self) -> str:
        shown = [f"{r:.6g}" for r in self.rates[:4]] if len(set(self.rates)) > 1 else [f"{self.rates[0]:.17g}"]
        more = ", …" if 1 < len(shown) < len(self.rates) else ""
        steps = f"{len(self.rates)} step{'s' * (len(self.rates) > 1)} at η = {', '.join(shown)}{more}"
        return "\n    ".join([*self.problem.lines(), f"x_0 = {told(self.start)}", steps])


def record(target: Target, descent: Descent, rule: Rule = SGD) -> Run:
    """Run an optimizer on a problem, and return the record; it ends early where a gradient is not finite.

    Parameters
    ----------
    target
        The optimizer.
    descent
        Problem, start and rates.
    rule
        What the optimizer is said to be.

    Examples
    --------
    >>> from minibng import optim
    >>> from minibng.verify.problems import least_squares
    >>> descent = Descent(least_squares(np.eye(2), [3.0, 4.0]), np.zeros(2), (1.0,) * 4)
    >>> run = record(Target.of(optim.SGDNG), descent)
    >>> run.points[1], [float(v) for v in run.distances[:, 0].round(12)]
    (array([0.6, 0.8]), [5.0, 4.0, 3.0, 2.0, 1.0])
    >>> print(CERTIFICATES["certificate-b"].check(run))
    certificate B holds at 4 steps
    """
    problem, rates = descent.problem, descent.rates
    lr = rates[0] if len(set(rates)) == 1 else lambda t: rates[t]
    stepping = target.start(target.placed(problem.tensors(descent.start)), lr, problem.blocks)
    points, gradients = [descent.start], []
    for _ in rates:
        gradient = problem.gradient(points[-1])
        if not np.isfinite(gradient).all():
            break
        gradients.append(gradient)
        stepping.step(target.placed(problem.tensors(gradients[-1])))
        points.append(problem.flat([to_host(x) for x in stepping.params]))
    return Run(problem, np.array(points), np.array(gradients), np.array(rates[: len(gradients)]), rule)


def draw(
    certificate: Certificate,
    dice: Dice,
    *,
    partition: str = "any",
    rate: float | None = None,
    dtype: Any = np.float64,
    problems: Sequence[Problem] = (),
) -> Descent:
    """Draw a descent that meets the hypotheses of a certificate.

    Parameters
    ----------
    certificate
        One of `CERTIFICATES`.
    dice
        What it is drawn with.
    partition, rate
        Those of the target: see `Target`. With a rate of the subject's own the rates are constant.
    dtype
        Of x, for random problems.
    problems
        Given ones, instead of random ones; whether they meet the hypotheses is then not sure.
    """
    problem = (
        dice.pick(problems)
        if problems
        else random_problem(dice, **{"partition": partition, "dtype": dtype, **certificate.problems})
    )
    minimizer = problem.flat(problem.minimizer)
    away = np.ones(minimizer.size) if dice.number(3) == 0 else generator(dice).standard_normal(minimizer.size)
    start = (minimizer + np.ldexp(away, dice.between(-3, 3))).astype(problem.dtype)
    rates = tuple(certificate.rates(dice, problem, start))
    if rate is None:
        return Descent(problem, start, rates)
    return Descent(problem, start, tuple(r for r in rates if r == rates[0])).at_rate(rate)


def rule_of(subject: Any, **settings: Any) -> Rule:
    """Return what an optimizer is in the convex case: one of minibng's by its rule and normalizer, else SGD behind NG.

    Examples
    --------
    >>> from minibng import optim
    >>> str(rule_of(optim.AdaGradNG)), str(rule_of(optim.SGDNGAdaptive)), str(rule_of(optim.AdamNG))
    ('AdaGrad behind NG', 'SGD behind adaptive NG', 'a rule without a theorem here')
    """
    if not (isinstance(subject, type) and issubclass(subject, Optimizer)):
        return SGD
    takes = inspect.signature(subject).parameters
    probe: Any = subject([np.zeros(2)], lr=1.0, **{n: v for n, v in settings.items() if n in takes})
    adaptive, whole = isinstance(probe.normalizer, Adaptive), len(probe.block_names) == 1 and not probe.exclude
    plain = whole and probe.normalize in ("unit", "adaptive") and probe.norm.name == 2 and not probe.decay
    kinds = {rules.SGD: "sgd", rules.AdaGrad: "adagrad"}
    kind = kinds.get(type(probe.rule), "other") if plain and probe.method == Optimizer.method else "other"
    return Rule(kind, probe.normalizer.floor if adaptive else None, probe.rule.hyper.get("eps", 0.0))


def law_of(
    certificate: Certificate,
    rule: Rule,
    dtype: Any = np.float64,
    problems: Sequence[Problem] = (),
    unmet: list[tuple[str, ...]] | None = None,
) -> Law:
    """Return a certificate as a law, to be tried on a target that is said to be of a rule.

    A run that does not meet the certificate's hypotheses breaks no law; ``unmet`` gets those that each run did not
    meet.
    """

    def check(target: Target, descent: Descent) -> None:
        outcome = certificate.check(record(target, descent, rule))
        if unmet is not None:
            unmet.append(outcome.unmet)
        if (first := outcome.first()) is not None:
            raise Violation(first[0].told(first[1]))

    def examples(dice: Dice, target: Target) -> tuple[Descent]:
        partition, rate = target.partition, target.rate
        return (draw(certificate, dice, partition=partition, rate=rate, dtype=dtype, problems=problems),)

    def posed(target: Target) -> str:
        if target.make is None:
            return "it takes no steps"
        met = rule.kind in certificate.rules and (rule.floor is None or certificate.name in ADAPTIVE)
        about = {"sgd": "SGD behind NG", "adagrad": "AdaGrad behind NG"}
        return "" if met else f"it is about {about[certificate.rules[0]]}; this is {rule}"

    told_by = (certificate.statement, certificate.formula, certificate.source)
    return Law(certificate.name, certificate.title, *told_by, check, examples, None, True, "", posed)


ADAPTIVE = ("identity", "certificate-a")
"""What holds for adaptive NG too."""


def _qualified(result: Result, unmet: list[tuple[str, ...]]) -> Result:
    """Say of what holds in how many runs its hypotheses were met; "n/a" where that is in none."""
    missing = list(filter(None, unmet))
    if result.verdict != "holds" or not missing:
        return result
    if len(missing) < len(unmet):
        return replace(result, note=f"applicable in {len(unmet) - len(missing)} of {len(unmet)} runs")
    named = "; ".join(dict.fromkeys(h for run in missing for h in run))
    return Result(result.law, "n/a", seconds=result.seconds, note=f"not met in any of {len(unmet)} runs: {named}")


def check_convex(
    target: Any,
    lr: float | None = None,
    certificates: str | Iterable[str] | None = None,
    *,
    rule: str | None = None,
    problems: Sequence[Problem] = (),
    dtype: str = "float64",
    examples: int = 40,
    seed: int = 0,
    timeout: float = 60.0,
    **settings: Any,
) -> Report:
    """Try the theory of the convex case on an optimizer: each certificate on problems that meet its hypotheses.

    Parameters
    ----------
    target, lr, **settings
        What `check` takes.
    certificates
        Names of `CERTIFICATES`, or "all"; default all.
    rule
        What it is meant to be: "sgd" or "adagrad" behind NG, or "other", of which nothing is proved. By default one of
        minibng's optimizers is what it is, and anything else is meant to be SGD behind NG.
    problems
        Problems of your own; default random ones. That what they say of themselves is true is not checked: see
        `Problem`.
    dtype
        Of the random problems, "float32" or "float64".
    examples, seed, timeout
        As for `check`: how many runs a certificate, which, and for how many seconds.

    Returns
    -------
    Report
        A result a certificate: "n/a" where it is about another rule, or where no run met its hypotheses, which the note
        names; where only some did, the note tells how many. Of a rule of which nothing is proved, the observed slope is
        told (`observed_slope`), without a verdict.

    Raises
    ------
    UnknownNameError
        For a certificate, a rule or a dtype that there is not, and as `check`.
    ValueError, TypeError, FileNotFoundError
        As `check`.

    Examples
    --------
    >>> from minibng.verify import check_convex
    >>> report = check_convex("sgd-ng", certificates=["identity", "theorem-3"], examples=5)
    >>> [(result.law, result.verdict) for result in report.results]
    [('identity', 'holds'), ('theorem-3', 'n/a')]
    """
    names = ["all"] if certificates is None else [certificates] if isinstance(certificates, str) else list(certificates)
    for name in names:
        choose({**CERTIFICATES, "all": None}, name, "certificate")
    dtypes = sorted({p.dtype.name for p in problems}) or [dtype]
    for used in (dtype, *dtypes):
        choose(dict.fromkeys(DTYPES), used, "dtype of a convex problem")
    if rule is not None:
        choose(dict.fromkeys(KINDS), rule, "rule")
    given = {"device": "cpu", **settings}
    prepared = prepare(target, lr, (), dtype=dtypes[0], examples=examples, seed=seed, timeout=timeout, **given)
    subject = find(target) if isinstance(target, str) and prepared.target else target
    known = rule_of(subject, **settings)
    known = known._replace(kind=rule or known.kind)
    unmet: dict[str, list[tuple[str, ...]]] = {n: [] for n in CERTIFICATES if n in names or "all" in names}
    laws = {n: law_of(CERTIFICATES[n], known, dtype, problems, unmet[n]) for n in unmet}
    told: dict[str, Any] = {"dtypes": ", ".join(dtypes), "examples": examples, "seed": seed}
    if (made := prepared.target) is None:
        errors = [Result(n, "error", note=prepared.error) for n in laws]
        return Report(prepared.name, errors, told, laws=laws, kind="certificate")
    results = [_qualified(tried(law, made, examples, seed, timeout), unmet[n]) for n, law in laws.items()]
    remark = ""
    if known.kind == "other" and made.make is not None:
        slope = observed_slope(made, seed=seed)
        remark = f"Observed slope of log(least gap) against log(step), about which nothing is proved: {slope:.2f}"
    return Report(made.name, results, told, laws=laws, kind="certificate", remark=remark)


def observed_slope(target: Target, count: int = 9, steps: int = 200, seed: int = 0) -> float:
    """Return the median of `slope` over runs on random problems, at rates ∝ 1/√(t + 1) where the target takes rates.

    A rate of convergence to be looked at: nothing is proved by it, and there is no verdict on it.
    """
    found = []
    for k in range(count):
        dice = Rolled(np.random.default_rng([seed, k]))
        first = draw(CERTIFICATES["theorem-2"], dice, partition=target.partition, rate=target.rate)
        rates = (first.rates[0] / (1.0 if target.rate else math.sqrt(t + 1)) for t in range(steps))
        found.append(slope(record(target, Descent(first.problem, first.start, tuple(rates)))))
    return float(np.nanmedian(found))
