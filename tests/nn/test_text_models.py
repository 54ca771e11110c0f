"""Models of text: training runs that must follow PyTorch's, derivatives, carried states, padding and generated text."""

import re

import numpy as np
import pytest

import minibng as bng
from minibng import Params, grad, hvp, nn, optim, value_and_grad
from minibng.nn.models import lstm_classifier, lstm_lm, textcnn

RNG = np.random.default_rng(0)


def torch_recurrent(torch, params, prefix, kind="LSTM"):
    """PyTorch's layers with the weights of ours, the second bias zero and frozen."""
    depth = sum(name.endswith(".U") for name in params)
    w, u = params[f"{prefix}.0.W"], params[f"{prefix}.0.U"]
    layers = getattr(torch.nn, kind)(len(w), len(u), depth, batch_first=True, dtype=torch.float64)
    for k in range(depth):
        for theirs, own in (("weight_ih", "W"), ("weight_hh", "U"), ("bias_ih", "b")):
            getattr(layers, f"{theirs}_l{k}").data.copy_(torch.tensor(params[f"{prefix}.{k}.{own}"].T))
        getattr(layers, f"bias_hh_l{k}").data.zero_()
        getattr(layers, f"bias_hh_l{k}").requires_grad_(False)
    return layers


def torch_linear(torch, params):
    head = torch.nn.Linear(*params["head.W"].shape, dtype=torch.float64)
    head.weight.data.copy_(torch.tensor(params["head.W"].T))
    head.bias.data.copy_(torch.tensor(params["head.b"]))
    return head


def torch_embedding(torch, params, padding=None):
    made = torch.nn.Embedding(*params["embedding.W"].shape, padding_idx=padding, dtype=torch.float64)
    made.weight.data.copy_(torch.tensor(params["embedding.W"]))
    return made


def flat_of(tensors, torch):
    """PyTorch's tensors in the order and orientation of ours, as one vector."""
    axes = {3: (2, 1, 0), 2: (1, 0), 1: (0,)}
    parts = [t if is_table else t.permute(axes[t.ndim]) for t, is_table in tensors]
    return torch.cat([t.reshape(-1) for t in parts])


# Language models


