"""Texts: what becomes of their characters, which part they go to, and files as people have them."""

import codecs
import platform
import re
import unicodedata
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibng import data
from minibng.data import table
from minibng.data.text import interleaved, language, pydoc, read_text, words
from minibng.names import UnknownNameError

PARTS = ("train", "val", "test")
LINES = "".join(f"line {i} of a text that goes on\n" for i in range(400))


def tokens(split, part) -> list[str]:
    """The words of a part, the first x and all y."""
    dataset = getattr(split, part)
    numbers = np.concatenate([dataset.x[:1], dataset.y])
    return [split.vocabulary.words[i] for i in numbers]


def same(a, b) -> bool:
    return a.vocabulary == b.vocabulary and all(tokens(a, part) == tokens(b, part) for part in PARTS)


# Words ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The cat, THE dog.", "the cat , the dog . <eos>"),
        ("don't 'quote' it’s", "don't ' quote ' it’s <eos>"),
        ("f((x)) [i] {}", "f ( ( x ) ) [ i ] { } <eos>"),
        ("a == b; x **= 2; ... -----", "a == b ; x ** = 2 ; ... --- <eos>"),
        ("__init__ x1 3.14 50%", "__init__ x1 3 . 14 50 % <eos>"),
        ("\n\n one \n \t\n\ntwo\nthree\n\n", "one <eos> two <eos> three <eos>"),
        ("no end of a line", "no end of a line <eos>"),
        ("Été naïve Straße Ωmega", "été naïve straße ωmega <eos>"),
        ("cafe\u0301", "caf\u00e9 <eos>"),
        ("a\u00a0b\u2003c\x0cd", "a b c d <eos>"),
        ("Москва 東京 😀😀", "москва 東京 😀😀 <eos>"),
        ("", ""),
        (" \n\t \n", ""),
    ],
)
def test_words(text, expected) -> None:
    assert list(words(text)) == expected.split()


def squeezed(text) -> str:
    return re.sub(r"([^\w\s])\1+", r"\1", re.sub(r"\s", "", text))


@given(st.text(st.characters(codec="utf-8"), max_size=80))
def test_words_lose_nothing_but_space_repetition_and_case(text) -> None:
    found = list(words(text))
    kept = "".join(word for word in found if word != "<eos>")
    assert squeezed(kept) == squeezed(unicodedata.normalize("NFC", text).lower())
    assert not any(re.search(r"\s", word) for word in found) and (not found or found[-1] == "<eos>")


# Parts ----------------------------------------------------------------------------------------------------------------


def test_each_line_is_whole_in_one_part_and_parts_are_from_everywhere() -> None:
    parts = [part.splitlines() for part in interleaved(LINES)]
    assert sorted(chain(*parts)) == sorted(LINES.splitlines())
    for part, share in zip(parts, (0.8, 0.1, 0.1), strict=True):
        places = [int(line.split()[1]) for line in part]
        assert places == sorted(places) and len(part) == pytest.approx(400 * share, rel=0.1)
        assert np.histogram(places, 5, (0, 400))[0].min() > 0.5 * len(part) / 5


def test_of_ten_stretches_the_fifth_is_for_validation_and_the_tenth_for_the_test() -> None:
    train, val, test = interleaved("".join(digit * 100 for digit in "0123456789"))
    assert (val, test) == ("4" * 100, "9" * 100) and train == "".join(digit * 100 for digit in "01235678")
    far = interleaved(LINES + "\n\nthe only paragraph")  # no stretch is as long as all of the lines
    assert [len(part) / len(LINES) for part in far] == pytest.approx([0.8, 0.1, 0.1], abs=0.02)


def test_paragraphs_stay_whole_where_there_are_any() -> None:
    paragraphs = [f"of {i}\nis the\nsecond {i}" for i in range(500)]
    found = [part.strip("\n").split("\n\n") for part in interleaved("\n\n".join(paragraphs))]
    assert sorted(chain(*found)) == sorted(paragraphs)


@given(st.text("ab \n", max_size=2000))
def test_the_parts_are_the_text(text) -> None:
    assert sorted("".join(interleaved(text))) == sorted(text)


