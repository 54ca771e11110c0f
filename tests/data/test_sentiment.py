import dataclasses
import hashlib
import importlib.util
import io
import os
import subprocess
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from minibng import cli, data
from minibng.data import DownloadError, sentiment, table
from minibng.data.sentiment import LONGEST, RT_POLARITY, SNIPPETS, split_of_texts, tokens
from minibng.data.through_pip import SourceDistribution

PARTS = ("train", "val", "test")
EVIL = """
import os, pathlib
pathlib.Path({trace!r}).write_text("run")
from setuptools import setup
setup(name="vaderSentiment", version="0.5")
"""


def decoded(split):
    """All texts by part, as the words that they are of."""
    return {name: [split.vocabulary.decode(row[row > 0]).split() for row in getattr(split, name).x] for name in PARTS}


def scored(n=100):
    """A file of snippets, numbered and with scores, as the published one: half of them for, and every tenth neutral."""
    lines = []
    for i in range(n):
        score = 0.5 if i % 20 == 0 else -0.5 if i % 10 == 0 else (-1) ** i * (1 + i / n)
        lines.append(f"{i + 1}\t{score:.11g}\tSnippet no. {i}: it's not {'bad' if score > 0 else 'good'}, é!\r\n")
    return "".join(lines).encode()


def tar_gz(content):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, inside in (("hutto_ICWSM_2014/_README_.txt", b"hello"), (f"a/{SNIPPETS.files[0].name}", content)):
            info = tarfile.TarInfo(name)
            info.size = len(inside)
            archive.addfile(info, io.BytesIO(inside))
    return buffer.getvalue()


def sdist(content, setup=""):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("vaderSentiment-0.5/setup.py", setup)
        archive.writestr("vaderSentiment-0.5/PKG-INFO", "Metadata-Version: 1.1\nName: vaderSentiment\nVersion: 0.5\n")
        archive.writestr("vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz", tar_gz(content))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Isn't it?! It’s GREAT...", "is n't it ? ! it 's great ..."),
        ("can't won't 'quoted' ''twice''", "ca n't wo n't ' quoted ' '' twice ''"),
        ("cafe\u0301", "café"),
        ("rock'n'roll we've they'd", "rock ' n ' roll we 've they 'd"),
        ("Touché! 3–4 co_writer $5.50", "touché ! 3 – 4 co _ writer $ 5 . 50"),
        (" \t\r\n\xa0", ""),
    ],
)
def test_tokens(text, told) -> None:
    assert list(tokens(text)) == told.split()


def test_texts_are_divided_numbered_and_filled_up() -> None:
    texts = [f"word{i % 7} and number{i}".split() for i in range(200)]
    labels = [int(i % 4 == 0) for i in range(200)]
    split = split_of_texts(texts, labels, name="some", source="made here", val=10, test=20)
    words = split.vocabulary.words
    assert words[:2] == ("<pad>", "<unk>") and len(words) == 2 + 1 + 7, "what occurs once is unknown"
    assert [np.bincount(getattr(split, part).y).tolist() for part in PARTS] == [[105, 35], [15, 5], [30, 10]]
    assert split.train.x.shape == (140, 3) and (split.train.x[:, 2] == 1).all()
    assert split.source == "made here; 70 % training, 10 % validation, 20 % test of either label"
    counts = Counter(word for text in decoded(split)["train"] for word in text)
    assert list(words[2:]) == sorted(words[2:], key=lambda word: (-counts[word], word)), "counted in this part alone"


def test_empty_repeated_contradicted_and_very_long_texts() -> None:
    plain = [(f"a {i} b".split(), i % 2) for i in range(40)]
    long = (tokens("so " * 10**6), 1)
    twice = [(["a", "3", "b"], 1), (["so"] * LONGEST, 1)]  # what is cut off makes no difference
    against = [(["on", "the", "one", "hand"], 0), (["on", "the", "one", "hand"], 1)]
    texts, labels = zip(*plain, ([], 0), ([], 1), long, *twice, *against, strict=True)
    split = split_of_texts(texts, labels, name="some", source="made here")
    rows = np.concatenate([getattr(split, part).x for part in PARTS])
    assert rows.shape == (41, LONGEST) and (rows > 0).all(axis=1).sum() == 1
    with pytest.raises(ValueError, match="some has 1 negative and 2 positive texts, without empty and repeated ones"):
        split_of_texts(["a", "b", "c", "", "c"], [0, 1, 1, 0, 1], name="some", source="made here")


