"""Faults planted in a copy of the package: each must make CI fail, by the static scan or on the strict device."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TRAINING = [sys.executable, "-m", "minibng", "run", "mlp", "--device", "strict", "--epochs", "1"]
SCAN = [sys.executable, "-m", "tests.contract.scan", "minibng"]

STEP = "            value, grad = gradient(self.params, x, y)\n"
PLANTS = {
    "float(loss) in the training step": ("train/loop.py", STEP, STEP + "            float(value)\n"),
    "np.asarray of a device array": ("train/loop.py", STEP, STEP + "            np.asarray(value)\n"),
    "a boolean mask": ("nn/losses.py", "np.log(total) - aimed", "np.log(total[total > 0]) - aimed"),
    "xp.sum(where=…)": ("nn/losses.py", " total = np.sum(e, axis=1)", " total = np.sum(e, axis=1, where=e > 0)"),
    "a function that CuPy lacks": ("nn/linear.py", "np.sum(g2, axis=0)", "np.linalg.vector_norm(g2, axis=0)"),
    "a branch on a value": ("nn/linear.py", "    if b is not None:\n", "    if b is not None and b.any():\n"),
    "a host array among others": ("optim/normalize.py", "return np.ones_like(norms", "return np.ones(1) * (norms"),
}  # fmt: skip
CAUGHT_BY_SCAN = {"xp.sum(where=…)", "a function that CuPy lacks"}


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(ROOT / "minibng", tmp_path / "minibng", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def run(command, where):
    """Run a command on the package in a folder; return its exit code and all that it said."""
    env = {**os.environ, "PYTHONPATH": f"{where}{os.pathsep}{ROOT}"}
    done = subprocess.run(command, cwd=where, env=env, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_without_a_fault_both_checks_pass(copy):
    for command in (TRAINING, SCAN):
        code, said = run(command, copy)
        assert code == 0, said


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_fault_fails(copy, name):
    file, sound, faulty = PLANTS[name]
    path = copy / "minibng" / file
    source = path.read_text(encoding="utf-8")
    assert source.count(sound) == 1, f"{file} has changed: plant the fault elsewhere"
    path.write_text(source.replace(sound, faulty), encoding="utf-8")
    assert run(TRAINING, copy)[0] == 1
    assert run(SCAN, copy)[0] == (1 if name in CAUGHT_BY_SCAN else 0)
