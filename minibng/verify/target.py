"""What a law is tried on: a normalizer, or anything that makes optimizers; with what theory promises of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from minibng.backend import Array, HostArray, asarray, to_host
from minibng.optim import NamedOptimizer, Optimizer, rules
from minibng.optim.normalize import Adaptive
from minibng.verify.example import Gradient, Violation, Walk, join

Rate: TypeAlias = float | Callable[[int], float]
Normalize: TypeAlias = Callable[[list[Array]], Sequence[Array]]
Make: TypeAlias = Callable[..., "Stepping"]


class Stepping(Protocol):
    """An optimizer under test. ``params`` are the tensors as they stand; what is written into them counts."""

    @property
    def params(self) -> Sequence[Array]:
        """The tensors as they stand."""

    def step(self, grads: list[Array]) -> None:
        """Take one step."""

    def state_dict(self) -> Any:
        """Return what a resumed run needs besides the parameters; later steps do not change it."""

    def load_state_dict(self, saved: Any) -> None:
        """Continue from a saved state."""


class _Ours:
    """One of minibng's optimizers, with the tensors that it steps."""

    def __init__(self, cls: type[Optimizer], params: list[Array], lr: Rate, options: Mapping[str, Any]) -> None:
        self.params = params
        self.optimizer = cls(params, lr=lr, **options)
        self.step = self.optimizer.step
        self.state_dict = self.optimizer.state_dict
        self.load_state_dict = self.optimizer.load_state_dict


@dataclass(frozen=True)
class Target:
    """Something that laws are tried on.

    Parameters
    ----------
    name
        What it is called in a report.
    dtypes
        The dtypes that it takes.
    promises
        The laws, by name, that theory says it keeps; another law may be run, and is then expected to fail.
    normalize
        N: list of arrays, each a block → list of arrays. Either this or ``make``.
    make
        ``make(params, lr, blocks)`` → `Stepping`; ``params`` is a list of arrays that it may write to, ``lr`` a number
        or a function of the number of finished steps, ``blocks`` the partition, as tuples of positions.
    momentum
        μ of a heavy ball or of Nesterov's method; 0 for a rule without memory.
    ahead
        1 for Nesterov's method, whose direction has one term more than the heavy ball's.
    floor
        Adaptive NG's floor; None where the step does not depend on x.
    device
        Where the subject gets its arrays, "cpu" or "cuda", say; laws measure on the host.

    Examples
    --------
    >>> from minibng import optim
    >>> target = Target.of(optim.SGDNG)
    >>> target.name, "unit-norm" in target.promises
    ('SGDNG', True)
    >>> target.directions(Gradient((np.array([3.0, 4.0]),), ((0,),)))
    [array([0.6, 0.8])]
    """

    name: str
    dtypes: tuple[str, ...] = ("float32", "float64")
    promises: tuple[str, ...] = ()
    normalize: Normalize | None = None
    make: Make | None = None
    momentum: float = 0.0
    ahead: int = 0
    floor: float | None = None
    device: str = "cpu"

    @classmethod
    def of(cls, subject: Any, name: str | None = None, *, device: str = "cpu", **options: Any) -> Target:
        """Return the target of one of minibng's optimizer classes, with its settings, or of a bare normalizer.

        Parameters
        ----------
        subject
            ``optim.AdamNG``, say; or a function, list of arrays → list of arrays.
        name
            What to call it; by default as Python does.
        device
            Where it gets its arrays.
        **options
            Settings of the optimizer (``momentum=0.5``), or of the target of a normalizer (``dtypes=("float64",)``).
        """
        name = name or subject.__name__
        if not (isinstance(subject, type) and issubclass(subject, Optimizer)):
            settings = {"dtypes": ("float16", "float32", "float64"), "promises": NORMALIZER, **options}
            return cls(name, normalize=subject, device=device, **settings)
        probe: Optimizer = subject([np.zeros(1)], lr=1.0, **options)

        def make(params: list[Array], lr: Rate, blocks: Any) -> Stepping:
            return _Ours(subject, params, lr, {**options, "blocks": blocks})

        return cls(
            name,
            promises=promised(probe),
            make=make,
            momentum=probe.rule.hyper["momentum"] if isinstance(probe.rule, (rules.Momentum, rules.Nesterov)) else 0.0,
            ahead=int(isinstance(probe.rule, rules.Nesterov)),
            floor=probe.normalizer.floor if isinstance(probe.normalizer, Adaptive) else None,
            device=device,
        )

    def placed(self, tensors: Sequence[HostArray]) -> list[Array]:
        """Return tensors as the subject gets them: on the host they are shared, on another device copied."""
        return [asarray(t, device=self.device) for t in tensors]

    def call(self, tensors: list[Array], blocks: Sequence[Sequence[int]]) -> Sequence[Array]:
        """Return the first direction u, one array a tensor; the tensors of the gradient itself are handed over.

        For an optimizer u is what x = 0 is moved by at lr = 1 from a fresh state: −x afterwards, which no rounding to
        the spacing of x has touched.
        """
        if self.normalize is not None:
            return self.normalize(list(tensors))
        stepping = self.start([np.zeros_like(t) for t in tensors], 1.0, blocks)
        stepping.step(list(tensors))
        return [-p for p in stepping.params]

    def directions(self, gradient: Gradient) -> list[HostArray]:
        """Return the first direction u, one vector a block.

        Raises
        ------
        Violation
            Where what comes back does not have the shapes of the gradient.
        """
        out = [to_host(u) for u in self.call(self.placed(gradient.copy().tensors), gradient.blocks)]
        here, there = [t.shape for t in gradient.tensors], [u.shape for u in out]
        if here != there:
            raise Violation(f"for arrays of shapes {here} directions of shapes {there} came back")
        return join(out, gradient.blocks)

    def start(self, x: list[Array], lr: Rate, blocks: Sequence[Sequence[int]]) -> Stepping:
        """Return a fresh optimizer at x, tensors on the subject's device."""
        if self.make is None:
            raise TypeError(f"{self.name} is a normalizer: this law needs an optimizer, which takes steps")
        return self.make(x, lr, blocks)

    def path(self, walk: Walk, lr: Rate = 0.125, *, anchored: bool = False) -> list[list[HostArray]]:
        """Return where each step ends, one vector a block; anchored: every step is taken from the walk's start."""
        stepping = self.start(self.placed([x.copy() for x in walk.start]), lr, walk.blocks)
        ends = []
        for gradient in walk.gradients:
            if anchored:
                for x, start in zip(stepping.params, self.placed(walk.start), strict=True):
                    x[...] = start
            stepping.step(self.placed(gradient.copy().tensors))
            ends.append(join([to_host(x) for x in stepping.params], walk.blocks))
        return ends


