"""What this site adds to Sphinx: pages that the code writes, the notebooks, and a check that all works offline."""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from minibng import cli, data, optim
from minibng.data.download import size_text
from minibng.experiments import EXPERIMENTS
from minibng.experiments.metrics import METRICS
from minibng.verify import LAWS

logger = logging.getLogger(__name__)

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


# The notebooks stand beside docs/; Sphinx reads only what is inside. They are copied in, and git ignores the copies.


def bring_notebooks(app: Sphinx) -> None:
    """Make docs/tutorials hold the notebooks as they are; a copy that is up to date keeps its time stamp."""
    here = Path(app.srcdir) / "tutorials"
    wanted = {path.name: path.read_bytes() for path in sorted(NOTEBOOKS.glob("*.ipynb"))}
    for old in here.glob("*.ipynb"):
        if old.name not in wanted:
            old.unlink()
    for name, content in wanted.items():
        copy = here / name
        if not copy.exists() or copy.read_bytes() != content:
            copy.write_bytes(content)


# The reference: whatever is public, found by looking


def public_names(module: ModuleType) -> list[str]:
    """Return a module's public names: its ``__all__``, or what it defines itself without an underscore."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    documented = ModuleAnalyzer.for_module(module.__name__).find_attr_docs()
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (getattr(value, "__module__", None) == module.__name__ if is_object(value) else ("", name) in documented)
    ]


def is_object(value: Any) -> bool:
    """Tell whether a value is a function or a class, which brings its own docstring."""
    return inspect.isroutine(value) or inspect.isclass(value)


def shorter_home(module: ModuleType, name: str) -> str | None:
    """Return the package nearer to the top that offers the same object under the same name, if there is one."""
    parts = module.__name__.split(".")
    for k in range(1, len(parts)):
        package = importlib.import_module(".".join(parts[:k]))
        if name in getattr(package, "__all__", ()) and getattr(package, name) is getattr(module, name):
            return package.__name__
    return None


def told(module: ModuleType, name: str) -> list[str]:
    """Return the docstring that stands below a variable, wherever in the package the variable is defined."""
    value = getattr(module, name)
    for other in [module, *(m for n, m in sorted(sys.modules.items()) if n.startswith("minibng"))]:
        if vars(other).get(name) is value:
            docs = ModuleAnalyzer.for_module(other.__name__).find_attr_docs()
            if ("", name) in docs:
                return docs["", name]
    return []


def entry(module: ModuleType, name: str) -> Iterator[str]:
    """Yield the reST of one public name."""
    value = getattr(module, name)
    if inspect.isclass(value):
        yield f".. autoclass:: {name}"
    elif inspect.isroutine(value):
        yield f".. autofunction:: {name}"
    else:
        words = list(told(module, name))
        escape_formulas(None, "data", name, value, None, words)
        yield from (f".. py:data:: {name}", "", *(f"   {line}" for line in words))
    yield ""


def by_home(module: ModuleType, names: Iterable[str], order: Sequence[str]) -> dict[str, list[str]]:
    """Return the names under what their own modules are about, the modules named in ``order`` first."""
    groups: dict[str, list[str]] = {}
    for name in names:
        home = getattr(getattr(module, name), "__module__", None) or module.__name__
        groups.setdefault(home, []).append(name)
    places = {home: place for place, home in enumerate(order)}
    homes = sorted(groups, key=lambda home: places.get(home.rpartition(".")[2], len(places)))
    return {about(sys.modules[home]): groups[home] for home in homes}


def about(module: ModuleType) -> str:
    """Return what a module is about: its docstring up to the first colon, bracket or full stop."""
    return re.split(r"[:;.]| \(", module.__doc__ or "", maxsplit=1)[0]


class Public(SphinxDirective):
    """``.. public:: minibng.nn``: the module's docstring, a table of its public names, and each of them in full.

    With ``:by-home: linear convolution`` the names of a package stand together by the modules that define them, those
    two first.
    """

    required_arguments = 1
    option_spec: ClassVar[dict[str, Callable[[str], Any]]] = {"by-home": str.split}

    def run(self) -> list[nodes.Node]:
        """Write the page and parse it."""
        module = importlib.import_module(self.arguments[0])
        names = [name for name in public_names(module) if not inspect.ismodule(getattr(module, name))]
        homes = {name: shorter_home(module, name) for name in names}
        own = [name for name in names if homes[name] is None]
        above = [f":py:obj:`~{homes[name]}.{name}`" for name in names if homes[name] is not None]
        packages = ", ".join(f":py:mod:`{home}`" for home in sorted({home for home in homes.values() if home}))
        listed = [name for name in own if is_object(getattr(module, name))]
        groups = by_home(module, listed, self.options["by-home"]) if "by-home" in self.options else {"": listed}
        lines = [f".. automodule:: {module.__name__}", "   :no-members:", ""]
        if above:
            lines += [f"Also here, documented with {packages}: {', '.join(above)}.", ""]
        lines += [f".. currentmodule:: {module.__name__}", ""]
        for title, group in groups.items():
            lines += [f".. rubric:: {title}", ""] if title else []
            lines += [".. autosummary::", "", *(f"   {name}" for name in group), ""] if group else []
        in_order = [name for group in groups.values() for name in group]
        for name in [*in_order, *(name for name in own if name not in listed)]:
            lines += entry(module, name)
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


# Tables and texts that the code writes


def table(head: Iterable[str], rows: Iterable[Iterable[str]], widths: str = "auto") -> Iterator[str]:
    """Yield the reST of a table."""
    yield from (".. list-table::", "   :header-rows: 1", f"   :widths: {widths}", "")
    for row in (head, *rows):
        for k, cell in enumerate(row):
            yield f"   {'  -' if k else '* -'} {cell or ' '}"
    yield ""


def optimizers() -> Iterator[str]:
    """Yield the table of all optimizers, a line a rule and a column a form; then how each is called."""
    names = optim.names()
    forms = list(dict.fromkeys(name.removeprefix(base(name)) for name in names))
    groups = {rule: [name for name in names if base(name) == rule] for rule in dict.fromkeys(map(base, names))}
    rows = [
        [f"``{rule}``", *(f"`{optim.get(rule + form).__name__}`" if rule + form in group else "" for form in forms)]
        for rule, group in groups.items()
    ]
    yield from table(["on the command line", *(f"with ``{form}``" if form else "alone" for form in forms)], rows)
    yield from (".. currentmodule:: minibng.optim", "")
    for group in groups.values():
        if len(group) > 1:  # the others have a class of their own, which stands among the public names
            first, *more = [optim.get(name).__name__ + signature(optim.get(name)) for name in group]
            yield from (f".. py:class:: {first}", *(f"              {line}" for line in more), "")
            own = f"rules.{optim.get(group[0]).__name__}"
            yield from (f"   The rule is `{own}`, which tells its settings; the others are those of `Optimizer`.", "")


def signature(cls: Any) -> str:
    """Return how an optimizer is called: what every one needs, and the settings that its rule adds."""
    found = inspect.signature(cls).parameters
    own = "".join(f", {name}={found[name].default!r}" for name in cls.hyper)
    return f"(params, lr{', *' if own else ''}{own}, **settings)"


def base(name: str) -> str:
    """Return the rule of an optimizer, from its name on the command line."""
    return name.partition("-")[0]


def laws() -> Iterator[str]:
    """Yield the table of the laws, each with a link to its page."""
    rows = [
        [law.number, f":doc:`{law.name} </laws/{law.name}>`", law.statement, f"``{law.formula}``"]
        for law in LAWS.values()
    ]
    yield from table(["number", "name", "statement", "formula"], rows, widths="8 18 40 34")


def datasets() -> Iterator[str]:
    """Yield the table of the data sets."""
    rows = [
        [
            f"``{name}``",
            e.about.removesuffix(" (download)"),
            size_text(sum(file.size for file in e.files)) * bool(e.files),
        ]
        for name, e in data.DATASETS.items()
    ]
    yield from table(["name", "what it is", "download"], rows)


def experiments() -> Iterator[str]:
    """Yield the experiments with the claims that each tests, and their presets."""
    for name, experiment in EXPERIMENTS.items():
        yield from (f"``{name}``", f"   {experiment.about}", "")
        for claim in experiment.claims:
            words = f"{claim.treatment} against {claim.baseline}, by {METRICS[claim.metric].name}"
            setting = ", ".join(f"{key} {value}" for key, value in claim.setting.items() if value is not None)
            why = f" No verdict: {claim.undecidable}." * bool(claim.undecidable)
            yield from (f"   {claim.number}: {claim.statement}. Tested as {words}; {setting}.{why}", "")
        for trend in experiment.trends:
            pairs = ", ".join(f"{treatment} against {baseline}" for baseline, treatment in trend.pairs)
            yield from (f"   Exploratory, along {trend.axis}: {trend.question} ({pairs})", "")
        for key, preset in experiment.presets.items():
            yield from (f"   ``--preset {key}``: {preset.about}.", "")


def commands() -> Iterator[str]:
    """Yield the help text of every command, as ``--help`` prints it, at a width that fits the page."""
    before, os.environ["COLUMNS"] = os.environ.get("COLUMNS"), "92"
    try:
        for parser, above in parsers(cli._parser()):
            title = parser.prog
            text = parser.format_help().rstrip()
            if above is not None and parser.epilog == above.epilog and parser.epilog:
                text = text.removesuffix(parser.epilog.rstrip()).rstrip()  # it stands with the command already
            yield from (title, ("-" if title.count(" ") < 2 else "~") * len(title), "", ".. code-block:: text", "")
            yield from (f"   {line}" for line in text.splitlines())
            yield ""
    finally:
        os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)


def parsers(
    parser: argparse.ArgumentParser, above: argparse.ArgumentParser | None = None
) -> Iterator[tuple[argparse.ArgumentParser, argparse.ArgumentParser | None]]:
    """Yield a parser and those of all its commands, each with the one above it."""
    yield parser, above
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from parsers(command, parser)


WRITERS: Mapping[str, Callable[[], Iterator[str]]] = {
    writer.__name__: writer for writer in (optimizers, laws, datasets, experiments, commands)
}


class FromCode(SphinxDirective):
    """``.. from-code:: optimizers``: a table or text that the code writes, so that it cannot be out of date."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Write the text and parse it."""
        return self.parse_text_to_nodes("\n".join(WRITERS[self.arguments[0]]()), allow_section_headings=True)


