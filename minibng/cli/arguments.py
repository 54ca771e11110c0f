"""Types of arguments, shared by the commands: bad values exit with 2 and the nearest valid name."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from minibng.backend import device_name
from minibng.experiments.options import one_of
from minibng.names import UnknownNameError

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
"""What ``add(commands)`` of a command's module is given."""


class Parser(argparse.ArgumentParser):
    """A parser that offers the nearest name for a command or an experiment that there is not."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None:
            try:
                one_of(dict.fromkeys(action.choices), action.dest)(value)
            except UnknownNameError as error:
                raise argparse.ArgumentError(None, str(error)) from None

    def acts(self, act: Callable[[argparse.Namespace], int]) -> None:
        """Set the function that runs the command; usage errors show this parser's usage."""
        self.set_defaults(act=act, parser=self)
        told = "show the traceback of an error"
        self.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=told)


def typed(accept: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return an argument type from a function that raises ValueError with a message for the user."""

    def convert(text: str) -> Any:
        try:
            return accept(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def device(text: str) -> str:
    """Accept the name of a device; whether it works is another question."""
    return text if text == "auto" else device_name(text)


class _Listed(argparse.Action):
    """Collects names given with commas, with spaces, or both, into one tuple."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        """Store the names, each once."""
        setattr(namespace, self.dest, tuple(dict.fromkeys(v for part in values for v in part)))


def listed(accept: Callable[[str], Any]) -> dict[str, Any]:
    """Return the settings of an option that takes several values."""

    def several(text: str) -> Sequence[Any]:
        if not (parts := [part.strip() for part in text.split(",") if part.strip()]):
            raise ValueError(f"at least one is needed, got {text!r}")
        return tuple(accept(part) for part in parts)

    return {"type": typed(several), "nargs": "+", "action": _Listed}
