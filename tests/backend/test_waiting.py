"""Synchronizations of a device: counted, and errors where nobody may wait."""

import threading

import numpy as np
import pytest

from minibng import asarray, debug, grad, nn, to_host
from minibng.backend import SyncError, forbid_sync, synchronizations
from minibng.backend.waiting import debugging, note_sync


def strict(x):
    return asarray(np.asarray(x), device="strict")


LOOKS = {
    "float()": float,
    "int()": int,
    "bool()": bool,
    ".item()": lambda x: x.item(),
    ".tolist()": lambda x: x.tolist(),
    "format()": "{:.3f}".format,
    "repr()": repr,
    "str()": str,
    "to_host()": to_host,
    ".get()": lambda x: x.get(),
    "mask": lambda x: x.reshape(1)[x.reshape(1) > 0],
    "nonzero": lambda x: np.nonzero(x.reshape(1)),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_looking_at_a_value_is_counted_and_can_be_forbidden(look):
    x = strict(2.0)
    before = synchronizations()
    look(x)
    after = synchronizations()
    assert sum((after - before).values()) == 1
    with forbid_sync(), pytest.raises(SyncError, match=r"waits for the device: .*bng\.to_host.*bng\.debug\(\)"):
        look(x)
    assert synchronizations() == after  # what did not happen is not counted
    with forbid_sync(), debug():
        look(x)
    assert sum((synchronizations() - after).values()) == 1


def test_what_the_host_knows_is_free():
    x = strict(np.ones((3, 4), "float32"))
    before = synchronizations()
    with forbid_sync():
        assert (x.shape, x.dtype, x.ndim, x.size, len(x), x.nbytes) == ((3, 4), np.float32, 2, 12, 3, 48)
        y = (x @ x.T).sum(axis=0)[1:].reshape(2, 1) * 2 + np.sqrt(x[:2, :1])
        y[:] = np.where(y > 0, y, 0)
        strict(np.zeros(3))  # up is no waiting
    assert synchronizations() == before and to_host(y).tolist() == [[25.0], [25.0]]


def test_the_message_names_what_looked():
    with forbid_sync(), pytest.raises(SyncError) as caught:
        float(strict(1.0))
    assert str(caught.value).startswith("float() of a device array waits for the device")


def test_the_prohibition_ends_with_its_block_whatever_happens():
    x = strict(1.0)
    with pytest.raises(KeyError), forbid_sync():
        raise KeyError
    float(x)
    with forbid_sync():
        with forbid_sync():
            pass
        with pytest.raises(SyncError):
            float(x)
        with pytest.raises(KeyError), debug():
            raise KeyError
        with pytest.raises(SyncError):
            float(x)
    float(x)
    assert not debugging()


def test_debug_holds_inside_and_outside():
    x = strict(1.0)
    with debug(), forbid_sync():
        float(x)
    with forbid_sync(), debug():
        assert debugging()
        float(x)


def test_another_thread_may_look():
    """A prohibition is of the block that it stands around, and of nothing that runs beside it."""
    x, found = strict(3.0), []
    with forbid_sync():
        other = threading.Thread(target=lambda: found.append(float(x)))
        other.start()
        other.join(10)
    assert found == [3.0]


def test_counts_are_a_copy_by_kind():
    before = synchronizations()
    note_sync("a test of ours")
    counted = synchronizations()
    assert counted["a test of ours"] == before["a test of ours"] + 1
    counted.clear()
    assert synchronizations()["a test of ours"] >= 1


def test_a_branch_on_a_traced_value_waits():
    def f(x):
        return x * x if x > 0 else -x

    x = strict(2.0)
    assert to_host(grad(f)(x)) == 4.0
    with forbid_sync(), pytest.raises(SyncError, match="bool"):
        grad(f)(x)


def test_labels_are_checked_only_under_debug():
    z, t = strict(np.zeros((2, 3))), strict([0, 2])
    before = synchronizations()
    with forbid_sync():
        nn.cross_entropy(z, t)
    assert synchronizations() == before
    with debug():
        nn.cross_entropy(z, t)
    assert synchronizations() != before


def test_on_the_host_nothing_waits():
    before = synchronizations()
    with forbid_sync():
        assert float(np.float64(2.0)) == 2.0 and to_host(np.ones(2)).sum() == 2
        assert to_host([1.0]).tolist() == [1.0]
    assert synchronizations() == before
