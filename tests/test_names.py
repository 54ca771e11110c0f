import pytest

from minibng.names import UnknownNameError, choose


def test_a_known_name_gives_its_entry():
    assert choose({"a": 1}, "a", "thing") == 1


@pytest.mark.parametrize("name", ["zzz", "", None, 3])
def test_a_name_near_none_gets_the_list(name):
    with pytest.raises(UnknownNameError, match=r"unknown thing .*Known: adam, sgd"):
        choose({"adam": 1, "sgd": 2}, name, "thing")


def test_the_nearest_name_is_offered_whatever_its_case():
    with pytest.raises(UnknownNameError, match="did you mean 'adam-ng'"):
        choose({"adam-ng": 1, "sgd": 2}, "AdamNG", "optimizer")


def test_two_names_that_differ_in_case_are_near():
    with pytest.raises(UnknownNameError, match=r"did you mean '0\.W'"):
        choose({"0.b": 1, "0.W": 2}, "0.w", "tensor")
