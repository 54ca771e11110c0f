import hashlib
import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from minibng import data
from minibng.data import DownloadError, download
from minibng.data.download import Remote
from minibng.extras import MissingExtraError

CONTENT = bytes(range(256)) * 600


def remote(server, name="file.bin", content=CONTENT, paths=None):
    """A file on the server."""
    for path in paths or [name]:
        server.content[path] = content
    urls = tuple(server.url + path for path in paths or [name])
    return Remote(name, len(content), hashlib.sha256(content).hexdigest(), urls)


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def let_it_answer(server) -> None:
    """Wait for the first request, a moment more for others, then let the server answer."""
    deadline = time.monotonic() + 30
    while not server.asked and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    server.hold.set()


def test_a_file_arrives_whole_and_a_second_call_asks_nobody(server, tmp_path) -> None:
    file, folder = remote(server), tmp_path / "a" / "set"
    assert download.fetch("set", [file], folder) == folder
    assert (folder / "file.bin").read_bytes() == CONTENT
    download.fetch("set", [file], folder)
    assert server.asked == {"file.bin": 1} and everything(tmp_path) == {"a/set/file.bin"}
    if os.name == "posix":
        mask = os.umask(0)
        os.umask(mask)
        assert (folder / "file.bin").stat().st_mode & 0o777 == 0o666 & ~mask, "others may read it, as other files"


BROKEN = [
    ("truncated", "the connection broke off before the end", 3),
    ("gone", "the connection broke off before the end", 3),
    ("short", f"{len(CONTENT) // 2} bytes arrived, the published file has {len(CONTENT)}", 3),
    ("page", "26 bytes arrived, the published file has", 3),
    ("wrong", "what arrived has another checksum than the published file", 1),
    (404, "the server answers 404 Not Found", 1),
    (503, "the server answers 503 Service Unavailable", 3),
]


@pytest.mark.parametrize(("trouble", "told", "attempts"), BROKEN, ids=[str(case[0]) for case in BROKEN])
def test_what_goes_wrong_is_told_and_leaves_nothing_and_a_later_attempt_works(
    trouble, told: str, attempts: int, server, tmp_path
) -> None:
    good, bad = remote(server, "good.bin", b"good"), remote(server)
    server.trouble["file.bin"] = trouble
    with pytest.raises(DownloadError) as caught:
        download.fetch("set", [good, bad], tmp_path)
    message = str(caught.value)
    assert message.startswith(f"set was not downloaded: {bad.urls[0]}: {told}")
    assert "Nothing incomplete was kept. Try again later, or get file.bin another way" in message
    assert "--data-dir" in message
    assert server.asked["file.bin"] == attempts
    assert everything(tmp_path) == {"good.bin"}
    del server.trouble["file.bin"]
    download.fetch("set", [good, bad], tmp_path)
    assert everything(tmp_path) == {"good.bin", "file.bin"} and server.asked["good.bin"] == 1


@pytest.mark.parametrize("trouble", ["truncated", "gone", "short", 503])
def test_a_trouble_that_passes_is_not_told(trouble, server, tmp_path) -> None:
    file = remote(server)
    server.trouble["file.bin"] = lambda n: trouble if n == 1 else None
    download.fetch("set", [file], tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT and server.asked["file.bin"] == 2


@pytest.mark.parametrize("trouble", [404, "wrong", "gone"])
def test_the_second_address_is_asked_where_the_first_fails(trouble, server, tmp_path) -> None:
    file = remote(server, paths=["one/file.bin", "two/file.bin"])
    server.trouble["one/file.bin"] = trouble
    download.fetch("set", [file], tmp_path)
    assert server.asked == {"one/file.bin": 1, "two/file.bin": 1}
    server.trouble["two/file.bin"] = 404
    with pytest.raises(DownloadError) as caught:
        download.fetch("set", [file], tmp_path / "other")
    assert all(url in str(caught.value) for url in file.urls), "each address is told with its trouble"


def test_no_network_is_told(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "PAUSE", 0.0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    file = Remote("file.bin", 3, "0" * 64, (f"http://127.0.0.1:{port}/file.bin",))
    with pytest.raises(DownloadError, match="there is no connection"):
        download.fetch("set", [file], tmp_path)
    assert everything(tmp_path) == set()


def test_too_little_space_is_told_before_anything_is_asked(server, monkeypatch, tmp_path) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DownloadError) as caught:
        download.fetch("set", [remote(server)], tmp_path)
    assert "is full (154 kB are needed, 1 kB are free)" in str(caught.value) and "MINIBNG_DATA" in str(caught.value)
    assert not server.asked and everything(tmp_path) == set()


def test_a_disk_that_fills_up_on_the_way_is_told_and_leaves_nothing(server, tmp_path) -> None:
    """The system itself refuses to write more, as it does where the disk is full."""
    file, before = remote(server), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(DownloadError) as caught:
            download.fetch("set", [file], tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert f"the disk of {tmp_path} is full" in str(caught.value) and "MINIBNG_DATA" in str(caught.value)
    assert server.asked["file.bin"] == 1, "to ask again would not help"
    assert everything(tmp_path) == set()
    download.fetch("set", [file], tmp_path)


def test_a_folder_that_cannot_be_written_to_is_told(server, monkeypatch, tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DownloadError, match=r"cannot write to .*; name a folder of yours by .* MINIBNG_DATA"):
        download.fetch("set", [remote(server)], tmp_path / "file" / "set")

    def denied(path, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", denied)
    with pytest.raises(DownloadError, match="Permission denied"):
        download.fetch("set", [remote(server)], tmp_path / "other")
    assert not server.asked


def test_ctrl_c_leaves_nothing(server, monkeypatch, tmp_path) -> None:
    import pooch

    def interrupted(self, url, output_file, pooch):
        Path(output_file).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        download.fetch("set", [remote(server)], tmp_path)
    assert everything(tmp_path) == set()


def test_what_a_killed_process_left_is_swept_away(server, tmp_path) -> None:
    (tmp_path / ".file.bin.12345.part").write_bytes(b"half")
    download.fetch("set", [remote(server)], tmp_path)
    assert everything(tmp_path) == {"file.bin"}


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:-1] + b"?", lambda b: b""])
def test_a_damaged_file_is_replaced(damage, server, tmp_path) -> None:
    (tmp_path / "file.bin").write_bytes(damage(CONTENT))
    download.fetch("set", [remote(server)], tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_threads_that_want_the_same_at_once_get_it_by_one_download(server, tmp_path) -> None:
    file, errors = remote(server), []
    server.hold = threading.Event()

    def want():
        try:
            download.fetch("set", [file], tmp_path)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=want) for _ in range(4)]
    for thread in threads:
        thread.start()
    let_it_answer(server)
    for thread in threads:
        thread.join()
    assert not errors and server.asked == {"file.bin": 1} and everything(tmp_path) == {"file.bin"}