@pytest.mark.parametrize("pack", ["file", "file with mark", "tar.gz", "zip"])
def test_snippets_from_any_of_their_files(pack, tmp_path) -> None:
    content, name = scored(), SNIPPETS.files[0].name
    if pack == "tar.gz":
        content, name = tar_gz(content), "hutto_ICWSM_2014.tar.gz"
    elif pack == "zip":
        content, name = sdist(content), "vaderSentiment-0.5.zip"
    elif pack == "file with mark":
        content = b"\xef\xbb\xbf" + content.replace(b"\r\n", b"\n\n").removesuffix(b"\n\n")
    (tmp_path / name).write_bytes(content)
    split = data.load("sentiment", data_dir=tmp_path)
    assert sum(map(len, (split.train, split.val, split.test))) == 90, "those near zero are left out"
    for name, texts in decoded(split).items():
        assert [("good" in text, "bad" in text) for text in texts] == [
            (label == 0, label == 1) for label in getattr(split, name).y
        ]
    assert {"it", "'s", "not", "é", "!"} < set(split.vocabulary.words)
    assert split.class_names == ("negative", "positive") and "\n" not in split.source


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (scored() + b"101\tmany\tstars\r\n", r"line 101 is not number, score and text.*'101\\tmany\\tstars"),
        (scored() + b"just a sentence\r\n", "line 101 is not number, score and text"),
        (scored() + b"101\tnan\tstars\r\n", "line 101 is not number, score and text"),
        (scored() + "101\t2\tTouché".encode("latin-1"), r"is not in UTF-8: byte 0xe9 in line 101"),
        (scored(8), "too few for a training, a validation and a test part"),
        (b"", "has 0 negative and 0 positive texts"),
    ],
)
def test_damaged_snippets(content, told, tmp_path) -> None:
    (tmp_path / SNIPPETS.files[0].name).write_bytes(content)
    with pytest.raises(ValueError, match=told):
        data.load("sentiment", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (sdist(scored())[:-100], "zip cannot unpack it"),
        (b"PK but nothing else", "zip cannot unpack it"),
        (b"nothing at all", "tar cannot unpack it"),
        (
            sdist(scored()).replace(b"additional_resources/", b"additional_trifles__/").replace(b"hutto", b"otter"),
            "no hutto",
        ),
    ],
)
def test_damaged_archives(content, told, tmp_path) -> None:
    (tmp_path / "vaderSentiment-0.5.zip").write_bytes(content)
    with pytest.raises(ValueError, match=f"vaderSentiment-0.5.zip is damaged: .*{told}"):
        data.load("sentiment", data_dir=tmp_path)


def polarity(kind):
    return b"".join(f"a {kind} caf\xe9 , no . {i} \x85 \n".encode("latin-1") for i in range(20))