RAW: tuple[str, ...] = ("inputs-preserved", "zero-block", "idle-block", "resume")
"""The paper's rules keep these without a normalizer; more would need gradients whose squares are finite."""

ALWAYS: tuple[str, ...] = ("inputs-preserved", "block-independence", "resume")
"""Any step rule behind any normalizer per block keeps these."""

ODD: tuple[str, ...] = (*ALWAYS, "sign-symmetry", "block-permutation", "signed-permutation", "zero-block", "idle-block")
"""…and these, if it treats all entries alike and is odd: u(−g) = −u(g)."""

INVARIANT = ("power-of-two-invariance", "loss-scale")
"""…and these behind NG, plain or adaptive: its input is N(g) whatever the scale of g."""

STRAIGHT = ("scale-invariance", "same-direction", "orthogonal-equivariance")
"""…and these where the first u is a multiple of N(g), as for SGD and heavy ball."""

NORMALIZER = (
    *("unit-norm", "scale-invariance", "power-of-two-invariance", "inner-product", "same-direction"),
    *("sign-symmetry", "idempotence", "block-independence", "block-permutation", "orthogonal-equivariance"),
    *("signed-permutation", "zero-block", "finite", "inputs-preserved"),
)
"""Everything that I1 to I8 ask of N itself."""


def promised(optimizer: Optimizer) -> tuple[str, ...]:
    """Return the laws, by name, that theory promises of an optimizer: by its normalizer and its rule."""
    plain = isinstance(optimizer, NamedOptimizer) and optimizer.norm.name == 2 and not optimizer.decay
    if not plain or optimizer.normalize == "clip-global":
        return ("inputs-preserved", "resume")  # of relatives, other norms and weight decay not much is told yet
    known = type(optimizer.rule) in rules.RULES
    straight = isinstance(optimizer.rule, (rules.SGD, rules.Momentum, rules.Nesterov))
    ahead = isinstance(optimizer.rule, rules.Nesterov)
    if optimizer.normalize is None:
        return RAW if known else ("inputs-preserved", "resume")
    names = ODD if known else ALWAYS
    if optimizer.normalize == "clip":
        return names
    names += INVARIANT
    if known:
        names += ("finite", "loss-scale-first-step")
    if straight and optimizer.normalize == "unit":
        return tuple(dict.fromkeys([*names, *STRAIGHT, *([] if ahead else NORMALIZER), "step-length"]))
    if ahead:
        return (*names, *STRAIGHT, "adaptive-scaling")
    if straight:
        return (*names, *STRAIGHT, "adaptive-length", "adaptive-scaling")
    if known and optimizer.normalize == "adaptive":
        return (*names, "constant-factor")
    return names