@pytest.mark.processes
def test_processes_that_want_the_same_at_once_get_it_by_one_download(server, tmp_path) -> None:
    file = remote(server)
    server.hold = threading.Event()
    program = (
        "import sys; from pathlib import Path; from minibng.data import download\n"
        f"print('ready', flush=True); download.fetch('set', [download.{file!r}], Path({str(tmp_path)!r}))"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    for process in started:
        process.stdout.readline()
    let_it_answer(server)
    told = [process.communicate(timeout=60)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], told
    assert server.asked == {"file.bin": 1} and everything(tmp_path) == {"file.bin"}


def test_without_locks_each_brings_its_own_and_the_file_is_whole(server, monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    download.fetch("set", [remote(server)], tmp_path)
    assert everything(tmp_path) == {"file.bin"}


def test_what_is_there_needs_neither_pooch_nor_permission_to_write(server, monkeypatch, tmp_path) -> None:
    file = remote(server)
    (tmp_path / "file.bin").write_bytes(CONTENT)
    monkeypatch.setitem(sys.modules, "pooch", None)
    monkeypatch.setattr(Path, "mkdir", lambda *args, **kwargs: pytest.fail("nothing is to be made"))
    assert download.fetch("set", [file], tmp_path) == tmp_path


def test_without_pooch_it_says_what_to_install(server, monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(MissingExtraError, match=r"the download of set needs pooch.*minibng\[experiments\]"):
        download.fetch("set", [remote(server)], tmp_path)
    monkeypatch.delenv("MINIBNG_DATA", raising=False)
    with pytest.raises(MissingExtraError, match=r"unless MINIBNG_DATA names it\) needs pooch"):
        download.downloads()
    assert not data.is_here("cifar10") and data.is_here("digits")


def test_the_folder_for_downloads(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("MINIBNG_DATA", str(tmp_path))
    assert download.downloads() == tmp_path
    monkeypatch.setenv("MINIBNG_DATA", "~/sets")
    assert download.downloads() == Path.home() / "sets"
    monkeypatch.setenv("MINIBNG_DATA", "")
    assert download.downloads().name == "minibng"


def test_a_file_without_a_bar_is_announced(server, caplog, tmp_path) -> None:
    download.fetch("set", [remote(server)], tmp_path)
    assert caplog.messages == [f"downloading file.bin (154 kB) to {tmp_path}"]


def test_a_terminal_gets_a_bar(server, monkeypatch, capsys, caplog, tmp_path) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    download.fetch("set", [remote(server)], tmp_path)
    assert "100%" in capsys.readouterr().err and not caplog.messages


def test_published_files_have_well_formed_entries() -> None:
    for name, entry in data.DATASETS.items():
        assert bool(entry.files) == ("(download)" in entry.about)
        for file in entry.files:
            assert len(bytes.fromhex(file.sha256)) == 32 and file.size > 4000, name
            assert len(file.urls) == 2 or file.bring is not None
            assert all(url.endswith("/" + file.name) for url in file.urls)
