"""The layout of the package, read from its sources: who may import whom, and how long things may be (design.md 3)."""

import ast
import functools
import io
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "minibng"
FILES = sorted(PACKAGE.rglob("*.py"))

LEAVES = {"names", "extras"}
BELOW = {
    "names": set(),
    "extras": set(),
    "backend": set(),
    "autodiff": {"backend"},
    "params": {"backend"},
    "nn": {"autodiff", "backend", "params"},
    "optim": {"backend", "params"},
    "data": {"backend"},
    "train": {"autodiff", "backend", "data", "nn", "optim", "params"},
    "verify": {"backend", "optim", "params"},
    "experiments": {"autodiff", "backend", "data", "nn", "optim", "params", "plot", "train", "verify"},
    "plot": {"train"},
}
"""Part → the parts that it may import, besides itself and the leaves. The command line may import everything."""

FRONT = {"__init__", "__main__", "cli"}
CORE_BUDGET, FUNCTION_BUDGET, PACKAGE_BUDGET = 250, 60, 17_200
"""In lines of code: blank lines, comments and docstrings are free."""


@functools.cache
def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def part_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path):
    """Every module that a file imports, at its top or inside a function: absolute names, with the line."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            if node.module == "minibng":
                yield from ((f"minibng.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield node.module, node.lineno


def ours(path):
    """The parts of minibng that a file imports, as (part, line); the package itself is the part ``__init__``."""
    for name, line in imported(path):
        top, _, rest = name.partition(".")
        if top == "minibng":
            part = rest.partition(".")[0]
            exists = (PACKAGE / part).is_dir() or (PACKAGE / f"{part}.py").exists()
            yield (part if part and exists else "__init__"), line


@functools.cache
def code_lines(path):
    """Lines with code on them: no blank lines, comments or docstrings."""
    source = path.read_text(encoding="utf-8")
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in silent:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, node.end_lineno + 1))
    return frozenset(lines)


def test_every_part_has_its_place():
    assert {part_of(path) for path in FILES} <= set(BELOW) | FRONT


@pytest.mark.parametrize("part", sorted(BELOW))
def test_imports_point_one_way(part):
    allowed = BELOW[part] | LEAVES - {part} | {part}
    if part in LEAVES:
        allowed = {part}
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line} imports {to}"
        for path in FILES
        if part_of(path) == part
        for to, line in ours(path)
        if to not in allowed
    ]
    assert not wrong


def test_the_arrows_have_no_cycle():
    order = list(BELOW)
    while order:
        free = [p for p in order if not BELOW[p] & set(order)]
        assert free, f"a cycle among {order}"
        order = [p for p in order if p not in free]


def test_nobody_imports_the_command_line():
    users = {part_of(path) for path in FILES for to, _ in ours(path) if to == "cli"}
    assert users <= {"__main__", "cli"}


def test_the_package_itself_does_not_load_experiments_figures_or_the_command_line():
    loaded = {to for to, _ in ours(PACKAGE / "__init__.py")}
    assert not loaded & {"cli", "plot", "experiments"}


def test_only_the_backend_names_cupy():
    users = {part_of(path) for path in FILES for name, _ in imported(path) if name.split(".")[0] == "cupy"}
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call):
                texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
                if any(t == "cupy" or t.startswith("cupy.") for t in texts):
                    users.add(part_of(path))
    assert users <= {"backend"}


def is_for_type_checking(node):
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_third_party_modules_are_imported_where_they_are_used(path):
    body = [n for n in tree(path).body if not is_for_type_checking(n)]
    at_import = {
        name.partition(".")[0]
        for statement in body
        if isinstance(statement, (ast.Import, ast.ImportFrom, ast.If, ast.Try, ast.With))
        for node in ast.walk(statement)
        for name in (
            [a.name for a in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    allowed = set(sys.stdlib_module_names) | {"numpy", "minibng"}
    if part_of(path) == "verify":
        allowed |= {"hypothesis"}  # imported with minibng.verify, which minibng itself does not import
    assert at_import <= allowed


def test_importing_the_package_loads_numpy_and_nothing_else():
    program = (
        "import sys; before = set(sys.modules); import minibng; "
        "print(*{m for m in set(sys.modules) - before if '.' not in m and sys.modules[m].__spec__ is not None})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split()) - set(sys.stdlib_module_names)
    assert loaded == {"minibng", "numpy"}


def test_importing_the_package_is_silent_and_draws_nothing():
    program = (
        "import numpy as np; s = np.random.get_state()[1].copy(); import minibng; "
        "assert (np.random.get_state()[1] == s).all()"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""


def test_the_autodiff_core_keeps_its_budget():
    """The core is the tracer: levels, traced values, primitives, the backward pass. Derivatives stand on it."""
    assert len(code_lines(PACKAGE / "autodiff" / "tracer.py")) <= CORE_BUDGET
    assert len(code_lines(PACKAGE / "autodiff" / "derivatives.py")) <= CORE_BUDGET


def test_every_function_keeps_its_budget():
    long = []
    for path in FILES:
        code = code_lines(path)
        for node in ast.walk(tree(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                size = len(code & set(range(node.lineno, node.end_lineno + 1)))
                if size > FUNCTION_BUDGET:
                    long.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name} has {size} lines")
    assert not long


def test_the_package_keeps_its_budget():
    assert sum(len(code_lines(p)) for p in FILES) <= PACKAGE_BUDGET
