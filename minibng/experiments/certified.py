"""What the certificates of the convex case say of runs: told below a comparison's table, recorded, and drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from minibng.backend import HostArray
from minibng.experiments.declaration import Setting
from minibng.verify.certificates import CERTIFICATES, Outcome, Run, slope

GAP = "f(x_t) − f*"
KNOWN = {kind for certificate in CERTIFICATES.values() for kind in certificate.rules}
Words = Callable[[Setting], str]


class Said(NamedTuple):
    """What one certificate says of one run.

    ``share`` is the gap divided by its bound at the last step, where the certificate bounds the gap of a run that ends
    there.
    """

    name: str
    title: str
    verdict: str
    told: str
    share: float | None

    @property
    def applies(self) -> bool:
        """Whether its hypotheses are met."""
        return self.verdict != "not applicable"


@dataclass(frozen=True)
class Certified:
    """What the certificates say of one run, and the curves that show it: label → (steps, values)."""

    label: str
    setting: Setting
    optimizer: str
    seed: int
    known: bool
    """Whether there is a theorem about its rule at all."""
    said: tuple[Said, ...]
    slope: float
    curves: dict[str, tuple[HostArray, HostArray]]

    def records(self) -> Iterator[dict[str, Any]]:
        """Return one record a certificate."""
        for s in self.said:
            run = {"run": self.label, "optimizer": self.optimizer, **self.setting, "seed": self.seed}
            yield {**run, "slope": self.slope, **s._asdict()}


def certified(label: str, setting: Setting, run: Run, optimizer: str, seed: int) -> Certified:
    """Ask every certificate about a run."""
    with np.errstate(over="ignore", invalid="ignore"):
        gaps = run.gaps.astype(np.float64)
    outcomes = {name: c.check(run) for name, c in CERTIFICATES.items()}
    curves = {GAP: (np.arange(len(gaps)), gaps)}
    for outcome in outcomes.values():
        for series in outcome.series:
            if series.at_end:
                key = f"{outcome.certificate.title}: {series.what}"
                curves[key] = (series.steps, series.bound.astype(np.float64))
    said = tuple(Said(n, o.certificate.title, o.verdict, str(o), _share(o)) for n, o in outcomes.items())
    return Certified(label, dict(setting), optimizer, seed, run.rule.kind in KNOWN, said, slope(run), curves)


def _share(outcome: Outcome) -> float | None:
    ends = [s for s in outcome.series if s.at_end and len(s.steps)]
    return float(ends[0].measured[-1] / ends[0].bound[-1]) if ends else None


def line(found: Sequence[Certified]) -> list[str]:
    """Tell what was found of one optimizer over seeds, or of one run at theory's rates: cells of a table's line."""
    first, applied = found[0], [s for one in found for s in one.said if s.applies]
    told = []
    for title in dict.fromkeys(s.title for s in applied):
        mine = [s for s in applied if s.title == title]
        held, shares = sum(s.verdict == "holds" for s in mine), [s.share for s in mine if s.share]
        count = "" if held == len(found) else f" {held} of {len(found)}"
        share = f" (gap/bound {math.exp(np.mean(np.log(shares))):.2g})" if shares else ""
        told.append(title + count + share)
    slopes = [one.slope for one in found if math.isfinite(one.slope)]
    observed = f"{np.mean(slopes):.2f}" if slopes else "–"
    none = "hypotheses not met" if first.known else "no theorem"
    return [first.label, str(first.setting["schedule"]), observed, ", ".join(told) or none]


def grouped(found: Iterable[Certified], words: Words) -> dict[str, list[list[Certified]]]:
    """Return title → runs, those of one line together: words(setting) tells settings apart."""
    groups: dict[str, dict[Any, list[Certified]]] = {}
    for one in found:
        lines = groups.setdefault(words(one.setting), {})
        lines.setdefault((one.label, one.setting["schedule"]), []).append(one)
    return {title: list(lines.values()) for title, lines in groups.items()}


def violations(found: Iterable[Certified]) -> list[str]:
    """Return what is violated, in words."""
    return [f"{one.label}, seed {one.seed}: {s.told}" for one in found for s in one.said if s.verdict == "violated"]


def panels(found: Iterable[Certified], words: Words) -> dict[str, dict[str, tuple[HostArray, HostArray]]]:
    """Return title → curves: the first seed of each run that a theorem bounds, and together those that none does."""
    drawn: dict[str, dict[str, tuple[HostArray, HostArray]]] = {}
    for title, lines in grouped(found, words).items():
        for one, *_ in lines:
            what = f"{title}, {one.label}".removeprefix(", ")
            if len(one.curves) > 1:
                drawn[what] = one.curves
            elif not one.known:
                label = f"{one.optimizer}, slope {one.slope:.2g}"
                drawn.setdefault(f"{title}, no theorem".removeprefix(", "), {})[label] = one.curves[GAP]
    return drawn
