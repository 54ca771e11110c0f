"""The step rules: from a gradient g to a direction u, one plain formula each.

A rule is an object with ``init(like)`` → state and ``update(state, g)`` → (u, state), both pure; the parameters then
move by x ← x − lr·u. The rules below are made of one formula function, which serves twice: called as it stands on whole
arrays, it *is* the pure update; rendered by the backend, it runs in place on pieces that stay in the cache, with the
same bits.

Moments are kept without their constant factors: m here is m/(1−β₁) of the paper, and v is v/(1−β₂). That saves two
passes over memory at every step, and ``scalars`` puts the factors back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy import sqrt

from minibng.backend import Array
from minibng.optim.schedules import number

State = Mapping[str, Any]


@runtime_checkable
class StepRule(Protocol):
    """What `register` and the optimizers ask of a rule; both methods are pure."""

    def init(self, like: Array) -> Any:
        """Return the state of one tensor before the first step."""

    def update(self, state: Any, g: Array) -> tuple[Array, Any]:
        """Return the direction u and the new state; neither argument is changed."""


class FormulaRule:
    """A rule whose update is one formula function ``(g, *slots, *, scalars)`` → (*slots, u).

    Subclasses name the formula, its state arrays (``slots``, which start at zero) and their hyper-parameters.
    """

    formula: ClassVar[Callable[..., Any]]
    slots: ClassVar[tuple[str, ...]] = ()
    hyper: Mapping[str, float]

    def scalars(self, step: int) -> Mapping[str, float]:
        """Return the formula's scalars at a step, counted from 1."""
        return self.hyper

    def check(self, dtype: Any) -> None:
        """Refuse an ε that is 0 in the parameters' precision: 0/0 would make NaN of a gradient of zeros."""
        for name, value in self.hyper.items():
            if value and not np.dtype(dtype).type(value):
                raise ValueError(f"{name}={value:g} is 0 in {np.dtype(dtype)}; choose a larger one")

    def init(self, like: Array) -> State:
        """Return zeros for every state array, and the number of finished steps."""
        return {"step": 0, **{name: np.zeros_like(like) for name in self.slots}}

    def update(self, state: State, g: Array) -> tuple[Array, State]:
        """Return u and the new state; neither argument is changed."""
        step = state["step"] + 1
        out = type(self).formula(g, *(state[name] for name in self.slots), **self.scalars(step))
        *slots, u = out if isinstance(out, tuple) else (out,)
        return u, {"step": step, **dict(zip(self.slots, slots, strict=True))}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v:g}' for k, v in self.hyper.items())})"


def _checked(**values: float) -> Mapping[str, float]:
    """Return hyper-parameters, refused by name where they make no sense."""
    for name, value in values.items():
        least, most = {"eps": (5e-324, math.inf), "momentum": (0, math.inf)}.get(name, (0, 1))
        if not (least <= number(value, name) < most):
            text = "be positive and finite" if name == "eps" else f"lie in [0, {'∞' if most > 1 else '1'})"
            raise ValueError(f"{name} must {text}, got {value}")
    return values


def sgd(g):  # type: ignore[no-untyped-def]
    """Direction: u = g."""
    u = g
    return u


def momentum(g, m, *, momentum):  # type: ignore[no-untyped-def]
    """Update: m ← μm + g, u = m."""
    m = momentum * m + g
    u = m
    return m, u


def adagrad(g, v, *, eps):  # type: ignore[no-untyped-def]
    """Update: v ← v + g², u = g / (√v + ε)."""
    v = v + g * g
    u = g / (sqrt(v) + eps)
    return v, u


def rmsprop(g, v, *, alpha, scaled_eps, back):  # type: ignore[no-untyped-def]
    """Update: v ← αv + g², u = back·(g / (√v + ε′)): v without its factor 1 − α."""
    v = alpha * v + g * g
    u = back * (g / (sqrt(v) + scaled_eps))
    return v, u


def adadelta(g, v, d, *, rho, eps):  # type: ignore[no-untyped-def]
    """Update: v ← ρv + (1−ρ)g², u = √(d+ε)/√(v+ε) · g, d ← ρd + (1−ρ)u²."""
    v = rho * v + (1 - rho) * (g * g)
    u = sqrt((d + eps) / (v + eps)) * g
    d = rho * d + (1 - rho) * (u * u)
    return v, d, u


