"""The command ``minibng verify``: formats, files, exit codes, and what is told where."""

import json

import pytest

from minibng import cli, verify
from minibng.cli.verify import averaged_by_workers
from minibng.verify import Report, Result

MINE = """
import numpy as np

def step(params, grads, state):
    return [x - 0.1 * g / (np.sum(g * g) or 1) for x, g in zip(params, grads)], state
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def asked(monkeypatch):
    """What the command asks `verify.check`, which is tested elsewhere."""
    seen = {}

    def check(*args, progress, **settings):
        seen.update(settings, args=args)
        progress(Result("finite", "holds", 3, None, 0.5))
        return Report("t", [Result("finite", "holds", 3, None, 0.5)], {"examples": 3, "seed": 0})

    monkeypatch.setattr(verify, "check", check)
    return seen


def test_a_mistake_in_a_file_is_found(mine, capsys):
    options = "--laws unit-norm,resume --examples 20 --dtype float64 --format json"
    code = cli.main(["verify", "mine.py:step", *options.split()])
    parsed = json.loads(capsys.readouterr().out)
    assert code == parsed["exit_code"] == 1
    assert [(r["law"], r["verdict"]) for r in parsed["results"]] == [("unit-norm", "fails"), ("resume", "holds")]
    assert parsed["settings"]["lr"] == 0.1 and "g = [2.0] → u = [0.5]" in parsed["results"][0]["counterexample"]


def test_what_is_asked_is_handed_on(asked, capsys):
    options = "--laws finite,resume --dtype float32 --examples 7 --seed 3 --lr 0.5 --device strict --timeout 9"
    assert cli.main(["verify", "adam-ng", *options.split()]) == 0
    assert asked.pop("args") == ("adam-ng", 0.5, ("finite", "resume"), "float32")
    workers = asked.pop("workers")
    assert asked == {"device": "strict", "examples": 7, "seed": 3, "timeout": 9.0, "isolate": True}
    assert verify.adapters.find(workers) is averaged_by_workers
    out, err = capsys.readouterr()
    assert out.startswith("t: 1 of 1 laws hold\n3 examples a law; seed 0\n") and not err  # no terminal, no progress
    asked.clear()
    assert cli.main(["verify", "module:step", "--laws", "all"]) == 0 and "workers" not in asked


def test_the_report_is_written_to_a_file(asked, tmp_path, capsys):
    out = tmp_path / "report.md"
    assert cli.main(["verify", "adam-ng", "--format", "markdown", "--out", str(out)]) == 0
    assert "| finite | holds | 3 |" in out.read_text(encoding="utf-8")
    assert capsys.readouterr().out == f"t: 1 of 1 laws hold; written to {out}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("adm-ng", "unknown optimizer 'adm-ng'; did you mean 'adam-ng'"),
        ("adam-ng --laws unitnorm", "unknown law 'unitnorm'; did you mean 'unit-norm'"),
        ("adam-ng --format jsn", "unknown format 'jsn'; did you mean 'json'"),
        ("adam-ng --dtype float31", "unknown dtype 'float31'; did you mean"),
        ("adam-ng --examples 0", "examples and timeout must be positive"),
        ("adam-ng --out none/report.txt", "is to lie in one that there is not"),
        (":step", "a name is 'module:attribute', got ':step'"),
        ("nosuch.py:step", "there is no file 'nosuch.py'"),
        ("mine.py:stepp", "unknown name in mine 'stepp'; did you mean 'step'"),
    ],
)
def test_bad_usage_exits_with_2(mine, capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        cli.main(["verify", *arguments.split()])
    assert caught.value.code == 2 and message in capsys.readouterr().err


def test_gradients_of_workers_are_averaged_as_in_training():
    from minibng import optim
    from minibng.verify import LAWS, Target, run

    run(LAWS["workers"], Target(**{**vars(Target.of(optim.SGDNG)), "workers": averaged_by_workers}), examples=20)
