"""The training loop: batches, steps, and what is measured on the way."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minibng.autodiff import value_and_grad
from minibng.backend import Array, HostArray, backend_of
from minibng.data import Batches, Split, batches
from minibng.data.augment import Augmentation
from minibng.optim import Accumulator, NonFiniteError, Optimizer
from minibng.params import Params
from minibng.train.metrics import Evaluate, perplexity, score
from minibng.train.parallel import Workers
from minibng.train.progress import progress

Loss = Callable[..., Any]


@dataclass
class Epoch:
    """What was measured at the end of one epoch, on whole data sets, by the parameters as they then were.

    The losses are means over the training, validation and test split, of cross-entropy in nats; the errors are
    fractions misclassified, None for real-valued targets; ``seconds`` is the CPU time spent in training steps so far
    (evaluation and recording left out). CPU time says nothing of a GPU. On one ``seconds`` is the time on the clock
    that the epochs took, until the GPU was done: batches and recording included, and in the first epoch the compilation
    of kernels.
    """

    epoch: int
    train_loss: float
    val_error: float | None
    test_error: float | None
    seconds: float
    diverged: bool = False
    val_loss: float | None = None
    test_loss: float | None = None


@dataclass
class History:
    """The record of one training run.

    ``epochs`` starts with epoch 0, before the first step. ``step_losses`` (S,) are the batch losses. Where norms were
    recorded, at the steps ``norm_steps`` (R,), ``parameter_norms``, ``gradient_norms`` and ``update_norms`` are (R, B):
    ‖x^i‖ before the step, ‖g^i‖ as the gradient came (with decay "before" that of g + λx) and ‖Δx^i‖ of the step, all
    in the optimizer's norm.
    """

    blocks: Sequence[str]
    epochs: list[Epoch] = field(default_factory=list)
    step_losses: HostArray = field(default_factory=lambda: np.empty(0))
    gradient_norms: HostArray = field(default_factory=lambda: np.empty((0, 0)))
    update_norms: HostArray = field(default_factory=lambda: np.empty((0, 0)))
    parameter_norms: HostArray = field(default_factory=lambda: np.empty((0, 0)))
    norm_steps: HostArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    error: str = ""
    """Why a diverged run ended."""
    language: bool = False
    """Whether the labels are those of one sequence, so that exp(loss) is a perplexity, and told as such."""

    def records(self, **labels: Any) -> list[dict[str, Any]]:
        """Return one record an epoch, each with the labels (optimizer=…, lr=…, seed=…), as `plot` takes them."""
        return [{**labels, **vars(epoch)} for epoch in self.epochs]

    def norm_records(self, **labels: Any) -> list[dict[str, Any]]:
        """Return one record a step whose norms were kept, each with the labels and the norms of every block."""
        common = {**labels, "blocks": list(self.blocks)}
        columns = (self.norm_steps.tolist(), self.gradient_norms, self.update_norms, self.parameter_norms)
        names = ("step", "gradient", "update", "parameter")
        return [{**common, **dict(zip(names, row, strict=True))} for row in zip(*columns, strict=True)]

    @property
    def diverged(self) -> bool:
        """Whether a loss or a gradient stopped being finite."""
        return bool(self.epochs) and self.epochs[-1].diverged

    def __repr__(self) -> str:
        if not self.epochs:
            return "History(no epochs)"
        last = self.epochs[-1]
        told = f"after {last.epoch} epochs, training {self.told(last.train_loss)}"
        if self.language and last.val_loss is not None and last.test_loss is not None:
            told += f", validation {self.told(last.val_loss)}, test {self.told(last.test_loss)}"
        elif last.val_error is not None:
            told += f", validation error {last.val_error:.2%}, test error {last.test_error:.2%}"
        return f"History({told}{', diverged' if last.diverged else ''})"

    def told(self, loss: float) -> str:
        """Tell a loss in words: as a perplexity where it is that of a language model."""
        return f"perplexity {perplexity(loss):.4g}" if self.language else f"loss {loss:.4g}"


def _losses(model: Any, loss: Loss, carried: bool) -> tuple[Callable[..., Any], Evaluate]:
    """Return the loss to differentiate and the one to evaluate, from either form that ``fit`` takes.

    With a state that is carried along, both take it as their last argument and return it last.
    """
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p for p in inspect.signature(loss).parameters.values() if p.kind in kinds and p.default is p.empty]
    if len(needed) not in (2, 3):
        raise TypeError(f"the loss is loss(output, y) or loss(params, x, y), got {len(needed)} positional parameters")
    of_params = len(needed) == 3
    evaluating = {"train": False} if "train" in inspect.signature(loss).parameters else {}

    def training(params: Params, x: Array, y: Array) -> Any:
        return loss(params, x, y) if of_params else loss(model(params, x, train=True), y)

    def evaluation(params: Params, x: Array, y: Array) -> Any:
        output = model(params, x)
        return (loss(params.copy(), x, y, **evaluating) if of_params else loss(output, y)), output

    def training_on(params: Params, x: Array, y: Array, state: Any) -> Any:
        output, state = model.run(params, x, state, train=True)
        return loss(output, y), state

    def evaluation_on(params: Params, x: Array, y: Array, state: Any) -> Any:
        output, state = model.run(params, x, state)
        return loss(output, y), output, state

    if not carried:
        return training, evaluation
    if of_params:
        raise TypeError("with length the state goes from batch to batch, so the loss must be loss(output, y)")
    return training_on, evaluation_on


def _check_roles(model: Any, params: Any, opt: Any, split: Any) -> None:
    """Refuse arguments of `fit` in another's place, and an optimizer that is still a class."""
    if not isinstance(split, Split):
        raise TypeError(f"fit takes a Split, with .train, .val and .test, got {type(split).__name__}")
    order = "the order is fit(model, params, opt, loss, split)"
    if not isinstance(params, Params):
        raise TypeError(f"params are a Params, such as model.init() makes, got a {type(params).__name__}: {order}")
    if not callable(model):
        raise TypeError(f"the model is called as model(params, x), got a {type(model).__name__}: {order}")
    if isinstance(opt, type):
        raise TypeError(f"opt is the class {opt.__name__}: make it, {opt.__name__}(params, lr=…)")
    if not isinstance(opt, Optimizer):
        raise TypeError(f"opt is an optimizer made on the parameters, got a {type(opt).__name__}: {order}")
    if not opt.steps_on(params):
        raise ValueError("the optimizer was made on other parameters than those to train: make it on these")


