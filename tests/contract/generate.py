"""Make ``cupy_manifest.json`` of the CuPy that is installed; no driver and no GPU are needed.

python -m tests.contract.generate            write it
python -m tests.contract.generate --check    exit with 1, and say what differs, where it is out of date
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[2] / "minibng" / "backend" / "cupy_manifest.json"

SUBMODULES = ("linalg", "lib.stride_tricks")
"""Besides CuPy itself: what numerical code here could want of it."""

CORRECTIONS = {
    ("functions", "einsum"): ["*operands", "dtype", "optimize"],  # its **kwargs refuses all others
    ("methods", "astype"): [
        "dtype",
        "order",
        "copy",
    ],  # it refuses the others that are in its signature
}
"""Signatures that promise more than the function does."""

METHODS = ("at", "outer", "reduce", "accumulate")


def parameters(function: Any) -> list[str] | None:
    """Return the parameters of a function, from its signature or, of compiled ones, from its docstring's first line."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return from_docstring(function.__doc__ or "")
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return [stars.get(p.kind, "") + p.name for p in signature.parameters.values() if p.name != "self"]


def from_docstring(text: str) -> list[str] | None:
    """Read "ndarray.sort(self, int axis=-1, kind=None) -> ndarray" as ["axis", "kind"]."""
    if (found := re.match(r"[\w.]+\((.*?)\)(?: ->.*)?$", text.strip().partition("\n")[0])) is None:
        return None
    names = [part.partition("=")[0].split()[-1] for part in found[1].split(",") if part.strip()]
    return [name for name in names if name not in ("self", "*", "/")]


class Witness:
    """Stands for an array and accepts whatever a ufunc's method asks of one."""

    def accept(self, *args: Any) -> Any:
        return self

    sum = prod = cumsum = cumprod = _scatter_op = accept


def ufunc_methods(ufunc: Any) -> list[str]:
    """Return the methods that a ufunc of CuPy does not answer with NotImplementedError."""
    found = []
    for name in METHODS:
        try:
            if name != "outer":  # all have it, and it needs real arrays
                getattr(ufunc, name)(Witness(), *[None] * (2 if name == "at" else 0))
        except NotImplementedError:
            continue
        found.append(name)
    return found


def public(owner: Any) -> dict[str, Any]:
    return {n: getattr(owner, n) for n in dir(owner) if not n.startswith("_") and n not in ("annotations", "np")}


def manifest() -> dict[str, Any]:
    """Read the installed CuPy."""
    import cupy

    functions, ufuncs, others = {}, {}, []
    for module in ("", *SUBMODULES):
        owner: Any = cupy
        for part in filter(None, module.split(".")):
            owner = getattr(owner, part)
        for name, found in public(owner).items():
            full = f"{module}.{name}" if module else name
            if isinstance(found, cupy.ufunc):
                ufuncs[full] = ufunc_methods(found)
            elif callable(found) and not isinstance(found, type) and (taken := parameters(found)) is not None:
                functions[full] = taken
            else:
                others.append(full)
    methods, attributes = {}, []
    for name, found in public(cupy.ndarray).items():
        taken = parameters(found) if callable(found) else None
        if taken is None:
            attributes.append(name)
        else:
            methods[name] = taken
    made = {"version": cupy.__version__, "functions": functions, "ufuncs": ufuncs, "methods": methods}
    for (part, name), taken in CORRECTIONS.items():
        made[part][name] = taken
    return {**made, "attributes": attributes, "others": others}


def text_of(made: dict[str, Any]) -> str:
    """Return the list as it is committed: one line an entry, so that a difference is a line."""
    parts = []
    for key, value in made.items():
        if isinstance(value, dict):
            rows = [f"{json.dumps(name)}: {json.dumps(value[name])}" for name in sorted(value)]
            parts.append(f'"{key}": {{\n' + ",\n".join(rows) + "\n}")
        else:
            parts.append(f'"{key}": {json.dumps(value)}')
    return "{" + ",\n".join(parts) + "}\n"


def differences(committed: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Say what one list has and the other has not."""
    told = []
    for key in found:
        mine, theirs = committed.get(key), found[key]
        if isinstance(theirs, dict):
            mine = mine or {}
            told += [
                f"{key}: {name}: committed {mine.get(name)}, installed {theirs.get(name)}"
                for name in sorted({*mine, *theirs})
                if mine.get(name) != theirs.get(name)
            ]
        elif isinstance(theirs, list):
            told += [f"{key}: {name} is in only one of the two" for name in sorted({*(mine or [])} ^ {*theirs})]
        elif mine != theirs:
            told.append(f"{key}: committed {mine}, installed {theirs}")
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare with the committed file and write nothing")
    check = parser.parse_args().check
    found = manifest()
    if not check:
        FILE.write_text(text_of(found), encoding="utf-8")
        return 0
    told = differences(json.loads(FILE.read_text(encoding="utf-8")), found)
    print(*told, sep="\n")
    print(f"{FILE.name}: {f'{len(told)} differences from' if told else 'as in'} CuPy {found['version']}")
    return int(bool(told))


if __name__ == "__main__":
    sys.exit(main())
