"""Training by several processes, one a GPU or a node: each has all parameters, and its rows of every batch.

The gradients are averaged first, in one message a step; then every worker normalizes the mean and takes the step for
itself. The mean of normalized gradients would be another method: normalization does not commute with averaging
(theory, "what fails").
"""

from __future__ import annotations

import hashlib
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from minibng.autodiff import flatten
from minibng.backend import Array, backend_of, to_host
from minibng.extras import require
from minibng.params import Params

_PASSING_ON = 0.5
"""Seconds that the launcher is given to pass on a worker's last words: once it ends all, it may drop them."""


class Workers:
    """The processes that train one model together, as ``mpiexec -n 4 python program.py`` starts them.

    With n_k of the n samples of a batch on worker k, the gradient of the mean loss over the batch is
    g = Σ_k (n_k/n) g_k, so N workers take the steps that one takes on the whole batch, to rounding. That holds for a
    loss that is a mean over samples and a model that treats each by itself: batch statistics are those of a worker's
    rows, and dropout draws for a worker's rows what it would draw for the first rows of a batch.

    Parameters
    ----------
    comm
        An mpi4py communicator; default ``MPI.COMM_WORLD``, all processes.
    broadcast
        What `agree` does: compare the parameters with worker 0's, or overwrite them by worker 0's.

    Attributes
    ----------
    rank, size
        Number of this worker, from 0, and of all.

    Raises
    ------
    MissingExtraError
        Where mpi4py is not installed and no communicator is given.

    Notes
    -----
    As a context manager it ends all workers when one of them fails: the others would wait for its message for ever.

    The messages are arrays on the host. Gradients on a device are brought down and their mean is taken up again, once a
    step (`bng.to_host`, `bng.asarray`); that waits for the device, and works with any MPI.

    MPI recommends, but does not require, that a sum has the same bits on every worker; and different processors may
    round a step differently. So it is the parameters that are compared, by `agree`, at the start and now and then.

    Examples
    --------
    The rest of the program is that of one process (docs/how-to/parallel.md has all of it)::

        with Workers() as workers:
            params = model.init(seed=0)
            workers.agree(params)
            opt = optim.AdamNG(params, lr=1e-3)
            step = workers.share(bng.value_and_grad(loss))
            for x, y in data.batches(split.train, 128, seed=0, epoch=0):
                value, grad = step(params, x, y)  # of the whole batch, on every worker
                opt.step(grad)
    """

    def __init__(self, comm: Any = None, *, broadcast: bool = False) -> None:
        if comm is None:
            comm = require("mpi4py.MPI", "mpi", "training by several processes").COMM_WORLD
        self.comm, self.broadcast = comm, broadcast
        self.rank: int = comm.rank
        self.size: int = comm.size
        self._ended = False

    @property
    def first(self) -> bool:
        """Whether this is worker 0, which is the one to print, to show progress and to write files."""
        return self.rank == 0

    def __repr__(self) -> str:
        return f"Workers(rank {self.rank} of {self.size})"

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Pass an error on; among several workers, tell it, end all of them and leave this one by SystemExit."""
        if error is None or self.size == 1 or self._ended or (isinstance(error, SystemExit) and not error.code):
            return
        self._ended = True
        told = "".join(traceback.format_exception(error))
        sys.stdout.flush()
        print(f"worker {self.rank} of {self.size} failed, which ends all:\n{told}", file=sys.stderr, flush=True)
        time.sleep(_PASSING_ON)
        self.comm.Abort(1)
        raise SystemExit(1)  # some MPI's Abort returns, and lets the launcher end the processes

    def shard(self, *arrays: Array) -> tuple[Array, ...]:
        """Return this worker's rows of each array (N, …): views; none of them where N is less than the workers.

        The parts of all workers, one after another, are the whole, and their lengths differ by at most one.

        Raises
        ------
        ValueError
            Where the arrays have different lengths.
        """
        shapes = [np.shape(a) for a in arrays]
        if not shapes or () in shapes or len({shape[0] for shape in shapes}) > 1:
            raise ValueError(f"the arrays of a batch have their samples along one first axis, got shapes {shapes}")
        n = shapes[0][0]
        part = slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)
        return tuple(a[part] for a in arrays)

    def share(self, step: Callable[..., tuple[Any, Any]]) -> Callable[..., tuple[Any, Any]]:
        """Make of ``step(params, *batch)`` → (loss, gradient) one that shares the batch among the workers.

        It is called by all of them with the same batch, and returns loss and gradient of the whole batch to all. A
        worker whose shard is empty does not call ``step``, and an error in one worker's ends all.

        Parameters
        ----------
        step
            As `value_and_grad` makes it, of a loss that is a mean over samples, with respect to its first argument.

        Raises
        ------
        ValueError
            For an empty batch, and as `shard` and `mean`.
        """

        def shared(params: Any, *batch: Array) -> tuple[Any, Any]:
            with self:
                parts = self.shard(*batch)
                mine, n = len(parts[0]), len(batch[0])
                if n == 0:
                    raise ValueError("the batch to share among the workers is empty")
                value, grad = step(params, *parts) if mine else (0.0, _zeros(params))
                return self.mean(value, grad, mine / n)

        return shared

    def mean(self, value: Any, grad: Any, weight: float) -> tuple[Any, Any]:
        """Return the weighted means of all workers' losses and gradients, Σ_k w_k v_k and Σ_k w_k g_k.

        Every worker calls this once a step. It is one message: gradient, loss and weight in one vector (P + 2,), each
        weighted before it is sent, so that no sum overflows.

        Parameters
        ----------
        value
            This worker's loss, a scalar.
        grad
            Its gradient: a `Params`, an array or a container of arrays. It is not changed.
        weight
            Its share of the batch, w_k = n_k/n. All weights together are 1.

        Raises
        ------
        ValueError
            On every worker, where the weights do not sum to 1: the workers were given different batches.
        """
        if np.shape(value) != ():
            raise ValueError(f"the loss must be a scalar, got shape {np.shape(value)}: take its np.mean")
        arrays, rebuild = _arrays(grad)
        backend, host = backend_of(*arrays), [to_host(a) for a in arrays]
        ends = np.cumsum([a.size for a in host]).tolist()
        sent = np.empty(ends[-1] + 2, np.result_type(np.float32, *(a.dtype for a in host)))
        with np.errstate(all="ignore"):  # what is not finite is the optimizer's to find, on all workers alike
            for a, stop in zip(host, ends, strict=True):
                np.multiply(a.reshape(-1), weight, out=sent[stop - a.size : stop], dtype=sent.dtype)
            sent[-2:] = float(to_host(value)) * weight, weight
        received = np.empty_like(sent)
        self.comm.Allreduce(sent, received)
        total = float(received[-1])
        if not abs(total - 1) <= 4 * self.size * np.finfo(sent.dtype).eps:
            raise ValueError(
                f"the weights of the {self.size} workers sum to {total:.6g}, not to 1: give all workers the same batch "
                "(the same data, batch size, seed and epoch), and mean() each worker's share n_k/n of it"
            )
        parts = zip(host, ends, strict=True)
        means = [received[stop - a.size : stop].reshape(a.shape).astype(a.dtype, copy=False) for a, stop in parts]
        return backend.asarray(received[-2])[()], rebuild([backend.asarray(m) for m in means])

    def agree(self, params: Params | Sequence[Array]) -> None:
        """Make sure that all workers hold the same parameters, bit for bit; all call it.

        With ``broadcast`` they are overwritten, in place and with the buffers of a `Params`, by worker 0's. Else they
        are compared (tensors only: running statistics are each worker's own).

        Raises
        ------
        ValueError
            On every worker, naming those whose model or parameters differ from worker 0's.
        """
        arrays, _ = _arrays(params)
        host = [to_host(a) for a in arrays]
        kind = repr(params.layout) if isinstance(params, Params) else repr([a.shape for a in host])
        kind += str([a.dtype for a in host])
        if others := self._others(kind):
            raise ValueError(f"{others} a model of other tensors, blocks or dtype than worker 0: build the same model")
        if not self.broadcast:
            digest = hashlib.blake2b()
            for a in host:
                digest.update(a.tobytes())
            if others := self._others(digest.digest()):
                raise ValueError(
                    f"{others} other parameters than worker 0: make them from one seed, model.init(seed=0), and step "
                    "them by the same gradients; or give worker 0's to all, Workers(broadcast=True)"
                )
        elif isinstance(params, Params):
            params.load_state_dict(self.comm.bcast(params.state_dict()))
        else:
            for a, first in zip(arrays, self.comm.bcast(host), strict=True):
                a[...] = backend_of(a).asarray(first)

    def _others(self, mine: Any) -> str:
        """Name the workers that have another value here than worker 0; empty where none has."""
        every = self.comm.allgather(mine)
        others = [str(rank) for rank, value in enumerate(every) if value != every[0]]
        verb = "worker {} holds" if len(others) == 1 else "workers {} hold"
        return verb.format(", ".join(others)) if others else ""

    def same(self, value: Any) -> Any:
        """Return worker 0's value on every worker: what all decide by, such as a score to stop early at."""
        return self.comm.bcast(value)


def _arrays(tree: Any) -> tuple[list[Array], Callable[[Sequence[Array]], Any]]:
    """Return the arrays of a container, and how it is made of others: of a Params, its one vector."""
    if isinstance(tree, Params):
        return [tree.flat], lambda arrays: Params(tree.layout, *arrays)
    return flatten(tree)


def _zeros(params: Any) -> Any:
    """Return a gradient of zeros, of parameters on any device."""
    arrays, rebuild = _arrays(params)
    return rebuild([np.zeros_like(a) for a in arrays])
