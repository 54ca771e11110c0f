import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibng import optim
from minibng.backend import numpy as host
from minibng.backend import threads


@pytest.mark.parametrize("name", ["sgd-ng", "momentum-clip", "adam", "adam-ng-adaptive", "adadelta-ng"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_any_number_of_threads_gives_the_same_bits(name, dtype, monkeypatch):
    sizes, rng = [1, 40_000, 300, 25_001, 0, 7], np.random.default_rng(0)
    start = [rng.standard_normal(n).astype(dtype) for n in sizes]
    grads = [[rng.standard_normal(n).astype(dtype) for n in sizes] for _ in range(4)]
    monkeypatch.setattr(host, "THREAD_PIECE", 30_000)  # so that there are many pieces
    found = []
    for n in (1, 2, 3):
        monkeypatch.setattr(host, "threads_for", lambda entries, n=n: n)
        x = [a.copy() for a in start]
        opt = optim.get(name)(x, lr=0.1, blocks=[[0, 2], [1], [3, 4], [5]])
        assert len(opt._stepper.parts) == n
        for g in grads:
            opt.step(g)
        found.append(x)
    for other in found[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(found[0], other, strict=True))


@given(st.lists(st.integers(0, 100), min_size=1, max_size=20), st.integers(1, 5))
def test_shares_keep_every_item_in_order_and_are_balanced(sizes, parts):
    cut = threads.shares(list(range(len(sizes))), sizes, parts)
    assert [i for part in cut for i in part] == list(range(len(sizes)))
    assert 1 <= len(cut) <= parts
    loads = [sum(sizes[i] for i in part) for part in cut]
    assert max(loads) <= sum(sizes) / parts + max(sizes)


def test_empty_items_at_the_end_are_not_lost():
    assert threads.shares(["a", "b", "c"], [1, 0, 0], 1) == [["a", "b", "c"]]
    assert threads.shares(["a", "b"], [0, 0], 2) == [["a", "b"]]


def test_small_arrays_use_one_thread_and_large_ones_no_more_than_blas(monkeypatch):
    monkeypatch.setattr(threads, "cores", lambda: 8)
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads.threads_for(threads.WORTHWHILE - 1) == 1
    assert threads.threads_for(threads.WORTHWHILE) == threads.MOST
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    assert threads.threads_for(10**9) == 1
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    assert threads.threads_for(10**9) == 2


def test_parts_run_beside_each_other_and_answers_keep_their_order():
    meet = threading.Barrier(3, timeout=10)  # nobody passes until all three are there

    def work(k, part):
        meet.wait()
        return k, part

    assert threads.together(work, ["a", "b", "c"]) == [(0, "a"), (1, "b"), (2, "c")]
    assert threads.together(work, []) == []


@pytest.mark.parametrize("where", [0, 1])
def test_an_error_in_any_part_reaches_the_caller(where):
    def work(k, part):
        if k == where:
            raise ValueError(f"part {k}")

    with pytest.raises(ValueError, match=f"part {where}"):
        threads.together(work, ["a", "b"])
