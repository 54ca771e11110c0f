"""Choosing by name: one look-up, and one error that offers the nearest valid name."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


class UnknownNameError(ValueError):
    """A name that is not in its table; the message offers the nearest one that is."""


def choose(table: Mapping[str, T], name: str, what: str) -> T:
    """Return ``table[name]``.

    Parameters
    ----------
    table
        The valid names and what they stand for.
    name
        What the user wrote.
    what
        The kind of thing, for the message ("optimizer", "data set", "activation").

    Raises
    ------
    UnknownNameError
        Where the name is not in the table, with the nearest valid name and the whole list.

    Examples
    --------
    >>> choose({"adam": 1, "sgd": 2}, "adm", "optimizer")
    Traceback (most recent call last):
        ...
    minibng.names.UnknownNameError: unknown optimizer 'adm'; did you mean 'adam'? Known: adam, sgd
    """
    if name in table:
        return table[name]
    lowered = {key.lower(): key for key in table}
    near = difflib.get_close_matches(str(name).lower(), lowered, n=1, cutoff=0.5)
    hint = f"; did you mean {lowered[near[0]]!r}?" if near else ";"
    raise UnknownNameError(f"unknown {what} {name!r}{hint} Known: {', '.join(table)}")
