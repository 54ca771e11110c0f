"""Small data sets in the published formats, written without the package, and a server that sends them or fails to."""

import dataclasses
import gzip
import hashlib
import io
import socket
import struct
import tarfile
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from minibng.data import download, table

CLASSES = {"mnist": 10, "fashion_mnist": 10, "cifar10": 10, "cifar100": 100}


def idx_file(array):
    """An IDX file of bytes."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def cifar_file(images, *labels):
    """Records of label bytes and channel-major pixels, one at a time."""
    records = []
    for i, image in enumerate(images):
        planes = [image[:, :, c].tobytes() for c in range(3)]
        records.append(bytes(int(label[i]) for label in labels) + b"".join(planes))
    return b"".join(records)


def tar_file(folder, files, pack=True):
    """A tar archive with a folder, packed as the published ones are."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz" if pack else "w") as archive:
        inner = tarfile.TarInfo(folder)
        inner.type = tarfile.DIRTYPE
        archive.addfile(inner)
        for name, content in files.items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@dataclasses.dataclass
class Example:
    """A data set: what it holds, its plain files, its published files."""

    images: np.ndarray
    labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    plain: dict[str, bytes]
    files: dict[str, bytes]


def make_example(name):
    """Some hundred images of noise in random order; classes equally large but in MNIST; channels differ in mean."""
    rng = np.random.default_rng(list(CLASSES).index(name))
    classes = CLASSES[name]
    each = 20 if classes == 10 else 10
    colour = name.startswith("cifar")
    shape = (32, 32, 3) if colour else (28, 28, 1)

    def draw(n):
        counts = [n] * classes
        if name == "mnist":
            counts[3], counts[5] = n + n // 2, n - n // 2
        y = rng.permutation(np.repeat(np.arange(classes), counts)).astype(np.uint8)
        low = np.array([0, 60, 120])[: shape[-1]]
        return (low + rng.integers(0, 130, (len(y), *shape))).astype(np.uint8), y

    x, y = draw(each)
    test_x, test_y = draw(max(1, each // 5))
    if not colour:
        plain = {
            "train-images-idx3-ubyte": idx_file(x[..., 0]),
            "train-labels-idx1-ubyte": idx_file(y),
            "t10k-images-idx3-ubyte": idx_file(test_x[..., 0]),
            "t10k-labels-idx1-ubyte": idx_file(test_y),
        }
        return Example(x, y, test_x, test_y, plain, {f"{n}.gz": gzip.compress(f, 1) for n, f in plain.items()})
    if name == "cifar10":
        parts = np.array_split(np.arange(len(y)), 5)
        plain = {f"data_batch_{i}.bin": cifar_file(x[at], y[at]) for i, at in enumerate(parts, 1)}
        plain["test_batch.bin"] = cifar_file(test_x, test_y)
        plain["batches.meta.txt"] = "".join(f"{c}\n" for c in "CIFARfghij").encode() + b"\n"
        return Example(x, y, test_x, test_y, plain, {"cifar-10-binary.tar.gz": tar_file("cifar-10-batches-bin", plain)})
    plain = {"train.bin": cifar_file(x, y // 5, y), "test.bin": cifar_file(test_x, test_y // 5, test_y)}
    return Example(x, y, test_x, test_y, plain, {"cifar-100-binary.tar.gz": tar_file("cifar-100-binary", plain)})


@pytest.fixture(scope="session")
def examples():
    return {name: make_example(name) for name in CLASSES}


class Server(ThreadingHTTPServer):
    """Serves ``content`` by path; ``trouble`` says what goes wrong, ``asked`` counts requests."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.trouble, self.asked, self.hold = {}, {}, Counter(), None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, request, client_address):
        pass


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        server, path = self.server, self.path.lstrip("/")
        server.asked[path] += 1
        if server.hold is not None:
            server.hold.wait(10)
        body, trouble = server.content.get(path), server.trouble.get(path)
        if callable(trouble):
            trouble = trouble(server.asked[path])
        if body is None or trouble in (404, 503):
            return self.send_error(trouble or 404)
        if trouble == "wrong":
            body = body[:-1] + bytes([body[-1] ^ 1])
        elif trouble == "short":
            body = body[: len(body) // 2]
        elif trouble == "page":
            body = b"<html>please log in</html>"
        self.send_response(200)
        if path.endswith("/"):  # a page of a package index
            self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if trouble == "truncated":  # closes in good order, though it promised more
            body = body[: len(body) // 2]
        self.wfile.write(body if trouble != "gone" else body[: len(body) // 2])
        if trouble == "gone":  # a reset, as from a machine that went down
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        return None


@pytest.fixture
def server(monkeypatch):
    """A server of its own for the test."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "PAUSE", 0.0)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def small(examples, server, monkeypatch, tmp_path):
    """The table with the examples, on the server, as its downloads; returns the folder for them, which is empty."""
    entries = dict(table.DATASETS)
    for name, example in examples.items():
        remotes = []
        for file, content in example.files.items():
            path = f"{name}/{file}"
            server.content[path] = content
            digest = hashlib.sha256(content).hexdigest()
            remotes.append(download.Remote(file, len(content), digest, (server.url + path,)))
        samples = len(example.labels), len(example.test_labels)
        what = dataclasses.replace(entries[name].published, files=tuple(remotes), samples=samples)
        entries[name] = table._published(what, entries[name].about)
    monkeypatch.setattr(table, "DATASETS", entries)
    monkeypatch.setattr("minibng.data.DATASETS", entries)
    monkeypatch.setenv("MINIBNG_DATA", str(tmp_path / "downloads"))
    table._load_once.cache_clear()
    yield tmp_path / "downloads"
    table._load_once.cache_clear()
