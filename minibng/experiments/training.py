"""What the experiments share when they train: the run of a job, schedules, and how often norms are kept."""

from __future__ import annotations

from collections.abc import Mapping
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


def fit_job(
    job: Job, split: Split, model: nn.Layer, settings: Mapping[str, Any] | None = None, every: bool = True, **more: Any
) -> History:
    """Train a model as a job says.

    Parameters
    ----------
    settings
        Of the optimizer, beside its rate and schedule.
    every
        Where the job records norms: of every step; False: of as many as `norms_every` says.
    **more
        What `train.fit` takes beside the job.
    """
    params = model.init(seed=job.seed, device=job.device)
    steps = len(data.batches(split.train, job.batch)) * job.epochs
    opt = optim.get(job.optimizer)(params, lr=schedule(job.setting["schedule"], job.lr, steps), **dict(settings or {}))
    return train.fit(
        model,
        params,
        opt,
        nn.cross_entropy,
        split,
        epochs=job.epochs,
        batch=job.batch,
        seed=job.seed,
        record_norms=job.record_norms if every else norms_every(steps) * job.record_norms,
        measure_every=job.measure_every,
        show=False,
        **more,
    )
