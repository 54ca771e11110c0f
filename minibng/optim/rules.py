"""The step rules: from a gradient g to a direction u, one plain formula each.

A rule is an object with ``init(like)`` → state and ``update(state, g)`` → (u, state), both pure; the parameters then
move by x ← x − lr·u. The rules below are made of one formula function, which serves twice: called as it stands on whole
arrays, it *is* the pure update; rendered by the backend, it runs in place on pieces that stay in the cache, with the
same bits.

Moments are kept without their constant factors: m here is m/(1−β₁) of the paper, and v is v/(1−β₂). That saves two
passes over memory at every step, and ``scalars`` puts the factors back. The price is range: with β₂ = 0.999 v leaves
float32 for gradients above about 6·10¹⁷, 30 times earlier than with the factor. Behind NG no entry is above 1.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy import maximum, sqrt

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

    Subclasses name the formula, its state arrays (``slots``, which start at zero) and their hyper-parameters. A rule
    with variants chooses formula and slots when it is made.
    """

    formula: Any  # a plain function of arrays
    slots: tuple[str, ...] = ()
    hyper: Mapping[str, float]

    def __init_subclass__(cls) -> None:
        """Keep a formula that stands in the class body a plain function: it takes no self."""
        if inspect.isfunction(formula := cls.__dict__.get("formula")):
            cls.formula = staticmethod(formula)

    def scalars(self, step: int) -> Mapping[str, float]:
        """Return the formula's scalars at a step, counted from 1."""
        return self.hyper

    def check(self, dtype: Any) -> None:
        """Refuse an ε that is 0 in the parameters' precision: 0/0 would make NaN of a gradient of zeros."""
        for name, value in self.hyper.items():
            if name.endswith("eps") and not np.dtype(dtype).type(value):
                raise ValueError(f"{name}={value:g} is 0 in {np.dtype(dtype)}; choose a larger one")

    def init(self, like: Array) -> State:
        """Return zeros for every state array, and the number of finished steps."""
        return {"step": 0, **{name: np.zeros_like(like) for name in self.slots}}

    def update(self, state: State, g: Array) -> tuple[Array, State]:
        """Return u and the new state; neither argument is changed."""
        step = state["step"] + 1
        out = self.formula(g, *(state[name] for name in self.slots), **self.scalars(step))
        *slots, u = out if isinstance(out, tuple) else (out,)
        return u, {"step": step, **dict(zip(self.slots, slots, strict=True))}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v:g}' for k, v in self.hyper.items())})"


_RANGES = {"eps": (5e-324, math.inf), "momentum": (0, math.inf), "momentum_decay": (0, math.inf)}


def checked(**values: float) -> Mapping[str, float]:
    """Return hyper-parameters, refused by name where they make no sense."""
    for name, value in values.items():
        least, most = _RANGES.get(name, (0, 1))
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


def nesterov(g, m, *, momentum):  # type: ignore[no-untyped-def]
    """Update: m ← μm + g, u = g + μm."""
    m = momentum * m + g
    u = g + momentum * m
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


def rmsprop_centered(g, v, a, *, alpha, scaled_eps, back):  # type: ignore[no-untyped-def]
    """Update: v ← αv + g², a ← αa + g, u = back·(g / (√(v − (1−α)a²) + ε′)): v and a without their factor 1 − α.

    The difference is a variance, not negative but for rounding.
    """
    v = alpha * v + g * g
    a = alpha * a + g
    u = back * (g / (sqrt(maximum(v - (1 - alpha) * (a * a), 0.0)) + scaled_eps))
    return v, a, u


def rmsprop_momentum(g, v, m, *, alpha, scaled_eps, back, momentum):  # type: ignore[no-untyped-def]
    """Update: RMSProp's v, m ← μm + back·(g / (√v + ε′)), u = m."""
    v = alpha * v + g * g
    m = momentum * m + back * (g / (sqrt(v) + scaled_eps))
    u = m
    return v, m, u


