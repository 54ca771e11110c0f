"""Several processes take the steps of one: under MPI where it is installed, and in threads everywhere."""

import importlib.util
import os
import re
import runpy
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import minibng as bng
from minibng import optim
from minibng.extras import MissingExtraError
from minibng.train import Workers

PROGRAM = Path(__file__).with_name("parallel_program.py")
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "parallel.md"


# Under MPI


@pytest.fixture(scope="module")
def mpi(request):
    """Run ``mpiexec -n workers python …``; without MPI the test is skipped, or fails under --require-tools."""
    beside = Path(sys.executable).with_name("mpiexec")
    launcher = beside if beside.exists() else shutil.which("mpiexec")
    if launcher is None or importlib.util.find_spec("mpi4py") is None:
        told = "mpi4py or mpiexec not installed (pip install 'minibng[mpi]')"
        if request.config.getoption("--require-tools"):
            pytest.fail(f"--require-tools: {told}", pytrace=False)
        pytest.skip(told)

    def run(workers, *command):
        argv = [str(launcher), "-n", str(workers), sys.executable, *map(str, command)]
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        return subprocess.run(argv, capture_output=True, text=True, timeout=120, env={**os.environ, **threads})

    return run


@pytest.fixture(scope="module")
def program():
    """The functions of the program, for this process alone."""
    return runpy.run_path(str(PROGRAM))


@pytest.fixture(scope="module")
def alone(program):
    """The trajectories of one process."""
    return program["trajectories"]()


def results(done, folder, workers):
    assert done.returncode == 0, done.stderr
    return [dict(np.load(folder / f"{rank}.npz")) for rank in range(workers)]


@pytest.fixture(scope="module", params=[2, 3, pytest.param(4, marks=pytest.mark.slow)])
def together(mpi, tmp_path_factory, request):
    """The trajectories of each of several workers."""
    folder = tmp_path_factory.mktemp("workers")
    return results(mpi(request.param, PROGRAM, "run", folder), folder, request.param)


def test_workers_take_the_steps_of_one_process_on_the_joined_batch(together, alone):
    for name in [name for name in alone if not name.startswith(("fault", "float32"))]:
        assert np.abs(alone[name][-1] - alone[name][0])[:-1].max() > 0.04, f"{name} hardly moves"
        np.testing.assert_allclose(together[0][name], alone[name], rtol=0, atol=1e-12, err_msg=name)


def test_float32_stays_float32_and_agrees_to_its_rounding(together, alone):
    assert together[0]["float32"].dtype == np.float32
    np.testing.assert_allclose(together[0]["float32"], alone["float32"], rtol=0, atol=2e-6)


def test_all_workers_have_the_same_bits(together):
    for name, first in together[0].items():
        assert name == "told" or all(other[name].tobytes() == first.tobytes() for other in together), name


def test_the_comparison_finds_what_is_normalized_before_it_is_averaged(together, alone):
    name = "fault: normalized too early"
    np.testing.assert_allclose(alone[name], alone["sgd-ng, equal"], rtol=0, atol=1e-12)
    assert np.abs(together[0][name] - alone[name])[:, :-1].max() > 0.01


def test_the_comparison_finds_shards_that_count_alike(together, alone):
    assert np.abs(together[0]["fault: unweighted"] - alone["adam-ng, unequal"])[:, :-1].max() > 1e-3


def test_fit_with_workers_is_fit_alone(together, program):
    alone = program["fitted"]()
    for name in [name for name in alone if name.startswith("fit")]:
        np.testing.assert_allclose(together[0][name], alone[name], rtol=0, atol=1e-12, err_msg=name)
    assert [int(worker["told"]) for worker in together] == [4, *[0] * (len(together) - 1)]


def test_a_run_that_diverges_on_one_worker_does_on_all(mpi, tmp_path, program):
    for worker in results(mpi(2, PROGRAM, "diverge", tmp_path), tmp_path, 2):
        assert worker["diverged"]
        assert "finite" in str(worker["told"])
        np.testing.assert_array_equal(worker["flat"], program["starting"]("float64").flat)


def test_parameters_of_different_seeds_are_refused_and_overwritten_on_request(mpi, tmp_path, program):
    found = results(mpi(3, PROGRAM, "other_seeds", tmp_path), tmp_path, 3)
    for worker in found:
        params, arrays, shapes = worker["told"]
        assert params == arrays
        assert params.startswith("workers 1, 2 hold other parameters than worker 0: make them from one seed")
        assert shapes.startswith("workers 1, 2 hold a model of other tensors, blocks or dtype")
        np.testing.assert_array_equal(worker["flat"], program["model"].init(seed=0).flat)
        np.testing.assert_array_equal(worker["array"], [0.0, 0.0])


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("fail_in_the_step", r"worker 1 of 2 failed, which ends all:\n(?s:.*)ArithmeticError: planted in the loss"),
        ("fail_outside", r"worker 0 of 2 failed, which ends all:\n(?s:.*)ArithmeticError: planted in the program"),
        ("other_batches", r"ValueError: the weights of the 2 workers sum to 1\.04545, not to 1: give all workers"),
    ],
)
def test_an_error_in_one_worker_ends_all_with_its_message(mpi, tmp_path, part, told):
    done = mpi(2, PROGRAM, part, tmp_path)
    assert done.returncode != 0
    assert re.search(told, done.stderr)
    assert "worker 0 told nothing" not in done.stderr


