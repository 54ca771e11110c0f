"""A GPU that is none: `gpu` runs the real CupyBackend on kernels that g++ compiled (see emulator.py)."""

import importlib.util
import sys
from pathlib import Path

import pytest

from minibng import backend

HERE = Path(__file__).parent


def load(name):
    """A module beside this file; the tests' folders are no packages."""
    key = f"minibng_tests_cuda_{name}"
    if key not in sys.modules:
        spec = importlib.util.spec_from_file_location(key, HERE / f"{name}.py")
        sys.modules[key] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[key]


def missing(request, what, told):
    """Skip what cannot run here, or, with ``--require-…``, fail."""
    if request.config.getoption(f"--require-{what}", default=False):
        pytest.fail(f"--require-{what}: {told}", pytrace=False)
    pytest.skip(told)


@pytest.fixture(scope="session")
def emulator(request):
    module = load("emulator")
    if module.GXX is None:
        missing(request, "tools", "g++ not installed: kernels cannot run without a GPU (Debian: apt install g++)")
    return module


@pytest.fixture(scope="session")
def folder(request, tmp_path_factory):
    """Where compiled kernels are kept, from run to run if they can be; they are named by what they were made from."""
    cache = getattr(request.config, "cache", None)
    return cache.mkdir("cuda_kernels") if cache else tmp_path_factory.mktemp("cuda_kernels")


@pytest.fixture(scope="session")
def make_gpu(emulator, folder):
    """Make a CupyBackend on an emulated GPU: ``make_gpu(seed=…, flags=…, edit=…)``."""
    from minibng.backend.cupy import CupyBackend

    return lambda **settings: CupyBackend(0, emulator.Cupy(folder, **settings))


@pytest.fixture(scope="session")
def one_gpu(make_gpu):
    return make_gpu(seed=1)


def devices():
    """The emulated GPU, and a real one where it answers."""
    try:
        backend.get_backend("cuda")
    except backend.DeviceError:
        return ["emulated"]
    return ["emulated", pytest.param("real", marks=pytest.mark.gpu)]


@pytest.fixture(params=devices())
def gpu(request, monkeypatch):
    """A GPU, emulated or real, which for this test is device "cuda"."""
    if request.param == "real":
        return backend.get_backend("cuda")
    emulated = request.getfixturevalue("one_gpu")
    monkeypatch.setitem(backend._MADE, "cuda:0", emulated)
    monkeypatch.setitem(backend._BY_NUMBER, 0, emulated)
    return emulated


@pytest.fixture(scope="session")
def nvrtc(request):
    found = load("emulator").nvrtc()
    return found or missing(request, "nvrtc", "NVRTC not installed (pip install nvidia-cuda-nvrtc)")


@pytest.fixture(scope="session")
def tests_of():
    """The module of tests of a name: "formulas", "norms" or "steps"."""
    return lambda name: load(f"test_cuda_{name}")
