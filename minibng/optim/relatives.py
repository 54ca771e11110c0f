"""Relatives of block normalization, for comparison: signSGD, LARS, LAMB and NovoGrad.

They measure and scale blocks with the functions that NG uses. signSGD and LARS are NG with other settings; LAMB scales
behind its rule; NovoGrad remembers the norms of earlier gradients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minibng.backend import Array, BlockNorms
from minibng.optim.optimizer import Optimizer, Seen, descend
from minibng.optim.rules import SGD, Adam, FormulaRule, Momentum, checked, sgd
from minibng.optim.schedules import Schedule, check_rate
from minibng.params import Params


class SignSGD(Optimizer):
    """signSGD: x ← x − lr·sign(g) (Bernstein et al., 2018): NG in which every number is a block of its own.

    Parameters
    ----------
    params, lr, weight_decay, decay, nonfinite
        As those of `Optimizer`.

    Examples
    --------
    >>> x = np.array([1.0, 1.0, 1.0])
    >>> SignSGD([x], lr=0.25).step([np.array([1e-9, -3.0, 0.0])])
    >>> x
    array([0.75, 1.25, 1.  ])
    """

    def __init__(
        self,
        params: Params | Sequence[Array],
        lr: float | Schedule,
        *,
        weight_decay: float | Mapping[str, float] = 0.0,
        decay: str = "decoupled",
        nonfinite: str = "raise",
    ) -> None:
        settings: dict[str, Any] = {"weight_decay": weight_decay, "decay": decay, "nonfinite": nonfinite}
        super().__init__(params, SGD(), lr, normalize="unit", blocks="coordinate", **settings)


class LARS(Optimizer):
    """LARS: m ← μm + f^i·(g^i + λx^i), x ← x − lr·m, f^i = ‖x^i‖/(‖g^i‖ + λ‖x^i‖) (You, Gitman, Ginsburg, 2017).

    The paper's trust coefficient is part of lr. Where ‖x^i‖ or ‖g^i‖ is 0 the factor is 1, so that a block at zero can
    leave it. With λ = 0 it is MomentumNGAdaptive without a floor.

    Parameters
    ----------
    params, lr, blocks, nonfinite
        As those of `Optimizer`.
    momentum
        μ in [0, ∞).
    weight_decay
        λ ≥ 0.
    """

    method = "LARS"

    def __init__(
        self,
        params: Params | Sequence[Array],
        lr: float | Schedule,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        blocks: Any = None,
        nonfinite: str = "raise",
    ) -> None:
        self._λ = check_rate(weight_decay, "weight_decay")
        super().__init__(params, Momentum(momentum), lr, blocks=blocks, nonfinite=nonfinite)
        self.decays = (self._λ,) * len(self.decays)

    def _seen(self, grads: Sequence[Array], norms: BlockNorms) -> Seen | None:
        """Return g + λx at the length f·‖g + λx‖."""
        seen = super()._seen(grads, norms)
        if seen is None or not self._λ:
            return seen
        decayed, f = self._decayed(grads), seen[2]
        norms = self.measure(decayed)
        with np.errstate(invalid="ignore"):  # 0 · inf, where a norm is beyond the largest double, is found below
            lengths = f * norms.values()
        finite = self._finite(norms.root, "gradient, decay included,", decayed, norms.bad)
        return (decayed, norms, lengths) if finite and self._finite(lengths, "gradient", decayed) else None

    def _lengths(self, norms: BlockNorms) -> Array:
        """Return ‖g^i‖·f^i where nothing decays, else f^i."""
        g, x = norms.values(), self.measure(self._target.tensors).values()
        trusted = (g > 0) & (x != 0)  # NaN too is handed on, to be found
        if not self._λ:
            return np.where(trusted, x, g)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found behind this
            return np.where(trusted, x / np.where(trusted, g + self._λ * x, 1), 1)


def regularize(u, x, *, decay):  # type: ignore[no-untyped-def]
    """Direction with decay: u + λx."""
    u = u + decay * x
    return u


class LAMB(Optimizer):
    """LAMB: r = u + λx with Adam's direction u, x^i ← x^i − lr·(‖x^i‖/‖r^i‖)·r^i (You et al., 2020, algorithm 2).

    The ratio is 1 where ‖x^i‖ or ‖r^i‖ is 0. It is Adam, and then adaptive NG of Adam's direction: normalization behind
    the rule, where NG has it in front.

    Parameters
    ----------
    params, lr, weight_decay, blocks, nonfinite
        As those of `Optimizer`.
    beta1, beta2, eps
        As those of `Adam`.
    """

    method = "LAMB"

    def __init__(
        self,
        params: Params | Sequence[Array],
        lr: float | Schedule,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-6,
        weight_decay: float | Mapping[str, float] = 0.0,
        blocks: Any = None,
        nonfinite: str = "raise",
    ) -> None:
        settings: dict[str, Any] = {"weight_decay": weight_decay, "nonfinite": nonfinite}
        super().__init__(params, Adam(beta1, beta2, eps), lr, blocks=blocks, **settings)

    def _make_steppers(self, rule: FormulaRule) -> None:
        """Bind the rule, which writes its direction to memory of its own, and the step along it."""
        self._direction = [np.empty_like(t) for t in self._target.tensors]
        formulas = (rule.formula, regularize) if self.decay else (rule.formula,)
        self._direct, self._descend = self._bind(*formulas, outputs=("u",)), self._bind(sgd, descend)

    def _lengths(self, norms: BlockNorms) -> Array:
        """Return ‖x^i‖."""
        return self.measure(self._target.tensors).values()

    def _move(self, grads: Sequence[Array], lr: float, norms: BlockNorms, lengths: Array | None) -> None:
        assert isinstance(self.rule, FormulaRule) and lengths is not None
        self._run(self._direct, self.rule, grads, {}, u=self._direction)
        norms = self.measure(self._direction)
        own = norms.values()
        lengths = np.where((lengths > 0) & (own > 0), lengths, own)
        self._descend({"g": self._direction, "x": self._target.tensors}, {"lr": lr}, norms, lengths, self._guard)


class NovoGrad(Optimizer):
    """NovoGrad: v ← β₂v + (1−β₂)‖g^i‖², m ← β₁m + g^i/√v + λx^i, x ← x − lr·m (Ginsburg et al., 2019, algorithm 1).

    v is one number a block and starts at ‖g_1^i‖². With β₂ = 0 it is MomentumNG. There is no ε: a block without
    gradient adds nothing to m.

    Parameters
    ----------
    params, lr, weight_decay, blocks, nonfinite
        As those of `Optimizer`.
    beta1, beta2
        β₁, β₂ in [0, 1).
    """

    method = "NovoGrad"

    def __init__(
        self,
        params: Params | Sequence[Array],
        lr: float | Schedule,
        *,
        beta1: float = 0.9,
        beta2: float = 0.25,
        weight_decay: float | Mapping[str, float] = 0.0,
        blocks: Any = None,
        nonfinite: str = "raise",
    ) -> None:
        self._β2 = checked(beta1=beta1, beta2=beta2)["beta2"]
        settings: dict[str, Any] = {"weight_decay": weight_decay, "decay": "after", "nonfinite": nonfinite}
        super().__init__(params, Momentum(beta1), lr, blocks=blocks, **settings)
        self.memory = {"root_v": -np.ones_like(self._sizes)}  # no gradient has been seen
        self._root_v = self.memory["root_v"]

    def _lengths(self, norms: BlockNorms) -> Array:
        """Return ‖g^i‖/√v^i; √v is kept, since v itself might overflow."""
        g = norms.values()
        before, old, new = self.memory["root_v"], math.sqrt(self._β2), math.sqrt(1 - self._β2)
        self._root_v = np.where(before < 0, g, np.hypot(old * before, new * g))
        return np.where(self._root_v > 0, g / np.where(self._root_v > 0, self._root_v, 1), 0)

    def _move(self, grads: Sequence[Array], lr: float, norms: BlockNorms, lengths: Array | None) -> None:
        old = self.memory["root_v"]
        self.memory = {"root_v": self._root_v if self._guard is None else self._guard.keep(self._root_v, old)}
        super()._move(grads, lr, norms, lengths)


RELATIVES = (SignSGD, LARS, LAMB, NovoGrad)
"""They are called by their names in small letters on the command line."""