@pytest.mark.slow
def test_the_program_of_the_how_to_prints_what_the_page_says_with_any_number_of_workers(mpi, tmp_path):
    page = PAGE.read_text(encoding="utf-8")
    code, shown = (re.search(rf"^```{kind}\n(.*?)^```", page, re.M | re.S)[1] for kind in ("python", "text"))
    (tmp_path / "program.py").write_text(code, encoding="utf-8")
    for workers in (1, 2):
        done = mpi(workers, tmp_path / "program.py")
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == shown.partition("\n\n")[2].split()


# In threads, with a communicator of a few lines


class Comm:
    """What `Workers` needs of a communicator, among the threads of one process."""

    def __init__(self, rank, slots, barrier):
        self.rank, self.size = rank, len(slots)
        self.slots, self.barrier, self.aborted = slots, barrier, []

    def allgather(self, value):
        self.slots[self.rank] = value
        self.barrier.wait()
        every = list(self.slots)
        self.barrier.wait()
        return every

    def bcast(self, value):
        return self.allgather(value)[0]

    def Allreduce(self, sent, received):
        received[:] = sum(self.allgather(sent.copy()))

    def Abort(self, code):
        self.aborted.append(code)
        self.barrier.abort()


def in_threads(size, work, **settings):
    """Run ``work(workers)`` in as many threads; return the results, or the exceptions, in the order of rank."""
    slots, barrier = [None] * size, threading.Barrier(size, timeout=30)

    def one(rank):
        try:
            return work(Workers(Comm(rank, slots, barrier), **settings))
        except BaseException as error:
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(one, range(size)))


