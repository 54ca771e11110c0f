"""A page for each law, written from the law itself; pages for the wrong optimizers, the certificates, what fails."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from minibng_site import table
from sphinx.application import Sphinx

from minibng import optim
from minibng.verify import CERTIFICATES, LAWS, Certificate, Law, Target
from minibng.verify.convex import draw, record, rule_of
from minibng.verify.counterexamples import COUNTEREXAMPLES
from minibng.verify.mutants import MUTANTS
from minibng.verify.problems import Rolled

COMMITTED = Path(__file__).parents[2] / "tests" / "verify" / "test_matrix.py"

CONTRACT = "A contract of programs, not of mathematics: it has no number."

SECTIONS = {"certificate-a": "identity", "certificate-b": "descent"}
"""Certificate → the label of its section on the page on theory, where that is not its name."""

SHOWN = {
    "median-bias": "median-bias",
    "workers-normalized-first": "i12",
    "scalar-blocks": "counterexample",
    "circling": "corollary",
    "decay-before": "i10",
    "adam-scale": "i10",
    "half-norm": "i1",
}
"""Counterexample → the label of the section that it belongs to."""


def escape(text: str) -> str:
    """Return a text in which |x|, a*b and x_ are no marks of reST."""
    return re.sub(r"([\\|*]|(?<=\w)_(?!\w))", r"\\\1", text)


def heading(title: str, line: str = "=") -> Iterator[str]:
    """Yield the reST of a title."""
    yield from (title, line * len(title), "")


def formula(text: str) -> Iterator[str]:
    """Yield the reST of a formula that is written with its own letters."""
    yield from (".. code-block:: text", "", f"   {text}", "")


def definitions(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield the reST of terms with what is to be said of each."""
    for term, text in pairs:
        yield from (term, f"   {text}", "")


def theory(number: str) -> str:
    """Return the reST of a link to what theory has under a number."""
    return f":ref:`{number} <{number.lower()}>`" if number.startswith("I") else ""


# Laws


