"""Every rule in its four forms, by name: Adam, AdamClip, AdamNG, AdamNGAdaptive (adam-ng-adaptive in commands)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

from minibng.backend import Array
from minibng.names import choose
from minibng.optim.optimizer import Optimizer
from minibng.optim.relatives import RELATIVES
from minibng.optim.rules import RULES, StepRule
from minibng.optim.schedules import Schedule
from minibng.params import Params

FORMS: dict[str, str | None] = {"": None, "Clip": "clip", "NG": "unit", "NGAdaptive": "adaptive"}
"""Ending of the class name → normalizer."""

_ENDINGS = {"": "", "Clip": "-clip", "NG": "-ng", "NGAdaptive": "-ng-adaptive"}
_BY_CLASS: dict[str, type[Optimizer]] = {}
_BY_NAME: dict[str, type[Optimizer]] = {}
_RULES: dict[str, Any] = {}

_TEXT = {
    None: "{name}, on the gradient as it comes.",
    "clip": "{name} on a gradient clipped block by block: g^i · min(1, clip/‖g^i‖), then the rule.",
    "unit": "{name} on the block-normalized gradient, NG: g^i / ‖g^i‖, then the rule.",
    "adaptive": "{name} on the block-normalized gradient scaled to the parameters: g^i/‖g^i‖ · max(‖x^i‖, floor·‖1‖).",
}

_COMMON = """Notes
-----
Settings of every optimizer, told in full at `Optimizer`: ``params`` (a Params or a list of arrays), ``lr``
(a number or a schedule), ``norm``, ``blocks`` (the partition), ``weight_decay`` and ``decay``, ``nonfinite``, and,
where they apply, ``clip`` and ``floor``."""

R = TypeVar("R")


class NamedOptimizer(Optimizer):
    """A rule in one of its forms: ``AdamNG(params, lr)`` is ``Optimizer(params, Adam(), lr, normalize="unit")``.

    Settings of the rule (``beta1``) and of the optimizer (``blocks``) are given side by side, by name.
    """

    make_rule: ClassVar[Callable[..., StepRule]]
    hyper: ClassVar[tuple[str, ...]]
    fixed: ClassVar[dict[str, Any]]

    def __init__(self, params: Params | Sequence[Array], lr: float | Schedule, **settings: Any) -> None:
        known = dict.fromkeys(inspect.signature(type(self)).parameters)
        for name in settings:
            choose(known, name, f"setting of {type(self).__name__}")
        own = {name: settings.pop(name) for name in self.hyper if name in settings}
        super().__init__(params, type(self).make_rule(**own), lr, **settings, **self.fixed)


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
        raise TypeError(f"a step rule has the methods init(like) and update(state, g); {cls.__name__} lacks one")
    old = _RULES.get(cls.__name__)
    kind = old if isinstance(old, type) else type(old)
    if (
        old is not None
        and (kind.__module__, kind.__qualname__) == (cls.__module__, cls.__qualname__)
        and kind not in RULES
    ):
        unregister(cls.__name__)  # the same definition, run again: a notebook's cell
    for ending in FORMS:
        if cls.__name__ + ending in _BY_CLASS or cls.__name__.lower() + _ENDINGS[ending] in _BY_NAME:
            raise ValueError(f"there is an optimizer named {cls.__name__ + ending} already (letter case aside)")
    make: Callable[..., StepRule] = rule if isinstance(rule, type) else lambda: rule  # type: ignore[assignment, return-value]
    for ending, normalize in FORMS.items():
        made = _form(cls, make, ending, normalize)
        _BY_CLASS[made.__name__] = _BY_NAME[cls.__name__.lower() + _ENDINGS[ending]] = made
    _RULES[cls.__name__] = rule
    return rule


def registered() -> list[Any]:
    """Return the rules that were registered beside ours."""
    return [rule for rule in _RULES.values() if rule not in RULES]


def unregister(name: str) -> None:
    """Take a rule's four forms away again.

    Raises
    ------
    UnknownNameError
        Where no rule of that name is registered.
    ValueError
        For one of minibng's own.
    """
    if choose(_RULES, name, "step rule") in RULES:
        raise ValueError(f"{name} is minibng's own and stays")
    for ending in FORMS:
        del _BY_CLASS[name + ending], _BY_NAME[name.lower() + _ENDINGS[ending]]
    del _RULES[name]


def _form(cls: type, make: Callable[..., StepRule], ending: str, normalize: str | None) -> type[NamedOptimizer]:
    """Make the optimizer class of one rule in one form."""
    common = [p for n, p in inspect.signature(Optimizer.__init__).parameters.items() if n not in ("self", "rule")]
    if ending:
        common = [p for p in common if p.name != "normalize"]
    hyper = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in inspect.signature(make).parameters.values()]
    body = {
        "__doc__": f"{_TEXT[normalize].format(name=cls.__name__)}\n\n{inspect.getdoc(cls) or ''}\n\n{_COMMON}",
        "__module__": "minibng.optim",
        "__signature__": inspect.Signature([*common, *hyper]),
        "make_rule": staticmethod(make),
        "hyper": tuple(p.name for p in hyper),
        "fixed": {"normalize": normalize} if ending else {},
    }
    return type(cls.__name__ + ending, (NamedOptimizer,), body)


def get(name: str) -> Callable[..., Optimizer]:
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


for _rule in RULES:
    register(_rule)
for _relative in RELATIVES:
    _BY_CLASS[_relative.__name__] = _BY_NAME[_relative.__name__.lower()] = _relative
