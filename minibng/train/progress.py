"""Progress on a terminal; silence everywhere else."""

import sys
from collections.abc import Iterable
from typing import Any

from minibng.extras import MissingExtraError, require


def progress(items: Iterable[Any], *, what: str = "", total: int | None = None, show: bool | None = None) -> Any:
    """Return the items with a progress bar around them, if standard error is a terminal (or ``show`` says so).

    The bar has ``set_postfix_str(text)`` and ``update``, as tqdm's; without tqdm, or off a terminal, nothing is shown.
    """
    shown = sys.stderr.isatty() if show is None else show
    try:
        tqdm = require("tqdm", "experiments", "the progress bar").tqdm
    except MissingExtraError:
        return Silent(items)
    return tqdm(items, desc=what, total=total, disable=not shown, leave=False, file=sys.stderr)


class Silent:
    """The items alone, with a bar's methods that do nothing."""

    def __init__(self, items: Iterable[Any]) -> None:
        self.items = items

    def __iter__(self) -> Any:
        return iter(self.items)

    def set_postfix_str(self, text: str) -> None:
        """Show nothing."""

    def update(self, n: int = 1) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Close nothing."""
