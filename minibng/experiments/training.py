"""What the experiments share when they train: the run of a job, schedules, and how often norms are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from minibng import data, nn, optim, train
from minibng.data import Split
from minibng.experiments.declaration import Job
from minibng.optim.schedules import Schedule
from minibng.train import History

SCHEDULES = {"constant": "one rate throughout", "step": "a tenth of it from half of all steps on, a hundredth from 3/4"}
DECAY_AT, DECAY = (0.5, 0.75), 0.1
"""Step decay: the rate is multiplied by DECAY after these fractions of all steps."""

ROWS = 200
"""About how many steps of a long run have their norms kept."""


FORMS = ("", "-clip", "-ng", "-ng-adaptive")
_ALIKE = {
    **{"sgd": ("momentum", 10.0), "nesterov": ("momentum", 1.0), "adagrad": ("adam", 10.0), "rmsprop": ("adam", 1.0)},
    **{"adadelta": ("adam", 300.0), "amsgrad": ("adam", 1.0), "nadam": ("adam", 1.0)},
}
"""Rules whose centres have not been measured → the one that they are taken from, and the factor between the two."""

Centres = Mapping[str, tuple[float, float, float, float]]


def centre_from(table: Centres, optimizer: str) -> float:
    """Return the middle of an optimizer's grid; for a rule that was registered, Adam's in the same form.

    Raises
    ------
    UnknownNameError, ValueError
        For what is no optimizer, and for the relatives, which have other settings than the four forms.
    """
    if optim.get(optimizer) in optim.RELATIVES:
        raise ValueError(f"this experiment compares rules in their four forms, {optimizer} is not one of these")
    form = max((f for f in FORMS if optimizer.endswith(f)), key=len)
    family, factor = optimizer.removesuffix(form), 1.0
    if family not in table:
        family, factor = _ALIKE.get(family, ("adam", 1.0))
    return table[family][FORMS.index(form)] * factor


def schedule(name: str, lr: float, steps: int) -> Schedule:
    """Return a constant rate, or one with two decays on the way through ``steps`` steps."""
    if name == "constant":
        return optim.constant(lr)
    return optim.step_decay(lr, sorted({max(1, int(steps * f)) for f in DECAY_AT}), DECAY)


def norms_every(steps: int) -> int:
    """Return every how many steps to keep norms, so that a run keeps at most about `ROWS` of them.

    Examples
    --------
    >>> norms_every(96), norms_every(64000)
    (1, 320)
    """
    return max(1, -(-steps // ROWS))


def clip_setting(job: Job, threshold: float) -> dict[str, float]:
    """Return the setting of the optimizer that clips, where it is one that does."""
    return {"clip": threshold} if job.optimizer.endswith("-clip") else {}


def fit_job(
    job: Job,
    split: Split,
    model: nn.Layer,
    settings: Mapping[str, Any] | None = None,
    every: bool = True,
    *,
    loss: Callable[..., Any] = nn.cross_entropy,
    length: int | None = None,
    **more: Any,
) -> History:
    """Train a model as a job says.

    Parameters
    ----------
    settings
        Of the optimizer, beside its rate and schedule.
    every
        Where the job records norms: of every step; False: of as many as `norms_every` says.
    loss, length, **more
        What `train.fit` takes beside the job.
    """
    params = model.init(seed=job.seed, device=job.device)
    steps = len(data.batches(split.train, job.batch, length=length)) * job.epochs
    opt = optim.get(job.optimizer)(params, lr=schedule(job.setting["schedule"], job.lr, steps), **dict(settings or {}))
    return train.fit(
        model,
        params,
        opt,
        loss,
        split,
        epochs=job.epochs,
        batch=job.batch,
        seed=job.seed,
        record_norms=job.record_norms if every else norms_every(steps) * job.record_norms,
        measure_every=job.measure_every,
        show=False,
        length=length,
        **more,
    )
