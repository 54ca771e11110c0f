import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minibng.backend import backend_of, get_backend, to_host
from minibng.data import Batches, CropMirror, Dataset, batches, dataset


def numbered(n: int) -> Dataset:
    """Sample i is the row [i, -i], with target i."""
    i = np.arange(n)
    return Dataset(np.column_stack([i, -i]).astype(np.float32), i)


def order(epoch: Batches) -> list[int]:
    return [int(i) for _, y in epoch for i in y]


@settings(derandomize=True)
@given(st.data(), st.integers(1, 60), st.booleans(), st.booleans(), st.integers(0, 2**70), st.integers(0, 10**6))
def test_each_sample_once(draw, n: int, shuffle: bool, drop_last: bool, seed: int, epoch: int) -> None:
    size = draw.draw(st.integers(1, n))
    made = batches(numbered(n), size, seed, epoch, shuffle=shuffle, drop_last=drop_last)
    pairs = list(made)
    assert len(made) == len(pairs) == (n // size if drop_last else -(-n // size))
    seen = order(made)
    assert len(set(seen)) == len(seen) == (n - n % size if drop_last else n)
    assert set(seen) <= set(range(n))
    assert all(len(x) == len(y) == size for x, y in (pairs if drop_last else pairs[:-1]))
    for x, y in pairs:
        np.testing.assert_array_equal(x, np.column_stack([y, -y]))


def test_order_is_numpys_permutation_of_seed_and_epoch() -> None:
    for seed, epoch in [(0, 0), (0, 1), (1, 0), (7, 3)]:
        expected = np.random.default_rng([seed, epoch]).permutation(50).tolist()
        assert order(batches(numbered(50), 8, seed, epoch)) == expected
        assert order(batches(numbered(50), 8, seed, epoch, drop_last=True)) == expected[:48]


def test_order_depends_on_seed_epoch_and_length_only() -> None:
    dataset, state = numbered(50), np.random.get_state()[1].copy()  # noqa: NPY002
    first = order(batches(dataset, 8, seed=3, epoch=5))
    assert order(batches(dataset, 11, seed=3, epoch=5)) == first
    other = Dataset(np.zeros((50, 1)), dataset.y)
    assert order(batches(other, 8, seed=3, epoch=5)) == first
    assert order(batches(dataset, 8, seed=3, epoch=6)) != first
    assert order(batches(dataset, 8, seed=4, epoch=5)) != first
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_iterating_twice_gives_the_same_and_two_iterators_do_not_disturb_each_other() -> None:
    epoch = batches(numbered(20), 6)
    assert order(epoch) == order(epoch)
    left = [(a[1].tolist(), b[1].tolist()) for a, b in zip(epoch, epoch, strict=True)]
    assert all(a == b for a, b in left)


def test_without_shuffling_the_order_is_that_of_the_data() -> None:
    assert order(batches(numbered(10), 4, seed=1, epoch=2, shuffle=False)) == list(range(10))
    assert order(batches(numbered(10), 4, shuffle=False, drop_last=True)) == list(range(8))


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("layout", ["C", "F"])
def test_batches_are_fresh_contiguous_and_writable(shuffle: bool, layout: str) -> None:
    x = np.asarray(np.arange(24, dtype=np.float32).reshape(8, 3), order=layout)
    dataset = Dataset(x.copy(order="K"), np.arange(8))
    for bx, by in batches(dataset, 8, shuffle=shuffle):
        assert bx.flags.c_contiguous and bx.flags.owndata and by.flags.owndata
        assert (bx.dtype, by.dtype) == (np.float32, np.int64)
        bx[:], by[:] = -1, -1
    np.testing.assert_array_equal(dataset.x, x)
    np.testing.assert_array_equal(dataset.y, np.arange(8))


def test_one_batch_of_everything() -> None:
    assert len(batches(numbered(5), 5)) == len(batches(numbered(5), np.int64(5), drop_last=True)) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"size": 0}, ValueError, "batch size must be at least 1; got 0"),
        ({"size": -3}, ValueError, "batch size must be at least 1; got -3"),
        ({"size": 2.0}, TypeError, "batch size must be a whole number; got 2.0"),
        ({"size": "8"}, TypeError, "batch size must be a whole number; got '8'"),
        ({"size": True}, TypeError, "batch size must be a whole number; got True"),
        (
            {"size": 11},
            ValueError,
            "batch size 11 is more than the 10 samples of the data set; choose at most 10",
        ),
        ({"size": 2, "epoch": -1}, ValueError, "epoch must be at least 0; got -1"),
        ({"size": 2, "epoch": 0.5}, TypeError, "epoch must be a whole number; got 0.5"),
        ({"size": 2, "seed": -1}, ValueError, "seed must be at least 0; got -1"),
        ({"size": 2, "seed": None}, TypeError, "seed must be a whole number; got None"),
    ],
)
def test_errors_come_at_the_call(arguments, error, message) -> None:
    with pytest.raises(error) as caught:
        batches(numbered(10), **arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("settings", [{}, {"shuffle": False}, {"drop_last": True}])
def test_every_device_gets_the_same_batches_bit_for_bit(device, monkeypatch, resident, settings) -> None:
    if not resident:
        monkeypatch.setattr(dataset, "RESIDENT", 0)
    made = Dataset(np.random.default_rng(0).standard_normal((11, 2, 3)).astype("float32"), np.arange(11))
    on_host = list(batches(made, 4, 3, 2, **settings))
    there = list(batches(made, 4, 3, 2, **settings, device=device.name))
    assert len(there) == len(on_host)
    for pair, expected in zip(there, on_host, strict=True):
        for a, b in zip(pair, expected, strict=True):
            assert backend_of(a) is device.backend and a.dtype == b.dtype
            np.testing.assert_array_equal(to_host(a), b)
    there[0][0][...] = 0  # a batch is the caller's own
    np.testing.assert_array_equal(
        to_host(next(iter(batches(made, 4, 3, 2, **settings, device=device.name)))[0]), on_host[0][0]
    )


def test_a_data_set_goes_up_once_an_order_once_an_epoch_and_a_large_one_batch_by_batch(monkeypatch) -> None:
    strict, sent = get_backend("strict"), []
    asarray = strict.asarray

    def counting(x, dtype=None):
        if isinstance(x, np.ndarray):
            sent.append(x.nbytes)
        return asarray(x, dtype)

    monkeypatch.setattr(strict, "asarray", counting)
    made = numbered(10)
    for epoch in range(3):
        list(batches(made, 2, epoch=epoch, device="strict"))
    assert sent == [made.x.nbytes, made.y.nbytes, 80, 80, 80]
    sent.clear()
    monkeypatch.setattr(dataset, "RESIDENT", made.x.nbytes + made.y.nbytes - 1)
    list(batches(made, 5, device="strict"))
    assert sent == [40, 40] * 2  # x and y of two batches of five


def test_nobody_waits_for_a_batch(device) -> None:
    with device.no_sync():
        for _ in batches(numbered(10), 3, device=device.name):
            pass


def test_a_device_that_does_not_exist_is_told_at_the_call() -> None:
    with pytest.raises(ValueError, match="unknown device 'gpu'; did you mean 'cuda'"):
        batches(numbered(4), 2, device="gpu")


def test_a_split_or_a_pair_of_arrays_is_refused_with_advice() -> None:
    from minibng.data import Split

    part = numbered(4)
    split = Split(part, part, part, "name", 4, "source")
    with pytest.raises(TypeError, match=r"not of a Split; pass one of its parts, such as split\.train$"):
        batches(split, 2)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"not of a tuple; pass data\.Dataset\(x, y\)$"):
        batches((part.x, part.y), 2)  # type: ignore[arg-type]


