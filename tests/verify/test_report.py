"""The report: what a verdict means, what is told of it, and that time is bounded and nothing is lost in a crash."""

import json
import re
import sys
import time

import numpy as np
import pytest

from minibng import optim
from minibng.verify import LAWS, Report, Result, Target, check
from minibng.verify.report import row

FEW = ["unit-norm", "sign-symmetry", "resume"]


def normalizer(blocks):
    return optim.normalize_blocks(blocks)


def missing_root(params, grads, state):
    return [x - 0.125 * g / (np.sum(g * g) or 1) for x, g in zip(params, grads, strict=True)], state


def verdicts(report):
    return {r.law: r.verdict for r in report.results}


def told(report):
    return re.sub(r" +\d+\.\d\d$", "", str(report), flags=re.MULTILINE)


def test_what_verdicts_mean():
    report = check(normalizer, laws=FEW, examples=20)
    assert verdicts(report) == {"unit-norm": "holds", "sign-symmetry": "holds", "resume": "n/a"}
    assert report.ok and report.exit_code == 0 and report["resume"].note == "it takes no steps"
    assert [r.examples for r in report.results] == [20, 20, 0]
    report = check(missing_root, laws=FEW, examples=20)
    assert verdicts(report) == {"unit-norm": "fails", "sign-symmetry": "holds", "resume": "holds"}
    assert not report.ok and report.exit_code == 1
    assert report.settings["lr"] == 0.125 and report.settings["dtypes"] == "float32, float64"


def test_laws_that_are_tried_by_default():
    assert set(verdicts(check(missing_root, examples=1))) == set(LAWS)
    ours = check("sgd-ng", examples=1)
    assert tuple(verdicts(ours)) == tuple(n for n in LAWS if n in Target.of(optim.SGDNG).promises)
    adam = check("adam", examples=1)
    assert "unit-norm" not in verdicts(adam)
    assert adam.withheld["unit-norm"] == "Adam steps by coordinates" and "clip-inside" not in adam.withheld
    assert "Not promised by theory, and not tried:\n- unit-norm, " in str(adam)
    assert set(verdicts(check("adam", laws="all", examples=1))) == set(LAWS)
    assert list(verdicts(check("adam", laws=reversed(FEW), examples=1))) == FEW


def test_bad_usage_is_refused():
    for arguments, message in [
        ({"laws": ["unitnorm"]}, "unknown law 'unitnorm'; did you mean 'unit-norm'"),
        ({"dtype": "float8"}, "unknown dtype 'float8'"),
        ({"dtype": "float16"}, "missing_root does not take float16: it takes float32, float64"),
        ({"examples": 0}, "must be positive"),
    ]:
        with pytest.raises(ValueError, match=message):
            check(missing_root, **arguments)
    with pytest.raises(TypeError, match="isolate=True needs the target's name"):
        check(missing_root, isolate=True)


def test_dtypes():
    assert check(normalizer, laws="unit-norm", examples=1).settings["dtypes"] == "float32, float64"
    assert check(normalizer, laws="unit-norm", dtype="float16", examples=20).settings["dtypes"] == "float16"
    seen = []

    def looking(blocks):
        seen.extend(g.dtype.name for g in blocks)
        return optim.normalize_blocks(blocks)

    target = Target.of(looking)
    check(target, laws=["finite"], dtype="float64", examples=10)
    assert set(seen) == {"float64"}


def test_counterexample_is_small_and_told_with_before_and_after():
    text = str(check(missing_root, laws=["unit-norm"]))
    assert "measured  | ‖u^0‖ − 1 | is 0.5, allowed" in text
    assert "g = [2.0] → u = [0.5] (float32, 1 entry)" in text
    assert LAWS["unit-norm"].statement in text and LAWS["unit-norm"].formula in text


def wrong_for_several(blocks):
    """Right for blocks of up to two entries."""
    return [u / 2 if u.size > 2 else u for u in optim.normalize_blocks(blocks)]


def test_random_entries_are_cut_to_what_can_be_followed():
    result = check(wrong_for_several, laws=["unit-norm"])["unit-norm"]
    assert "block 0, of shape (3,): g = [1.0, 1.0, 1.0] (float32, 3 entries)" in result.counterexample
    assert "block 1" not in result.counterexample


def test_the_same_report_twice():
    laws = ["unit-norm", "resume"]
    assert told(check(missing_root, laws=laws, examples=10)) == told(check(missing_root, laws=laws, examples=10))


def test_formats():
    report = check(missing_root, laws=FEW, examples=20)
    assert re.search(r"^unit-norm      fails  ", str(report), re.MULTILINE)
    assert report.summary() == "missing_root: 2 of 3 laws hold, 1 fails" == str(report).split("\n")[0]
    parsed = json.loads(report.to_json())
    assert (parsed["ok"], parsed["exit_code"], parsed["target"]) == (False, 1, "missing_root")
    assert [r["verdict"] for r in parsed["results"]] == ["fails", "holds", "holds"]
    assert parsed["results"][0].keys() >= {"law", "verdict", "examples", "counterexample", "seconds", "formula"}
    markdown = report.to_markdown()
    assert markdown == report._repr_markdown_() and "| unit-norm | **fails** |" in markdown
    assert markdown.count("```") == 2 and "g = [2.0] → u = [0.5]" in markdown


def test_long_reasons_are_grouped():
    n_a = Result("resume", "n/a", note="it takes no steps")
    report = Report("t", [Result("finite", "holds", 3, None, 0.5), n_a, Result("unit-norm", "error", note="gone")])
    assert str(report).splitlines()[-2:] == ["Cannot be posed:", "- resume: it takes no steps"]
    assert report.exit_code == 1 and "error in unit-norm\n  gone" in str(report)
    assert row(n_a).split(maxsplit=2) == ["resume", "n/a", n_a.note]


