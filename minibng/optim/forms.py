"""Every rule in its four forms, by name: Adam, AdamClip, AdamNG, AdamNGAdaptive; adam-ng-adaptive on the command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from minibng.names import choose
from minibng.optim.optimizer import Optimizer
from minibng.optim.rules import PAPER_RULES, StepRule

FORMS: dict[str, str | None] = {"": None, "Clip": "clip", "NG": "unit", "NGAdaptive": "adaptive"}
"""Ending of the class name → normalizer."""

_ENDINGS = {"": "", "Clip": "-clip", "NG": "-ng", "NGAdaptive": "-ng-adaptive"}
_BY_CLASS: dict[str, type[Optimizer]] = {}
_BY_NAME: dict[str, type[Optimizer]] = {}

_TEXT = {
    None: "{first}",
    "clip": "{name} on a gradient clipped block by block: g^i · min(1, clip/‖g^i‖), then the rule.",
    "unit": "{name} on the block-normalized gradient, NG: g^i / ‖g^i‖₂, then the rule.",
    "adaptive": "{name} on the block-normalized gradient scaled to the parameters: g^i/‖g^i‖ · max(‖x^i‖, floor·√d_i).",
}

R = TypeVar("R")


def register(rule: R) -> R:
    """Give a step rule its four forms, here, on the command line and in the verification kit.

    Parameters
    ----------
    rule
        A class whose instances have ``init(like)`` and ``update(state, g)`` → (u, state), or one such instance.

    Raises
    ------
    TypeError
        Where it has no init or update.
    ValueError
        Where the name is taken.

    Examples
    --------
    >>> from minibng import optim
    >>> class Halved:
    ...     def init(self, like):
    ...         return None
    ...     def update(self, state, g):
    ...         return g / 2, state
    >>> _ = optim.register(Halved)
    >>> optim.HalvedNG.__name__, optim.get("halved-ng") is optim.HalvedNG
    ('HalvedNG', True)
    >>> optim.unregister("Halved")
    """
    cls: Any = rule if isinstance(rule, type) else type(rule)
    if not (callable(getattr(cls, "init", None)) and callable(getattr(cls, "update", None))):
        raise TypeError(
            f"a step rule has the methods init(like) and update(state, g); {cls.__name__} lacks one"
        )
    if cls.__name__ in _BY_CLASS:
        raise ValueError(f"there is an optimizer named {cls.__name__} already")
    make: Callable[..., StepRule] = rule if isinstance(rule, type) else lambda: rule  # type: ignore[assignment, return-value]
    for ending, normalize in FORMS.items():
        made = _form(cls, make, ending, normalize)
        _BY_CLASS[made.__name__] = _BY_NAME[cls.__name__.lower() + _ENDINGS[ending]] = made
    return rule


def unregister(name: str) -> None:
    """Take a rule's four forms away again."""
    for ending in FORMS:
        del _BY_CLASS[name + ending], _BY_NAME[name.lower() + _ENDINGS[ending]]


def _form(cls: type, make: Callable[..., StepRule], ending: str, normalize: str | None) -> type[Optimizer]:
    """Make the optimizer class of one rule in one form."""
    hyper = inspect.signature(make).parameters
    common = [
        p for n, p in inspect.signature(Optimizer.__init__).parameters.items() if n not in ("self", "rule")
    ]
    if ending:
        common = [p for p in common if p.name != "normalize"]
    ours = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in hyper.values()]
    allowed = dict.fromkeys(p.name for p in (*common, *ours))

    def __init__(self: Optimizer, params: Any, lr: Any, **options: Any) -> None:
        for name in options:
            if name not in allowed:
                choose(allowed, name, f"setting of {made.__name__}")
        own = {name: options.pop(name) for name in hyper if name in options}
        if ending:
            options["normalize"] = normalize
        Optimizer.__init__(self, params, make(**own), lr, **options)

    def __repr__(self: Optimizer) -> str:
        blocks = len(self.block_names)
        return f"{made.__name__}({self.rule!r}, {blocks} block{'s' * (blocks != 1)}, {self.steps} steps)"

    first = inspect.getdoc(cls) or cls.__name__
    doc = _TEXT[normalize].format(name=cls.__name__, first=first)
    body = {"__init__": __init__, "__repr__": __repr__, "__doc__": doc, "__module__": "minibng.optim"}
    made: type[Optimizer] = type(cls.__name__ + ending, (Optimizer,), body)
    made.__signature__ = inspect.Signature([*common, *ours])  # type: ignore[attr-defined]
    return made


def get(name: str) -> type[Optimizer]:
    """Return an optimizer by its command-line name.

    Raises
    ------
    UnknownNameError
        With the nearest valid name.

    Examples
    --------
    >>> get("momentum-ng").__name__
    'MomentumNG'
    """
    return choose(_BY_NAME, name, "optimizer")


def names() -> list[str]:
    """Return the command-line names of all optimizers."""
    return list(_BY_NAME)


def by_class(name: str) -> type[Optimizer]:
    """Return an optimizer by its class name; KeyError where there is none."""
    return _BY_CLASS[name]


def class_names() -> list[str]:
    """Return the class names of all optimizers."""
    return list(_BY_CLASS)


for _rule in PAPER_RULES:
    register(_rule)
