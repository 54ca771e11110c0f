import json
import os
import subprocess
import sys

import pytest

from minibng import backend, cli
from minibng.backend import DeviceError, devices
from minibng.cli import doctor, listing
from minibng.experiments import EXPERIMENTS


def run(capsys, *argv):
    """Return (exit code, standard output, standard error)."""
    try:
        code = cli.main(argv)
    except SystemExit as stop:
        code = stop.code
    return (code, *capsys.readouterr())


SHORT = ("--seeds", "2", "--epochs", "1", "--optimizers", "momentum,momentum-ng", "--schedule", "constant")


def test_compare_prints_the_table_and_the_verdict_and_writes_everything(capsys, tmp_path):
    code, out, err = run(capsys, "compare", "mlp", *SHORT, "--out", str(tmp_path / "a" / "b"))
    assert (code, err) == (0, "")
    assert "momentum-ng" in out and "final training loss" in out
    assert (
        "C1  not tested: its primary comparison is momentum-ng against momentum" in out
    )  # one epoch is not its budget
    folder = tmp_path / "a" / "b"
    names = {"norms.jsonl", "norms.png", "rates.png", "records.jsonl", "training.png"}
    assert {p.name for p in folder.iterdir()} == names
    lines = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    assert lines[0]["kind"] == "header" and lines[0]["blas_threads"] == 1
    assert [r["run"] for r in lines[1:]] == sorted(r["run"] for r in lines[1:])
    assert all((folder / n).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" for n in names if n.endswith("png"))


def test_run_prints_every_epoch_and_writes_records(capsys, tmp_path):
    code, out, _ = run(
        capsys, "run", "mlp", "--optimizer", "adam-ng", "--depth", "2", "--epochs", "2", "--out", str(tmp_path)
    )
    assert code == 0
    assert "Linear(64, 100)" in out
    assert [line.split()[0] for line in out.splitlines() if line[:5].strip().isdigit()][-3:] == ["0", "1", "2"]
    assert {p.name for p in tmp_path.iterdir()} == {"norms.jsonl", "norms.png", "records.jsonl", "training.png"}


def test_a_diverging_run_is_a_result(capsys, tmp_path):
    code, out, _ = run(
        capsys,
        "run",
        "mlp",
        "--optimizer",
        "sgd",
        "--lr",
        "1e30",
        "--activation",
        "relu",
        "--depth",
        "2",
        "--out",
        str(tmp_path),
    )
    assert code == 0 and "The run diverged" in out
    assert "null" in (tmp_path / "records.jsonl").read_text()


def test_list_names_everything_that_can_be_named(capsys):
    code, out, _ = run(capsys, "list")
    assert code == 0
    for name in ("mlp", "digits", "mnist5k", "adadelta", "-ng-adaptive", "sigmoid", "step"):
        assert name in out


NO_CUPY = (
    "CuPy is not installed; with an NVIDIA GPU: pip install 'minibng[cuda13x]' (NVIDIA driver 580 or newer: nvidia-smi "
    "shows it) or pip install 'minibng[cuda12x]' (older drivers)"
)


@pytest.fixture
def without_cupy(monkeypatch):
    backend.get_backend("strict")  # made before, so that it is the one of later tests too
    monkeypatch.setattr(devices, "_installed", lambda name: False)
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(backend, "_MADE", {k: v for k, v in backend._MADE.items() if not k.startswith("cuda")})
    devices._automatic.cache_clear()
    yield
    devices._automatic.cache_clear()


def test_doctor_proves_the_essentials_and_does_without_a_gpu(capsys, without_cupy):
    code, out, _ = run(capsys, "doctor")
    assert code == 0
    assert "numpy" in out and "1259 + 179 + 359" in out
    lines = out.partition("devices\n")[2].splitlines()[:3]
    assert lines == ["  cpu           works", "  strict        works", f"  cuda          cannot be used: {NO_CUPY}"]


def test_doctor_shows_what_of_a_gpu_is_in_order_and_what_is_not(capsys, monkeypatch):
    def checks():
        yield "CuPy 14.2.0 (cupy-cuda13x, CUDA 13.2)"
        raise DeviceError("no NVIDIA driver was found: install it")

    monkeypatch.setattr(doctor, "cuda_checks", checks)
    code, out, _ = run(capsys, "doctor")
    assert code == 0
    assert (
        "  cuda          CuPy 14.2.0 (cupy-cuda13x, CUDA 13.2)\n"
        "                cannot be used: no NVIDIA driver was found: install it\n"
    ) in out


def test_a_gpu_that_is_not_there_ends_it_before_any_run(capsys, tmp_path, without_cupy):
    for command in ("run", "compare"):
        code, out, err = run(capsys, command, "mlp", "--device", "cuda", "--out", str(tmp_path / "x"))
        assert (code, out) == (1, "")
        assert err == f"minibng: device 'cuda:0' cannot be used: {NO_CUPY} (--debug shows where)\n"
    assert not (tmp_path / "x").exists()


def test_auto_falls_back_to_the_host_and_says_why(capsys, caplog, tmp_path, without_cupy):
    short = ("--depth", "1", "--epochs", "1", "--out", str(tmp_path))
    code, out, _ = run(capsys, "run", "mlp", "--device", "auto", *short)
    assert code == 0 and "seed 0, on cpu" in out
    assert caplog.messages == [f"device 'auto' is cpu: {NO_CUPY}"]
    assert json.loads((tmp_path / "records.jsonl").read_text().splitlines()[0])["device"] == "cpu"


def test_the_strict_device_runs_what_the_host_runs(capsys, tmp_path):
    lines = {}
    for device in ("cpu", "strict"):
        out = tmp_path / device
        short = ("--depth", "2", "--epochs", "2", "--out", str(out))
        assert run(capsys, "run", "mlp", "--device", device, *short)[0] == 0
        for name in ("records", "norms"):
            head, *rows = [json.loads(line) for line in (out / f"{name}.jsonl").read_text().splitlines()]
            assert head["device"] == device
            lines[device, name] = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    assert lines["cpu", "records"] == lines["strict", "records"]
    assert lines["cpu", "norms"] == lines["strict", "norms"]


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (("compare", "mpl"), "unknown experiment 'mpl'; did you mean 'mlp'?"),
        (("compare", "mlp", "--optimizers", "adam-gn"), "did you mean 'adam-ng'?"),
        (("compare", "mlp", "--dataset", "digit"), "did you mean 'digits'?"),
        (("compare", "mlp", "--activation", "rule"), "did you mean 'relu'?"),
        (("compare", "mlp", "--seeds", "0"), "at least 1 is needed, got '0'"),
        (("compare", "mlp", "--depth", "six"), "a whole number of at least 1 is needed, got 'six'"),
        (("run", "mlp", "--lr", "-1"), "a finite rate of 0 or more is needed, got '-1'"),
        (("run", "mlp", "--lr", "nan"), "got 'nan'"),
        (("comapre", "mlp"), "unknown command 'comapre'; did you mean 'compare'?"),
        (("compare", "mlp", "--optimizers", ""), "at least one is needed, got ''"),
        (("compare", "mlp", "--optimizers", " ,"), "at least one is needed, got ' ,'"),
        (
            ("run", "mlp", "--device", "gpu"),
            "argument --device: unknown device 'gpu'; did you mean 'cuda'? Known: cpu,",
        ),
        (("compare", "mlp", "--device", "strickt"), "did you mean 'strict'?"),
        (("run", "mlp", "--dataset", "diabetes"), "diabetes has no classes, mlp classifies"),
        (("compare", "mlp", "--dataset", "digits,diabetes"), "diabetes has no classes, mlp classifies"),
        (("run", "mlp", "--optimizers", "adam", "--rate", "1"), "usage: minibng run mlp "),
        (("run", "mlp", "--rate", "1"), "minibng run mlp: error: unrecognized arguments: --rate 1"),
        ((), "COMMAND"),
        (("compare", "resnet", "--activation", "relu"), "minibng compare resnet: error: unrecognized arguments: --act"),
        (
            ("compare", "mlp", "--norm-blocks", "own"),
            "minibng compare mlp: error: unrecognized arguments: --norm-blocks",
        ),
        (("run", "mlp", "--width", "8"), "minibng run mlp: error: unrecognized arguments: --width 8"),
        (
            ("compare", "resnet", "--norm-blocks", "mergd"),
            "unknown kind of batch norm's blocks 'mergd'; did you mean 'me",
        ),
        (("compare", "resnet", "--augment", "flip"), "unknown augmentation 'flip'"),
        (("compare", "resnet", "--preset", "papr"), "unknown preset 'papr'; did you mean 'paper'?"),
        (("compare", "resnet", "--samples", "some"), "a whole number of at least 1 is needed, got 'some'"),
        (("run", "imagenet", "--dataset", "texture"), "did you mean 'textures'?"),
        (("run", "imagenet", "--weight-decay", "-1"), "a finite rate of 0 or more is needed, got '-1'"),
        (("compare",), "the following arguments are required: EXPERIMENT"),
    ],
)
def test_bad_usage_exits_with_2_and_says_what_is_valid(capsys, argv, told):
    code, _, err = run(capsys, *argv)
    assert code == 2
    assert told in err and "Traceback" not in err


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_help_tells_every_option_with_its_default(capsys, name):
    for command in ("compare", "run"):
        code, out, _ = run(capsys, command, name, "--help")
        assert code == 0 and out.startswith(f"usage: minibng {command} {name} ")
        told = " ".join(out.split())
        for key, axis in EXPERIMENTS[name].axes.items():
            assert f"--{key.replace('_', '-')} {key.upper()}" in told
            values = axis.values if command == "compare" else axis.values[:1]
            assert f"default {','.join('none' if v is None else str(v) for v in values)}" in told


