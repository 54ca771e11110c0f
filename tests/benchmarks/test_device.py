"""The benchmarks of a device: they run without a GPU, time what they say, and report what they found."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from tests.benchmarks import __main__ as program
from tests.benchmarks import device, report, timing, works


class Queue:
    """A pretended device with a clock: the host queues work and goes on; to wait for all of it takes 10 µs more."""

    def __init__(self):
        self.now = self.free = 0.0

    def put(self, on_host, on_device):
        self.now += on_host
        self.free = max(self.free, self.now) + on_device

    def wait(self):
        self.now = max(self.now, self.free) + 1e-5

    def call(self):
        self.put(1e-6, 2e-3)


@pytest.fixture
def queue(monkeypatch):
    made = Queue()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: made.now)
    return made


def test_queued_work_is_timed_until_it_is_done(queue):
    queue.put(0, 7.0)  # what was queued before does not count
    assert timing.queued_seconds(queue.call, 10, queue.wait) == pytest.approx(2e-3 + (1e-6 + 1e-5) / 10)


def test_there_are_so_many_repetitions_that_waiting_itself_does_not_count(queue):
    count = timing.repetitions(queue.call, queue.wait)
    assert timing.QUEUED <= count * 2.002e-3 <= 2 * timing.QUEUED


def test_two_sides_are_measured_in_turn(queue):
    pair = timing.compare_queued(queue.call, lambda: queue.put(1e-6, 4e-3), queue.wait, pairs=3)
    assert pair == pytest.approx((2, 4, 0.5, 0.5, 0.5), rel=1e-3)
    alone = timing.compare_queued(queue.call, None, queue.wait, pairs=1)
    assert alone.ours == pytest.approx(2, rel=1e-3)
    assert alone[1:] == (None, None, None, None)


def test_copies_and_fills_are_no_kernels():
    seen = ["Memcpy DtoD (Device -> Device)", "step", "Memset (Device)", "void gemm<float>", "step"]
    assert device.count_kernels(seen) == 3


def pretended_gpu(queue, monkeypatch):
    """A `Device` whose GPU is the queue: events note when the work queued before them will be done."""
    where = device.Device("cpu")
    where.is_gpu = True

    class Event:
        def record(self):
            self.done = max(queue.now, queue.free)

        def synchronize(self):
            queue.now = max(queue.now, self.done)

    events = SimpleNamespace(Event=Event, get_elapsed_time=lambda a, b: 1e3 * (b.done - a.done))
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=events))
    monkeypatch.setattr(where, "synchronize", queue.wait)
    monkeypatch.setattr(where, "copy", lambda: queue.put(1e-6, 2e-4))
    return where


def test_the_time_of_a_gpu_is_its_own_even_where_the_host_is_slower(queue, monkeypatch):
    where = pretended_gpu(queue, monkeypatch)
    for on_host, on_gpu in ((5e-4, 1e-4), (1e-5, 1e-3)):
        busy = where.busy_seconds(lambda h=on_host, g=on_gpu: queue.put(h, g), rounds=3)
        assert busy == pytest.approx(on_gpu, rel=1e-6)


@pytest.mark.parametrize("where", ["cpu", "strict"])
def test_every_work_of_a_device_runs_without_a_gpu(where, monkeypatch, tmp_path, capsys):
    """On few entries and images; the program with all of them is run apart."""
    monkeypatch.setattr(timing, "QUEUED", 1e-4)
    monkeypatch.setattr(works, "IMAGES", 2)
    few = {
        "block norms": device.Traffic(device.our_norms(6000), 6000, 4, None),
        "adam-ng": device.Traffic(device.our_step("adam-ng", 6000), 6000, 32, 0.8),
        "of a GPU alone": device.Traffic(device.our_norms(), device.LARGE, 4, None),
    }
    monkeypatch.setattr(device, "TRAFFIC", few)
    rows = list(device.measure(device.Device(where), ["mlp12", "resnet20", *few], pairs=1))
    assert [row["work"] for row in rows] == ["mlp12", "resnet20", "block norms", "adam-ng"]
    for row in rows[:2]:
        assert row["ours"] > 0
        assert row["ratio"] is row["theirs"] is row["launches"] is None
    for row in rows[2:]:
        assert row["share"] == pytest.approx(row["bytes"] / (row["busy"] / 1e3) / row["copy_bytes_per_second"])
    assert [row["bytes"] for row in rows[2:]] == [24_000, 192_000]


MACHINE = {
    "device": "cuda:0",
    "GPU": "Pretended GPU (40 GB)",
    "driver": "1.2.3",
    "CUDA driver": "13.0",
    "CUDA runtime of CuPy": "13.0",
    "CUDA of PyTorch": None,
    "CuPy": "14.2.0",
    "PyTorch": None,
    "NumPy": "2.4.6",
    "date": "2000-01-01",
}

ROWS = [
    {"kind": "step", "work": "made up", "peer": "torch", "unit": "ms", "target": 1.0, "launches": 12}
    | {"ours": 0.5, "theirs": 1.0, "ratio": 0.5, "low": 0.25, "high": 0.75, "their_launches": None},
    {"kind": "step", "work": "alone", "peer": "torch", "unit": "ms", "target": 1.0, "launches": None}
    | {"ours": 2.0, "theirs": None, "ratio": None, "low": None, "high": None, "their_launches": None},
    {"kind": "traffic", "work": "moved", "unit": "ms", "bytes": 320_000_000, "busy": 0.16, "ours": float("nan")}
    | {"copy_bytes_per_second": 2.5e12, "share": 0.8, "target": 0.8, "launches": 2},
]


def test_a_report_says_on_what_and_how_fast(tmp_path):
    """Of made-up numbers, in a folder of its own: docs/gpu has measured ones alone."""
    as_data, as_page = report.write(report.record(MACHINE, ROWS), tmp_path / "gpu")
    assert (as_data.name, as_page.name) == ("pretended-gpu-40-gb.json", "pretended-gpu-40-gb.md")
    found = json.loads(as_data.read_text(encoding="utf-8"))
    assert found["machine"] == MACHINE
    assert found["rows"][0] == ROWS[0]
    assert found["rows"][2]["ours"] is None
    lines = as_page.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# Pretended GPU (40 GB)"
    for line in (
        "| driver | 1.2.3 |",
        "| CuPy | 14.2.0 |",
        "| date | 2000-01-01 |",
        "| made up | PyTorch | 0.500 | 1.000 | 0.50 | 0.25 – 0.75 | ≤ 1.0 | 12 |  |",
        "| alone |  | 2.000 |  |  |  | ≤ 1.0 |  |  |",
        "| moved | 320 | 0.160 | nan | 80% | ≥ 80% | 2 |",
    ):
        assert line in lines
    assert not any(line.startswith("| PyTorch |") for line in lines)
    assert "Here a copy moves 2,500 GB/s." in "\n".join(lines)
    assert report.NO_GPU not in lines


def test_the_program_reports_a_device_where_it_is_told_and_nowhere_else(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(report, "FOLDER", tmp_path / "never")
    program.main(["--device", "strict", "--pairs", "1", "block norms 10M"])
    assert "of a copy's bandwidth" in capsys.readouterr().out
    program.main(["--device", "strict", "--pairs", "1", "--out", str(tmp_path / "told"), "block norms 10M"])
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["strict.json", "strict.md", "told"]
    assert report.NO_GPU in (tmp_path / "told" / "strict.md").read_text(encoding="utf-8")


def test_a_run_that_fails_halfway_reports_what_it_had(tmp_path, capsys, monkeypatch):
    def failing(*args):
        yield ROWS[0]
        raise MemoryError("planted")

    monkeypatch.setattr(device, "measure", failing)
    with pytest.raises(MemoryError, match="planted"):
        program.main(["--device", "strict", "--out", str(tmp_path)])
    text = (tmp_path / "strict.md").read_text(encoding="utf-8")
    assert "Not complete: the run ended with an error, `MemoryError: planted`." in text
    assert "| made up |" in text


@pytest.mark.parametrize("words", [["--device", "cudda"], ["nothing"], ["--device", "strict", "nothing"]])
def test_what_does_not_exist_is_a_usage_error(words, capsys):
    with pytest.raises(SystemExit) as ended:
        program.main(words)
    assert ended.value.code == 2
    assert "unknown" in capsys.readouterr().err


def test_versions_of_cuda_are_told_as_they_are_written():
    assert [report.cuda_version(n) for n in (12090, 13000, 13010)] == ["12.9", "13.0", "13.1"]


def test_a_machine_without_a_gpu_has_no_gpu():
    on = report.machine(device.Device("strict"))
    assert on["GPU"] is None
    assert on["NumPy"] == np.__version__


def test_docs_gpu_has_measured_reports_alone_and_says_whether_there_are_any():
    found = sorted(report.FOLDER.glob("*.json"))
    for path in found:
        on = json.loads(path.read_text(encoding="utf-8"))["machine"]
        assert path.stem == report.slug(on["GPU"])
        assert on["CuPy"]
        assert on["driver"] is None or on["driver"][0].isdigit()
        assert path.with_suffix(".md").exists()
    pages = {path.stem for path in report.FOLDER.glob("*.md")} - {"README"}
    assert pages == {path.stem for path in found}
    told = (report.FOLDER / "README.md").read_text(encoding="utf-8")
    assert ("**Nothing yet.**" in told) == (not found), "docs/gpu/README.md must say what has been run"


@pytest.mark.gpu
def test_a_gpu_is_named_timed_and_counted():
    where = device.Device("cuda")
    on = report.machine(where)
    assert on["GPU"]
    assert on["CuPy"]
    with where.current():
        step = device.our_step("adam-ng", 600_000)(where.name)
        assert 0 < where.busy_seconds(step, rounds=3) < 1e-2
        assert where.bandwidth(rounds=3) > 1e9
        launches = where.launches(step)
    assert launches is None or launches >= 2