def rmsprop_both(g, v, a, m, *, alpha, scaled_eps, back, momentum):  # type: ignore[no-untyped-def]
    """Update: v and a as `rmsprop_centered`, m ← μm + its direction, u = m."""
    v = alpha * v + g * g
    a = alpha * a + g
    m = momentum * m + back * (g / (sqrt(maximum(v - (1 - alpha) * (a * a), 0.0)) + scaled_eps))
    u = m
    return v, a, m, u


_RMSPROP = {  # (centered, momentum): formula
    (False, False): rmsprop,
    (True, False): rmsprop_centered,
    (False, True): rmsprop_momentum,
    (True, True): rmsprop_both,
}


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


def amsgrad(g, m, v, w, *, beta1, beta2, scaled_eps, back):  # type: ignore[no-untyped-def]
    """Update: Adam's m and v, w ← max(w, v), u = back·(m / (√w + ε′))."""
    m = beta1 * m + g
    v = beta2 * v + g * g
    w = maximum(w, v)
    u = back * (m / (sqrt(w) + scaled_eps))
    return m, v, w, u


def nadam(g, m, v, *, beta1, beta2, scaled_eps, now, ahead):  # type: ignore[no-untyped-def]
    """Update: Adam's m and v, u = (now·g + ahead·m) / (√v + ε′)."""
    m = beta1 * m + g
    v = beta2 * v + g * g
    u = (now * g + ahead * m) / (sqrt(v) + scaled_eps)
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
        self.hyper = checked(momentum=momentum)


class Nesterov(FormulaRule):
    """Nesterov momentum: m ← μm + g, u = g + μm (Nesterov, 1983; the form of torch.optim.SGD with nesterov=True).

    The classical method takes the gradient at the point looked ahead to, x − lr·μm; this form is that method told in
    the points looked ahead to (Sutskever et al., 2013), the same for a constant rate.

    Parameters
    ----------
    momentum
        μ in [0, ∞).
    """

    formula = nesterov
    slots = ("m",)

    def __init__(self, momentum: float = 0.9) -> None:
        self.hyper = checked(momentum=momentum)


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
        self.hyper = checked(eps=eps)


class RMSProp(FormulaRule):
    """RMSProp: v ← αv + (1−α)g², u = g / (√v + ε) (Tieleman, Hinton, 2012, lecture 6.5; torch.optim.RMSprop).

    With ``centered`` a ← αa + (1−α)g and √(v − a²) takes the place of √v: the gradient over its standard deviation
    (Graves, 2013, eq. 40, where ε stands under the root). With ``momentum`` m ← μm + u, and the direction is m.

    Parameters
    ----------
    alpha
        α in [0, 1), the memory of the squared gradient.
    eps
        ε, beside the root. In a normalized block of d entries v is about 1/d, so ε matters from d of about 1/ε² on.
    momentum
        μ in [0, ∞).
    centered
        Whether the mean gradient is taken out.
    """

    def __init__(self, alpha: float = 0.99, eps: float = 1e-8, momentum: float = 0.0, centered: bool = False) -> None:
        self.hyper = checked(alpha=alpha, eps=eps, momentum=momentum)
        self.centered = bool(centered)
        self.slots = ("v", *(["a"] if centered else []), *(["m"] if momentum else []))
        self.formula = _RMSPROP[self.centered, bool(momentum)]

    def scalars(self, step: int) -> Mapping[str, float]:
        """Return α, and ε and 1 rescaled for a v that lacks its factor 1 − α."""
        alpha, eps, momentum = self.hyper.values()
        root = math.sqrt(1 - alpha)
        scalars = {"alpha": alpha, "scaled_eps": eps / root, "back": 1 / root}
        return {**scalars, "momentum": momentum} if momentum else scalars

    def __repr__(self) -> str:
        return super().__repr__().replace(")", ", centered)" if self.centered else ")")


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
        self.hyper = checked(rho=rho, eps=eps)