def adam(g, m, v, *, beta1, beta2, scaled_eps, back):  # type: ignore[no-untyped-def]
    """Update: m ← β₁m + g, v ← β₂v + g², u = back·(m / (√v + ε′)): both moments without their factors."""
    m = beta1 * m + g
    v = beta2 * v + g * g
    u = back * (m / (sqrt(v) + scaled_eps))
    return m, v, u


class SGD(FormulaRule):
    """Gradient descent: u = g.

    The step itself, with no memory. In front of it, normalization makes ‖u^i‖ = 1 (theory I9).
    """

    formula = sgd

    def __init__(self) -> None:
        self.hyper = {}


class Momentum(FormulaRule):
    """Heavy ball: m ← μm + g, u = m (Polyak, 1964; the form of torch.optim.SGD).

    Parameters
    ----------
    momentum
        μ in [0, ∞); torch.optim.SGD has 0 by default.
    """

    formula = momentum
    slots = ("m",)

    def __init__(self, momentum: float = 0.9) -> None:
        self.hyper = _checked(momentum=momentum)


class AdaGrad(FormulaRule):
    """AdaGrad: v ← v + g², u = g / (√v + ε) (Duchi, Hazan, Singer, 2011; torch.optim.Adagrad).

    The paper's δ, as PyTorch's ε here, stands beside the root.

    Parameters
    ----------
    eps
        ε. Entries of a normalized block of d entries are about 1/√d, so ε matters where d is about 1/ε².
    """

    formula = adagrad
    slots = ("v",)

    def __init__(self, eps: float = 1e-10) -> None:
        self.hyper = _checked(eps=eps)


class RMSProp(FormulaRule):
    """RMSProp: v ← αv + (1−α)g², u = g / (√v + ε) (Tieleman, Hinton, 2012, lecture 6.5; torch.optim.RMSprop).

    Parameters
    ----------
    alpha
        α in [0, 1), the memory of the squared gradient.
    eps
        ε, beside the root.
    """

    formula = rmsprop
    slots = ("v",)

    def __init__(self, alpha: float = 0.99, eps: float = 1e-8) -> None:
        self.hyper = _checked(alpha=alpha, eps=eps)

    def scalars(self, step: int) -> Mapping[str, float]:
        """Return α, and ε and 1 rescaled for a v that lacks its factor 1 − α."""
        root = math.sqrt(1 - self.hyper["alpha"])
        return {"alpha": self.hyper["alpha"], "scaled_eps": self.hyper["eps"] / root, "back": 1 / root}


class AdaDelta(FormulaRule):
    """AdaDelta: v ← ρv + (1−ρ)g², u = √(d+ε)/√(v+ε)·g, d ← ρd + (1−ρ)u² (Zeiler, 2012; torch.optim.Adadelta).

    Parameters
    ----------
    rho
        ρ in [0, 1), the memory of both averages.
    eps
        ε, under both roots: the size of the first steps. In a normalized block of d entries the squares are about
        1/d, so ε matters from d of about 10⁶ on.
    """

    formula = adadelta
    slots = ("v", "d")

    def __init__(self, rho: float = 0.9, eps: float = 1e-6) -> None:
        self.hyper = _checked(rho=rho, eps=eps)


class Adam(FormulaRule):
    """Adam: m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², u = m̂ / (√v̂ + ε) (Kingma, Ba, 2015; torch.optim.Adam).

    m̂ = m/(1−β₁ᵗ) and v̂ = v/(1−β₂ᵗ) undo the start at zero; t counts steps from 1.

    Parameters
    ----------
    beta1, beta2
        β₁, β₂ in [0, 1).
    eps
        ε, beside the root of v̂.
    """

    formula = adam
    slots = ("m", "v")

    def __init__(self, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> None:
        self.hyper = _checked(beta1=beta1, beta2=beta2, eps=eps)

    def scalars(self, step: int) -> Mapping[str, float]:
        """Return β₁, β₂, and ε and 1 rescaled for moments that lack their factors: m̂ = m·(1−β₁)/(1−β₁ᵗ)."""
        beta1, beta2, eps = self.hyper.values()
        root = math.sqrt((1 - beta2) / (1 - beta2**step))
        back = (1 - beta1) / (1 - beta1**step) / root
        return {"beta1": beta1, "beta2": beta2, "scaled_eps": eps / root, "back": back}


PAPER_RULES = (SGD, Momentum, AdaGrad, RMSProp, AdaDelta, Adam)
"""The six rules of the paper's experiments."""
