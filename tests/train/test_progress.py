from minibng.train import progress


def test_nothing_is_written_off_a_terminal(capsys):
    bar = progress(range(3), what="runs")
    for _ in bar:
        bar.set_postfix_str("x")
    assert capsys.readouterr() == ("", "")


def test_a_bar_is_shown_when_asked_for(capsys):
    assert list(progress(range(3), what="runs", show=True)) == [0, 1, 2]
    assert "runs" in capsys.readouterr().err


def test_without_tqdm_the_items_pass_in_silence(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "tqdm", None)
    bar = progress(range(3), show=True)
    assert list(bar) == [0, 1, 2]
    bar.set_postfix_str("x")
    bar.close()
    assert capsys.readouterr().err == ""
