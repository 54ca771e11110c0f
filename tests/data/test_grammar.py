import hashlib

import numpy as np

from minibng import data
from minibng.data.grammar import sentences

WORDS = {
    True: """good great fine funny clever touching brilliant charming lovely gripping fresh honest moving witty superb
        delightful elegant thrilling wise warm tender vivid subtle bold sharp
        liked loved enjoyed admired praised recommended""",
    False: """bad awful poor dull stupid boring terrible tedious ugly clumsy stale false shallow silly dreadful tiresome
        crude lifeless foolish cold bland messy obvious timid slow
        disliked hated regretted endured despised resented""",
}
GOOD, BAD = (set(WORDS[kind].split()) for kind in (True, False))
TURNS = {"not", "never", "hardly", "scarcely", "anything"}


def verdict(clause):
    """What one clause says, by counting what turns its one word of judgement over."""
    (word,) = [w for w in clause if w in GOOD | BAD]
    return (word in GOOD) != bool(sum(w in TURNS for w in clause) % 2)


def meaning(words):
    """What a sentence says, read from left to right by someone who knows no grammar of ours; it must be consistent."""
    *words, end = words
    assert end == "."
    cut = [i for i, w in enumerate(words) if w in ("although", "and") or (w == "but" and words[i - 1] != "anything")]
    if not cut:
        return verdict(words)
    (at,) = cut
    if words[at] == "although" and at == 0:
        comma = words.index(",")
        decides, yields = words[comma + 1 :], words[1:comma]
    elif words[at] == "although":
        decides, yields = words[:at], words[at + 1 :]
    else:
        decides, yields = words[at + 1 :], words[:at]
    assert (verdict(yields) == verdict(decides)) == (words[at] == "and")
    return verdict(decides)


def test_labels_are_what_the_sentences_say() -> None:
    texts, labels = sentences(2000, seed=1)
    assert [meaning(text) for text in texts] == [bool(label) for label in labels]
    assert len(set(texts)) == 2000 and sum(labels) == 1000
    assert {w for text in texts for w in text} > GOOD | BAD | TURNS


def test_words_alone_say_little_and_the_data_are_split_as_told() -> None:
    split = data.load("grammar")
    assert [len(part) for part in (split.train, split.val, split.test)] == [1500, 600, 900]
    assert (split.classes, split.class_names, split.train.x.dtype) == (2, ("negative", "positive"), np.int64)
    everything = np.concatenate([part.x for part in (split.train, split.val, split.test)])
    assert len(np.unique(everything, axis=0)) == 3000, "no sentence is in two parts"
    assert (everything != 1).all(), "no word of this small language is unknown"
    positive = split.train.y == 1
    for number in range(2, len(split.vocabulary)):
        with_it = (split.train.x == number).any(axis=1)
        if with_it.sum() > 100:
            assert 0.3 < positive[with_it].mean() < 0.7
    assert "synthetic" in split.source and "\n" not in split.source


def test_the_same_sentences_on_every_machine() -> None:
    texts, _ = sentences()
    digest = hashlib.sha256("\n".join(" ".join(text) for text in texts).encode()).hexdigest()
    assert digest == "d408261078c231aaa525444ec8b49367c0bea0fb0123a0496ec96c680ad941b8"
    assert sentences(50)[0] == texts[:50] != sentences(50, seed=3)[0]
