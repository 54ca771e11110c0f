"""The training loop: batches, steps, and what is measured on the way."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minibng.autodiff import value_and_grad
from minibng.backend import Array, HostArray, backend_of
from minibng.data import Split, batches
from minibng.optim import Accumulator, NonFiniteError, Optimizer
from minibng.params import Params
from minibng.train.metrics import Evaluate, score
from minibng.train.progress import progress

Loss = Callable[..., Any]


@dataclass
class Epoch:
    """What was measured at the end of one epoch, on whole data sets, by the parameters as they then were.

    ``train_loss`` is the mean loss of the training split in nats; the errors are fractions misclassified; ``seconds``
    is the CPU time spent in training steps so far (evaluation and recording left out).
    """

    epoch: int
    train_loss: float
    val_error: float | None
    test_error: float | None
    seconds: float
    diverged: bool = False


@dataclass
class History:
    """The record of one training run.

    ``epochs`` starts with epoch 0, before the first step. ``step_losses`` (S,) are the batch losses. Where norms were
    recorded, ``gradient_norms`` and ``update_norms`` are (S, B): ‖g^i‖ as the gradient came (with decay "before" that
    of g + λx) and ‖Δx^i‖ of the step, both in the optimizer's norm.
    """

    blocks: Sequence[str]
    epochs: list[Epoch] = field(default_factory=list)
    step_losses: HostArray = field(default_factory=lambda: np.empty(0))
    gradient_norms: HostArray = field(default_factory=lambda: np.empty((0, 0)))
    update_norms: HostArray = field(default_factory=lambda: np.empty((0, 0)))
    error: str = ""
    """Why a diverged run ended."""

    def records(self, **labels: Any) -> list[dict[str, Any]]:
        """Return one record an epoch, each with the labels (optimizer=…, lr=…, seed=…), as `plot` takes them."""
        return [{**labels, **vars(epoch)} for epoch in self.epochs]

    def norm_records(self, **labels: Any) -> list[dict[str, Any]]:
        """Return one record a step, each with the labels and the norms of every block's gradient and update."""
        pairs = zip(self.gradient_norms, self.update_norms, strict=True)
        common = {**labels, "blocks": list(self.blocks)}
        return [{**common, "step": i, "gradient": g, "update": u} for i, (g, u) in enumerate(pairs)]

    @property
    def diverged(self) -> bool:
        """Whether a loss or a gradient stopped being finite."""
        return bool(self.epochs) and self.epochs[-1].diverged

    def __repr__(self) -> str:
        if not self.epochs:
            return "History(no epochs)"
        last = self.epochs[-1]
        told = f"after {last.epoch} epochs, training loss {last.train_loss:.4g}"
        if last.val_error is not None:
            told += f", validation error {last.val_error:.2%}, test error {last.test_error:.2%}"
        return f"History({told}{', diverged' if last.diverged else ''})"


def _losses(model: Any, loss: Loss) -> tuple[Callable[[Params, Array, Array], Any], Evaluate]:
    """Return the loss to differentiate and the one to evaluate, from either form that ``fit`` takes."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p for p in inspect.signature(loss).parameters.values() if p.kind in kinds and p.default is p.empty]
    if len(needed) not in (2, 3):
        raise TypeError(f"the loss is loss(output, y) or loss(params, x, y), got {len(needed)} positional parameters")
    of_params = len(needed) == 3
    evaluating = {"train": False} if "train" in inspect.signature(loss).parameters else {}

    def training(params: Params, x: Array, y: Array) -> Any:
        return loss(params, x, y) if of_params else loss(model(params, x, train=True), y)

    def evaluation(params: Params, x: Array, y: Array) -> tuple[Any, Any]:
        output = model(params, x)
        return (loss(params.copy(), x, y, **evaluating) if of_params else loss(output, y)), output

    return training, evaluation


def _check_roles(model: Any, params: Any, opt: Any) -> None:
    """Refuse arguments of `fit` in another's place, and an optimizer that is still a class."""
    order = "the order is fit(model, params, opt, loss, split)"
    if not isinstance(params, Params):
        raise TypeError(f"params are a Params, such as model.init() makes, got a {type(params).__name__}: {order}")
    if not callable(model):
        raise TypeError(f"the model is called as model(params, x), got a {type(model).__name__}: {order}")
    if isinstance(opt, type):
        raise TypeError(f"opt is the class {opt.__name__}: make it, {opt.__name__}(params, lr=…)")
    if not isinstance(opt, Optimizer):
        raise TypeError(f"opt is an optimizer made on the parameters, got a {type(opt).__name__}: {order}")