def test_a_line_of_ten_megabytes_is_cut_between_words_and_one_without_spaces_anywhere() -> None:
    line = "eight88 " * 1_250_000
    parts = interleaved(line)
    assert [len(part) / 1e6 for part in parts] == pytest.approx([8, 1, 1], abs=1e-4)
    assert all(part == "eight88 " * (len(part) // 8) for part in parts)
    assert [len(part) for part in interleaved("x" * 10_000_000)] == [8_000_000, 1_000_000, 1_000_000]


# Files ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (LINES.encode(), None),
        (codecs.BOM_UTF8 + LINES.encode(), None),
        (codecs.BOM_UTF8 + LINES.encode(), "utf-8"),
        (LINES.replace("\n", "\r\n").encode(), None),
        (LINES.replace("\n", "\r").encode(), None),
        (LINES.removesuffix("\n").encode(), None),
        (LINES.encode("utf-16"), "utf-16"),
    ],
    ids=["plain", "bom", "bom named", "windows", "old mac", "no final newline", "utf-16"],
)
def test_the_same_text_in_other_forms_is_the_same_data_set(tmp_path, content, encoding) -> None:
    (tmp_path / "form.txt").write_bytes(content)
    (tmp_path / "plain.txt").write_bytes(LINES.encode())
    made, plain = data.text_file(tmp_path / "form.txt", encoding=encoding), data.text_file(tmp_path / "plain.txt")
    assert same(made, plain) and made.train.x.dtype == made.train.y.dtype == np.int64
    assert (made.name, made.classes) == ("form.txt", len(made.vocabulary)) and str(tmp_path) not in made.source


def test_y_is_the_next_token_and_nobody_can_write_to_them(tmp_path) -> None:
    (tmp_path / "a.txt").write_text(LINES)
    for level in ("word", "character"):
        split = data.text_file(tmp_path / "a.txt", level=level)
        for part in PARTS:
            dataset = getattr(split, part)
            np.testing.assert_array_equal(dataset.x[1:], dataset.y[:-1])
            assert not dataset.x.flags.writeable and not dataset.x.base.flags.writeable


def test_characters_are_the_text_itself(tmp_path) -> None:
    (tmp_path / "a.txt").write_text(text := LINES + "Ä\t!\n" * 300, encoding="utf-8")
    split = data.text_file(tmp_path / "a.txt", level="character")
    assert ["".join(tokens(split, part)) for part in PARTS] == list(interleaved(text))
    assert split.vocabulary.decode(split.train.x[:20]) == LINES[:20]


def test_the_vocabulary_knows_the_training_part_only() -> None:
    texts = ("a a b b c rare", "a c new", "b newer newer newer")
    split = language(texts, str.split, name="three", source="made here")
    assert split.vocabulary.words == ("<unk>", "a", "b")
    assert tokens(split, "train") == ["a", "a", "b", "b", "<unk>", "<unk>"]
    assert tokens(split, "val") == ["a", "<unk>", "<unk>"] and tokens(split, "test") == ["b", *["<unk>"] * 3]
    assert len(language(texts, str.split, name="three", source="", min_count=1).vocabulary) == 5


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        (b"", {}, "a.txt has 0 characters: for three parts it takes at least 1000"),
        (b"one two three\n", {}, "a.txt has 14 characters: for three parts it takes at least 1000"),
        (b" \n\n \n" * 900, {}, "a.txt is too short: its training part has 0 words or characters, not even 2"),
        (
            b"ok\nol\xe9 ol\xe9\n",
            {},
            r"a.txt is not in UTF-8: byte 0xe9 in line 2 \(.*\); save it in UTF-8, or in Python name its enc",
        ),
        ("olé".encode() * 9, {"encoding": "ascii"}, r"a.txt is not in ascii: byte 0xc3 in line 1"),
        (
            b"plain",
            {"encoding": "latin-one"},
            "a.txt cannot be read: unknown encoding: latin-one; UTF-8 and Latin-1 are",
        ),
        (b"a\nb\0c", {}, r"a.txt is no text: there is a NUL in line 2; or it is UTF-16: encoding='utf-16'"),
        (
            LINES.encode(),
            {"min_count": 10**6},
            "no word of a.txt occurs 1000000 times in its training part: lower min_",
        ),
        (LINES.encode(), {"min_count": 0}, "min_count must be at least 1; got 0"),
    ],
)
def test_files_that_are_no_text_are_refused(tmp_path, content, settings, message) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        data.text_file(tmp_path / "a.txt", **settings)


