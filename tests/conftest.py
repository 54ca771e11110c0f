"""What every test shares: the peers (PyTorch), and Hypothesis made repeatable."""

import importlib
import importlib.util

import pytest
from hypothesis import settings

settings.register_profile("ci", deadline=None, derandomize=True, database=None, max_examples=50)
settings.load_profile("ci")

PEER_MISSING = "PyTorch is not installed (pip install 'minibng[peers]')"
LEFT_OUT = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require-peers", action="store_true", help="a missing peer (PyTorch) is a failure, not a skip")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEFT_OUT] = []


def has_peer() -> bool:
    return importlib.util.find_spec("torch") is not None


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("peer") is None or has_peer():
        return
    if item.config.getoption("--require-peers"):
        pytest.fail(f"--require-peers: {PEER_MISSING}", pytrace=False)
    item.config.stash[LEFT_OUT].append(item.nodeid)
    pytest.skip(PEER_MISSING)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if count := len(config.stash[LEFT_OUT]):
        terminalreporter.write_line(f"{count} peer tests skipped: {PEER_MISSING}; --require-peers makes this a failure")


@pytest.fixture(scope="session")
def torch():
    """The peer; for tests marked `peer`."""
    module = importlib.import_module("torch")
    module.set_num_threads(1)  # the tensors of these tests are too small to share
    return module
