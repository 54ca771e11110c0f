import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibng.data import Vocabulary

WORDS = st.lists(st.sampled_from(["a", "b", "c", "dd", "é", "<eos>", "<unk>"]), max_size=60)


@given(WORDS, st.integers(1, 4), st.randoms())
def test_words_by_count_then_alphabet_whatever_their_order(tokens, least, random) -> None:
    made = Vocabulary.of(tokens, least)
    counts = Counter(token for token in tokens if token != "<unk>")
    assert made.words[0] == "<unk>" and made.unknown == 0
    assert set(made.words[1:]) == {word for word, count in counts.items() if count >= least}
    assert list(made.words[1:]) == sorted(made.words[1:], key=lambda word: (-counts[word], word))
    random.shuffle(tokens)
    assert Vocabulary.of(tokens, least) == made == pickle.loads(pickle.dumps(made))


@given(WORDS)
def test_encode_numbers_words_and_decode_joins_them(tokens) -> None:
    known = Vocabulary.of(["a", "b", "<eos>"], special=("<pad>", "<unk>"))
    numbers = known.encode(tokens)
    assert numbers.dtype == np.int64 and numbers.shape == (len(tokens),)
    assert [known.words[i] for i in numbers] == [token if token in known else "<unk>" for token in tokens]
    lines = " ".join(known.words[i] for i in numbers).split("<eos>")
    assert known.decode(numbers) == "\n".join(line.strip() for line in lines)


def test_special_words_come_first_and_are_there_always() -> None:
    made = Vocabulary.of(["b", "b", "<unk>", "<unk>", "<unk>", "a"], 2, special=("<pad>", "<unk>"))
    assert made.words == ("<pad>", "<unk>", "b") and (made.unknown, len(made)) == (1, 3)
    assert "b" in made and "a" not in made
    assert made.decode([]) == ""


def test_characters() -> None:
    made = Vocabulary.of("banana", special=(), joint="")
    assert made.words == ("a", "n", "b") and made.decode(made.encode("nab")) == "nab"
    assert Vocabulary(("\n", "x"), joint="").decode([1, 0, 0, 1]) == "x\n\nx"


def test_repr_is_short() -> None:
    assert repr(Vocabulary(tuple("abc"))) == "Vocabulary(3 words: 'a b c')"
    assert repr(Vocabulary(tuple("abcdefghij"))) == "Vocabulary(10 words: 'a b c d e f g h' …)"


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda: Vocabulary(()), ValueError, "a vocabulary needs at least one word"),
        (lambda: Vocabulary(("a", "b", "a")), ValueError, "'a' is in the vocabulary twice; each word has one number"),
        (lambda: Vocabulary.of("ab", 0), ValueError, "min_count must be at least 1; got 0"),
        (lambda: Vocabulary.of("ab", 1.5), TypeError, "min_count must be a whole number; got 1.5"),
        (
            lambda: Vocabulary(("a", "<unk>")).encode("a whole text of many words"),
            TypeError,
            "encode takes words, not a text: data.words('a whole text of many') cuts it up",
        ),
        (
            lambda: Vocabulary(("a", "b")).encode(["c"]),
            ValueError,
            "'c' is not in the vocabulary, which has no <unk>",
        ),
        (
            lambda: Vocabulary(("a", "b")).decode([0, 2]),
            IndexError,
            "no word has the number 2: the vocabulary has the numbers 0 to 1",
        ),
        (lambda: Vocabulary.of("a whole text"), TypeError, "tokens and special are words, not a text: data.words cuts"),
        (lambda: Vocabulary.of(["a"], special="<pad>"), TypeError, "tokens and special are words, not a text"),
        (lambda: Vocabulary(("a", "b")).decode([0.5]), TypeError, "decode takes the numbers of words, whole ones"),
        (lambda: Vocabulary(("a", "b")).decode([-1]), IndexError, "no word has the number -1: the vocabulary has"),
    ],
)
def test_errors(act, error, message) -> None:
    with pytest.raises(error) as caught:
        act()
    assert str(caught.value).startswith(message)
