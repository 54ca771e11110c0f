"""What every test shares: the peers (other libraries to compare with), and Hypothesis made repeatable."""

import importlib
import importlib.util

import pytest
from hypothesis import settings

settings.register_profile("ci", deadline=None, derandomize=True, database=None, max_examples=50)
settings.load_profile("ci")

HOW = "pip install 'minibng[peers]'"
LEFT_OUT = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require-peers", action="store_true", help="a missing peer library is a failure, not a skip")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEFT_OUT] = []


def missing_peers(item: pytest.Item) -> list[str]:
    """The libraries that a test is compared with and that are not installed: PyTorch, if the mark names none."""
    mark = item.get_closest_marker("peer")
    names = () if mark is None else mark.args or ("torch",)
    return [name for name in names if importlib.util.find_spec(name) is None]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if not (missing := missing_peers(item)):
        return
    told = f"{', '.join(missing)} not installed ({HOW})"
    if item.config.getoption("--require-peers"):
        pytest.fail(f"--require-peers: {told}", pytrace=False)
    item.config.stash[LEFT_OUT].append(item.nodeid)
    pytest.skip(told)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if count := len(config.stash[LEFT_OUT]):
        told = f"{count} peer tests skipped: their library is not installed ({HOW})"
        terminalreporter.write_line(f"{told}; --require-peers makes this a failure")


@pytest.fixture(scope="session")
def torch():
    """PyTorch, for tests marked `peer`."""
    module = importlib.import_module("torch")
    module.set_num_threads(1)  # the tensors of these tests are too small to share
    return module
