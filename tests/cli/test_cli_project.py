"""The folder of a project in place of a command's flags: ``detzoo train PROJECT``."""

from __future__ import annotations

import pytest

from detzoo.cli import benchmark, detect, evaluate, export, train
from detzoo.cli import main as cli
from detzoo.errors import UsageError

VERBS = {"train": train, "evaluate": evaluate, "export": export, "detect": detect, "benchmark": benchmark}


@pytest.fixture
def project(tmp_path):
    """A trained and exported project."""
    folder = tmp_path / "my project"
    for name in ("training/best", "export"):
        (folder / name).mkdir(parents=True)
    (folder / "pipeline.config").touch()
    return folder


def flags_of(verb, *words):
    return cli.parse_flags(verb, VERBS[verb], [str(word) for word in words])


@pytest.mark.parametrize(
    ("verb", "words", "given"),
    [
        ("train", [], {"pipeline_config_path": "pipeline.config", "model_dir": "training"}),
        (
            "evaluate",
            [],
            {"pipeline_config_path": "pipeline.config", "checkpoint_dir": "training/best", "output_dir": "evaluation"},
        ),
        ("evaluate", ["--continuous"], {"checkpoint_dir": "training", "output_dir": "evaluation"}),
        (
            "export",
            [],
            {
                "pipeline_config_path": "pipeline.config",
                "trained_checkpoint_dir": "training/best",
                "output_directory": "export",
            },
        ),
        (
            "detect",
            ["--images=photos"],
            {"saved_model": "export", "output_dir": "detections", "metrics": "evaluation/metrics.json"},
        ),
        ("benchmark", [], {"saved_model": "export"}),
    ],
)
def test_a_project_gives_the_flags_of_a_verb(project, verb, words, given):
    for order in ([project, *words], [*words, project]):
        flag_values = flags_of(verb, *order)
        assert {flag: flag_values[flag].value for flag in given} == {
            flag: str(project / path) for flag, path in given.items()
        }
        assert flag_values.positional == []


def test_given_flags_replace_those_of_the_project(project):
    trained = flags_of("train", project, "--model_dir=elsewhere")
    assert (trained.model_dir, trained.pipeline_config_path) == ("elsewhere", str(project / "pipeline.config"))
    evaluated = flags_of("evaluate", project, "--saved_model=x")
    assert (evaluated.saved_model, evaluated.checkpoint_dir) == ("x", None)
    ensemble = flags_of("detect", project, "--images=a", "--ensemble=e.json")
    assert (ensemble.saved_model, ensemble.metrics) == (None, None)
    assert flags_of("evaluate", project, "--detections=d").checkpoint_dir is None
    assert flags_of("benchmark", project, "--pipeline_config_path=a.config").saved_model is None


def test_the_last_checkpoint_replaces_a_best_one_that_is_not_there(project):
    (project / "training/best").rmdir()
    assert flags_of("evaluate", project).checkpoint_dir == str(project / "training")


def test_other_required_flags_are_still_asked_for(project):
    with pytest.raises(UsageError, match="needs --output_dir, or the folder"):
        flags_of("detect")
    with pytest.raises(UsageError, match="needs --model_dir, or the folder of a project"):
        flags_of("train", "--pipeline_config_path=a.config")


@pytest.mark.parametrize(
    ("verb", "folder", "says"),
    [
        (
            "train",
            "nowhere",
            r"nowhere is no project: there is no such folder; `detzoo new \S*nowhere --data",
        ),
        ("train", "empty", "empty is no project: it has no pipeline.config; `detzoo new"),
        ("train", "a.config", "a.config is a file, not the folder of a project; a config goes after --pipeline"),
        ("evaluate", "fresh", "there is no .*fresh/training yet; `detzoo train .*fresh` writes it"),
        ("export", "fresh", "there is no .*fresh/training yet; `detzoo train .*fresh` writes it"),
        ("detect", "fresh", "there is no .*fresh/export yet; `detzoo export .*fresh` writes it"),
        ("benchmark", "fresh", "there is no .*fresh/export yet; `detzoo export .*fresh` writes it"),
    ],
)
def test_what_is_no_project_or_has_not_come_so_far(tmp_path, verb, folder, says):
    (tmp_path / "empty").mkdir()
    (tmp_path / "fresh").mkdir()
    (tmp_path / "fresh/pipeline.config").touch()
    (tmp_path / "a.config").touch()
    with pytest.raises(UsageError, match=says):
        flags_of(verb, tmp_path / folder, *(["--images=photos"] if verb == "detect" else []))


def test_a_second_folder_is_refused(project):
    with pytest.raises(UsageError, match="takes no arguments besides its flags; received: other"):
        flags_of("train", project, "other")


def test_help_shows_what_a_project_gives(capsys):
    assert cli.main(["detect", "--help"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("usage: detzoo detect {PROJECT | --output_dir OUTPUT_DIR} [FLAGS]")
    given = ("saved_model PROJECT/export", "output_dir PROJECT/detections", "metrics PROJECT/evaluation/metrics.json")
    assert "".join(f"    --{each}\n" for each in given) in printed