def asked_for(monkeypatch, *argv):
    """Return what the command line asks of a comparison: the experiment, and the keywords."""
    asked = []

    def compared(experiment, **chosen):
        asked.append((experiment, chosen))
        raise RuntimeError("asked")

    monkeypatch.setattr(cli.experiments, "compared", compared)
    assert cli.main(argv) == 1
    return asked[0]


def test_options_make_the_settings(monkeypatch, tmp_path):
    argv = ("--depth", "8,20", "14", "--dataset", "cifar10", "--data-dir", "a,b", "--norm-blocks", "merged")
    experiment, chosen = asked_for(monkeypatch, "compare", "resnet", *argv, "--size", "none", "--out", str(tmp_path))
    assert experiment is EXPERIMENTS["resnet"]
    assert [s["depth"] for s in chosen["settings"]] == [8, 20, 14]
    fixed = {
        "dataset": "cifar10",
        "data_dir": "a,b",
        "norm_blocks": "merged",
        "size": None,
    }  # a folder's name has commas
    assert all(fixed.items() <= s.items() and s.keys() == experiment.axes.keys() for s in chosen["settings"])


def test_a_preset_is_a_bundle_that_options_still_change(monkeypatch, tmp_path):
    argv = ("compare", "resnet", "--preset", "paper", "--dataset", "cifar100", "--out", str(tmp_path))
    experiment, chosen = asked_for(monkeypatch, *argv)
    assert (experiment.epochs, experiment.batch) == (182, 128)
    assert [s["depth"] for s in chosen["settings"]] == [20, 32, 44, 56, 110]
    fixed = {"dataset": "cifar100", "width": 16, "augment": "crop-mirror", "samples": None, "weight_decay": 1e-3}
    assert all(fixed.items() <= s.items() for s in chosen["settings"])


