"""Read the sources that run on device arrays and find what CuPy has not: ``python -m tests.contract.scan [FOLDER]``.

Each call of ``np.name(…)``, ``xp.name(…)`` or ``backend.xp.name(…)`` is looked up in the committed list of CuPy's names
(``minibng/backend/cupy_manifest.json``), and so are its keywords; calls of methods with keywords in that of an array's
methods. CuPy is not needed. A line that works on the host ends with ``# host: reason`` and is not looked at.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from minibng.backend.manifest import METHOD_KEYWORDS, load

PACKAGE = Path(__file__).parents[2] / "minibng"

SCANNED = (
    *("autodiff/**/*.py", "nn/**/*.py", "optim/**/*.py", "train/**/*.py", "params.py"),
    *("backend/random.py", "backend/guard.py", "backend/chain.py"),
)
"""The parts of the package whose functions meet device arrays."""

HOST_FILES = {
    "nn/init.py": "first values are drawn on the host, the same for every device",
    "optim/schedules.py": "learning rates are numbers of the host",
}
"""Files among them that never do, and why."""

HOST_NAMES = {
    **dict.fromkeys(["dtype", "finfo", "iinfo", "issubdtype", "ndarray", "generic", "number", "integer"], "types"),
    **dict.fromkeys(["float16", "float32", "float64", "int32", "int64", "uint32", "bool_"], "types"),
    **dict.fromkeys(["errstate", "isscalar"], "of Python, not of arrays"),
    **dict.fromkeys(["ndindex", "broadcast_shapes"], "of shapes, which are numbers of the host"),
    **dict.fromkeys(["random"], "draws are made on the host"),
    **dict.fromkeys(["array", "asarray", "empty", "zeros", "ones"], "makes an array of the host; xp.array is another"),
    **dict.fromkeys(["lib.array_utils"], "looks at addresses, which only arrays of the host have"),
}
"""What ``np.`` name never meets a device array, and why; a module stands for all that is in it."""

NOT_OF_ARRAYS = {"sort": {"key", "reverse"}}
"""Keywords of methods of other types than arrays (lists) that have a name of an array's."""

HOST_MARK = re.compile(r"# host: \S")
CUPY = load()


def library_name(node: ast.expr) -> tuple[str, str] | None:
    """Return (library, name in it) of ``np.linalg.norm``, ``xp.add.at`` or ``backend.xp.zeros``; None for all else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute) and node.attr != "xp":
        parts.append(node.attr)
        node = node.value
    name = ".".join(reversed(parts))
    if parts and (isinstance(node, ast.Attribute) or (isinstance(node, ast.Call) and called(node) == "indices_for")):
        return "xp", name
    return (node.id, name) if parts and isinstance(node, ast.Name) and node.id in ("np", "xp") else None


def called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else ""


def is_of_the_host(library: str, name: str) -> bool:
    parts = name.split(".")
    return library == "np" and any(".".join(parts[: k + 1]) in HOST_NAMES for k in range(len(parts)))


def wrong_with(library: str, name: str, keywords: set[str], arguments: int) -> str | None:
    """Say what CuPy lacks for a call, None where it has all of it."""
    if is_of_the_host(library, name):
        return None
    ufunc, _, method = name.rpartition(".")
    if ufunc in CUPY.ufuncs:
        if method not in CUPY.ufuncs[ufunc]:
            return f"CuPy has no {name}" + (" that can be used" if method == "reduceat" else "")
        unknown = sorted(keywords - METHOD_KEYWORDS[method])
    elif name not in CUPY:
        return f"CuPy has no {name}"
    elif name not in CUPY.functions and name not in CUPY.ufuncs:
        return None
    else:
        unknown = CUPY.unknown_keywords(name, keywords)
        taken = CUPY.functions.get(name)
        if taken is not None and not any(p.startswith("*") for p in taken) and arguments > len(taken):
            return f"CuPy's {name} takes no more than {len(taken)} arguments"
    return f"CuPy's {name} takes no {', '.join(f'{k}=' for k in unknown)}" if unknown else None


def wrong_with_method(name: str, keywords: set[str]) -> str | None:
    """Say what an array's method of this name lacks; whose method it is cannot be seen."""
    if name not in CUPY.methods:
        return None
    unknown = CUPY.unknown_keywords(f".{name}", keywords - NOT_OF_ARRAYS.get(name, set()))
    return f"an array's .{name}() takes no {', '.join(f'{k}=' for k in unknown)}" if unknown else None


def is_name_in(node: ast.expr, names: set[str]) -> bool:
    return isinstance(node, ast.Name) and node.id in names


def calls(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, what is wrong) for each call that CuPy would refuse."""
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    modules = {alias.asname or alias.name for node in imports for alias in node.names}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        keywords = {k.arg for k in node.keywords if k.arg is not None}
        starred = any(isinstance(a, ast.Starred) for a in node.args)
        if (found := library_name(node.func)) is not None:
            wrong = wrong_with(*found, keywords, 0 if starred else len(node.args))
        elif called(node) == "elementwise" and (found := library_name(node.args[0])) is not None:
            wrong = wrong_with(*found, set(), 0)
        elif isinstance(node.func, ast.Attribute) and not is_name_in(node.func.value, modules):
            wrong = wrong_with_method(node.func.attr, keywords)
        else:
            wrong = None
        if wrong is not None:
            yield node.lineno, wrong


def violations(source: str, name: str) -> list[str]:
    """Return "file:line: what" for each call in a source that CuPy would refuse.

    Examples
    --------
    >>> violations("y = np.sum(x, where=m)", "a.py")
    ["a.py:1: CuPy's sum takes no where=: y = np.sum(x, where=m)"]
    """
    lines = source.splitlines()
    return [
        f"{name}:{line}: {what}: {lines[line - 1].strip()}"
        for line, what in sorted(calls(ast.parse(source)))
        if not HOST_MARK.search(lines[line - 1])
    ]


def files(package: Path = PACKAGE) -> list[Path]:
    every = {path for pattern in SCANNED for path in package.glob(pattern)}
    return sorted(path for path in every if str(path.relative_to(package)) not in HOST_FILES)


def scan(package: Path = PACKAGE) -> list[str]:
    """Return the violations of the whole package."""
    sources = [(path.read_text("utf-8"), str(path.relative_to(package.parent))) for path in files(package)]
    return [v for source, name in sources for v in violations(source, name)]


if __name__ == "__main__":
    chosen = Path(*sys.argv[1:]).resolve() if sys.argv[1:] else PACKAGE
    found = scan(chosen)
    print(*found, sep="\n")
    print(f"{len(found)} calls in {len(files(chosen))} files that CuPy {CUPY.version} would refuse")
    sys.exit(bool(found))
