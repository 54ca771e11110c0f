import json
import math

import pytest

import minibng as bng
from minibng import cli, data, nn, optim
from minibng.experiments import LSTM, lstm
from minibng.experiments.declaration import Job, combine

SETTING = combine(LSTM.axes_of(False))[0] | {"length": 5, "hidden": 4, "tokens": 300}
BATCH = 60  # tokens a step: 12 rows of 5


@pytest.fixture
def text(tmp_path):
    """A file of a few words whose order has a rule."""
    path = tmp_path / "song.txt"
    path.write_text("one two three four five six\nseven eight nine ten\n\n" * 150, encoding="utf-8")
    return SETTING | {"dataset": "text", "data_dir": str(path)}


@pytest.mark.parametrize("clip", [0.25, 1e-3])
def test_a_job_is_the_loop_written_out(text, clip, monkeypatch):
    assert lstm.CLIP == 0.25
    monkeypatch.setattr(lstm, "CLIP", clip)  # 0.25 is not reached in so short a run
    history = lstm.train_one(Job(text | {"tied": "yes"}, "adam-clip", 0.01, seed=3, epochs=2, batch=BATCH))
    split = data.text_file(text["data_dir"])
    model = nn.models.lstm_lm(split.classes, 4, 4, 2, tied=True)
    params = model.init(seed=3)
    opt = optim.AdamClip(params, lr=0.01, clip=clip)

    def f(p, x, y, state):
        logits, state = model.run(p, x, state, train=True)
        return nn.cross_entropy(logits, y), state

    step, losses = bng.value_and_grad(f, has_aux=True), []
    for _ in range(2):
        state = None
        for x, y in data.batches(split.train.take(300), 12, length=5):
            (value, state), grad = step(params, x, y, state)
            losses.append(float(value))
            opt.step(grad)
    assert history.step_losses.tolist() == losses and len(losses) == 10
    assert history.language and "training perplexity" in repr(history)


def test_every_length_has_as_many_steps(text):
    steps = {}
    for length in (1, 5, 30, 100):
        job = Job(text | {"length": length}, "sgd", 0.1, 0, epochs=1, batch=BATCH)
        steps[length] = len(lstm.train_one(job).step_losses)
    assert steps == {1: 5, 5: 5, 30: 5, 100: 3}  # one row is the least


def test_counts_are_of_the_training_tokens_that_there_are(text):
    split = lstm.split_of(text)
    assert len(split.train) == 300
    found = lstm.baselines(text)
    assert found["(uniform)"] == (split.classes, split.classes)
    told = data.bigram_perplexity(split)
    assert found["(bigrams)"] == (told["train"], told["test"])
    assert found["(bigrams)"][1] < found["(unigrams)"][1] < split.classes


def test_texts_come_by_name_or_from_the_users_place(text):
    characters = lstm.split_of(text | {"level": "character", "tokens": 500})
    assert characters.classes == len(characters.vocabulary) < 25
    assert len(lstm.split_of(text | {"tokens": 10**8}).train) == len(lstm.split_of(text | {"tokens": None}).train) > 300
    assert lstm.split_of(SETTING).name == "pydoc"
    assert lstm.split_of(SETTING | {"level": "character"}).name == "pydoc_chars"
    for setting, told in (
        ({"dataset": "text"}, "--dataset text needs --data-dir"),
        ({"dataset": "ptb", "level": "character"}, "ptb is cut into words"),
        ({"length": 1, "tokens": 200}, "the shortest part has 200 tokens, fewer than the 350 rows of a batch"),
    ):
        with pytest.raises(ValueError, match=told):
            LSTM.prepare(SETTING | setting)


def test_the_declaration_is_sound():
    for made in (LSTM, LSTM.preset("paper")):
        for name in (*made.optimizers, *made.full_optimizers, "nadam-ng", "adadelta"):
            assert all(made.centre(name, setting) > 0 for setting in combine(made.axes_of(True)))
        assert [claim.number for claim in made.claims] == ["C3", "C1"]
        for claim in made.claims:
            assert {claim.baseline, claim.treatment} <= set(made.optimizers) & set(made.full_optimizers)
            assert claim.setting in combine(made.axes_of(False)) and claim.metric == "train_perplexity"
    assert len(LSTM.axes_of(True)["length"]) > 1 and LSTM.clip == 0.25
    with pytest.raises(ValueError, match="compares rules in their four forms"):
        LSTM.centre("lars", SETTING)


def test_a_comparison_from_end_to_end(text, capsys, tmp_path):
    short = ("--hidden", "4", "--tokens", "300", "--epochs", "1", "--seeds", "1", "--layers", "1", "--length", "10,35")
    place = ("--dataset", "text", "--data-dir", text["data_dir"], "--out", str(tmp_path / "out"))
    assert cli.main(["compare", "lstm", *short, *place, "--optimizers", "adam,adam-ng"]) == 0
    out = capsys.readouterr().out
    assert out.count("  training perplexity  ") == 2
    assert out.count("(bigrams)") == 2 and "Ratio of training perplexities" in out
    assert "C3  not tested" in out and "data dir song.txt" in out and "(geometric)" in out
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        *("training.png", "rates.png", "norms.png", "effect.png", "records.jsonl", "norms.jsonl")
    }
    head, *lines = [json.loads(line) for line in (tmp_path / "out" / "records.jsonl").read_text().splitlines()]
    assert head["declaration"]["clip"] == 0.25 and head["declaration"]["columns"][0] == "train_perplexity"
    assert {"length", "cell", "level", "tokens", "val_loss", "test_loss"} <= lines[0].keys()
    assert all(math.isfinite(line["test_loss"]) for line in lines)


def test_a_run_tells_perplexities(text, capsys, tmp_path):
    argv = ("--hidden", "4", "--tokens", "none", "--epochs", "1", "--dropout", "0.5", "--cell", "gru")
    place = ("--dataset", "text", "--data-dir", text["data_dir"], "--out", str(tmp_path / "out"))
    assert cli.main(["run", "lstm", *argv, *place, "--optimizer", "rmsprop-ng"]) == 0
    out = capsys.readouterr().out
    head, first, last = out[out.index("epoch  ") :].splitlines()[:3]
    assert [name.strip() for name in head.split("perplexity")] == ["epoch  training", "validation", "test", "seconds"]
    size = lstm.split_of(text).classes
    assert float(first.split()[1]) == pytest.approx(size, rel=0.2) and last.split()[0] == "1"
    record = json.loads((tmp_path / "out" / "records.jsonl").read_text().splitlines()[1])
    assert float(first.split()[1]) == pytest.approx(math.exp(record["train_loss"]), rel=1e-4)
    assert (record["tokens"], record["cell"], record["level"]) == (None, "gru", "word")


def test_bad_options_say_what_is_valid(capsys):
    for option, told in (
        (("--cell", "lsmt"), "did you mean 'lstm'?"),
        (("--level", "letter"), "unknown level 'letter'"),
        (("--dropout", "1"), "a share below 1 is needed, got '1'"),
        (("--dataset", "pydocs"), "did you mean 'pydoc'?"),
    ):
        with pytest.raises(SystemExit):
            cli.main(["compare", "lstm", *option])
        assert told in capsys.readouterr().err
