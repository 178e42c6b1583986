"""Folders for results are made, or refused with the flag that named them."""

from __future__ import annotations

import os
import re

import pytest

from detzoo.cli.main import main
from detzoo.errors import UsageError
from detzoo.folders import make_folder


def test_a_folder_and_those_above_it_are_made(tmp_path):
    assert make_folder(tmp_path / "a" / "b", "--output_dir").is_dir()
    assert make_folder(tmp_path / "a" / "b", "--output_dir").is_dir()  # again


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match=r"^--model_dir .*/file/run cannot be made: Not a directory$"):
        make_folder(tmp_path / "file" / "run", "--model_dir")


def test_a_folder_without_write_permission_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # the superuser may write anywhere
    with pytest.raises(UsageError, match=r"^--output_dir .* cannot be written to$"):
        make_folder(tmp_path, "--output_dir")


@pytest.mark.parametrize(
    "words",
    [
        ["benchmark", "--saved_model=model", "--output={file}/rows.csv"],
        ["dataset", "inspect", "--input_path=x", "--output_dir={file}/look"],
    ],
)
def test_commands_try_the_folder_before_the_work(words, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert main([word.format(file=tmp_path / "file") for word in words]) == 2
    told = capsys.readouterr().err
    assert re.search("cannot be made: (Not a directory|File exists)", told)
    assert "Traceback" not in told
