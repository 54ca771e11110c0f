import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB

import minibng as bng
from minibng import data, nn, optim
from minibng.experiments import EXPERIMENTS, SENTIMENT, sentiment
from minibng.experiments.declaration import Job, combine
from minibng.names import UnknownNameError

SETTING = combine(SENTIMENT.axes_of(False))[0] | {"dim": 6, "maps": 4, "samples": 100}


def test_a_job_is_the_loop_written_out():
    history = sentiment.train_one(Job(SETTING | {"max_norm": 0.2}, "adam-ng", 0.1, seed=3, epochs=2, batch=50))
    split = data.load("grammar")
    model = nn.models.textcnn(len(split.vocabulary), 6, maps=4, dropout=0.5)
    params = model.init(seed=3)
    opt = optim.AdamNG(params, lr=0.1)
    step, losses = bng.value_and_grad(lambda p, x, y: nn.cross_entropy(model(p, x, train=True), y)), []
    for epoch in range(2):
        for x, y in data.batches(split.train.take(100), 50, seed=3, epoch=epoch):
            value, grad = step(params, x, y)
            losses.append(float(value))
            opt.step(grad)
            norms = np.linalg.norm(params["head.W"], axis=0)
            params["head.W"][...] *= np.minimum(1, 0.2 / norms).astype("float32")
    assert history.step_losses == pytest.approx(losses, rel=1e-6) and len(losses) == 4
    free = sentiment.train_one(Job(SETTING, "adam-ng", 0.1, seed=3, epochs=2, batch=50))
    assert abs(free.step_losses[-1] - losses[-1]) > 1e-4, "the limit does something"


def test_an_lstm_is_the_other_model():
    setting = SETTING | {"model": "lstm", "dropout": 0.0}
    assert "RecurrentClassifier" in sentiment.describe(setting) and "TextCNN" in sentiment.describe(SETTING)
    history = sentiment.train_one(Job(setting, "adam", 0.01, seed=0, epochs=1, batch=50))
    assert 0 <= history.epochs[-1].test_error <= 1


def test_the_bag_of_words_is_naive_bayes_and_helpless():
    split = data.load("grammar")
    texts = {
        name: [split.vocabulary.decode(row[row > 0]) for row in getattr(split, name).x] for name in ("train", "test")
    }
    count = CountVectorizer(analyzer=str.split)
    peer = MultinomialNB().fit(count.fit_transform(texts["train"]), split.train.y)
    found = sentiment.bag_of_words(split, split.test)
    # the two differ by the words <pad> and <unk>, which do not occur here: 1 in some 15,000 counts
    assert np.mean(found == peer.predict(count.transform(texts["test"]))) > 0.995
    (name, (training, error)), *others = sentiment.baselines(SETTING | {"samples": None}).items()
    assert (name, training, others) == ("(bag of words)", None, [])
    assert error == np.mean(found != split.test.y) and error > 0.4


def test_what_is_claimed_was_written_before_any_run():
    (claim,) = SENTIMENT.claims
    assert (claim.number, claim.baseline, claim.treatment, claim.metric) == ("C4", "adam", "adam-ng", "test_error")
    assert claim.setting == combine(SENTIMENT.axes_of(False))[0] and claim.setting["dataset"] == "grammar"
    reviews = SENTIMENT.preset("reviews")
    (claim,) = reviews.claims
    assert claim.setting == combine(reviews.axes_of(False))[0] and claim.setting["dataset"] == "sentiment"
    for name in SENTIMENT.full_optimizers:
        assert SENTIMENT.centre(name, SETTING) > 0 < SENTIMENT.centre(name, claim.setting)


def test_options_are_checked():
    for axis, text, error in (
        ("dataset", "grammer", UnknownNameError),
        ("model", "textcn", UnknownNameError),
        ("dropout", "1", ValueError),
        ("samples", "0", ValueError),
    ):
        with pytest.raises(error):
            SENTIMENT.axes[axis].accept(text)
    assert SENTIMENT.axes["max_norm"].accept("none") is None and SENTIMENT.axes["max_norm"].accept("3") == 3
    with pytest.raises(ValueError, match="cannot take 5000 samples of a data set of 1500"):
        sentiment.split_of(SETTING | {"samples": 5000})


def test_it_is_an_experiment_like_the_others():
    assert EXPERIMENTS["sentiment"] is SENTIMENT and SENTIMENT.columns == ("train_loss", "test_error")