class Adam(FormulaRule):
    """Adam: m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², u = m̂ / (√v̂ + ε) (Kingma, Ba, 2015; torch.optim.Adam).

    m̂ = m/(1−β₁ᵗ) and v̂ = v/(1−β₂ᵗ) undo the start at zero; t counts steps from 1.

    Parameters
    ----------
    beta1, beta2
        β₁, β₂ in [0, 1).
    eps
        ε, beside the root of v̂. In a normalized block of d entries v̂ is about 1/d: ε matters from d of about 1/ε² on.
    """

    formula: Any = adam
    slots: tuple[str, ...] = ("m", "v")

    def __init__(self, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> None:
        self.hyper = checked(beta1=beta1, beta2=beta2, eps=eps)

    def scalars(self, step: int) -> Mapping[str, float]:
        """Return β₁, β₂, and ε and 1 rescaled for moments that lack their factors: m̂ = m·(1−β₁)/(1−β₁ᵗ)."""
        beta1, beta2, eps = self.hyper.values()
        root = math.sqrt((1 - beta2) / (1 - beta2**step))
        back = (1 - beta1) / (1 - beta1**step) / root
        return {"beta1": beta1, "beta2": beta2, "scaled_eps": eps / root, "back": back}


class AMSGrad(Adam):
    """AMSGrad: Adam with w ← max(w, v) in the place of v, which never shrinks (Reddi, Kale, Kumar, 2018).

    u = m̂ / (√ŵ + ε) with ŵ = w/(1−β₂ᵗ), as torch.optim.Adam with amsgrad=True; the paper has no bias correction.

    Parameters
    ----------
    beta1, beta2
        β₁, β₂ in [0, 1).
    eps
        ε, beside the root of ŵ.
    """

    formula = amsgrad
    slots = ("m", "v", "w")


class NAdam(FormulaRule):
    """NAdam: Adam with Nesterov's momentum (Dozat, 2016; torch.optim.NAdam).

    u = (μ_{t+1}·m/(1−Π_{t+1}) + (1−μ_t)·g/(1−Π_t)) / (√v̂ + ε), with Adam's m and v, the momentum schedule
    μ_t = β₁(1 − ½·0.96^{tψ}) and Π_t = μ_1 ⋯ μ_t.

    Parameters
    ----------
    beta1, beta2
        β₁, β₂ in [0, 1).
    eps
        ε, beside the root of v̂.
    momentum_decay
        ψ ≥ 0, how fast the momentum rises to β₁.
    """

    formula = nadam
    slots = ("m", "v")

    def __init__(
        self, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, momentum_decay: float = 4e-3
    ) -> None:
        self.hyper = checked(beta1=beta1, beta2=beta2, eps=eps, momentum_decay=momentum_decay)
        self._products = [1.0]  # Π_0, Π_1, …

    def _momentum(self, step: int) -> float:
        beta1, decay = self.hyper["beta1"], self.hyper["momentum_decay"]
        return beta1 * (1 - 0.5 * math.pow(0.96, step * decay))

    def scalars(self, step: int) -> Mapping[str, float]:
        """Return β₁, β₂, the rescaled ε, and the weights of gradient and momentum; v̂ = v·(1−β₂)/(1−β₂ᵗ)."""
        beta1, beta2, eps, _ = self.hyper.values()
        while len(self._products) <= step + 1:
            self._products.append(self._products[-1] * self._momentum(len(self._products)))
        root = math.sqrt((1 - beta2) / (1 - beta2**step))
        now = (1 - self._momentum(step)) / (1 - self._products[step]) / root
        ahead = (1 - beta1) * self._momentum(step + 1) / (1 - self._products[step + 1]) / root
        return {"beta1": beta1, "beta2": beta2, "scaled_eps": eps / root, "now": now, "ahead": ahead}


PAPER_RULES = (SGD, Momentum, AdaGrad, RMSProp, AdaDelta, Adam)
"""The six rules of the paper's experiments."""

RULES = (*PAPER_RULES, Nesterov, AMSGrad, NAdam)
"""Every rule; each has its four forms."""