def test_a_run_takes_the_first_value_of_every_axis_and_the_presets(capsys, tmp_path):
    argv = ("run", "resnet", "--size", "8", "--width", "2", "--samples", "64", "--epochs", "1", "--out", str(tmp_path))
    code, out, _ = run(capsys, *argv, "--norm-blocks", "excluded")
    assert code == 0 and "15 blocks" in out
    names = {"norms.jsonl", "norms.png", "parameters.png", "records.jsonl", "training.png"}
    assert {p.name for p in tmp_path.iterdir()} == names
    line = json.loads((tmp_path / "records.jsonl").read_text().splitlines()[1])
    assert (line["depth"], line["norm_blocks"], line["schedule"], line["batch"]) == (8, "excluded", "step", 32)
    code, _, err = run(capsys, "run", "imagenet", "--preset", "paper", "--out", str(tmp_path))
    assert code == 1 and "--dataset folder needs --data-dir" in err


def test_an_output_folder_that_cannot_be_written_to_ends_it_before_any_run(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    code, out, err = run(capsys, "compare", "mlp", "--out", str(tmp_path / "file" / "x"))
    assert code == 1 and out == ""
    assert "cannot write to the output folder" in err and "Traceback" not in err


def test_debug_shows_the_traceback(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write"):
        cli.main(["compare", "mlp", "--debug", "--out", str(tmp_path / "file" / "x")])


def test_a_missing_extra_is_named(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, _, err = run(capsys, "run", "mlp", "--depth", "1", "--epochs", "1", "--out", str(tmp_path))
    assert code == 1 and "pip install 'minibng[experiments]'" in err


def test_ctrl_c_is_told_in_one_line(capsys, monkeypatch):
    monkeypatch.setattr(listing, "show", lambda args: (_ for _ in ()).throw(KeyboardInterrupt))
    code, _, err = run(capsys, "list")
    assert code == 130 and err == "minibng: interrupted\n"


def test_the_command_is_installed():
    out = subprocess.run([sys.executable, "-m", "minibng", "--version"], capture_output=True, text=True, check=True)
    assert out.stdout.startswith("minibng ")


def test_a_reader_that_has_seen_enough_ends_it_quietly():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-m", "minibng", "list"], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