def fit(
    model: Any,
    params: Params,
    opt: Optimizer,
    loss: Loss,
    split: Split,
    epochs: int = 10,
    batch: int = 128,
    seed: int = 0,
    *,
    micro_batch: int | None = None,
    drop_last: bool = False,
    record_norms: bool = False,
    on_epoch: Callable[[Epoch], Any] | None = None,
    show: bool | None = None,
) -> History:
    """Train a model; return what was measured at the end of each epoch.

    Parameters
    ----------
    model
        A layer, ``model(params, x, train=…)`` → output.
    params
        Its parameters, changed in place.
    opt
        The optimizer, made on ``params``.
    loss
        ``loss(output, y)``, as `nn.cross_entropy` (the model is called with train=True), or ``loss(params, x, y)``
        where it needs the parameters. The second is measured as it trains, dropout included, unless it takes a
        keyword ``train``, which is False then.
    split
        The data; validation and test sets are only measured, never trained on.
    epochs, batch
        Passes over the training set, and samples a step.
    seed
        Of the shuffling: the order depends on (seed, epoch) alone.
    micro_batch
        Samples a pass, at most ``batch``: gradients of that many samples at a time are averaged, then normalized once.
        It is the same step for a mean loss, in less memory. (A layer that mixes samples sees the smaller batch.)
    drop_last
        Leave out a last, partial batch.
    record_norms
        Keep each step's block norms of gradient and update.
    on_epoch
        Called with each `Epoch` as it is measured.
    show
        Whether to show progress; default: on a terminal.

    Returns
    -------
    History
        A run whose loss or gradient stops being finite ends there, marked diverged: that is a result, not an error.

    Raises
    ------
    ValueError
        For a number of epochs below 0, a micro-batch that is no part of a batch, an optimizer made on other parameters,
        a loss that is no scalar, and as `data.batches`.
    TypeError
        For an argument of another kind, such as an optimizer's class.
    """
    if not isinstance(split, Split):
        raise TypeError(f"fit takes a Split, with .train, .val and .test, got {type(split).__name__}")
    _check_roles(model, params, opt)
    if not isinstance(epochs, (int, np.integer)):
        raise TypeError(f"epochs must be a whole number, got {epochs!r}")
    if epochs < 0:
        raise ValueError(f"epochs must be 0 or more, got {epochs}")
    if micro_batch is not None and not 1 <= micro_batch <= batch:
        raise ValueError(f"micro_batch must lie in 1 … {batch}, the batch size, got {micro_batch}")
    if not opt.steps_on(params):
        raise ValueError("the optimizer was made on other parameters than those to train: make it on these")
    batches(split.train, batch, seed=seed, drop_last=drop_last)  # refuses what makes no sense before anything is run
    training, evaluate = _losses(model, loss)
    run = _Run(value_and_grad(training), params, opt, History(opt.block_names), record_norms, micro_batch)
    bar = progress(range(epochs), what="epochs", show=show)
    run.measure(0, evaluate, split, on_epoch)
    for epoch in bar:
        try:
            for x, y in batches(split.train, batch, seed=seed, epoch=epoch, drop_last=drop_last):
                run.step(x, y)
            opt.check()
        except (NonFiniteError, FloatingPointError) as error:
            run.history.error = str(error)
        last = run.measure(epoch + 1, evaluate, split, on_epoch)
        bar.set_postfix_str(f"training loss {last.train_loss:.4g}")
        if last.diverged:
            break
    return run.finished()


class _Run:
    """One training run in progress: its step, its clock and its history."""

    def __init__(
        self, step: Any, params: Params, opt: Optimizer, history: History, record_norms: bool, micro_batch: int | None
    ) -> None:
        self.value_and_grad, self.params, self.opt = step, params, opt
        self.history, self.record_norms, self.micro_batch = history, record_norms, micro_batch
        self.backend = backend_of(params.flat)
        self.seconds = 0.0
        self.losses: list[Any] = []
        self.gradient_norms: list[HostArray] = []
        self.update_norms: list[HostArray] = []

    def step(self, x: HostArray, y: HostArray) -> None:
        """Take one training step; the clock runs for this alone."""
        before = self.params.flat.copy() if self.record_norms else None
        start = time.process_time()
        with np.errstate(over="ignore", invalid="ignore"):
            value, grad = self.gradient(x, y)
            self.opt.step(grad)
        self.seconds += time.process_time() - start
        self.losses.append(value)
        if before is not None and self.opt.norms is not None:
            before -= self.params.flat
            views = list(self.params.layout.views(before).values())
            self.gradient_norms.append(self.backend.to_host(self.opt.norms.values()))
            self.update_norms.append(self.backend.to_host(self.opt.measure(views).values()))

    def gradient(self, x: HostArray, y: HostArray) -> tuple[Any, Params]:
        """Return loss and gradient of a batch, in one pass or a micro-batch at a time."""
        n, asarray = len(x), self.backend.asarray
        size = self.micro_batch or n
        if size >= n:
            value, grad = self.value_and_grad(self.params, asarray(x), asarray(y))
            return value, grad
        total, values = Accumulator(), 0.0
        for start in range(0, n, size):
            part = slice(start, start + size)
            value, grad = self.value_and_grad(self.params, asarray(x[part]), asarray(y[part]))
            total.add(grad, weight=len(x[part]))
            values = values + value * (len(x[part]) / n)
        return values, total.mean()

    def measure(self, epoch: int, evaluate: Evaluate, split: Split, on_epoch: Any) -> Epoch:
        """Measure the whole splits at the end of an epoch; a run that diverged has no numbers."""
        last = Epoch(epoch, math.nan, math.nan, math.nan, self.seconds, diverged=True)
        if not self.history.error:
            train, val, test = (score(evaluate, self.params, part) for part in (split.train, split.val, split.test))
            if math.isfinite(train.loss):
                last = Epoch(epoch, train.loss, val.error, test.error, self.seconds)
        self.history.epochs.append(last)
        if on_epoch is not None:
            on_epoch(last)
        return last

    def finished(self) -> History:
        """Return the history with what was kept of the steps."""
        blocks = len(self.history.blocks)
        self.history.step_losses = np.array([float(v) for v in self.losses])
        self.history.gradient_norms = np.reshape(self.gradient_norms, (-1, blocks))
        self.history.update_norms = np.reshape(self.update_norms, (-1, blocks))
        return self.history
