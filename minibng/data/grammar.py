"""Sentences that are for or against something, made by a small grammar instead of collected: synthetic data.

What a sentence says follows from its parts, exactly: a negation turns over what comes after it, of two clauses the one
after "but" counts, or the one without "although". Which words occur says little about that, their order says all.
"""

from collections.abc import Iterator, Sequence
from random import Random

from minibng.data.dataset import Split
from minibng.data.sentiment import split_of_texts

SEED = 20170715
"""What the data set is drawn from."""

SENTENCES = 3000

_WORDS = {
    "GOOD": """good great fine funny clever touching brilliant charming lovely gripping fresh honest moving witty superb
        delightful elegant thrilling wise warm tender vivid subtle bold sharp""",
    "BAD": """bad awful poor dull stupid boring terrible tedious ugly clumsy stale false shallow silly dreadful
        tiresome crude lifeless foolish cold bland messy obvious timid slow""",
    "ENJOYED": "liked loved enjoyed admired praised recommended",
    "ENDURED": "disliked hated regretted endured despised resented",
    "NOUN": """film plot cast story script music ending acting hero humour camera sound dialogue villain start pace
        director idea style tone""",
    "DEGREE": "very really so quite rather truly",
    "NOT": "not never hardly",
    "NEVER": "never hardly scarcely",
    "WHO": "i we they everyone critics people",
}
_RULES = {
    # symbol → (weight, parts) …: a part in capitals is another symbol, and "-" before it turns it over
    "SENTENCE": (
        (4, "CLAUSE ."),
        (2, "CLAUSE and CLAUSE ."),
        (2, "the NOUN is -PREDICATE but PREDICATE ."),
        (1, "-CLAUSE but CLAUSE ."),
        (1, "although -CLAUSE , CLAUSE ."),
        (1, "CLAUSE although -CLAUSE ."),
    ),
    "CLAUSE": (
        (4, "the NOUN is PREDICATE"),
        (2, "it is PREDICATE"),
        (2, "WHO OPINION the NOUN"),
    ),
    "PREDICATE": (
        (3, "QUALITY"),
        (3, "DEGREE QUALITY"),
        (2, "NOT -QUALITY"),
        (1, "NOT DEGREE -QUALITY"),
        (1, "anything but -QUALITY"),
    ),
    "OPINION": ((2, "VERDICT"), (1, "NEVER -VERDICT")),
}
_EITHER = {"QUALITY": ("BAD", "GOOD"), "VERDICT": ("ENDURED", "ENJOYED")}
"""Symbol → the words that it stands for where it is against, and for."""


def sentence(draw: Random, positive: bool, symbol: str = "SENTENCE") -> Iterator[str]:
    """Yield the words of a sentence, or of a part of one, that is for or against.

    Examples
    --------
    >>> " ".join(sentence(Random(4), positive=True))
    'the acting is great .'
    """
    if symbol in _RULES:
        forms = [form for weight, form in _RULES[symbol] for _ in range(weight)]
        for part in _one(draw, forms).split():
            if part.lstrip("-").isupper():
                yield from sentence(draw, positive != part.startswith("-"), part.lstrip("-"))
            else:
                yield part
    else:
        yield _one(draw, _WORDS[_EITHER[symbol][positive] if symbol in _EITHER else symbol].split())


def _one(draw: Random, of: Sequence[str]) -> str:
    """Return one of several, by the only method of Random whose numbers Python promises never to change."""
    return of[int(len(of) * draw.random())]


def sentences(n: int = SENTENCES, seed: int = SEED) -> tuple[list[tuple[str, ...]], list[int]]:
    """Return n different sentences and their labels, 0 (against) and 1 (for) in turn.

    The same for the same arguments on every machine: Python promises that for the numbers behind it.

    Examples
    --------
    >>> texts, labels = sentences(4)
    >>> for text, label in zip(texts, labels):
    ...     print(label, " ".join(text))
    0 the start is hardly warm .
    1 the idea is dull but not crude .
    0 it is stupid .
    1 the story is so stale but so sharp .
    """
    draw, found = Random(seed), dict[tuple[str, ...], int]()
    while len(found) < n:
        label = len(found) % 2
        found.setdefault(tuple(sentence(draw, bool(label))), label)
    return list(found), list(found.values())


def grammar() -> Split:
    """Return the data set: half of the sentences to train on, a fifth to choose by, the others to report.

    So few to train on that some mistakes remain, and enough to report to count them.
    """
    texts, labels = sentences()
    source = f"{len(texts)} sentences made by a small grammar of negation, degree and contrast (synthetic)"
    return split_of_texts(texts, labels, name="grammar", source=source, val=20, test=30)
