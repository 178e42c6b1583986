"""Configs by name: what a text means as a path, as a name, and as neither."""

from __future__ import annotations

import pathlib

import pytest

from detzoo.cli.main import main
from detzoo.config.check.pipeline import check_file
from detzoo.config.library import config_folder, config_names, find_config, find_sweep, shipped, sweep_names
from detzoo.config.load import load_pipeline
from detzoo.errors import ConfigError, UsageError
from detzoo.sweep.plan.sweep_plan import load_plan
from detzoo.tasks.models import load_checked

NAME = "ssd_mobilenet_v2_300"


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_what_comes_with_detzoo():
    assert len(config_names()) > 100
    assert {NAME, "shapes_ssd_mobilenet_v1"} < set(config_names())
    assert {"quick", "tradeoffs"} < set(sweep_names())
    assert shipped("docs/sweep.md").is_file()
    assert shipped("protos/pipeline.proto").is_file()


@pytest.mark.parametrize("text", [NAME, f"{NAME}.config", pathlib.Path(NAME)])
def test_a_name_with_or_without_its_suffix(text):
    assert find_config(text) == config_folder() / f"{NAME}.config"
    assert load_pipeline(text).path == str(config_folder() / f"{NAME}.config")
    assert load_checked(text).message.model.ssd.num_classes == 90


@pytest.mark.parametrize("text", ["quick", "quick.sweep"])
def test_the_name_of_a_sweep(text):
    assert find_sweep(text) == config_folder() / "sweeps" / "quick.sweep"
    assert len(load_plan(text).points) == 8


@pytest.mark.parametrize("file", [NAME, f"{NAME}.config"])
def test_a_file_takes_precedence_over_a_name(file):
    pathlib.Path(file).write_text("model { ssd { num_classes: 7 } }")
    assert find_config(file) == pathlib.Path(file)
    assert load_pipeline(file).message.model.ssd.num_classes == 7


def test_a_folder_means_the_config_in_it():
    folder = pathlib.Path("runs/my")
    folder.mkdir(parents=True)
    with pytest.raises(UsageError, match="runs/my is a folder, not a pipeline config"):
        load_pipeline("runs/my")
    (folder / "pipeline.config").write_text("model { ssd { num_classes: 7 } }")
    for text in ("runs/my", "runs/my/", folder.resolve()):
        assert load_pipeline(text).message.model.ssd.num_classes == 7
    # A folder without a config, such as one for the results, does not hide the name.
    pathlib.Path(NAME).mkdir()
    assert find_config(NAME) == config_folder() / f"{NAME}.config"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ssd_mobilenet_v2_30", f"did you mean {NAME}"),
        ("SSD_MobileNet_V2_300", f"did you mean {NAME}"),
        ("fpnlite_320", "did you mean ssd_mobilenet_v2_fpnlite_320"),
        ("mine.confg", "did you mean mine.config?"),  # a file of the folder
        ("yolov8n", "`detzoo models` lists the configs"),
        ("nowhere/x.config", "the folder nowhere does not exist"),
        (f"nowhere/{NAME}", "the folder nowhere does not exist"),
        (f"./{NAME}", "the folder . exists, the file does not"),
        ("", "the path of the pipeline config is empty"),
        ("a\0b", "embedded null"),
    ],
)
def test_what_is_neither_a_path_nor_a_name(text, found):
    pathlib.Path("mine.config").touch()
    for read in (load_pipeline, load_checked, check_file):
        with pytest.raises(UsageError) as caught:
            read(text)
        assert found in str(caught.value)


def test_a_sweep_that_is_neither_a_path_nor_a_name():
    with pytest.raises(
        UsageError, match=r"there is no sweep file at quik, and detzoo has none .*; did you mean quick\?"
    ):
        load_plan("quik")
    with pytest.raises(
        UsageError, match=r"those of detzoo are fpn_table1, .*, quick, .*, tradeoffs, tradeoffs_table5$"
    ):
        load_plan("mine")


def test_the_bases_of_a_sweep_by_name():
    pathlib.Path("a").mkdir()
    text = (config_folder() / f"{NAME}.config").read_text()
    pathlib.Path("a/my.config").write_text(text.replace("num_classes: 90", "num_classes: 3"))
    pathlib.Path("a/my.sweep").write_text(f'base {{ config: "{NAME}" }} base {{ config: "my.config" }}')
    assert [point.base.name for point in load_plan("a/my.sweep").points] == [NAME, "my"]
    pathlib.Path("a/my.sweep").write_text('base { config: "ssd_mobilenet_v2_30" }')
    with pytest.raises(ConfigError, match=rf"a/my.sweep:1: error: base\[0\].config: .*; did you mean {NAME}"):
        load_plan("a/my.sweep")


def test_commands_take_names(capsys):
    assert main(["config", "check", NAME]) == 0
    assert f"{NAME}.config: " in capsys.readouterr().out
    assert main(["config", "show", NAME, "--path=model.ssd.num_classes"]) == 0
    assert capsys.readouterr().out == "num_classes: 90\n"
    assert main(["config", "diff", NAME, f"{NAME}.config"]) == 0
    assert main(["sweep", "--sweep_config=quick", "--output_dir=out", "--dry_run"]) == 0
    assert "8 points" in capsys.readouterr().out
    # Commands that need records report the paths to set, with lines of the config.
    for words in (["train", "--model_dir=run"], ["evaluate", "--checkpoint_dir=run", "--output_dir=out"]):
        assert main([words[0], f"--pipeline_config_path={NAME}", *words[1:]]) == 2
        assert f"{NAME}.config:" in capsys.readouterr().err
