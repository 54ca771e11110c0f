"""What theory promises: the laws that one of minibng's optimizers keeps, by its normalizer, rule, norm and decay.

It is told the other way round: `withheld` gives for each law that is not promised the reason why, and all others are.
"""

from __future__ import annotations

from dataclasses import dataclass

from minibng.optim import LAMB, LARS, NovoGrad, Optimizer, SignSGD, rules
from minibng.optim.normalize import Adaptive, Clip, Except

NORMALIZER = (
    *("unit-norm", "finite", "coordinate-is-sign", "scale-invariance", "power-of-two-invariance", "inner-product"),
    *("same-direction", "sign-symmetry", "idempotence", "block-independence", "block-permutation"),
    *("orthogonal-equivariance", "signed-permutation", "zero-block", "nonzero-stays-nonzero", "inputs-preserved"),
)
"""What I1 to I8 ask of N itself."""

GLOBAL = ("one-block-is-global",)
ADAPTIVE = ("adaptive-length", "adaptive-scaling", "constant-factor")
CLIPPING = ("clip-inside", "clip-never-enlarges")
AVERAGES = ("micro-batches", "workers")
TRAJECTORIES = ("idle-block", "step-length", "loss-scale", "loss-scale-first-step", "resume", "devices-agree")

EVERY = (*NORMALIZER, *GLOBAL, *ADAPTIVE, *CLIPPING, *AVERAGES, *TRAJECTORIES)
"""The names of all laws."""

LENGTHS = ("unit-norm", "inner-product", "step-length")
SCALE = ("scale-invariance", "power-of-two-invariance", "loss-scale", "loss-scale-first-step")
WHOLE = tuple(  # laws that give a gradient of any size to it
    name for name in (*NORMALIZER, *GLOBAL) if name not in ("coordinate-is-sign", "orthogonal-equivariance")
)


@dataclass(frozen=True)
class _Kind:
    """What an optimizer is made of, as far as its promises depend on it."""

    optimizer: Optimizer

    @property
    def known(self) -> bool:
        return type(self.optimizer.rule) in rules.RULES

    @property
    def straight(self) -> bool:
        """Whether the rule's first direction is a multiple of what it sees."""
        return isinstance(self.optimizer.rule, (rules.SGD, rules.Momentum, rules.Nesterov))

    @property
    def same(self) -> bool:
        """Whether it is exactly what it sees."""
        return self.straight and not isinstance(self.optimizer.rule, rules.Nesterov)

    @property
    def epsilon(self) -> float:
        """The rule's ε."""
        rule = self.optimizer.rule
        return rule.hyper.get("eps", 0.0) if isinstance(rule, rules.FormulaRule) else 0.0

    @property
    def sees(self) -> str:
        """What the rule sees of a gradient at x = 0: "unit", "adaptive", "sign", "clip" or "raw"."""
        o = self.optimizer
        if isinstance(o, SignSGD) or (o.normalize in ("unit", "adaptive") and len(o.block_names) > len(o.state)):
            return "sign"
        return "unit" if isinstance(o, NovoGrad) else (o.normalize or "raw").removesuffix("-global")

    @property
    def overflows(self) -> bool:
        """Whether its direction leaves the range for gradients at the end of it."""
        ahead = isinstance(self.optimizer.rule, (rules.Nesterov, rules.NAdam))
        clip = clip_of(self.optimizer)
        return (ahead and self.sees == "raw") or (clip is not None and clip > 2.0**32 and not self.same)


def floor_of(optimizer: Optimizer) -> float | None:
    """Return the floor of steps that are as long as the parameters, None where they are not.

    LARS (without decay) and LAMB have none: 0, and at x = 0 they take the direction as it comes.
    """
    normalizer = optimizer.normalizer.inner if isinstance(optimizer.normalizer, Except) else optimizer.normalizer
    if isinstance(normalizer, Adaptive):
        return normalizer.floor
    return 0.0 if isinstance(optimizer, LAMB) or (isinstance(optimizer, LARS) and not any(optimizer.decays)) else None


def clip_of(optimizer: Optimizer) -> float | None:
    """Return the threshold of clipping, None where nothing is clipped."""
    return optimizer.normalizer.clip if isinstance(optimizer.normalizer, Clip) else None


def promised(optimizer: Optimizer) -> tuple[str, ...]:
    """Return the laws, by name, that theory promises of an optimizer: by its normalizer, rule, norm and decay.

    Examples
    --------
    >>> import numpy as np
    >>> from minibng import optim
    >>> promised(optim.AdamNG([np.zeros(2)], lr=1.0))[:3]
    ('finite', 'power-of-two-invariance', 'sign-symmetry')
    """
    reasons = withheld(optimizer)
    return tuple(name for name in EVERY if name not in reasons)


def withheld(optimizer: Optimizer) -> dict[str, str]:
    """Return law → the reason why it is not promised of an optimizer, in words.

    ``optimizer`` was made with at least one tensor of several entries, which tells a partition into coordinates.

    Examples
    --------
    >>> import numpy as np
    >>> from minibng import optim
    >>> withheld(optim.AdamNG([np.zeros(2)], lr=1.0))["unit-norm"]
    'Adam steps by coordinates'
    """
    reasons: dict[str, str] = {}
    for says in (_by_rule, _by_form, _by_relative, _by_norm, _by_decay):
        for reason, laws in says(_Kind(optimizer)):
            for name in laws:
                reasons.setdefault(name, reason)
    return {name: reasons[name] for name in EVERY if name in reasons}


Reasons = list[tuple[str, tuple[str, ...]]]