# Docstrings: formulas are formulas, and `Params` means the one Params that there is


def escape_formulas(app: Sphinx | None, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Let |x| be an absolute value and f(*args) a call, in which reST would see its own marks. Code is left alone."""
    code = False
    for k, line in enumerate(lines):
        code = line.lstrip().startswith(">>>") or (code and bool(line.strip()))
        if not code:
            parts = line.split("``")
            parts[::2] = [part.replace("|", r"\|").replace("(*", r"(\*") for part in parts[::2]]
            lines[k] = "``".join(parts)


def resolve_short_name(app: Sphinx, env: Any, node: Any, contnode: Any) -> nodes.reference | None:
    """Resolve a reference by its last parts, where exactly one documented name ends in them."""
    if node.get("refdomain") != "py":
        return None
    domain, target = env.get_domain("py"), node["reftarget"].removesuffix("()")
    found = {name for name in domain.objects if name == f"minibng.{target}" or name.endswith(f".{target}")}
    nearest = sorted(found, key=lambda name: (name.count("."), name))
    if not nearest or (len(nearest) > 1 and nearest[0].count(".") == nearest[1].count(".")):
        return None
    resolved = domain.resolve_xref(env, node["refdoc"], app.builder, "obj", nearest[0], node, contnode)
    return resolved if isinstance(resolved, nodes.reference) else None


# Offline: the build fails where a page would load something from elsewhere

LOADS = {**dict.fromkeys(("script", "img", "iframe", "source", "embed"), "src"), "object": "data", "link": "href"}
NOT_LOADED = {"canonical", "next", "prev", "index", "search", "author"}


class Loads(HTMLParser):
    """Collects what a page loads when it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the address of a script, picture, style sheet or frame."""
        given = dict(attrs)
        if tag in LOADS and (given.get("rel") or "") not in NOT_LOADED:
            self.found.append(given.get(LOADS[tag]) or "")


def loaded_from_elsewhere(page: str) -> list[str]:
    """Return the addresses that a page loads from a network."""
    parser = Loads()
    parser.feed(page)
    return [address for address in parser.found if address.startswith(("http:", "https:", "//"))]


def check_offline(app: Sphinx, error: Exception | None) -> None:
    """Warn, which is an error with -W, of every page and style sheet that loads something from a network."""
    if error is not None or app.builder.format != "html":
        return
    out = Path(app.outdir)
    for page in sorted(out.rglob("*.html")):
        for address in loaded_from_elsewhere(page.read_text(encoding="utf-8")):
            logger.warning("%s loads %s from the network", page.relative_to(out), address)
    for sheet in sorted(out.rglob("*.css")):
        for reach in ("url(http", "url(//", 'url("http', "url('http", '@import "http', "@import url"):
            if reach in sheet.read_text(encoding="utf-8"):
                logger.warning("%s loads something from the network: %s…", sheet.relative_to(out), reach)


def setup(app: Sphinx) -> dict[str, Any]:
    """Enter all this into Sphinx."""
    app.add_directive("public", Public)
    app.add_directive("from-code", FromCode)
    app.connect("builder-inited", bring_notebooks)
    app.connect("autodoc-process-docstring", escape_formulas)
    app.connect("missing-reference", resolve_short_name)
    app.connect("build-finished", check_offline)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