def kills() -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Return mutant → the laws that find it among the first hundred examples, and those that may, as the tests hold."""
    for node in ast.parse(COMMITTED.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "BROKEN":
            halves = {name: laws.partition("|") for name, laws in ast.literal_eval(node.value).items()}
            return {name: (tuple(sure.split()), tuple(more.split())) for name, (sure, _, more) in halves.items()}
    raise LookupError(f"{COMMITTED} has no BROKEN = ...")


def promises() -> dict[str, dict[str, list[str]]]:
    """Return law → reason → the optimizers it is not promised of; "" where it is."""
    found: dict[str, dict[str, list[str]]] = {name: {"": []} for name in LAWS}
    for name in optim.names():
        target = Target.of(optim.get(name))
        for law in LAWS:
            found[law].setdefault(target.by_design.get(law, ""), []).append(name)
    return found


def _nothing(params: Any, lr: Any, blocks: Any) -> Any:
    """Make no optimizer: only whether a law can be posed is asked."""


def obstacles(law: Law) -> list[str]:
    """Return why a law cannot be posed of a bare normalizer, and of an optimizer of which nothing is known."""
    bare = Target("", normalize=list, partition="tensor")
    unknown = Target("", make=_nothing, partition="global", keeps_state=False)
    return list(dict.fromkeys(filter(None, (law.posed(bare), law.posed(unknown)))))


def law_page(law: Law, found: Mapping[str, Any], held: Mapping[str, list[str]]) -> Iterator[str]:
    """Yield the page of a law."""
    yield from heading(law.name)
    yield from (escape(law.statement), "", *formula(law.formula))
    source = "worked out for this package" if law.source == "derived" else law.source
    where = theory(law.number)
    yield from definitions(
        [
            ("Why", escape(law.proof)),
            ("Theory", f"{where}; {source}." if where else CONTRACT),
            ("Tolerance", tolerance(law)),
            ("Tried on", escape(drawn(law))),
            ("Can be posed", posed(law)),
        ]
    )
    yield from heading("How it is measured", "-")
    source_lines = inspect.getsource(law.check).splitlines()
    start = next(k for k, line in enumerate(source_lines) if line.startswith("def "))
    yield from (".. code-block:: python", "", *(f"   {line}" for line in source_lines[start:]), "")
    yield from heading("Mistakes that it finds", "-")
    sure, more = ([name for name in found if law.name in found[name][k]] for k in (0, 1))
    yield from definitions((f"``{name}``", escape(MUTANTS[name].about)) for name in sure)
    if more:
        yield from (f"Given enough examples also {', '.join(f'``{name}``' for name in more)}.", "")
    yield from ("All of them are on :doc:`one page <mutants>`.", "")
    yield from heading("Optimizers of minibng that it is promised of", "-")
    yield from (", ".join(f"``{name}``" for name in held[""]) + "." if held[""] else "None of the named ones.", "")
    others = {reason: names for reason, names in held.items() if reason}
    if others:
        yield from ("Not promised of", "")
        yield from definitions(
            (", ".join(f"``{name}``" for name in names), escape(reason)) for reason, names in others.items()
        )


def tolerance(law: Law) -> str:
    """Return what rounding is given, in reST."""
    if law.tolerance is None:
        return "None: nothing is rounded. Where results are compared, equal is bit for bit, but for the sign of a zero."
    first, _, rest = (inspect.getdoc(law.tolerance) or "").partition("\n")
    told = " ".join([re.sub(r"^I\d+(, I\d+)*( for any rule)?[^:]*: ", "", first), *rest.split()])
    return f"`bounds.{law.tolerance.__name__} <minibng.verify.bounds.{law.tolerance.__name__}>`: {escape(told)}"


def drawn(law: Law) -> str:
    """Return what it is tried on, from the docstring of its strategy."""
    words = " ".join((inspect.getdoc(law.examples) or "").split())
    told = re.sub(r"^Return \([^)]*\)[:,.]?", "", words).strip() or "any."
    return f"{', '.join(law.arguments())}: {told}"


def posed(law: Law) -> str:
    """Return when it can be posed."""
    reasons = obstacles(law)
    if not reasons:
        return "Always."
    return "Not where " + "; or where ".join(escape(reason) for reason in reasons) + "."


def law_pages() -> Iterator[tuple[str, Iterator[str]]]:
    """Yield the name and the text of every law's page."""
    found, held = kills(), promises()
    for law in LAWS.values():
        yield law.name, law_page(law, found, held[law.name])


# Laws × mutants


def mutants_page() -> Iterator[str]:
    """Yield the page of the wrong optimizers."""
    found = kills()
    yield from heading("Wrong optimizers")
    yield from (
        f"{len(MUTANTS)} optimizers, each one mistake away from a correct one. Each is caught, each law catches one "
        "that a test of a falling loss lets through; the tests hold this matrix. Their code is "
        "`minibng.verify.mutants`. Hand one out, and let the laws tell what is wrong::",
        "",
        "   minibng verify mutant:missing-root",
        "",
    )
    yield from table(
        ["mutant", "mistake", "laws that it breaks"],
        [
            [f"``{name}``", escape(MUTANTS[name].about), ", ".join(map(law_link, sure))]
            for name, (sure, _) in found.items()
        ],
        widths="22 40 38",
    )
    yield from heading("Laws × mutants", "-")
    yield from (
        "●: the law finds the mutant among its first hundred examples. ○: it may; another seed, or more examples, may "
        "be needed. Laws that the correct optimizer does not promise are not tried. A row is a mutant.",
        "",
        ".. raw:: html",
        "",
    )
    yield from (f"   {line}" for line in grid(found))
    yield ""


def grid(found: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]) -> Iterator[str]:
    """Yield the HTML of the matrix."""
    yield '<div class="matrix"><table><thead><tr><th></th>'
    yield from (f'<th><a href="{law}.html">{law}</a></th>' for law in LAWS)
    yield "</tr></thead><tbody>"
    for name, (sure, more) in found.items():
        marks = ("●" if law in sure else "○" if law in more else "" for law in LAWS)
        yield f"<tr><th>{name}</th>{''.join(f'<td>{mark}</td>' for mark in marks)}</tr>"
    yield "</tbody></table></div>"


