"""What a law is tried on: a normalizer, or anything that makes optimizers; with what theory promises of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

from minibng.backend import Array, HostArray, asarray, to_host
from minibng.optim import Accumulator, Optimizer, rules
from minibng.optim.normalize import ClipGlobal
from minibng.verify.example import Gradient, Violation, Walk, join
from minibng.verify.promises import NORMALIZER, clip_of, floor_of, promised, withheld

Rate: TypeAlias = float | Callable[[int], float]
Normalize: TypeAlias = Callable[[list[Array]], Sequence[Array]]
Make: TypeAlias = Callable[..., "Stepping"]
Accumulate: TypeAlias = Callable[[list[list[Array]], list[float]], list[Array]]


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
        The laws, by name, that theory says it keeps; another law may be run, and is then expected to fail. None where
        nothing is known of it: every law that can be posed is tried.
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
    partition
        What its blocks are: "any" where ``make`` is told, "tensor" where each tensor is one, "global" where all tensors
        together are one.
    rate
        A learning rate of its own, which laws cannot choose; None where ``make`` gets the rate.
    keeps_state
        Whether it has a state to save and load.
    clip
        The threshold of a subject that clips (the norm of each block, or of the whole for the partition "global").
    accumulate
        Gradients of micro-batches and their weights, numbers of samples → the gradient to step with.
    workers
        The same for the gradients of several processes.
    devices
        Where it works; laws compare them where there is more than one.
    by_design
        Law → why the subject breaks it on purpose; only told, the law still does not hold.
    refused
        Dtype → what happened when it was tried there; only told.

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
    promises: tuple[str, ...] | None = None
    normalize: Normalize | None = None
    make: Make | None = None
    momentum: float = 0.0
    ahead: int = 0
    floor: float | None = None
    device: str = "cpu"
    partition: Literal["any", "tensor", "global"] = "any"
    rate: float | None = None
    keeps_state: bool = True
    clip: float | None = None
    accumulate: Accumulate | None = None
    workers: Accumulate | None = None
    devices: tuple[str, ...] = ("cpu",)
    by_design: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

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
        name = name or str(getattr(subject, "__name__", type(subject).__name__))
        if not (isinstance(subject, type) and issubclass(subject, Optimizer)):
            settings = {"dtypes": ("float16", "float32", "float64"), "promises": NORMALIZER, **options}
            return cls(name, normalize=subject, device=device, partition="tensor", **settings)
        probe: Optimizer = subject([np.zeros(2)], lr=1.0, **options)
        chooses = "blocks" in inspect.signature(subject).parameters and "blocks" not in options

        def make(params: list[Array], lr: Rate, blocks: Any) -> Stepping:
            return _Ours(subject, params, lr, {**options, "blocks": blocks} if chooses else options)

        joined = options.get("blocks") == "global" or isinstance(probe.normalizer, ClipGlobal)
        return cls(
            name,
            promises=promised(probe),
            make=make,
            momentum=probe.rule.hyper["momentum"] if isinstance(probe.rule, (rules.Momentum, rules.Nesterov)) else 0.0,
            ahead=int(isinstance(probe.rule, rules.Nesterov)),
            floor=floor_of(probe),
            device=device,
            partition="global" if joined else "any" if chooses else "tensor",
            clip=clip_of(probe),
            accumulate=averaged,
            devices=tuple(dict.fromkeys(("cpu", "strict", device))),
            by_design=withheld(probe),
        )

    def rate_of(self, lr: float) -> float:
        """Return the learning rate that holds where a law asks for this one."""
        return lr if self.rate is None else self.rate

    def placed(self, tensors: Sequence[HostArray]) -> list[Array]:
        """Return tensors as the subject gets them: on the host they are shared, on another device copied."""
        return [asarray(t, device=self.device) for t in tensors]

    def call(self, tensors: list[Array], blocks: Sequence[Sequence[int]]) -> Sequence[Array]:
        """Return the first direction u, one array a tensor; the tensors of the gradient itself are handed over.

        For an optimizer u is what x = 0 is moved by at lr = 1 from a fresh state: −x afterwards, which no rounding to
        the spacing of x has touched. With a rate of its own it is rate·u that comes back.
        """
        if self.normalize is not None:
            return self.normalize(list(tensors))
        stepping = self.start([np.zeros_like(t) for t in tensors], 1.0, blocks)
        stepping.step(list(tensors))
        return [-p for p in stepping.params]

    def directions(self, gradient: Gradient) -> list[HostArray]:
        """Return the first direction u, one vector a block; −x/rate in extended precision for a rate of its own.

        Raises
        ------
        Violation
            Where what comes back does not have the shapes of the gradient.
        """
        out = [to_host(u) for u in self.call(self.placed(gradient.copy().tensors), gradient.blocks)]
        here, there = [t.shape for t in gradient.tensors], [u.shape for u in out]
        if here != there:
            raise Violation(f"for arrays of shapes {here} directions of shapes {there} came back")
        vectors = join(out, gradient.blocks)
        return vectors if self.rate is None else [u.astype(np.longdouble) / self.rate for u in vectors]

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


def averaged(grads: list[list[Array]], weights: list[float]) -> list[Array]:
    """Return Σ n_k g_k / Σ n_k, as `minibng.optim.Accumulator` makes it."""
    total = Accumulator()
    for g, weight in zip(grads, weights, strict=True):
        total.add(g, weight)
    mean: list[Array] = total.mean()
    return mean