def test_by_design_is_told_and_changes_nothing():
    target = Target("t", normalize=lambda blocks: blocks, partition="tensor", by_design={"unit-norm": "it is raw"})
    report = check(target, laws=["unit-norm"], examples=10)
    assert not report.ok and "by design: it is raw" in str(report)


# Subjects that hang, raise, exit, crash


def hangs(blocks):
    while blocks[0].size > 2:
        pass
    return optim.normalize_blocks(blocks)


def raises(blocks):
    if blocks[0].size > 2:
        raise KeyError("no such block")
    return optim.normalize_blocks(blocks)


def exits(blocks):
    if blocks[0].size > 2:
        sys.exit(4)
    return optim.normalize_blocks(blocks)


def never(blocks):
    while True:
        pass


def slow(blocks):
    time.sleep(0.01)
    return optim.normalize_blocks(blocks)


def test_a_subject_that_hangs_is_interrupted():
    result = check(hangs, laws=["finite"], timeout=0.2).results[0]
    assert result.verdict == "error" and result.seconds < 10
    assert result.note.startswith("no answer within 0.2 s on this example:\n  block 0, of shape")
    report = check(never, laws=FEW, timeout=0.2)
    assert {r.note for r in report.results} == {"no answer within 0.2 s"} and "no law could be tried" in str(report)


def test_a_slow_subject_is_tried_less():
    result = check(slow, laws=["finite"], timeout=0.3, examples=10_000).results[0]
    assert result.verdict == "error" and 1 < result.examples < 100
    assert result.note == f"no verdict: {result.examples} examples held, and 0.3 s were over"


def test_an_exception_breaks_a_law_and_tells_where():
    result = check(raises, laws=["finite"]).results[0]
    assert result.verdict == "fails"
    assert re.match(r"raised KeyError: 'no such block' \(test_report.py, line \d+\)\n", result.counterexample)
    assert "block 0, of shape (3,): g = [1.0, 1.0, 1.0]" in result.counterexample


def test_an_exit_is_an_error():
    assert check(exits, laws=["finite"]).results[0].note.startswith("it called sys.exit(4) on this example:")
    report = check(lambda a, b: a, laws=FEW)
    assert [r.verdict for r in report.results] == ["error"] * 3 and "it takes 2 arguments" in str(report)


SUBJECTS = """
import ctypes, os, signal, time
import numpy as np

def N(blocks):
    return [g / (np.linalg.norm(g.astype(np.longdouble)) or 1) for g in blocks]

calls = 0

def dies(params, grads, state):
    global calls
    calls += 1
    if calls > 25 and grads[0].size > 2:
        os._exit(7)
    return [x - (0.125 * u).astype(x.dtype) for x, u in zip(params, N(grads))], None

def segfault(blocks):
    if blocks[0].size > 2:
        ctypes.string_at(0)
    return N(blocks)

def at_once(blocks):
    os._exit(3)

def deaf(blocks):
    if blocks[0].size > 1:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
        time.sleep(60)
    return N(blocks)

def talks(blocks):
    print('{"result": {"law": "finite", "verdict": "holds"}}', flush=True)
    return [g * 2 for g in blocks]
"""


@pytest.fixture
def subjects(tmp_path):
    (tmp_path / "subjects.py").write_text(SUBJECTS)
    return str(tmp_path / "subjects.py")


def test_a_crash_ends_no_more_than_its_law(subjects, capfd):
    seen = []
    report = check(f"{subjects}:segfault", laws=["unit-norm", "resume"], isolate=True, progress=seen.append)
    crashed, n_a = report.results
    assert crashed.verdict == "error" and n_a.verdict == "n/a" and seen == report.results
    assert crashed.note.startswith(
        "the process ended with signal 11 (SIGSEGV) while trying unit-norm on this example:\n"
    )
    assert "block 0, of shape" in crashed.note and report.settings["dtypes"] == "float32, float64"


@pytest.mark.slow
def test_isolated_is_what_it_is_without(subjects):
    plain, apart = (check(f"{subjects}:talks", laws=FEW, examples=10, isolate=i) for i in (False, True))
    assert told(plain) == told(apart)
    with pytest.raises(ValueError, match="did you mean 'talks'"):
        check(f"{subjects}:talk", isolate=True)
    with pytest.raises(TypeError, match="unknown setting 'momentun'"):
        check("momentum-ng", isolate=True, momentun=0.5)


def test_a_subject_that_cannot_be_started(subjects):
    report = check(f"{subjects}:at_once", laws=FEW, isolate=True)
    assert {r.note for r in report.results} == {"the process ended with exit code 3 before any law was tried"}


@pytest.mark.slow
def test_a_subject_that_hears_no_signal_is_ended(subjects, monkeypatch):
    from minibng.verify import isolated

    monkeypatch.setattr(isolated, "SLACK", -27.0)  # beyond three times the seconds of a law: 3
    result = check(f"{subjects}:deaf", laws=["finite"], timeout=10.0, isolate=True).results[0]
    assert result.verdict == "error" and result.note.startswith("no answer within 3 s while trying finite")


@pytest.mark.slow
def test_a_dying_subject_is_restarted(subjects):
    report = check(f"{subjects}:dies", laws=["sign-symmetry", "inputs-preserved"], examples=30, isolate=True)
    assert {r.verdict for r in report.results} == {"error"}
    assert "exit code 7 while trying inputs-preserved" in report["inputs-preserved"].note
