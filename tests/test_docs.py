"""The documentation: its examples run, its pages name every part and every law, nothing in it comes from a network."""

import contextlib
import doctest
import importlib
import inspect
import io
import itertools
import pkgutil
import re
import shlex
from pathlib import Path

import pytest

import minibng
from minibng import cli
from minibng.verify import CERTIFICATES, LAWS
from minibng.verify.counterexamples import COUNTEREXAMPLES
from minibng.verify.mutants import MUTANTS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    *sorted(p for p in DOCS.rglob("*.md") if "_build" not in p.parts and "_static" not in p.parts),
]
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def blocks(page, language):
    """The page with everything blanked out but the code blocks of one language, so that line numbers stay."""
    lines, inside = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        fence = line.startswith("```")
        lines.append(line if inside and not fence else "")
        inside = line == f"```{language}" if fence and not inside else inside and not fence
    return lines


def with_blocks(language, mark):
    return [page for page in PAGES if any(line.startswith(mark) for line in blocks(page, language))]


def named(page):
    return page.relative_to(ROOT).as_posix()


EXAMPLES, COMMANDS = with_blocks("python", ">>> "), with_blocks("console", "$ ")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Examples may write files, register rules, and import a module that the page shows; all that is undone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = {rule if isinstance(rule, type) else type(rule) for rule in minibng.optim.registered()}
    yield
    for rule in minibng.optim.registered():
        if (cls := rule if isinstance(rule, type) else type(rule)) not in before:
            minibng.optim.unregister(cls.__name__)


def run_examples(page):
    space = {"__name__": "__main__"}
    test = doctest.DocTestParser().get_doctest("\n".join(blocks(page, "python")), space, named(page), str(page), 0)
    runner, told = doctest.DocTestRunner(optionflags=FLAGS), io.StringIO()
    runner.run(test, out=told.write)
    assert runner.failures == 0, told.getvalue()


def run_commands(page):
    """Run every line of a console block that starts with $, and compare what it prints with the lines below it."""
    lines = [*blocks(page, "console"), "$ "]
    starts = [k for k, line in enumerate(lines) if line.startswith("$ ")]
    for a, b in itertools.pairwise(starts):
        program, *words = shlex.split(lines[a][2:])
        assert program == "minibng", f"{lines[a]}: only minibng's own commands can be tried"
        wanted, printed = "\n".join(lines[a + 1 : b]).strip(), io.StringIO()
        with contextlib.redirect_stdout(printed):
            assert cli.main(words) == 0, lines[a]
        agrees = doctest.OutputChecker().check_output(f"{wanted}\n", f"{printed.getvalue().strip()}\n", FLAGS)
        assert agrees, f"{lines[a]} prints\n{printed.getvalue()}"


@pytest.mark.parametrize("page", sorted({*EXAMPLES} - {*COMMANDS}), ids=named)
def test_examples_print_what_the_page_says(page):
    run_examples(page)


@pytest.mark.slow
@pytest.mark.parametrize("page", COMMANDS, ids=named)
def test_commands_and_the_examples_that_use_their_files(page):
    run_commands(page)
    run_examples(page)


def test_the_code_of_the_readme_runs():
    exec(compile("\n".join(blocks(ROOT / "README.md", "python")), "README.md", "exec"), {"__name__": "__main__"})


def test_the_reference_has_a_place_for_every_part():
    """Every package, and every module at the top, stands on some page; names within them appear by themselves."""
    text = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.rst"))
    shown = set(re.findall(r"^\.\. public:: (\S+)", text, flags=re.MULTILINE))
    parts = {
        module.name
        for module in pkgutil.walk_packages(minibng.__path__, "minibng.")
        if module.ispkg or module.name.count(".") == 1
    }
    assert parts - {"minibng.__main__", "minibng.cli"} <= shown


def test_every_public_name_has_a_docstring():
    text = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.rst"))
    for name in re.findall(r"^\.\. public:: (\S+)", text, flags=re.MULTILINE):
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", ()):
            value = getattr(module, public)
            if inspect.isroutine(value) or inspect.isclass(value):
                assert inspect.getdoc(value), f"{name}.{public}"


