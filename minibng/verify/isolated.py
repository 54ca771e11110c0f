"""Checking in processes of their own: a subject that ends the process ends no more than the law that was being tried.

The child is given a plan on its standard input, as JSON, and answers in lines of JSON. What the subject itself prints
goes nowhere, so that it cannot be taken for an answer; what it writes to standard error is passed on.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from minibng.names import UnknownNameError
from minibng.verify import report
from minibng.verify.adapters import check_name
from minibng.verify.report import Progress, Report, Result, chosen
from minibng.verify.search import told_example

START = 60.0
"""Seconds that a child is given to start, and to load what the subject needs, beyond those of a law."""

SLACK = 5.0
"""Seconds beyond three times those of a law, after which a child is taken to hear no signal."""

_USAGE: dict[str, type[Exception]] = {
    cls.__name__: cls for cls in (UnknownNameError, TypeError, ValueError, FileNotFoundError)
}
"""What a child raises that is the caller's mistake; the parent raises it again."""


def apart(name: Any, laws: list[str] | None, plan: Mapping[str, Any], progress: Progress) -> Report:
    """Check a subject in processes of their own; see `minibng.verify.check`.

    Raises
    ------
    TypeError
        Where the subject is not given by name, or a setting cannot be handed on as JSON.
    """
    if not isinstance(name, str):
        raise TypeError("isolate=True needs the target's name, such as 'module:attribute': another process looks it up")
    check_name(name)
    head: dict[str, Any] = {"target": name, "settings": {k: plan[k] for k in ("examples", "seed")}}
    left, started, results = laws, False, list[Result]()

    def decided(result: Result) -> None:
        results.append(result)
        progress(result)

    while not started or left:
        trying = None
        with _Child(name, left, plan) as child:
            for message in child.messages(float(plan["timeout"])):
                if "usage" in message:
                    raise _USAGE.get(message["usage"], ValueError)(message["told"])
                if "head" in message:
                    head, left, started = (head if started else message["head"]), message["laws"], True
                trying = message.get("trying", trying)
                if left and "result" in message:
                    decided(Result(**message["result"]))
                    left, trying = [law for law in left if law != trying], None
        if child.fault and trying and left:
            decided(Result(trying, "error", note=f"{child.fault} while trying {trying}{child.example}"))
            left = [law for law in left if law != trying]
        elif child.fault or not started:  # nothing can be tried
            for law in left if left is not None else chosen(None, None):
                decided(Result(law, "error", note=f"{child.fault} before any law was tried"))
            break
    return Report(**head, results=results)


class _Child:
    """A process that checks, and what it says."""

    def __init__(self, name: str, laws: list[str] | None, plan: Mapping[str, Any]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="minibng-verify-")
        self._noted = Path(self._folder.name) / "example"
        request = json.dumps(
            {"name": name, "laws": laws, "plan": dict(plan), "path": sys.path, "note": str(self._noted)}
        )
        command = [sys.executable, "-c", "from minibng.verify.isolated import serve; serve()"]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            "PYTHONIOENCODING": "utf-8",
            "TMPDIR": self._folder.name,  # what is left there goes with the folder, however the child ends
        }
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=environment
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as pipe:
            pipe.write(request)
        self.fault, self.example = "", ""

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as pipe:
            for line in pipe:
                self._lines.put(line)
        self._lines.put(None)

    def messages(self, timeout: float) -> Iterator[dict[str, Any]]:
        """Yield what the child says, until it has ended or is silent for so long; then ``fault`` says so."""
        seconds = timeout + START
        while True:
            try:
                line = self._lines.get(timeout=seconds)
            except queue.Empty:
                self.fault = f"no answer within {seconds:g} s"
                return
            if line is None:
                code = self._process.wait()
                with contextlib.suppress(ValueError):
                    self.fault = f"the process ended with signal {-code} ({signal.Signals(-code).name})"
                self.fault = self.fault or f"the process ended with exit code {code}"
                return
            message: dict[str, Any] = json.loads(line)
            if "end" in message:
                return
            yield message
            seconds = 3 * timeout + SLACK

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        if self._noted.exists() and (text := self._noted.read_text(encoding="utf-8")):
            self.example = f" {text}"
        self._folder.cleanup()


def serve() -> None:
    """Do what the plan on standard input asks, law by law."""
    request = json.load(sys.stdin)
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.path[:] = request["path"]
    plan = request["plan"]

    def say(**message: Any) -> None:
        print(json.dumps(message), file=out, flush=True)

    try:
        prepared = report.prepare(request["name"], laws=request["laws"], **plan)
    except tuple(_USAGE.values()) as error:
        say(usage=type(error).__name__, told=str(error))
        os._exit(0)
    empty = prepared.empty()
    head = {k: getattr(empty, k) for k in ("target", "settings", "by_design", "withheld")}
    say(head=head, laws=prepared.laws)
    with open(request["note"], "w", encoding="utf-8") as note:

        def noting(law: Any, example: Any) -> None:
            note.seek(0)
            note.truncate()
            note.write(told_example(law, example))
            note.flush()

        for law in prepared.laws:
            say(trying=law)
            say(result=asdict(prepared.tried(law, noting)))
    say(end=True)
    os._exit(0)  # whatever threads the subject has left
