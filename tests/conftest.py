"""What every test shares: devices, peers (other libraries to compare with), and Hypothesis made repeatable."""

import importlib
import importlib.util
import os

if "PYTEST_XDIST_WORKER" in os.environ:  # one of several: each has its core, and NumPy reads this when it is imported
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import settings

from minibng.backend import DeviceError, asarray, forbid_sync, get_backend, to_host

settings.register_profile("ci", deadline=None, derandomize=True, database=None, max_examples=50)
settings.load_profile("ci")

HOW = "pip install 'minibng[peers]'"
REQUIRED = {"peers": "a peer library", "tools": "a C++ compiler or MPI", "nvrtc": "NVIDIA's run-time compiler"}

# Devices --------------------------------------------------------------------------------------------------------------


class Device:
    """One of the devices that a test with an argument ``device`` is run on.

    ``device.array(x)`` brings an array, a number or nested lists of arrays there, ``device.host(x)`` back.
    """

    def __init__(self, name):
        self.name = name

    def __str__(self):
        return self.name

    __repr__ = __str__

    @property
    def backend(self):
        return get_backend(self.name)

    def array(self, x, dtype=None):
        return asarray(x, dtype=dtype, device=self.name)

    def arrays(self, many):
        """Every array of a list, a tuple or a dict, on the device."""
        if isinstance(many, dict):
            return {k: self.array(v) for k, v in many.items()}
        return type(many)(self.array(v) for v in many)

    def host(self, x):
        """Arrays, and containers of arrays, as NumPy's."""
        if isinstance(x, dict):
            return {k: self.host(v) for k, v in x.items()}
        if isinstance(x, (list, tuple)):
            parts = [self.host(v) for v in x]
            return type(x)(*parts) if hasattr(x, "_fields") else type(x)(parts)
        return to_host(x) if hasattr(x, "dtype") and not isinstance(x, np.generic) else x

    def no_sync(self):
        """The context in which nothing may wait for the device."""
        return forbid_sync()


def gpu_answers():
    """Whether CuPy runs kernels here."""
    if importlib.util.find_spec("cupy") is None:
        return False
    try:
        get_backend("cuda")
    except DeviceError:
        return False
    return True


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes ``device`` on the CPU, on the strict device, and on a GPU where one answers."""
    if "device" in metafunc.fixturenames:
        devices = [Device("cpu"), Device("strict")]
        if "gpu" in metafunc.config.getoption("markexpr") or gpu_answers():
            devices.append(pytest.param(Device("cuda"), marks=pytest.mark.gpu))
        metafunc.parametrize("device", devices, ids=str)


ON_THE_HOST = {}
"""The Hypothesis settings that a test was written with."""


def choose_examples(item: pytest.Item) -> None:
    """Give a test of properties a tenth of its examples where it does not run on the CPU."""
    function = getattr(item, "obj", None)
    written = getattr(function, "_hypothesis_internal_use_settings", None)
    if written is None:
        return
    function = getattr(function, "__func__", function)
    written = ON_THE_HOST.setdefault(function, written)
    callspec = getattr(item, "callspec", None)
    device = "cpu" if callspec is None else str(callspec.params.get("device", "cpu"))
    fewer = settings(written, max_examples=max(3, written.max_examples // 10))
    function._hypothesis_internal_use_settings = written if device == "cpu" else fewer


# Peers and other things that may be missing ---------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    for what, about in REQUIRED.items():
        parser.addoption(f"--require-{what}", action="store_true", help=f"{about} missing is a failure, not a skip")


def missing_peers(item: pytest.Item) -> list[str]:
    """The libraries that a test is compared with and that are not installed: PyTorch, if the mark names none."""
    mark = item.get_closest_marker("peer")
    names = () if mark is None else mark.args or ("torch",)
    return [name for name in names if importlib.util.find_spec(name) is None]


def pytest_runtest_setup(item: pytest.Item) -> None:
    choose_examples(item)
    if item.get_closest_marker("gpu") and not gpu_answers():
        pytest.skip("no CUDA device answers: see minibng doctor")
    if not (missing := missing_peers(item)):
        return
    told = f"{', '.join(missing)} not installed ({HOW})"
    if item.config.getoption("--require-peers"):
        pytest.fail(f"--require-peers: {told}", pytrace=False)
    pytest.skip(told)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    if count := sum(HOW in str(report.longrepr) for report in skipped):
        told = f"{count} peer tests skipped: their library is not installed ({HOW})"
        terminalreporter.write_line(f"{told}; --require-peers makes this a failure")


@pytest.fixture(scope="session")
def torch():
    """PyTorch, for tests marked `peer`."""
    module = importlib.import_module("torch")
    module.set_num_threads(1)  # the tensors of these tests are too small to share
    return module


@pytest.fixture(scope="session")
def tool(pytestconfig):
    """``tool(found, what)`` returns what was found; where nothing was, the test skips, or fails under --require-…."""

    def need(found, what, option="--require-tools"):
        if found:
            return found
        if pytestconfig.getoption(option):
            pytest.fail(f"{option}: {what} is missing", pytrace=False)
        return pytest.skip(f"{what} is missing")

    return need
