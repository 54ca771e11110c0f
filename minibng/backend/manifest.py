"""What CuPy has, read from the real wheel: names, keywords, methods. Knowing it needs neither CuPy nor a GPU.

The strict device refuses what is not in this list when it is called, the static scan (``tests/contract``) before that.
``cupy_manifest.json`` is made by ``python -m tests.contract.generate`` where the wheel is installed.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import NamedTuple

UFUNC_KEYWORDS = frozenset({"out", "dtype", "casting"})
"""What CuPy's elementwise functions take by keyword: no ``where``, ``order``, ``subok`` or ``signature``."""

METHOD_KEYWORDS = {
    "at": frozenset[str](),
    "outer": UFUNC_KEYWORDS,
    "reduce": frozenset({"axis", "dtype", "out", "keepdims"}),
    "accumulate": frozenset({"axis", "dtype", "out"}),
}
"""The same for their methods. ``reduceat`` is left out: CuPy's takes differences of running sums, which lose bits."""


class Manifest(NamedTuple):
    """CuPy's public names; those of a submodule are dotted, as ``linalg.norm``."""

    version: str
    functions: dict[str, list[str]]
    """Name → its parameters in order; ``*`` and ``**`` stand in front of those that take any number."""
    ufuncs: dict[str, list[str]]
    """Elementwise function → which of the ufunc methods `METHOD_KEYWORDS` it has."""
    methods: dict[str, list[str]]
    """Method of an array → its parameters."""
    attributes: list[str]
    """Attributes of an array."""
    others: list[str]
    """Constants, types and modules."""

    def __contains__(self, name: object) -> bool:
        return name in self.functions or name in self.ufuncs or name in self.others

    def unknown_keywords(self, name: str, keywords: set[str] | dict[str, object]) -> list[str]:
        """Return those of the keywords that a function, or an array's method ``".sum"``, does not take.

        Examples
        --------
        >>> load().unknown_keywords("sum", {"axis", "where"})
        ['where']
        >>> load().unknown_keywords("add", {"out", "where"})
        ['where']
        """
        if name in self.ufuncs:
            return sorted(set(keywords) - UFUNC_KEYWORDS)
        parameters = self.methods[name[1:]] if name.startswith(".") else self.functions[name]
        return [] if any(p.startswith("**") for p in parameters) else sorted(set(keywords) - set(parameters))


@cache
def load() -> Manifest:
    """Return the committed list.

    Examples
    --------
    >>> "linalg.norm" in load(), "linalg.vector_norm" in load()
    (True, False)
    """
    return Manifest(**json.loads((files("minibng.backend") / "cupy_manifest.json").read_text(encoding="utf-8")))