def _by_rule(kind: _Kind) -> Reasons:
    """Return what the rule takes away."""
    name, seen = type(kind.optimizer.rule).__name__, kind.sees
    out: Reasons = []
    if isinstance(kind.optimizer.normalizer, Except):
        kept: tuple[str, ...] = ("inputs-preserved", "resume", "block-independence", "devices-agree", *AVERAGES)
        out.append(("blocks that are excluded keep their gradient", _but(kept)))
    if not kind.known:
        kept = ("inputs-preserved", "resume", "block-independence", "power-of-two-invariance", "loss-scale")
        out.append((f"nothing is known of the rule {name}", _but(kept)))
    laws: tuple[str, ...]
    if not kind.straight:
        laws = ("coordinate-is-sign", "scale-invariance", "same-direction", "idempotence", "orthogonal-equivariance")
        laws = (*LENGTHS, *laws, *CLIPPING, "adaptive-length", "adaptive-scaling")
        out.append((f"{name} steps by coordinates", laws))
    elif not kind.same:
        laws = ("unit-norm", "inner-product", "coordinate-is-sign", "adaptive-length", *CLIPPING)
        out.append((f"{name} adds μ times the direction to it", laws))
        if seen in ("raw", "clip"):
            out.append((f"{name} multiplies by 1 + μ each time", ("idempotence",)))
    if kind.straight:
        out.append((f"{name} keeps the factor ‖x‖", ("constant-factor",)))
    elif kind.epsilon > 1e-6:
        out.append(("its ε is too large beside the gradient", ("constant-factor",)))
    if kind.overflows:
        laws = ("finite", "sign-symmetry", "idempotence", "block-independence", "block-permutation")
        laws = (*laws, "signed-permutation", "same-direction", "nonzero-stays-nonzero", *GLOBAL)
        out.append((f"{name} leaves the range for the largest gradients", laws))
    if not kind.straight and seen == "raw":
        out.append((f"squares in {name} under- and overflow", ("nonzero-stays-nonzero",)))
    return out


def _by_form(kind: _Kind) -> Reasons:
    """Return what the normalizer takes away."""
    laws: tuple[str, ...]
    seen, out = kind.sees, Reasons()
    if seen in ("raw", "clip"):
        why = "the gradient is not normalized" if seen == "raw" else "what is inside the ball is not normalized"
        out.append((why, (*LENGTHS, *SCALE, "coordinate-is-sign")))
    if seen == "sign":
        laws = ("same-direction", "orthogonal-equivariance", *GLOBAL)
        out.append(("each number is a block of its own", (*LENGTHS, *laws)))
    floor = floor_of(kind.optimizer)
    if seen == "adaptive":
        out.append(("steps are as long as the parameters", (*LENGTHS, "coordinate-is-sign")))
        if floor is not None and floor < 1e-6:
            laws = ("same-direction", "nonzero-stays-nonzero", "orthogonal-equivariance", "loss-scale-first-step")
            out.append(("a block at zero cannot leave it without a floor", (*laws, "scale-invariance")))
    if floor is None:
        out.append(("the length of a step does not depend on the parameters", ADAPTIVE))
    elif floor > 1:
        out.append(("the floor is above the parameters that the law is tried on", ("constant-factor",)))
    if seen != "clip":
        out.append(("it does not clip", CLIPPING))
    if kind.optimizer.normalize == "clip-global":
        out.append(("all blocks have one norm", ("block-independence",)))
    return out


def _by_relative(kind: _Kind) -> Reasons:
    """Return what a relative does otherwise."""
    o, out = kind.optimizer, Reasons()
    if isinstance(o, (LARS, NovoGrad)):
        out.append(("a norm beyond the largest number is refused", WHOLE))
    if isinstance(o, NovoGrad):
        out.append(("the norms of earlier gradients are remembered", ("loss-scale", "step-length")))
    if isinstance(o, LAMB):
        out.append(("its length is that of the parameters", ("constant-factor",)))
    return out


def _by_norm(kind: _Kind) -> Reasons:
    """Return what another norm than the Euclidean takes away."""
    norm, out = kind.optimizer.norm.name, Reasons()
    if norm != 2 and kind.sees != "sign":
        out.append((f"directions have length 1 in the norm {norm}", LENGTHS))
    if norm not in (2, "rms"):
        out.append((f"the norm {norm} is not the same in every direction", ("orthogonal-equivariance",)))
        out.append((f"lengths are those in the norm {norm}", ("adaptive-length", *CLIPPING)))
    elif norm == "rms":
        out.append(("the threshold is one of the root mean square", CLIPPING))
    if norm == 1 and floor_of(kind.optimizer):
        out.append(("the floor is one in the norm 1", ("adaptive-scaling",)))
    return out


def _by_decay(kind: _Kind) -> Reasons:
    """Return what weight decay takes away; directions are taken from x = 0, where there is none."""
    o, out = kind.optimizer, Reasons()
    if not any(o.decays):
        return out
    out.append(("weight decay moves blocks without a gradient", ("idle-block",)))
    if not isinstance(o, LAMB):
        out.append(("weight decay is a part of the step", ("adaptive-length",)))
    if o.decay == "before":
        out.append(("weight decay is normalized together with the gradient", ("loss-scale",)))
    if o.decay == "before" or isinstance(o, LAMB):
        out.append(("weight decay is a part of what is normalized", ("adaptive-scaling",)))
    if o.decay != "after" or max(o.decays) > 0.1:
        out.append(("weight decay grows with the parameters", ("constant-factor",)))
    return out


def _but(kept: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in EVERY if name not in kept)