@pytest.mark.peer
@pytest.mark.parametrize("rule", ["SGD", "Adam"])
@pytest.mark.parametrize("tied", [False, True])
def test_a_language_model_follows_torch_for_twenty_steps(torch, rule, tied, device):
    """Windows of one text, the state carried from one to the next as plain values."""
    model = lstm_lm(7, dim=5, hidden=5, layers=2, tied=tied)
    params = model.init(seed=0, dtype="float64")
    embedding, lstm = torch_embedding(torch, params), torch_recurrent(torch, params, "lstm")
    head = torch.nn.Linear(5, 7, dtype=torch.float64)
    head.weight = embedding.weight if tied else torch.nn.Parameter(torch.tensor(params["head.W"].T))
    head.bias.data.zero_()
    tensors = torch.nn.ModuleList([embedding, lstm, head]).parameters()
    theirs = getattr(torch.optim, rule)([t for t in tensors if t.requires_grad], lr=0.03)
    params = params.to(device.name)
    opt = getattr(optim, rule)(params, lr=0.03)

    def loss(p, x, y, state):
        logits, state = model.run(p, x, state, train=True)
        return nn.cross_entropy(logits, y), state

    step, text = value_and_grad(loss, has_aux=True), RNG.integers(0, 7, (3, 20 * 4 + 1))
    state = torch_state = None
    for t in range(0, 80, 4):
        x, y = text[:, t : t + 4], text[:, t + 1 : t + 5]
        with device.no_sync():
            (value, state), g = step(params, *device.arrays([x, y]), state)
            opt.step(g)
        theirs.zero_grad()
        hidden, torch_state = lstm(embedding(torch.tensor(x)), torch_state)
        torch_state = tuple(s.detach() for s in torch_state)
        expected = torch.nn.functional.cross_entropy(head(hidden).reshape(-1, 7), torch.tensor(y).reshape(-1))
        expected.backward()
        theirs.step()
        np.testing.assert_allclose(device.host(value), expected.item(), rtol=1e-10)
    params = params.to("cpu")
    np.testing.assert_allclose(params["embedding.W"], embedding.weight.detach().numpy(), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(params["lstm.1.U"], lstm.weight_hh_l1.detach().numpy().T, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(params["head.b"], head.bias.detach().numpy(), rtol=1e-8, atol=1e-10)
    for own, carried in zip(state, torch_state, strict=True):
        np.testing.assert_allclose(device.host(own), carried.numpy(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_one_long_text_is_the_same_in_pieces_that_carry_the_state(cell, device):
    model = lstm_lm(9, dim=4, hidden=6, layers=2, cell=cell)
    params = model.init(seed=0, dtype="float64", device=device.name)
    text, state, parts = RNG.integers(0, 9, (3, 12)), None, []
    with device.no_sync():
        whole, last = model.run(params, device.array(text))
        for a, e in ((0, 5), (5, 6), (6, 12)):
            logits, state = model.run(params, device.array(text[:, a:e]), state)
            parts.append(logits)
    np.testing.assert_allclose(np.concatenate(device.host(parts), axis=1), device.host(whole), rtol=1e-12, atol=1e-14)
    own, expected = (np.stack(device.host(s)) if cell == "lstm" else device.host(s) for s in (state, last))
    np.testing.assert_allclose(own, expected, rtol=1e-12, atol=1e-14)
    called = device.host(model(params, device.array(text)))
    np.testing.assert_array_equal(called, device.host(whole))


def test_what_was_not_read_yet_does_not_matter():
    model = lstm_lm(9, dim=4, hidden=6)
    params, text = model.init(dtype="float64"), RNG.integers(0, 9, (2, 8))
    other = text.copy()
    other[:, 5:] = (other[:, 5:] + 1) % 9
    a, b = model(params, text), model(params, other)
    np.testing.assert_array_equal(a[:, :5], b[:, :5])
    assert np.all(np.any(a[:, 5:] != b[:, 5:], axis=-1))


@pytest.mark.parametrize("tied", [False, True])
def test_the_perplexity_of_the_uniform_model_is_the_size_of_the_vocabulary(tied, device):
    model = lstm_lm(13, dim=4, hidden=4, tied=tied)
    params = model.init(dtype="float64", device=device.name)
    params["embedding.W" if tied else "head.W"][...] = 0.0
    x, y = device.arrays([RNG.integers(0, 13, (3, 5)) for _ in range(2)])
    np.testing.assert_allclose(np.exp(device.host(nn.cross_entropy(model(params, x), y))), 13, rtol=1e-13)


def test_first_values_are_as_large_as_they_are_said_to_be():
    params = lstm_lm(60, dim=16, hidden=64).init(seed=0)
    for name, limit in (("embedding.W", 0.1), ("head.W", 1 / 8)):
        assert 0.99 * limit < np.max(np.abs(params[name])) <= limit
    assert np.all(params["head.b"] == 0)
    assert 0.099 < np.max(np.abs(textcnn(60, dim=16).init(seed=0)["embedding.W"])) <= 0.1
    table = lstm_classifier(60, dim=16).init(seed=0)["embedding.W"]
    assert 0.95 < np.std(table[1:]) < 1.05 and np.all(table[0] == 0)


def test_a_tied_head_has_no_weights_of_its_own_and_gets_the_gradient_of_both_uses():
    tied, free = lstm_lm(8, dim=5, hidden=5, tied=True), lstm_lm(8, dim=5, hidden=5)
    params = tied.init(seed=0, dtype="float64")
    assert set(free.init()) - set(params) == {"head.W"}
    assert params.layout.size == free.init().layout.size - 5 * 8
    assert list(params.layout.block_names) == ["embedding", "lstm.0", "lstm.1", "head"]
    apart = free.init(seed=0, dtype="float64")
    for name in apart:
        apart[name][...] = params[name] if name in params else params["embedding.W"].T
    x, y = RNG.integers(0, 8, (2, 4)), RNG.integers(0, 8, (2, 4))
    one = grad(lambda p: nn.cross_entropy(tied(p, x), y))(params)
    two = grad(lambda p: nn.cross_entropy(free(p, x), y))(apart)
    np.testing.assert_allclose(one["embedding.W"], two["embedding.W"] + two["head.W"].T, rtol=1e-12, atol=1e-15)


def test_dropout_acts_in_front_of_each_layer_and_of_the_head_only_while_training(device):
    model = lstm_lm(9, dim=6, hidden=6, layers=2, dropout=0.5)
    params = model.init(device=device.name)
    assert sorted(params.buffers) == ["drop_in.counter", "drop_out.counter", "lstm.drop0.counter"]
    x, before = device.array(RNG.integers(0, 9, (2, 5))), dict(params.buffers)
    plain, again = device.host([model(params, x) for _ in range(2)])
    np.testing.assert_array_equal(plain, again)
    assert params.buffers == before
    dropped = device.host(model(params, x, train=True))
    assert np.any(dropped != plain)
    assert all(params.buffers[name] == before[name] + 1 for name in before)
    assert not lstm_lm(9, dim=6, hidden=6).init().buffers


@pytest.mark.parametrize(
    "settings, error, told",
    [
        ({"tied": True, "dim": 4, "hidden": 5}, ValueError, r"\(V, 4\) for the output of 5.*must be equal"),
        ({"cell": "lst"}, ValueError, "unknown cell 'lst'; did you mean 'lstm'"),
        ({"layers": 0}, ValueError, "at least one input, one hidden unit and one layer"),
        ({"vocab": 0}, ValueError, "at least one token"),
    ],
)
def test_what_no_language_model_can_be_made_of_is_refused(settings, error, told):
    with pytest.raises(error, match=told):
        lstm_lm(**{"vocab": 9, "dim": 4, "hidden": 4, **settings})


def test_a_language_model_takes_rows_of_tokens():
    model = lstm_lm(9, dim=4, hidden=4)
    with pytest.raises(
        ValueError, match=r"takes tokens \(N, T\), got shape \(3,\): one text is x\[np.newaxis\], and length= "
    ):
        model(model.init(), np.array([1, 2, 3]))
    with pytest.raises(ValueError, match=r"got shape \(1, 2, 3\)$"):
        model(model.init(), np.ones((1, 2, 3), int))
    with pytest.raises(TypeError, match=r"call model\(params, x\), in this order"):
        model(np.array([[1]]), model.init())


# Generated text


def sharp(model, seed=0, device="cpu"):
    """Parameters whose logits differ enough that a wrong one is noticed."""
    params = model.init(seed=seed, dtype="float64")
    params.flat[:] *= 4
    return params.to(device)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_generated_text_is_the_likeliest_word_after_the_whole_text_each_time(cell, device):
    model = lstm_lm(11, dim=5, hidden=6, layers=2, cell=cell)
    params, text = sharp(model), [[3, 1, 4], [1, 5, 9]]
    for _ in range(6):
        logits = model(params, np.array(text))[:, -1]
        text = np.concatenate([text, np.argmax(logits, axis=1)[:, None]], axis=1)
    made = model.generate(params.to(device.name), [[3, 1, 4], [1, 5, 9]], 6, temperature=0)
    np.testing.assert_array_equal(made, np.array(text)[:, 3:])
    assert made.dtype == np.int64


def test_the_seed_is_the_text(device):
    model = lstm_lm(30, dim=4, hidden=4)
    params = model.init(dtype="float64", device=device.name)
    made = [model.generate(params, [1, 2], 20, seed=s) for s in (0, 0, 1)]
    np.testing.assert_array_equal(made[0], made[1])
    assert np.any(made[0] != made[2])
    np.testing.assert_array_equal(made[0], model.generate(params.to("cpu"), np.array([1, 2]), 20))


def test_words_are_drawn_with_their_probabilities():
    """With a head whose weights are zero every step has the softmax of the bias."""
    model = lstm_lm(4, dim=2, hidden=2, layers=1)
    params = model.init(dtype="float64")
    params["head.W"][...] = 0.0
    params["head.b"][...] = [2.0, 1.0, 0.0, 3.0]
    n = 4000
    for temperature, without in ((1.0, ()), (0.5, ()), (2.0, (3,))):
        p = np.exp(params["head.b"] / temperature)
        p[list(without)] = 0
        p /= p.sum()
        made = model.generate(params, np.zeros((n, 1), int), 2, temperature=temperature, without=without)
        counts = np.bincount(made.reshape(-1), minlength=4)
        assert np.all(np.abs(counts - 2 * n * p) <= 4 * np.sqrt(2 * n * p * (1 - p)))
    params["head.b"][...] = 0.0
    pairs = model.generate(params, [0], 640).reshape(-1, 2) @ [4, 1]  # one word's draw tells nothing of the next one's
    assert np.all(np.abs(np.bincount(pairs, minlength=16) - 20) <= 4 * np.sqrt(20))
    params["head.b"][...] = [2.0, 1.0, 0.0, 3.0]
    assert not np.any(model.generate(params, [0], 50, temperature=1e-300) != 3)
    assert not np.any(model.generate(params, [0], 50, temperature=0, without=[3, 0]) != 1)


def test_nothing_is_written_where_nothing_is_asked_for():
    model = lstm_lm(4, dim=2, hidden=2)
    assert model.generate(model.init(), [1], 0).shape == (0,)
    assert model.generate(model.init(), [[1], [2]], 0).shape == (2, 0)


@pytest.mark.parametrize(
    "prompt, settings, error, told",
    [
        ([], {}, ValueError, "at least one, got float64"),
        (np.zeros((2, 0), int), {}, ValueError, "at least one"),
        ([[[1]]], {}, ValueError, r"a prompt is tokens \(T,\) or \(N, T\)"),
        ([1.5], {}, ValueError, "got float64"),
        ([9], {}, IndexError, "tokens must lie in 0 … 3, got 9"),
        ([1], {"temperature": -1}, ValueError, "must be 0 or more"),
        ([1], {"temperature": float("nan")}, ValueError, "must be 0 or more"),
        ("a text", {}, ValueError, "the vocabulary of the data encodes words"),
        ([1], {"without": range(4)}, ValueError, r"0 … 3, but not all of them, got \[0, 1, 2, 3\]"),
        ([1], {"without": [4]}, ValueError, r"got \[4\]"),
        ([1], {"without": [-1, 2]}, ValueError, r"got \[-1, 2\]"),
        ([1], {"n": -1}, ValueError, "must be 0 or more"),
        ([1], {"n": 2.0}, TypeError, "whole numbers"),
    ],
)
def test_what_cannot_be_continued_is_refused(prompt, settings, error, told):
    model = lstm_lm(4, dim=2, hidden=2)
    with pytest.raises(error, match=told):
        model.generate(model.init(), prompt, **{"n": 2, **settings})


def test_a_model_that_has_diverged_writes_nothing():
    model = lstm_lm(4, dim=2, hidden=2)
    params = model.init()
    params["head.b"][1] = np.nan
    with pytest.raises(ValueError, match="logits are not finite"):
        model.generate(params, [1], 3)


# Classifiers


def derivatives(model, params, x, y, v, device):
    """Loss, gradient and product of the Hessian with a vector, on a device; as the host's."""
    x, y = device.arrays([x, y])
    params, direction = params.to(device.name), Params(params.layout, v).to(device.name)

    def loss(p):
        return nn.cross_entropy(model(p, x), y)

    with device.no_sync():
        value, g = value_and_grad(loss)(params)
        curved = hvp(loss)(params, direction)
    return device.host(value), device.host(g.flat), device.host(curved.flat)


def torch_derivatives(torch, logits, y, tensors, v):
    """The same of PyTorch's tensors, given with whether each is a table."""
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(y))
    plain = [t for t, _ in tensors]
    first = torch.autograd.grad(loss, plain, create_graph=True)
    g = flat_of(list(zip(first, [is_table for _, is_table in tensors], strict=True)), torch)
    second = torch.autograd.grad((g * torch.tensor(v)).sum(), plain)
    curved = flat_of(list(zip(second, [is_table for _, is_table in tensors], strict=True)), torch)
    return loss.item(), g.detach().numpy(), curved.detach().numpy()


SENTENCES = np.array([[4, 2, 7, 1, 1, 3], [5, 6, 0, 0, 0, 0], [2, 2, 2, 2, 2, 2], [0, 0, 0, 0, 0, 0]])
LABELS = np.array([1, 0, 2, 1])


@pytest.mark.peer
def test_values_and_two_derivatives_of_the_text_cnn_are_torch_s(torch, device):
    """Sentences with ties in the maximum over time: repeated words and padding. The first gets the gradient."""
    model = textcnn(8, dim=4, widths=(2, 3), maps=5, classes=3)
    params = model.init(seed=3, dtype="float64")
    params.flat[:] += 0.1  # no bias is zero
    params["embedding.W"][0] = 0
    embedding, head = torch_embedding(torch, params, padding=0), torch_linear(torch, params)
    tensors, features = [(embedding.weight, True)], []
    for width in (2, 3):
        conv = torch.nn.Conv1d(4, 5, width, dtype=torch.float64)
        conv.weight.data.copy_(torch.tensor(params[f"conv{width}.W"].transpose(2, 1, 0)))
        conv.bias.data.copy_(torch.tensor(params[f"conv{width}.b"]))
        maps = torch.relu(conv(embedding(torch.tensor(SENTENCES)).transpose(1, 2)))
        features.append(torch.nn.functional.max_pool1d(maps, maps.shape[2])[:, :, 0])
        tensors += [(conv.weight, False), (conv.bias, False)]
    logits = head(torch.cat(features, 1))
    v = RNG.standard_normal(params.flat.size)
    expected = torch_derivatives(torch, logits, LABELS, [*tensors, (head.weight, False), (head.bias, False)], v)
    for own, theirs in zip(derivatives(model, params, SENTENCES, LABELS, v, device), expected, strict=True):
        np.testing.assert_allclose(own, theirs, rtol=1e-8, atol=1e-12)


@pytest.mark.peer
@pytest.mark.parametrize("layers", [1, 2])
def test_values_and_two_derivatives_of_the_recurrent_classifier_are_torch_s(torch, layers, device):
    model = lstm_classifier(8, dim=4, hidden=5, classes=3, layers=layers)
    params = model.init(seed=3, dtype="float64")
    embedding, lstm, head = (
        torch_embedding(torch, params, padding=0),
        torch_recurrent(torch, params, "lstm"),
        torch_linear(torch, params),
    )
    words, labels = SENTENCES[:3], LABELS[:3]
    lengths = torch.tensor([6, 2, 6])
    packed = torch.nn.utils.rnn.pack_padded_sequence(embedding(torch.tensor(words)), lengths, True, False)
    logits = head(lstm(packed)[1][0][-1])
    tensors = [(embedding.weight, True)]
    for k in range(layers):
        tensors += [(getattr(lstm, f"{name}_l{k}"), False) for name in ("weight_ih", "weight_hh", "bias_ih")]
    v = RNG.standard_normal(params.flat.size)
    expected = torch_derivatives(torch, logits, labels, [*tensors, (head.weight, False), (head.bias, False)], v)
    for own, theirs in zip(derivatives(model, params, words, labels, v, device), expected, strict=True):
        np.testing.assert_allclose(own, theirs, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_the_recurrent_classifier_passes_over_padding_wherever_it_stands(cell, device):
    model = lstm_classifier(9, dim=4, hidden=5, layers=2, cell=cell, padding=3)
    params = model.init(seed=0, dtype="float64", device=device.name)
    short = model(params, device.array(np.array([[5, 1, 8]])))
    long = model(params, device.array(np.array([[3, 5, 3, 3, 1, 8, 3], [3] * 7])))
    np.testing.assert_allclose(device.host(long)[0], device.host(short)[0], rtol=1e-12)
    np.testing.assert_array_equal(device.host(long)[1], device.host(params["head.b"]))  # nothing was read
    every = lstm_classifier(9, dim=4, hidden=5, layers=2, cell=cell, padding=None)
    assert np.any(every(params.to("cpu"), np.array([[5, 1, 8]])) != every(params.to("cpu"), np.array([[5, 1, 8, 3]])))


@pytest.mark.parametrize("make", [textcnn, lstm_classifier])
def test_classifiers_drop_only_while_training_and_refuse_what_are_no_sentences(make, device):
    model = make(9, dim=4, dropout=0.5)
    params = model.init(device=device.name)
    x = device.array(RNG.integers(0, 9, (3, 7)))
    plain, again, dropped = device.host([model(params, x), model(params, x), model(params, x, train=True)])
    np.testing.assert_array_equal(plain, again)
    assert np.any(plain != dropped)
    assert plain.shape == (3, 2) and plain.dtype == "float32"
    with pytest.raises(ValueError, match=r"takes tokens \(N, T\), got shape \(7,\)"):
        model(params, x[0])
    with pytest.raises(TypeError, match=r"not an array of tokens"):
        model(params, [[1, 2]])
    with pytest.raises(TypeError, match=r"call model\(params, x\), in this order"):
        model(x, params)


# The text CNN


def test_bias_and_relu_after_the_maximum_are_the_same_function(device):
    """In the order of Kim (2014): convolution with bias, relu, maximum over time."""
    model = textcnn(20, dim=6, widths=(1, 3, 4), maps=7, dropout=0)
    params = model.init(seed=0, dtype="float64", device=device.name)
    params.flat[:] += 0.05
    x = device.array(RNG.integers(1, 20, (5, 9)))

    def plain(p):
        vectors = nn.Embedding(20, 6)(p.scope("embedding"), x)
        maps = [nn.Conv1d(6, 7, w, padding="valid")(p.scope(f"conv{w}"), vectors) for w in (1, 3, 4)]
        features = np.concatenate([nn.GlobalMaxPool()(p, nn.relu(m)) for m in maps], axis=1)
        return nn.Linear(21, 2)(p.scope("head"), features)

    with device.no_sync():
        own, expected = model(params, x), plain(params)
        mine = grad(lambda p: np.sum(model(p, x)[:, 0]))(params)
        theirs = grad(lambda p: np.sum(plain(p)[:, 0]))(params)
    np.testing.assert_allclose(device.host(own), device.host(expected), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(device.host(mine.flat), device.host(theirs.flat), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("short", [[[4, 2]], [[4]], np.zeros((2, 0), int), np.array([[7, 1]], "uint8")])
def test_sentences_shorter_than_a_window_are_lengthened(short, padding, device):
    model = textcnn(9, dim=4, maps=3, padding=padding)
    params, short = model.init(device=device.name), np.array(short)
    long = np.pad(short, ((0, 0), (0, 5 - short.shape[1])), constant_values=padding)
    own, expected = device.host([model(params, device.array(x)) for x in (short, long)])
    np.testing.assert_array_equal(own, expected)


def test_without_padding_short_sentences_are_refused():
    model = textcnn(9, dim=4, maps=3, padding=None)
    with pytest.raises(
        ValueError, match="a window of 5 words does not fit on sentences of 4: give the model a padding"
    ):
        model(model.init(), np.ones((2, 4), int))


@pytest.mark.parametrize("length", [3, 5, 11])
def test_what_the_words_add_makes_up_the_logits(length, device):
    model = textcnn(9, dim=4, widths=(2, 5), maps=6, classes=3)
    params = model.init(seed=0, dtype="float64", device=device.name)
    params.flat[:] += 0.1
    x = device.array(RNG.integers(0, 9, (4, length)))
    shares = device.host(model.evidence(params, x))
    assert shares.shape == (4, max(length, 5), 3)
    expected = device.host(model(params, x)) - device.host(params["head.b"])
    np.testing.assert_allclose(shares.sum(axis=1), expected, rtol=1e-12, atol=1e-12)


def test_the_word_that_a_map_looks_for_decides():
    """One map of width 1 that fires on word 5 alone: all evidence lies on it."""
    model = textcnn(9, dim=9, widths=(1,), maps=1, padding=None)
    params = model.init(dtype="float64")
    params.flat[:] = 0
    params["embedding.W"][...] = np.eye(9)
    params["conv1.W"][0, 5, 0] = 2.0
    params["head.W"][...] = [[-1.0, 1.0]]
    shares = model.evidence(params, np.array([[1, 2, 5, 3], [1, 2, 3, 4]]))
    np.testing.assert_array_equal(shares[0], [[0, 0], [0, 0], [-2, 2], [0, 0]])
    np.testing.assert_array_equal(shares[1], 0)


def test_the_words_of_a_window_share_what_it_adds_and_the_first_of_equal_windows_has_it():
    model = textcnn(9, dim=9, widths=(2,), maps=1, padding=None)
    params = model.init(dtype="float64")
    params.flat[:] = 0
    params["embedding.W"][...] = np.eye(9)
    params["conv2.W"][:, :, 0] = np.eye(9)[[5, 6]]  # word 5, then word 6
    params["head.W"][...] = [[3.0, 1.0]]
    shares = model.evidence(params, np.array([[1, 5, 6, 5, 6]]))
    np.testing.assert_array_equal(shares[0, :, 0], [0, 3, 3, 0, 0])
    np.testing.assert_array_equal(shares[0, :, 1], [0, 1, 1, 0, 0])


@pytest.mark.parametrize(
    "settings, error, told",
    [
        ({"widths": 3}, TypeError, "widths is a list.*got 3"),
        ({"widths": ()}, TypeError, "widths is a list"),
        ({"widths": (3, 3)}, ValueError, "names a width twice"),
        ({"widths": (0, 3)}, ValueError, "kernel is a positive number"),
        ({"maps": 2.5}, TypeError, "whole numbers"),
        ({"dropout": 1.0}, ValueError, r"must lie in \[0, 1\)"),
        ({"padding": 9}, ValueError, "padding is a token"),
    ],
)
def test_what_no_text_cnn_can_be_made_of_is_refused(settings, error, told):
    with pytest.raises(error, match=told):
        textcnn(9, **{"dim": 4, **settings})


def test_errors_name_the_layer_inside_the_model():
    for model in (textcnn(9, dim=4), lstm_lm(9, dim=4, hidden=4), lstm_classifier(9, dim=4)):
        with pytest.raises(IndexError, match=re.escape("layer 'embedding', Embedding(9, 4")):
            model(model.init(), np.full((1, 6), 9))


def test_models_describe_themselves():
    assert repr(textcnn(9, dim=4)) == "TextCNN(9, 4, widths=(3, 4, 5), maps=100, classes=2)"
    assert repr(lstm_lm(9, 4, 4, tied=True)) == "LanguageModel(Embedding(9, 4), LSTM(4, 4, 2), tied)"
    told = "RecurrentClassifier(Embedding(9, 4, padding=0), GRU(4, 128), Linear(128, 2))"
    assert repr(lstm_classifier(9, dim=4, cell="gru")) == told
    assert "TextCNN" in textcnn(9, dim=4).summary(np.zeros((2, 6), int))


def test_a_training_run_of_each_model_is_the_same_on_every_device(device):
    """Bits may differ by rounding, the way may not."""
    for model, shape in ((textcnn(9, dim=4, maps=3), (4,)), (lstm_lm(9, dim=3, hidden=3, dropout=0.3), (4, 6))):
        rng = np.random.default_rng(5)
        batches = [(rng.integers(0, 9, (4, 6)), rng.integers(0, 2, shape)) for _ in range(3)]
        step = value_and_grad(lambda p, x, y, model=model: nn.cross_entropy(model(p, x, train=True), y))
        ends = []
        for name in ("cpu", device.name):
            params = model.init(seed=0, dtype="float64", device=name)
            opt = optim.AdamNG(params, lr=0.01)
            for x, y in batches:
                opt.step(step(params, bng.asarray(x, device=name), bng.asarray(y, device=name))[1])
            ends.append(bng.to_host(params.flat))
        np.testing.assert_allclose(ends[1], ends[0], rtol=1e-9, atol=1e-12)
