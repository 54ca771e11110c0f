"""The command ``minibng data``, on small files in the published formats."""

import re
import sys

import numpy as np
import pytest

from minibng import cli, data
from minibng.cli.data import _contents


def run(capsys, *argv):
    """Return (exit code, standard output, standard error)."""
    try:
        code = cli.main(argv)
    except SystemExit as stop:
        code = stop.code
    return (code, *capsys.readouterr())


def test_list_tells_what_is_here(capsys, small) -> None:
    data.fetch("mnist")
    code, out, err = run(capsys, "data", "list")
    assert code == 0 and not err.strip().startswith("minibng")
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert all(name in lines for name in data.DATASETS)
    assert lines["mnist"].endswith("(download)  here") and lines["cifar10"].endswith("kB, not here")
    assert "here" not in lines["digits"] and f"downloads: in {small}" in out


def test_list_without_pooch(capsys, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pooch", None)
    monkeypatch.delenv("MINIBNG_DATA", raising=False)
    code, out, _ = run(capsys, "data", "list")
    assert code == 0 and "pip install 'minibng[experiments]'" in out and "cifar10" in out


def test_fetch_downloads_what_is_missing_and_check_finds_it_sound(capsys, server, small) -> None:
    code, out, err = run(capsys, "data", "fetch", "cifar10,mnist", "digits")
    assert (code, err) == (0, "")
    assert f"cifar10: sound, in {small / 'cifar10'}" in out and "digits: nothing to download" in out
    asked = dict(server.asked)
    code, out, _ = run(capsys, "data", "fetch", "cifar10")
    assert code == 0 and dict(server.asked) == asked
    code, out, _ = run(capsys, "data", "check", "cifar10", "mnist", "digits")
    assert code == 0 and out.count("as published") == 5 and out.count("  sound\n") == 3
    assert "cifar10: 180 training, 20 validation, 40 test samples\n  each 32×32×3, uint8, 10 classes\n" in out
    assert "samples of a class: 24 to 24" in out


def test_fetch_goes_on_after_a_failure_and_tells_it_by_the_exit_code(capsys, server, small) -> None:
    server.trouble["cifar10/cifar-10-binary.tar.gz"] = "wrong"
    code, out, err = run(capsys, "data", "fetch", "cifar10", "cifar100")
    assert code == 1 and "cifar100: sound" in out
    assert "minibng: cifar10 was not downloaded: " in err and "another checksum" in err and "Traceback" not in err
    with pytest.raises(data.DownloadError):
        cli.main(["data", "fetch", "cifar10", "--debug"])


def test_check_tells_what_is_missing_and_what_is_damaged(capsys, small) -> None:
    code, out, _ = run(capsys, "data", "check", "mnist")
    assert code == 1 and "mnist: not here; minibng data fetch mnist downloads it" in out
    folder = data.fetch("mnist")
    file = folder / "t10k-labels-idx1-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    code, out, _ = run(capsys, "data", "check", "mnist")
    assert code == 1 and "t10k-labels-idx1-ubyte.gz  1 kB, differs from the published file" in out
    assert "mnist: damaged; minibng data fetch mnist downloads it again" in out
    assert run(capsys, "data", "fetch", "mnist")[0] == 0 and run(capsys, "data", "check", "mnist")[0] == 0


def test_check_of_files_of_ones_own(capsys, examples, small, tmp_path) -> None:
    example, folder = examples["cifar10"], tmp_path / "mine"
    folder.mkdir()
    code, _, err = run(capsys, "data", "check", "cifar10", "--data-dir", str(folder))
    assert code == 1 and err.startswith("minibng: CIFAR-10 is not in") and "Traceback" not in err
    for name, content in example.plain.items():
        (folder / name).write_bytes(content)
    code, out, _ = run(capsys, "data", "check", "cifar10", "--data-dir", str(folder))
    assert code == 0 and out.count("unpacked, no checksum is published") == 6 and out.endswith("  sound\n")
    (folder / "test_batch.bin").write_bytes(example.plain["test_batch.bin"][: 10 * 3073])
    data.table._load_once.cache_clear()
    code, out, _ = run(capsys, "data", "check", "cifar10", "--data-dir", str(folder))
    assert code == 1 and "CIFAR-10 has 200 training and 40 test samples,\n  and these are 200 and 10" in out


def test_check_of_texts_tells_sizes_vocabulary_and_perplexities(capsys) -> None:
    code, out, _ = run(capsys, "data", "check", "pydoc", "pydoc_chars")
    assert code == 0 and out.count("  sound\n") == 2
    number, rate = r"\d+", r"\d\.\d%"
    for name, what in (("pydoc", "words"), ("pydoc_chars", "characters")):
        one, two = (f(data.load(name))["test"] for f in (data.unigram_perplexity, data.bigram_perplexity))
        lines = (
            f"{name}: {number} training, {number} validation, {number} test tokens, one text",
            f"  each one of {number} {what}, int64",
            f"  unknown: {rate} of training, {rate} of validation, {rate} of test",
            f"  test perplexity of counts: {one:.1f} of single ones, {two:.1f} of pairs",
        )
        assert re.search("^" + "\n".join(lines) + "$", out, re.M), out


def test_what_fills_up_sentences_is_no_word_of_which_some_share_is_unknown() -> None:
    part = data.Dataset(np.array([[1, 2, 0, 0]]), [0], 2)
    split = data.Split(part, part, part, "two words", 2, "", vocabulary=data.Vocabulary(("<pad>", "<unk>", "a")))
    assert "unknown: 50.0% of training, 50.0% of validation, 50.0% of test" in _contents(split)


def test_check_of_ptb_knows_how_many_words_there_are(capsys, tmp_path) -> None:
    data.table._load_once.cache_clear()
    for part in ("train", "valid", "test"):
        (tmp_path / f"ptb.{part}.txt").write_text(" a line of words \n" * 3)
    code, out, _ = run(capsys, "data", "check", "ptb", "--data-dir", str(tmp_path))
    assert code == 1 and out.count("differs from the published file") == 3
    assert "PTB has 1003347 training and 82429 test samples,\n  and these are 28 and 14" in out


def test_fetch_to_a_folder_of_ones_own(capsys, small, tmp_path) -> None:
    mine = tmp_path / "mine"
    assert run(capsys, "data", "fetch", "cifar100", "--data-dir", str(mine))[0] == 0
    assert [path.name for path in (mine / "cifar100").iterdir()] == ["cifar-100-binary.tar.gz"]
    assert run(capsys, "data", "check", "cifar100", "--data-dir", str(mine))[0] == 0
    assert not small.exists()


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ((), "the following arguments are required: ACTION"),
        (("ftch", "mnist"), "unknown action 'ftch'; did you mean 'fetch'?"),
        (("fetch",), "the following arguments are required: NAME"),
        (("fetch", "cifar"), "unknown data set 'cifar'; did you mean 'cifar10'?"),
        (("check", "mnist", "--dir", "x"), "unrecognized arguments: --dir"),
        (("list", "--all"), "minibng data list: error: unrecognized arguments: --all"),
    ],
)
def test_bad_usage_exits_with_2(capsys, argv, told) -> None:
    code, _, err = run(capsys, "data", *argv)
    assert code == 2 and told in err and "Traceback" not in err


def test_help_has_examples(capsys) -> None:
    for argv in (("data", "-h"), ("data", "fetch", "-h"), ("data", "check", "-h")):
        code, out, _ = run(capsys, *argv)
        assert code == 0 and "minibng data fetch cifar10" in out and "MINIBNG_DATA" in out