def worker(rank, size):
    return Workers(Comm(rank, [None] * size, None))


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("n", [0, 1, 4, 7, 12])
def test_shards_are_the_batch_cut_into_parts_of_nearly_one_length(n, size):
    x, y = np.arange(3 * n).reshape(n, 3), np.arange(n)
    parts = [worker(rank, size).shard(x, y) for rank in range(size)]
    np.testing.assert_array_equal(np.concatenate([p[0] for p in parts]), x)
    np.testing.assert_array_equal(np.concatenate([p[1] for p in parts]), y)
    assert {len(p[0]) for p in parts} <= {n // size, -(-n // size)}
    assert all(p[0].base is not None for p in parts)


@pytest.mark.parametrize("arrays", [(), (np.zeros(3), np.zeros(4)), (np.zeros(3), np.float64(1.0))])
def test_a_batch_of_different_lengths_is_refused(arrays):
    with pytest.raises(ValueError, match="samples along one first axis, got shapes"):
        worker(0, 2).shard(*arrays)


def test_an_empty_batch_is_refused():
    step = worker(0, 1).share(bng.value_and_grad(lambda w, x: np.mean(w * x)))
    with pytest.raises(ValueError, match="the batch to share among the workers is empty"):
        step(np.ones(1), np.ones((0, 1)))


X, Y = np.arange(14.0).reshape(7, 2), np.arange(7.0)


@pytest.mark.parametrize("size", [1, 2, 5, 9])
def test_gradients_of_any_container_are_averaged(size):
    """The mean of squares has the gradient 2/n Xᵀ(Xw + b − y), here by hand."""

    def loss(p, x, y):
        return np.mean((x @ p["w"] + p["b"][0] - y) ** 2)

    p = {"w": np.array([0.5, -1.0]), "b": [np.array(0.25)]}
    residual = X @ p["w"] + 0.25 - Y
    for value, grad in in_threads(size, lambda workers: workers.share(bng.value_and_grad(loss))(p, X, Y)):
        np.testing.assert_allclose(value, np.mean(residual**2), rtol=1e-14)
        np.testing.assert_allclose(grad["w"], 2 / 7 * X.T @ residual, rtol=1e-13)
        np.testing.assert_allclose(grad["b"][0], 2 / 7 * residual.sum(), rtol=1e-13)
        assert grad["b"][0].shape == ()


def test_gradients_come_from_a_device_and_their_mean_returns_to_it(device, program, alone):
    def trained(workers):
        step = program["joint"](workers)
        return program["trajectory"](program["METHODS"]["adam-ng"], 7, "float64", step, device.name)

    for found in in_threads(8, trained):
        np.testing.assert_allclose(found, alone["adam-ng, unequal"], rtol=0, atol=1e-12)


def test_the_mean_is_an_array_of_the_device(device):
    def mean(workers):
        return workers.mean(device.array(2.0), [device.array([1.0, 3.0])], 0.5)

    for value, (grad,) in in_threads(2, mean):
        assert {type(value), type(grad)} <= {device.backend.array_type, np.float64}
        assert (device.host(value), *device.host(grad)) == (2.0, 1.0, 3.0)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_kinds_and_dtypes_are_those_of_one_process(dtype):
    params = bng.Params.of({"0.W": np.ones((2, 1), dtype), "0.b": np.zeros(1, dtype)})

    def loss(p, x, y):
        return np.mean((x @ p["0.W"] + p["0.b"] - y[:, None]) ** 2)

    step, batch = bng.value_and_grad(loss), (X.astype(dtype), Y.astype(dtype))
    value, grad = step(params, *batch)
    for shared_value, shared in in_threads(3, lambda workers: workers.share(step)(params, *batch)):
        assert type(shared) is bng.Params
        assert shared.layout is params.layout
        assert shared.dtype == dtype
        np.testing.assert_allclose(shared.flat, grad.flat, rtol=8 * np.finfo(dtype).eps)
        assert isinstance(shared_value, np.floating)
        np.testing.assert_allclose(shared_value, value, rtol=8 * np.finfo(dtype).eps)
    assert shared_value.dtype == np.result_type(dtype, np.float32)


def test_means_of_the_largest_numbers_do_not_overflow():
    top = np.finfo(np.float32).max
    grads = in_threads(4, lambda workers: workers.mean(0.0, [np.full(3, top)], 0.25)[1][0])
    assert all((g == top).all() for g in grads)


def test_what_is_not_finite_reaches_every_worker_and_its_optimizer():
    def steps(workers):
        x = np.ones(2)
        opt = optim.SGDNG([x], lr=1.0)
        _, grad = workers.mean(0.0, [np.array([1.0, np.nan if workers.rank == 1 else 1.0])], 1 / 3)
        opt.step(grad)

    assert [type(error) for error in in_threads(3, steps)] == [optim.NonFiniteError] * 3


def test_weights_that_do_not_sum_to_one_are_refused_by_all():
    found = in_threads(2, lambda workers: workers.mean(0.0, [np.ones(1)], 0.6))
    assert all("the weights of the 2 workers sum to 1.2, not to 1" in str(error) for error in found)


def test_a_loss_that_is_no_scalar_is_refused():
    with pytest.raises(ValueError, match=r"the loss must be a scalar, got shape \(2,\)"):
        worker(0, 1).mean(np.ones(2), [np.ones(1)], 1.0)


def test_buffers_are_not_compared_but_come_with_a_broadcast():
    def held(workers):
        params = bng.Params.of({"0.W": np.ones(2)})
        params.buffers.update({"1.mean": np.full(2, float(workers.rank)), "2.calls": workers.rank})
        Workers(workers.comm).agree(params)
        before = params.buffers["2.calls"]
        workers.agree(params)
        assert (params.buffers["1.mean"] == 0).all()
        return before, params.buffers["2.calls"]

    assert in_threads(3, held, broadcast=True) == [(0, 0), (1, 0), (2, 0)]


def test_what_worker_0_says_is_said_to_all():
    assert in_threads(3, lambda workers: workers.same(workers.rank + 10)) == [10, 10, 10]
    assert in_threads(3, lambda workers: workers.first) == [True, False, False]


def test_an_error_is_told_once_and_the_others_are_ended(capsys):
    def work(workers):
        with workers, workers:
            if workers.rank == 1:
                raise KeyError("planted")
            workers.same(0)

    found = in_threads(3, work)
    assert [type(error) for error in found] == [SystemExit] * 3
    told = capsys.readouterr().err
    assert told.count("worker 1 of 3 failed, which ends all") == 1
    assert "KeyError: 'planted'" in told


@pytest.mark.parametrize("leave", [lambda: None, lambda: sys.exit(0)])
def test_a_program_that_ends_well_ends_nobody_else(leave):
    def work(workers):
        with workers:
            leave()
        return workers.comm.aborted

    assert all(isinstance(found, SystemExit) or found == [] for found in in_threads(2, work))


def test_one_worker_alone_raises_as_without():
    with pytest.raises(KeyError), worker(0, 1):
        raise KeyError("planted")


def test_without_mpi4py_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", None)
    with pytest.raises(MissingExtraError, match=r"training by several processes needs mpi4py.*minibng\[mpi\]"):
        Workers()


def test_a_worker_says_which_it_is():
    assert repr(worker(1, 3)) == "Workers(rank 1 of 3)"
