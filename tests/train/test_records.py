import json
import os

import numpy as np
import pytest

from minibng.train import records


def test_non_finite_numbers_are_null_and_numpy_is_plain(tmp_path):
    path = tmp_path / "r.jsonl"
    records.write(path, [{"a": np.float32(1.5), "b": np.nan, "c": [np.inf, np.int64(2)], "d": {"e": -np.inf}}])
    assert json.loads(path.read_text()) == {"a": 1.5, "b": None, "c": [None, 2], "d": {"e": None}}


def test_what_is_written_is_read_back(tmp_path):
    rows = [{"run": i, "name": "μ"} for i in range(3)]
    records.write(tmp_path / "r.jsonl", rows)
    assert records.read(tmp_path / "r.jsonl") == rows


def test_an_error_while_writing_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "r.jsonl"
    records.write(path, [{"old": True}])

    def broken():
        yield {"new": True}
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        records.write(path, broken())
    assert records.read(path) == [{"old": True}]
    assert os.listdir(tmp_path) == ["r.jsonl"]


def test_a_line_that_is_no_record_is_named(tmp_path):
    (tmp_path / "r.jsonl").write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(ValueError, match="line 2 is not a JSON record"):
        records.read(tmp_path / "r.jsonl")


def test_an_output_folder_that_cannot_be_written_to_is_refused_by_name(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write to the output folder .*file/out.*--out"):
        records.output_folder(tmp_path / "file" / "out")


def test_the_header_names_versions_processor_and_command():
    head = records.header(experiment="mlp")
    assert head["kind"] == "header"
    assert head["versions"]["numpy"] == np.__version__
    assert head["cores"] >= 1 and head["cpu"] and head["experiment"] == "mlp"
