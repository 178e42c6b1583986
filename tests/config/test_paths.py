"""Tests of suggestions for paths that do not exist."""

from __future__ import annotations

import pathlib

import pytest

from detzoo.config.load import load_pipeline
from detzoo.config.paths import checkpoint_hint, is_remote, path_hint, windows_hint


def test_remote_paths_have_a_scheme_of_two_letters_at_least():
    assert is_remote("gs://bucket/train-*")
    assert not is_remote("C://data/train.record")
    assert not is_remote("data//train.record")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("C:/data/train.record", "(in WSL: '/mnt/c/data/train.record')"),
        ("D:\\data\\train.record", "(in WSL: '/mnt/d/data/train.record')"),
        ("data\\train.record", "folders are separated by / here: give 'data/train.record'"),
        ("\\\\server\\share\\train.record", "where \\\\server\\share is mounted"),
    ],
)
def test_paths_of_windows_on_another_system(monkeypatch, path, says):
    monkeypatch.setattr("os.name", "posix")
    assert says in windows_hint(path)
    assert path_hint(path) == windows_hint(path)
    monkeypatch.setattr("os.name", "nt")
    assert windows_hint(path) == ""


def test_other_paths_have_no_such_hint():
    assert windows_hint("/data/c:/train.record") == ""
    assert windows_hint("PATH_TO_BE_CONFIGURED/train.record") == ""


def test_near_names_then_the_last_good_folder(tmp_path):
    (tmp_path / "label_map.pbtxt").write_text("")
    assert path_hint(tmp_path / "labelmap.pbtxt") == "; did you mean label_map.pbtxt?"
    assert path_hint(tmp_path / "q") == f"; the folder {tmp_path} exists, the file does not"
    missing = tmp_path / "a" / "b" / "x"
    assert path_hint(missing) == f"; the folder {missing.parent} does not exist (the path is good up to {tmp_path})"


def test_checkpoints_near_a_missing_one(tmp_path):
    assert checkpoint_hint(tmp_path / "ckpt-1") == (
        f"; the folder {tmp_path} holds no *.index file: give the path of its files up to .index, such as "
        "zoo/checkpoint/ckpt-0, or '' to start from scratch"
    )
    (tmp_path / "ckpt-2.index").write_bytes(b"")
    assert checkpoint_hint(tmp_path / "ckpt-1") == f"; did you mean '{tmp_path}/ckpt-2'?"
    assert checkpoint_hint(pathlib.Path("C:/zoo/ckpt-0")).endswith("(in WSL: '/mnt/c/zoo/ckpt-0')")


def _config_in(folder, fine_tune="zoo/ckpt-0"):
    (folder / "records").mkdir(parents=True)
    (folder / "zoo").mkdir()
    for name in ("records/label_map.pbtxt", "records/train-00000-of-00002.tfrecord", "zoo/ckpt-0.index"):
        (folder / name).touch()
    config = folder / "pipeline.config"
    config.write_text(
        f"""
        train_config {{ fine_tune_checkpoint: "{fine_tune}" }}
        train_input_reader {{
          label_map_path: "records/label_map.pbtxt"
          tf_record_input_reader {{ input_path: ["records/train@2.tfrecord, records/train-*", "elsewhere/test-*"] }}
        }}
        eval_input_reader {{ label_map_path: "records/nothing.pbtxt" }}
        """
    )
    return config


def test_paths_beside_the_config_do_not_depend_on_the_current_folder(tmp_path, monkeypatch):
    project = tmp_path / "set [1]"  # whose brackets are no pattern
    config = _config_in(project)
    monkeypatch.chdir(tmp_path)
    message = load_pipeline(str(config)).message
    reader = message.train_input_reader
    assert reader.label_map_path == f"{project}/records/label_map.pbtxt"
    first, second = reader.tf_record_input_reader.input_path
    escaped = f"{tmp_path}/set [[]1]/records"
    assert first == f"{escaped}/train@2.tfrecord,{escaped}/train-*"
    assert message.train_config.fine_tune_checkpoint == f"{project}/zoo/ckpt-0"
    # What exists nowhere stays as it is written, and is reported so.
    assert second == "elsewhere/test-*"
    assert message.eval_input_reader[0].label_map_path == "records/nothing.pbtxt"


def test_paths_from_the_current_folder_come_first(tmp_path, monkeypatch):
    config = _config_in(tmp_path / "project", fine_tune="")
    _config_in(tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    message = load_pipeline(str(config)).message
    assert message.train_input_reader.label_map_path == "records/label_map.pbtxt"
    paths = message.train_input_reader.tf_record_input_reader.input_path
    assert list(paths) == ["records/train@2.tfrecord, records/train-*", "elsewhere/test-*"]
    assert message.train_config.fine_tune_checkpoint == ""


@pytest.mark.parametrize("path", ["/data/labels.pbtxt", "gs://bucket/labels.pbtxt", "x" * 5000])
def test_other_paths_stay_as_they_are(tmp_path, path):
    config = tmp_path / "a.config"
    config.write_text(f'train_input_reader {{ label_map_path: "{path}" }}')
    assert load_pipeline(str(config)).message.train_input_reader.label_map_path == path
