"""Training runs side by side: one process a core, one BLAS thread each, results in the order of the jobs."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from minibng import optim
from minibng.backend.threads import cores
from minibng.experiments.declaration import Job
from minibng.train import History
from minibng.train.progress import progress

T = TypeVar("T")
_ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """Let child processes start with one BLAS thread each; NumPy reads these when it is imported."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def workers_for(device: str) -> int:
    """Return how many processes train side by side: one a core; one alone on a GPU.

    Processes on one GPU take turns: what each would measure is the others' time too, and each holds half a gigabyte of
    its memory before it computes anything.
    """
    return 1 if device.startswith("cuda") else cores()


class Pool:
    """Worker processes that stay for several rounds of jobs; use it in a with statement."""

    def __init__(self, train: Callable[[Job], History], workers: int, show: bool | None = None) -> None:
        self.train, self.show, self.workers = train, show, workers
        if self.workers < 1:
            raise ValueError(f"there must be at least one worker process, got {workers}")

    def __enter__(self) -> Pool:
        self._interrupt_handler: Any = None
        self._threads = _one_blas_thread()
        self._threads.__enter__()
        context = multiprocessing.get_context("spawn")
        self._executor = ProcessPoolExecutor(self.workers, context, _start_worker, (optim.registered(),))
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._executor.shutdown(wait=True, cancel_futures=True)
        finally:
            self._threads.__exit__(None, None, None)
            if self._interrupt_handler is not None:
                signal.signal(signal.SIGINT, self._interrupt_handler)

    def _ignore_further_interrupts(self) -> None:
        """After the first Ctrl-C let the runs in progress end (seconds), so that what is finished can be kept."""
        if threading.current_thread() is threading.main_thread():
            self._interrupt_handler = signal.signal(signal.SIGINT, signal.SIG_IGN)

    def run(self, jobs: Sequence[Job], what: str = "runs") -> list[History | None]:
        """Return the histories of the jobs, in their order; after Ctrl-C None for those that were not finished.

        The first error of a run stops the rest and is raised.
        """
        return self.map(self.train, jobs, what)

    def map(self, task: Callable[[Job], T], jobs: Sequence[Job], what: str) -> list[T | None]:
        """Return what a module-level function makes of the jobs, in their order; the rest as `run`."""
        futures = {self._executor.submit(task, job): i for i, job in enumerate(jobs)}
        results: list[T | None] = [None] * len(jobs)
        bar = progress(as_completed(futures), what=what, total=len(jobs), show=self.show)
        try:
            for future in bar:
                i = futures[future]
                results[i] = future.result()
                bar.set_postfix_str(f"{jobs[i].optimizer} lr {jobs[i].lr:.2g} seed {jobs[i].seed}")
        except KeyboardInterrupt:
            self._ignore_further_interrupts()
        except BrokenProcessPool as error:
            hint = "; registered rules must stand in a module that they can import" if optim.registered() else ""
            raise RuntimeError(f"a worker process died (out of memory?){hint}") from error
        finally:
            for future in futures:
                future.cancel()
        return results


def _start_worker(rules: Sequence[Any]) -> None:
    """Leave Ctrl-C to the parent, and make the rules known that the user registered there."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for rule in rules:
        if rule not in optim.registered():
            optim.register(rule)