def law_link(name: str) -> str:
    """Return the reST of a link to a law's page."""
    return f":doc:`{name} <{name}>`"


# Certificates


def certificates_page() -> Iterator[str]:
    """Yield the page of the certificates."""
    yield from heading("Certificates of the convex case")
    yield from (
        "What theory proves of convex functions (:doc:`../theory`), as objects. A certificate looks at the record of a "
        "run: it checks the hypotheses one by one, works out what the theorem bounds and the bound at every step, and "
        "says *holds*, *violated*, or *not applicable* where a hypothesis is not met. `check_convex` tries all of them "
        "on an optimizer, on random problems with known minimizers; ``minibng compare convex`` draws them on data.",
        "",
    )
    for certificate in CERTIFICATES.values():
        yield from certificate_section(certificate)


def certificate_section(certificate: Certificate) -> Iterator[str]:
    """Yield what there is to say of a certificate, with what it says of one small run."""
    yield from heading(certificate.name, "-")
    _, _, rest = (inspect.getdoc(certificate.measure) or "").partition("\n")
    yield from (escape(certificate.statement), "", *formula(certificate.formula))
    if rest.strip():
        yield from (escape(" ".join(rest.split())), "")
    optimizer = optim.AdaGradNG if "adagrad" in certificate.rules else optim.SGDNG
    dice = Rolled(np.random.default_rng(0))
    run = record(Target.of(optimizer), draw(certificate, dice), rule_of(optimizer))
    outcome = certificate.check(run)
    label = SECTIONS.get(certificate.name, certificate.name)
    assumed = "; ".join(escape(h.statement) for h in outcome.hypotheses)
    yield from definitions(
        [
            ("Assumes", f"f is convex with a minimizer x\\*; {assumed}."),
            ("Proof", f":ref:`Theory <{label}>`."),
            (
                "For example",
                escape(f"one run of {optimizer.__name__} on a random problem ({run.problem.name}): {outcome}") + ".",
            ),
        ]
    )


# Counterexamples


def counterexamples_page() -> Iterator[str]:
    """Yield the page of what goes wrong outside the theory, with the numbers of a run."""
    yield from heading("Counterexamples")
    yield from (
        "What goes wrong where the method is used outside its theory: functions of `minibng.verify.counterexamples`. "
        "Each makes its runs in about a second and returns a finding with the numbers measured and those that a closed "
        "form allows; ``check()`` raises where they do not agree. ``plot.curves(**finding.picture)`` draws it.",
        "",
    )
    for name, function in COUNTEREXAMPLES.items():
        finding = function()
        finding.check()
        yield from heading(name, "-")
        yield from (escape(finding.statement), "")
        yield from (escape(" ".join((inspect.getdoc(function) or "").split())), "")
        rows = [[escape(f.what), f"{f.measured:.6g}", str(f).rpartition("by theory ")[2]] for f in finding.facts]
        yield from table(["", "measured", "by theory"], rows, widths="60 15 25")
        if name in SHOWN:
            yield from (f"See :ref:`theory <{SHOWN[name]}>`.", "")


# The files. They are written where Sphinx looks for pages, and git ignores them.

PAGES: Mapping[str, Callable[[], Iterator[str]]] = {
    "mutants": mutants_page,
    "certificates": certificates_page,
    "counterexamples": counterexamples_page,
}


def pages() -> dict[str, str]:
    """Return name → text of all pages."""
    written = {**dict(law_pages()), **{name: page() for name, page in PAGES.items()}}
    return {name: "\n".join(lines).strip() + "\n" for name, lines in written.items()}


def write_pages(app: Sphinx) -> None:
    """Make docs/laws hold a page a law, and the others; one that is up to date keeps its time stamp."""
    here, wanted = Path(app.srcdir) / "laws", pages()
    for old in here.glob("*.rst"):
        if old.stem not in wanted:
            old.unlink()
    for name, text in wanted.items():
        path = here / f"{name}.rst"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Enter all this into Sphinx."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