def _check_counts(epochs: Any, batch: int, micro_batch: int | None, record_norms: Any, measure_every: int) -> None:
    """Refuse numbers of epochs, samples and steps that make no sense."""
    if not isinstance(epochs, (int, np.integer)):
        raise TypeError(f"epochs must be a whole number, got {epochs!r}")
    if epochs < 0:
        raise ValueError(f"epochs must be 0 or more, got {epochs}")
    if micro_batch is not None and not 1 <= micro_batch <= batch:
        raise ValueError(f"micro_batch must lie in 1 … {batch}, the batch size, got {micro_batch}")
    if measure_every < 1:
        raise ValueError(f"measure_every must be 1 or more, got {measure_every}")
    if isinstance(record_norms, float) or record_norms < 0:
        raise ValueError(f"record_norms is True, False or a number of steps, got {record_norms!r}")


def _check_sequence(model: Any, split: Split, batch: int, length: int, alone: dict[str, Any]) -> None:
    """Refuse what does not go with one sequence whose state is carried along; ``alone`` has the arguments' values."""
    if not callable(getattr(model, "run", None)):
        raise TypeError(
            "with length the state goes from batch to batch, so the model must have run(params, x, state, train=…) → "
            f"(output, state), as nn.models.lstm_lm has; a {type(model).__name__} has not"
        )
    for name, value in alone.items():
        if value is not None:
            raise ValueError(f"{name} divides a batch by its rows, whose states go from batch to batch: leave it out")
    for what, part in (("validation", split.val), ("test", split.test)):  # they are read in the same windows
        try:
            batches(part, batch, length=length)
        except ValueError as error:
            raise ValueError(f"the {what} part is read in the same windows: {error}") from None


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
    augment: Augmentation | None = None,
    record_norms: bool | int = False,
    measure_every: int = 1,
    on_epoch: Callable[[Epoch], Any] | None = None,
    length: int | None = None,
    after_step: Callable[[Params], Any] | None = None,
    show: bool | None = None,
    workers: Workers | None = None,
) -> History:
    """Train a model; return what was measured at the end of each epoch.

    Parameters
    ----------
    model
        A layer, ``model(params, x, train=…)`` → output.
    params
        Its parameters, changed in place. The data go to their device (see `data.batches`).
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
    augment
        What is done to the images of a batch before the step, as `data.batches` takes it.
    record_norms
        Keep the block norms of parameters, gradient and update: of every step, or with a number k of every k-th.
    measure_every
        How many epochs lie between two measurements of the whole splits; before the first step and after the last they
        are measured anyway.
    on_epoch
        Called with each `Epoch` as it is measured.
    length
        The data are one sequence, x (M,) and y (M,), read in windows of ``batch`` rows and ``length`` steps as
        `data.batches` makes them. The model has ``run(params, x, state, train=…)`` → (output, state), and the state
        after a batch is the state before the next, as plain values: back-propagation is truncated at the window's edge.
        Each epoch and each measurement starts from None.
    after_step
        Called with the parameters after each step, to change them in place, such as by `optim.max_norm`. Norms of
        updates include what it does.
    show
        Whether to show progress; default: on a terminal.
    workers
        The processes that share every batch; all of them call this alike. Worker 0 alone shows progress and calls
        ``on_epoch``; what it measured is the history of all. Parameters are compared, or overwritten by worker 0's, at
        the start and after each epoch (`Workers.agree`).

    Returns
    -------
    History
        A run whose loss or gradient stops being finite ends there, marked diverged: that is a result, not an error. A
        device, on which no step waits for its numbers, is asked at the end of each epoch; what it did after the step
        that was not finite is left out, so that the history is the same. (The parameters are those of later steps.)

    Raises
    ------
    ValueError
        For a number of epochs below 0, a micro-batch that is no part of a batch, an optimizer made on other parameters,
        a loss that is no scalar, ``length`` with a micro-batch or workers, and as `data.batches`.
    TypeError
        For an argument of another kind, such as an optimizer's class, or a model without ``run`` where there is a
        ``length``.
    """
    _check_roles(model, params, opt, split)
    _check_counts(epochs, batch, micro_batch, record_norms, measure_every)
    how: dict[str, Any] = {"drop_last": drop_last, "augment": augment}
    windows: dict[str, Any] = {}
    if length is not None:
        windows = {"batch": batch, "length": length}
        _check_sequence(model, split, batch, length, {"micro_batch": micro_batch, "workers": workers})
        how["length"] = length
    batches(split.train, batch, seed=seed, **how)  # refuses what makes no sense before anything is run
    training, evaluate = _losses(model, loss, carried=length is not None)
    history = History(opt.block_names, language=length is not None and split.train.y.dtype.kind in "iu")
    step = value_and_grad(training, has_aux=length is not None)
    run = _Run(step, params, opt, history, evaluate, windows, int(record_norms), micro_batch, workers, after_step)
    if workers is not None and not workers.first:
        show, on_epoch = False, None
    bar = progress(range(epochs), what="epochs", show=show)
    with workers or nullcontext():
        opt.check()  # what is left of steps before this run is no part of it
        run.measure(0, split, on_epoch)
        for epoch in bar:
            run.train(batches(split.train, batch, seed, epoch, device=run.backend.device, **how))
            if (epoch + 1) % measure_every and epoch + 1 < epochs and not history.error:
                continue
            last = run.measure(epoch + 1, split, on_epoch)
            bar.set_postfix_str(f"training {history.told(last.train_loss)}")
            if last.diverged:
                break
    return run.finished()


