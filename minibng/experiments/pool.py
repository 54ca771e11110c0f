"""Training runs side by side: one process a core, one BLAS thread each, results in the order of the jobs."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager

from minibng.experiments.declaration import Job
from minibng.train import History
from minibng.train.progress import progress
from minibng.train.records import cores

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


class Pool:
    """Worker processes that stay for several rounds of jobs; use it in a with statement."""

    def __init__(self, train: Callable[[Job], History], workers: int | None = None, show: bool | None = None) -> None:
        self.train, self.show = train, show
        self.workers = cores() if workers is None else workers
        if self.workers < 1:
            raise ValueError(f"there must be at least one worker process, got {workers}")

    def __enter__(self) -> Pool:
        self._threads = _one_blas_thread()
        self._threads.__enter__()
        self._executor = ProcessPoolExecutor(self.workers, mp_context=multiprocessing.get_context("spawn"))
        return self

    def __exit__(self, *error: object) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._threads.__exit__(None, None, None)

    def run(self, jobs: Sequence[Job], what: str = "runs") -> list[History]:
        """Return the histories of the jobs, in their order. The first error of a run stops the rest."""
        futures = {self._executor.submit(self.train, job): i for i, job in enumerate(jobs)}
        results: list[History | None] = [None] * len(jobs)
        bar = progress(as_completed(futures), what=what, total=len(jobs), show=self.show)
        try:
            for future in bar:
                i = futures[future]
                results[i] = future.result()
                bar.set_postfix_str(f"{jobs[i].optimizer} lr {jobs[i].lr:.2g} seed {jobs[i].seed}")
        except BaseException:
            for future in futures:
                future.cancel()
            raise
        return [r for r in results if r is not None]