def test_other_errors(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.txt"):
        data.text_file(tmp_path / "none.txt")
    with pytest.raises(UnknownNameError, match="unknown level 'words'; did you mean 'word'"):
        data.text_file(tmp_path, level="words")
    with pytest.raises(ValueError, match="is a folder; name a text file"):
        read_text(tmp_path)


# The form of PTB ------------------------------------------------------------------------------------------------------

THREE = {
    "train": " the <unk> cat 's N dogs \n the cat sat \n",
    "valid": " the mat \n\n",
    "test": " the cat , Unseen",
}


def write_three(folder, form="ptb.{}.txt") -> None:
    folder.mkdir(exist_ok=True)
    for part, text in THREE.items():
        (folder / form.format(part)).write_text(text)


@pytest.mark.parametrize("form", ["ptb.{}.txt", "{}.txt", "wiki.{}.tokens"])
def test_three_texts(tmp_path, form, monkeypatch) -> None:
    write_three(tmp_path, form)
    monkeypatch.chdir(tmp_path)
    assert data.text_file(".").name == tmp_path.name
    split = data.text_file(tmp_path)
    assert tokens(split, "train") == ["the", "<unk>", "cat", "'s", "N", "dogs", "<eos>", "the", "cat", "sat", "<eos>"]
    assert tokens(split, "val") == ["the", "<unk>", "<eos>", "<eos>"], "an empty line ends too"
    assert tokens(split, "test") == ["the", "cat", "<unk>", "<unk>", "<eos>"]
    assert split.vocabulary.words[0] == "<unk>" and split.classes == 8 and split.name == tmp_path.name
    characters = data.text_file(tmp_path, level="character")
    assert "".join(tokens(characters, "train")) == THREE["train"]


def test_ptb_from_a_folder(tmp_path, monkeypatch) -> None:
    table._load_once.cache_clear()
    write_three(tmp_path / "ptb")
    for folder in (tmp_path, tmp_path / "ptb"):
        split = data.load("ptb", data_dir=folder)
        assert split.name == "ptb" and len(split.train) == 10 and "Penn Treebank" in split.source
    monkeypatch.setenv("MINIBNG_DATA", str(tmp_path / "downloads"))
    assert not data.is_here("ptb")


def test_texts_that_are_missing_are_named(tmp_path) -> None:
    write_three(tmp_path)
    (tmp_path / "ptb.valid.txt").unlink()
    for act in (lambda: data.text_file(tmp_path), lambda: data.load("ptb", data_dir=tmp_path)):
        with pytest.raises(
            FileNotFoundError, match=r"not all three.*: ptb.train.txt and ptb.test.txt, no ptb.valid.txt"
        ):
            act()
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="minibng data fetch ptb --data-dir"):
        data.load("ptb", data_dir=tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match=r"no three texts in .*called ptb\.train\.txt, ptb\.val"):
        data.text_file(tmp_path / "empty")


# The language reference -----------------------------------------------------------------------------------------------


def test_pydoc_is_dealt_out_by_topics_and_nothing_is_in_two_parts() -> None:
    from pydoc_data.topics import topics

    split = data.load("pydoc_chars")
    texts = ["".join(tokens(split, part)) for part in PARTS]
    paragraphs = [[" ".join(p.split()) for p in re.split(r"\n\s*\n", text) if p.strip()] for text in texts]
    known = ["".join(c if c in split.vocabulary else "<unk>" for c in text) for text in topics.values()]
    whole = {" ".join(p.split()) for text in known for p in re.split(r"\n\s*\n", text) if p.strip()}
    assert sorted(chain(*paragraphs)) == sorted(whole), "each paragraph is in one part, once"
    assert [len(text) / sum(map(len, texts)) for text in texts] == pytest.approx([0.8, 0.1, 0.1], abs=0.01)
    heads = [[head for head in re.findall(r"^(.+)\n\*{4,}$", text, re.M)] for text in texts]
    assert min(map(len, heads)) >= 5, "each part has topics of its own"
    assert platform.python_version() in split.source


def test_pydoc_at_the_level_of_words() -> None:
    split = data.load("pydoc")
    assert (split.name, split.classes) == ("pydoc", len(split.vocabulary)) and 1500 < split.classes < 3500
    assert split.vocabulary.words[0] == "<unk>" and {"<eos>", "the", "(", "class"} <= set(split.vocabulary.words[:100])
    unknown = [float((getattr(split, part).x == 0).mean()) for part in PARTS]
    assert 0.01 < unknown[0] < 0.03 and max(unknown[1:]) < 0.12
    assert same(split, pydoc()) and split.train.x.shape[0] > 50_000