@dataclass
class _Run:
    """One training run in progress: its step, its clock and its history."""

    value_and_grad: Any
    params: Params
    opt: Optimizer
    history: History
    evaluate: Evaluate
    windows: dict[str, Any]
    norms_every: int
    micro_batch: int | None
    workers: Workers | None
    after_step: Callable[[Params], Any] | None
    state: Any = None
    seconds: float = 0.0
    taken: int = 0
    values: list[Array] = field(default_factory=list)
    norms: list[tuple[int, Array, Array, Array]] = field(default_factory=list)
    kept_values: list[HostArray] = field(default_factory=list)
    kept_norms: list[tuple[HostArray, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.backend = backend_of(self.params.flat)
        self.asynchronous = self.backend.device.startswith("cuda")

    def train(self, epoch: Batches) -> None:
        """Take the steps of one epoch; an error that ends them is noted."""
        first, start = self.opt.steps, time.perf_counter()
        steps = self.state = None
        try:
            for x, y in epoch:
                self.step(x, y)
            self.opt.check()
        except (NonFiniteError, FloatingPointError) as error:
            self.history.error = str(error)
            if isinstance(error, NonFiniteError) and error.step is not None:
                steps = error.step - first
        if self.asynchronous:
            self.backend.synchronize()
            self.seconds += time.perf_counter() - start
        self.keep(steps)

    def step(self, x: Array, y: Array) -> None:
        """Take one training step; on the host the clock runs for this alone."""
        before = self.params.flat.copy() if self.norms_every and self.taken % self.norms_every == 0 else None
        start = time.process_time()
        gradient, context = self.gradient, self.backend.training_step()
        if self.workers is not None:  # gradients meet on the host, which waits for them
            gradient, context = self.workers.share(gradient), nullcontext()
        with context, np.errstate(over="ignore", invalid="ignore"):
            value, grad = gradient(self.params, x, y)
            self.opt.step(grad)
            if self.after_step is not None:
                self.after_step(self.params)
        if not self.asynchronous:
            self.seconds += time.process_time() - start
        self.values.append(value)
        if before is not None and self.opt.norms is not None:
            views = list(self.params.layout.views(before).values())
            size = self.opt.measure(views).values()
            before -= self.params.flat
            self.norms.append((self.taken, self.opt.norms.values(), self.opt.measure(views).values(), size))
        self.taken += 1

    def keep(self, steps: int | None) -> None:
        """Fetch what the steps of an epoch left on the device, of the first ``steps`` ones, an array a quantity."""
        stack, host = self.backend.xp.stack, self.backend.to_host
        first = self.taken - len(self.values)
        if values := self.values[:steps]:
            self.kept_values.append(host(stack(values)))
        if norms := [row for row in self.norms if steps is None or row[0] < first + steps]:
            at, *columns = zip(*norms, strict=True)
            self.kept_norms.append((np.array(at), *(host(stack(column)) for column in columns)))
        self.values.clear()
        self.norms.clear()

    def gradient(self, params: Params, x: Array, y: Array) -> tuple[Any, Params]:
        """Return loss and gradient of a batch, or a worker's part of it, in one pass or a micro-batch at a time."""
        if self.windows:
            (value, self.state), grad = self.value_and_grad(params, x, y, self.state)
            return value, grad
        n = len(x)
        size = self.micro_batch or n
        if size >= n:
            value, grad = self.value_and_grad(params, x, y)
            return value, grad
        total, values = Accumulator(), 0.0
        for start in range(0, n, size):
            part = slice(start, start + size)
            value, grad = self.value_and_grad(params, x[part], y[part])
            total.add(grad, weight=len(x[part]))
            values = values + value * (len(x[part]) / n)
        return values, total.mean()

    def measure(self, epoch: int, split: Split, on_epoch: Any) -> Epoch:
        """Measure the whole splits at the end of an epoch; a run that diverged has no numbers."""
        last = Epoch(epoch, math.nan, math.nan, math.nan, self.seconds, True, math.nan, math.nan)
        if not self.history.error:
            parts = (split.train, split.val, split.test)
            train, val, test = (score(self.evaluate, self.params, part, **self.windows) for part in parts)
            if math.isfinite(train.loss):
                last = Epoch(epoch, train.loss, val.error, test.error, self.seconds, False, val.loss, test.loss)
        if self.workers is not None:
            self.workers.agree(self.params)
            last = self.workers.same(last)
        self.history.epochs.append(last)
        if on_epoch is not None:
            on_epoch(last)
        return last

    def finished(self) -> History:
        """Return the history with what was kept of the steps."""
        history, none = self.history, np.empty((0, len(self.history.blocks)))
        if self.kept_values:
            history.step_losses = np.concatenate(self.kept_values).astype("float64")
        parts = zip(*self.kept_norms, strict=True) if self.kept_norms else [[history.norm_steps], *[[none]] * 3]
        history.norm_steps, history.gradient_norms, history.update_norms, history.parameter_norms = (
            np.concatenate(part) for part in parts
        )
        return history
