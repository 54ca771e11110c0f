"""Hygiene of the notebooks: what a reader finds first and last, clean outputs, nothing but public names."""

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
LARGEST = 700_000  # bytes


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return json.loads(path.read_text(encoding="utf-8"))


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def source(cell):
    return "".join(cell["source"])


def test_opens_with_what_you_will_see_and_closes_with_exercises(path, notebook):
    first, last = notebook["cells"][0], notebook["cells"][-1]
    assert first["cell_type"] == last["cell_type"] == "markdown"
    assert source(first).startswith(f"# {path.stem[:2]} · ")
    assert "What you will see" in source(first)
    assert source(last).startswith("## Exercises\n")
    assert 4 <= len(re.findall(r"^\d\. \*\*", source(last), flags=re.MULTILINE)) <= 6


def test_kernel_is_any_python_3(notebook):
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"


def test_is_small(path):
    assert path.stat().st_size < LARGEST


def test_was_run_from_top_to_bottom_or_not_at_all(notebook):
    counts = [cell["execution_count"] for cell in code_cells(notebook)]
    assert counts in ([None] * len(counts), list(range(1, len(counts) + 1)))


def test_outputs_hold_no_errors_and_no_warnings(notebook):
    for cell in code_cells(notebook):
        for output in cell["outputs"]:
            assert output["output_type"] != "error", source(cell)
            assert output.get("name") != "stderr", source(cell)


def test_names_no_path_of_a_machine(path):
    found = re.search(r"(/home/|/root/|/tmp/|/Users/|[A-Z]:\\\\Users)\S{0,60}", path.read_text(encoding="utf-8"))
    assert found is None, found


def test_imports_only_public_names(notebook):
    for cell in code_cells(notebook):
        for node in ast.walk(ast.parse(source(cell))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names if alias.name.split(".")[0] == "minibng"]
                assert modules in ([], ["minibng"]), modules
            elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "minibng":
                module = importlib.import_module(node.module)
                for alias in node.names:
                    assert is_public(module, alias.name) or is_top_module(node.module, alias.name), alias.name


def is_public(module, name):
    """Whether a module has a name in its ``__all__``, or without one defines it itself, with no underscore."""
    if hasattr(module, "__all__"):
        return name in module.__all__
    return not name.startswith("_") and getattr(getattr(module, name), "__module__", None) == module.__name__


def is_top_module(package, name):
    return package == "minibng" and importlib.util.find_spec(f"minibng.{name}") is not None


@pytest.mark.slow
def test_runs(path, notebook, tmp_path):
    program = "\n\n".join(source(cell) for cell in code_cells(notebook))
    environment = {**os.environ, "MINIBNG_SMOKE": "1", "MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())  # it leaves no files behind