@pytest.mark.parametrize("where", ["", "rt_polarity", "rt-polaritydata", "archive", "utf-8"])
def test_sentence_polarity(where, tmp_path) -> None:
    inside = {f"rt-polarity.{ending}": polarity(kind) for ending, kind in (("neg", "dull"), ("pos", "fine"))}
    if where == "utf-8":
        inside = {name: content.decode("latin-1").encode() for name, content in inside.items()}
    if where == "archive":
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for name, content in inside.items():
                info = tarfile.TarInfo(f"rt-polaritydata/{name}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        inside = {"rt-polaritydata.tar.gz": buffer.getvalue()}
    folder = tmp_path / (where if where.startswith("rt") else "")
    folder.mkdir(exist_ok=True)
    for name, content in inside.items():
        (folder / name).write_bytes(content)
    split = data.load("rt_polarity", data_dir=tmp_path)
    texts = decoded(split)
    assert {name: len(found) for name, found in texts.items()} == {"train": 32, "val": 4, "test": 4}
    for name, found in texts.items():
        assert ["fine" in text for text in found] == (getattr(split, name).y == 1).tolist()
        assert all({"a", "café", "no", ".", ","} < set(text) for text in found)


def test_what_is_not_there_is_told(tmp_path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"there is no rt-polaritydata.tar.gz, rt-polarity.neg or rt-polarity.pos"
    ):
        data.load("rt_polarity", data_dir=tmp_path)
    (tmp_path / "rt-polarity.pos").write_bytes(polarity("fine"))
    with pytest.raises(FileNotFoundError, match=r"is incomplete: rt-polarity.neg is missing"):
        data.load("rt_polarity", data_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"there is no movieReview.*minibng data fetch sentiment"):
        data.load("sentiment", data_dir=tmp_path)


@pytest.fixture
def index(server, monkeypatch, tmp_path):
    """A package index with the source distribution, as pip knows one; its setup.py leaves a trace when it runs."""
    content, trace = scored(), tmp_path / "trace"
    archive = sdist(content, EVIL.format(trace=str(trace)))
    link = f'<a href="../../files/{sentiment.VADER.name}">{sentiment.VADER.name}</a>'
    server.content["simple/vadersentiment/"] = f"<!DOCTYPE html><html><body>{link}</body></html>".encode()
    server.content[f"files/{sentiment.VADER.name}"] = archive
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}simple/")
    wanted = SourceDistribution(*sentiment.VADER[:3], len(archive), hashlib.sha256(archive).hexdigest())
    monkeypatch.setattr(sentiment, "VADER", wanted)
    published = SNIPPETS.files[0]._replace(size=len(content), sha256=hashlib.sha256(content).hexdigest())
    what = dataclasses.replace(SNIPPETS, files=(published,), samples=(81, 9))
    monkeypatch.setattr(table, "DATASETS", {**table.DATASETS, "sentiment": table._published(what, "snippets")})
    monkeypatch.setattr("minibng.data.DATASETS", table.DATASETS)
    monkeypatch.setenv("MINIBNG_DATA", str(tmp_path / "downloads"))
    table._load_once.cache_clear()
    yield trace
    table._load_once.cache_clear()
    assert not trace.exists(), "nothing of the package was run"


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_pip_brings_the_snippets_and_runs_nothing_of_the_package(index, server, tmp_path, capsys) -> None:
    assert cli.main(["data", "fetch", "sentiment"]) == 0
    kept = tmp_path / "downloads" / "sentiment" / SNIPPETS.files[0].name
    assert kept.read_bytes() == scored() and everything(tmp_path / "downloads") == {f"sentiment/{kept.name}"}
    asked = server.asked.copy()
    assert data.is_here("sentiment") and len(data.load("sentiment").train) == 72
    assert cli.main(["data", "check", "sentiment"]) == 0 and server.asked == asked
    told = capsys.readouterr().out
    assert "as published" in told and "72 training, 9 validation, 9 test samples" in told and "  sound" in told


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        ("wrong", r"DO NOT MATCH THE HASHES"),
        ("other", "bytes arrived, the published file has|another checksum than the published"),
    ],
)
def test_what_pip_cannot_bring(trouble, told, index, server, monkeypatch, tmp_path) -> None:
    if trouble == "wrong":
        server.trouble[f"files/{sentiment.VADER.name}"] = "wrong"
    else:
        monkeypatch.setattr(SourceDistribution, "download", lambda self: sdist(scored(5)))
    with pytest.raises(DownloadError, match=f"^sentiment was not downloaded: .*({told})"):
        data.fetch("sentiment")
    assert everything(tmp_path / "downloads") == set()


def test_without_pip_or_network_it_says_what_to_do(index, monkeypatch, tmp_path) -> None:
    found = importlib.util.find_spec
    with monkeypatch.context() as without:
        without.setattr(importlib.util, "find_spec", lambda name: None if name == "pip" else found(name))
        with pytest.raises(DownloadError, match=r"through pip, which this Python does not have \(.* -m ensurepip"):
            data.fetch("sentiment")
    told = "WARNING: Retrying (…) after connection broken by 'x'\nERROR: Could not find a\n  version\n"
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 1, "", told))
    with pytest.raises(DownloadError) as caught:
        data.fetch("sentiment")
    assert "did not come through pip: Could not find a version; there was no connection" in str(caught.value)
    assert "Get vaderSentiment-0.5.zip another way" in str(caught.value) and "--data-dir" in str(caught.value)
    assert everything(tmp_path / "downloads") == set()


def test_the_archives_checksum_is_known_too(tmp_path, capsys) -> None:
    (tmp_path / "vaderSentiment-0.5.zip").write_bytes(sdist(scored()))
    assert cli.main(["data", "check", "sentiment", "--data-dir", str(tmp_path)]) == 1
    told = capsys.readouterr().out
    assert "differs from the published file" in told and "they are not all" in told
    assert {file.name for file in RT_POLARITY.known} == {"rt-polaritydata.tar.gz"}
