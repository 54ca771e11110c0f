import sys

import pytest

from minibng.extras import MissingExtraError, require


def test_returns_the_module_itself() -> None:
    assert require("json.decoder", "experiments") is sys.modules["json.decoder"]


def test_message_and_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with pytest.raises(ImportError) as caught:
        require("sklearn.metrics", "sweep", "the command sweep")
    assert type(caught.value) is MissingExtraError
    assert str(caught.value) == (
        "the command sweep needs scikit-learn, which is not installed: pip install 'minibng[sweep]'"
    )


def test_a_package_that_is_there_but_lacks_its_own_dependency_says_so(tmp_path, monkeypatch) -> None:
    (tmp_path / "halfinstalled.py").write_text("import dependency_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="dependency_that_is_not_there") as caught:
        require("halfinstalled", "experiments")
    assert not isinstance(caught.value, MissingExtraError)
