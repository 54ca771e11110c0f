import pytest


class InProcess:
    """The pool without processes."""

    def __init__(self, train, workers, show):
        self.train = train

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def run(self, jobs, what):
        return self.map(self.train, jobs, what)

    def map(self, task, jobs, what):
        return [task(job) for job in jobs]


@pytest.fixture(autouse=True)
def in_process(monkeypatch, request):
    """Make comparisons do without processes, but in tests that are about them (mark ``processes``)."""
    if "processes" not in request.keywords:
        monkeypatch.setattr("minibng.experiments.comparison.Pool", InProcess)