def test_the_theory_names_every_law_under_its_number():
    theory = (DOCS / "theory.md").read_text(encoding="utf-8")
    sections = {number: body for number, body in re.findall(r"^### (I\d+) (.*?)(?=^##)", theory, flags=re.M | re.S)}
    assert list(sections) == [f"I{k}" for k in range(1, 14)]
    for law in LAWS.values():
        if law.number in sections:
            assert f"`{law.name}`" in sections[law.number], law.name


def test_the_theory_names_every_certificate_and_counterexample():
    theory = (DOCS / "theory.md").read_text(encoding="utf-8")
    for name in (*CERTIFICATES, *COUNTEREXAMPLES):
        assert re.search(rf"\[[^\]]*`{name}`[^\]]*\]", theory), name


def test_relative_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#)([^)\s#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{named(page)} links to {target}"


@pytest.fixture(scope="module")
def extensions():
    pytest.importorskip("sphinx", reason="the site needs pip install -e '.[docs]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DOCS / "_extensions")
        yield {name: importlib.import_module(name) for name in ("minibng_site", "minibng_laws")}


@pytest.fixture(scope="module")
def site(extensions):
    return extensions["minibng_site"]


@pytest.fixture(scope="module")
def laws(extensions):
    return extensions["minibng_laws"]


def test_the_build_sees_what_a_page_would_load_from_a_network(site):
    page = """<a href="https://arxiv.org/abs/1707.04822">paper</a><link rel="canonical" href="https://x.org/">
    <link rel="stylesheet" href="https://fonts.example/a.css"><script src="//cdn.example/b.js"></script>
    <img src="_images/c.png"><script>var d = "https://e.example";</script><img alt="" src='http://f.example/g.png'/>"""
    wanted = ["https://fonts.example/a.css", "//cdn.example/b.js", "http://f.example/g.png"]
    assert site.loaded_from_elsewhere(page) == wanted


def test_formulas_in_docstrings_are_no_markup(site):
    lines = ["Return |x| of f(*args), ``|`` kept.", "", ">>> abs(-1) | 0", "1", "", "|y|"]
    site.escape_formulas(None, "", "", None, None, lines)
    assert lines == [r"Return \|x\| of f(\*args), ``|`` kept.", "", ">>> abs(-1) | 0", "1", "", r"\|y\|"]


def test_every_law_has_a_page_with_what_it_finds(laws):
    found = laws.kills()
    assert set(found) == set(MUTANTS)
    pages = {name: "\n".join(lines) for name, lines in laws.law_pages()}
    assert list(pages) == list(LAWS)
    for name, law in LAWS.items():
        assert law.formula in pages[name] and f"def {name.replace('-', '_')}(" in pages[name]
        killed = {mutant for mutant, (sure, _) in found.items() if name in sure}
        assert killed and all(f"``{mutant}``" in pages[name] for mutant in killed)
    assert ":ref:`I11 <i11>`" in pages["resume"] and "Not where it takes no steps; or where" in pages["resume"]
    assert "bounds.unit" in pages["unit-norm"] and "\n``sgd-ng``, ``momentum-ng``.\n" in pages["unit-norm"]


def test_wrong_optimizers_and_certificates_have_a_page(laws):
    text = "\n".join(laws.mutants_page())
    assert all(f"``{name}``" in text for name in MUTANTS)
    assert text.count("<td>●</td>") == sum(len(sure) for sure, _ in laws.kills().values())
    text = "\n".join(laws.certificates_page())
    assert all(f"\n{name}\n---" in text and c.formula in text for name, c in CERTIFICATES.items())
    assert text.count(" holds at ") == len(CERTIFICATES)


def test_the_vendored_mathjax_says_what_it_is():
    folder = DOCS / "_static" / "mathjax"
    note = (folder / "README.md").read_text(encoding="utf-8")
    version = re.search(r"MathJax (\d+\.\d+\.\d+)", note)[1]
    assert f'"{version}"' in (folder / "tex-svg-full.js").read_text(encoding="utf-8")
    assert "Apache License" in (folder / "LICENSE").read_text(encoding="utf-8")