# Windows of one sequence ----------------------------------------------------------------------------------------------


@given(st.data(), st.integers(1, 80), st.integers(1, 30), st.booleans())
def test_windows_are_rows_of_the_sequence_that_go_on(draw, n: int, length: int, drop_last: bool) -> None:
    size = draw.draw(st.integers(1, n))
    steps = n // size
    if drop_last and steps < length:
        return
    sequence = Dataset(np.arange(n), np.arange(1, n + 1))
    made = batches(sequence, size, length=length, drop_last=drop_last)
    pairs = list(made)
    assert len(made) == len(pairs) == (steps // length if drop_last else -(-steps // length))
    assert all(x.shape == y.shape == (size, length) for x, y in pairs[:-1])
    used = len(pairs) * length if drop_last else steps
    whole = np.concatenate([x for x, _ in pairs], axis=1)
    np.testing.assert_array_equal(whole, np.arange(size)[:, None] * steps + np.arange(used))
    np.testing.assert_array_equal(np.concatenate([y for _, y in pairs], axis=1), whole + 1)


def test_windows_know_nothing_of_seed_epoch_and_shuffling() -> None:
    sequence = Dataset(np.arange(40), np.arange(40), classes=40)
    first = [x.tolist() for x, _ in batches(sequence, 3, length=4)]
    for more in ({"seed": 5}, {"epoch": 2}, {"shuffle": False}):
        assert [x.tolist() for x, _ in batches(sequence, 3, length=4, **more)] == first


def test_a_sequence_of_measurements_has_windows_too_and_its_scale() -> None:
    x = np.arange(24, dtype=np.float32).reshape(12, 2)
    sequence = Dataset(x, x[:, :1].copy(), scale=([1.0, 2.0], [2.0, 4.0]))
    (first, target), _ = batches(sequence, 2, length=4)
    assert first.shape == (2, 4, 2) and target.shape == (2, 4, 1)
    np.testing.assert_allclose(first, (x.reshape(2, 6, 2)[:, :4] - [1, 2]) / np.array([2, 4]), rtol=1e-6)


@pytest.mark.parametrize("resident", [True, False])
def test_windows_on_every_device_are_fresh_and_the_same(device, monkeypatch, resident) -> None:
    if not resident:
        monkeypatch.setattr(dataset, "RESIDENT", 0)
    sequence = Dataset(np.arange(25), np.arange(1, 26), classes=30)
    expected = list(batches(sequence, 3, length=8))
    for length in (8, 3):  # one window that is everything, and several
        with device.no_sync():
            there = list(batches(sequence, 3, length=length, device=device.name))
        for pair in there:
            for a in pair:
                assert backend_of(a) is device.backend and str(a.dtype) == "int64" and a.flags.c_contiguous
        whole = np.concatenate([to_host(x) for x, _ in there], axis=1)
        np.testing.assert_array_equal(whole, np.concatenate([x for x, _ in expected], axis=1))
        there[0][0][...] = -1  # a batch is the caller's own
        again = next(iter(batches(sequence, 3, length=length, device=device.name)))[0]
        np.testing.assert_array_equal(to_host(again), expected[0][0][:, :length])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"length": 0}, ValueError, "length must be at least 1; got 0"),
        ({"length": 2.5}, TypeError, "length must be a whole number; got 2.5"),
        (
            {"length": 4, "drop_last": True},
            ValueError,
            "10 samples in 3 rows are 3 a row: no window of length 4 is full; choose a smaller length or batch size",
        ),
        (
            {"length": 2, "size": 11},
            ValueError,
            "batch size 11 is more than the 10 samples of the data set; choose at most 10",
        ),
        (
            {"length": 2, "augment": CropMirror()},
            ValueError,
            "augment changes single samples: leave it out where length cuts one sequence into windows",
        ),
    ],
)
def test_errors_of_windows_come_at_the_call(arguments, error, message) -> None:
    with pytest.raises(error) as caught:
        batches(Dataset(np.arange(10), np.arange(10)), **{"size": 3, **arguments})
    assert str(caught.value) == message
