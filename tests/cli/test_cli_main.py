"""The dispatcher: help, versions, unknown names, exit codes, and where messages go."""

from __future__ import annotations

import importlib.metadata
import logging
import platform
import subprocess
import sys
import types

import pytest
from absl import flags

from detzoo import __version__, progress
from detzoo.cli import main as cli
from detzoo.cli.flags import define_pipeline_flags, load_pipeline_from_flags
from detzoo.errors import ConfigError, DataError
from tests.problem_text import problem_text


def make_verb(run):
    def define_flags(flag_values):
        define_pipeline_flags(flag_values)
        flags.DEFINE_enum("kind", "a", ["a", "b"], "Which one.", flag_values=flag_values)
        flags.DEFINE_integer("steps", 3, "How many.", lower_bound=1, flag_values=flag_values)

    return types.SimpleNamespace(
        SUMMARY="Does a thing.", DESCRIPTION="Explains the thing.", define_flags=define_flags, run=run
    )


@pytest.fixture
def verb(monkeypatch):
    """Makes ``detzoo train`` run a function of the test's."""

    def install(run):
        monkeypatch.setattr(cli, "_load", lambda name: make_verb(run) if name == "train" else None)

    return install


def test_no_arguments_and_help_list_the_commands(capsys):
    for arguments in ([], ["--help"], ["-h"], ["help"]):
        assert cli.main(arguments) == 0
        printed = capsys.readouterr().out
        assert "usage: detzoo COMMAND [FLAGS]" in printed
        assert "  config " in printed


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    found = {name: importlib.metadata.version(name) for name in ("tensorflow", "keras")}
    expected = f"TensorFlow {found['tensorflow']}, Keras {found['keras']}, Python {platform.python_version()}"
    assert capsys.readouterr().out == f"detzoo {__version__} ({expected})\n"


@pytest.mark.parametrize("words", [["--quiet", "train"], ["train", "--quiet"]])
def test_quiet_leaves_results_warnings_and_errors(verb, monkeypatch, words, capsys):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)

    def run(flag_values):
        logger = logging.getLogger("detzoo.test")
        logger.info("a step")
        logger.warning("a warning")
        print(list(progress.track([1, 2], 2, "reading")))
        raise DataError("an error")

    verb(run)
    assert cli.main([*words, "--pipeline_config_path=x"]) == 1
    printed = capsys.readouterr()
    assert printed.out == "[1, 2]\n"
    assert [line.split(" ", 1)[1] for line in printed.err.splitlines()] == ["warning: a warning", "an error"]
    # The next call in the same process shows everything again.
    assert cli.main(["train", "--pipeline_config_path=x"]) == 1
    printed = capsys.readouterr().err
    assert "a step" in printed
    assert "reading: 2 of 2" in printed


def test_help_of_a_verb_shows_required_flags_first(verb, capsys):
    verb(lambda flag_values: None)
    assert cli.main(["train", "--help"]) == 0
    printed = capsys.readouterr().out
    assert printed.index("required flags:") < printed.index("--pipeline_config_path\n") < printed.index("\nflags:")
    assert "Explains the thing." in printed
    assert "(default 3)" in printed
    assert "(repeatable)" in printed
    assert "  --kind {a,b}\n        Which one. (default a)\n" in printed


def test_help_of_config(capsys):
    assert cli.main(["config", "--help"]) == 0
    assert "usage: detzoo config {check,show,diff}" in capsys.readouterr().out
    assert cli.main(["config"]) == 2
    capsys.readouterr()
    assert cli.main(["config", "show", "--help"]) == 0
    assert "usage: detzoo config show PATH [FLAGS]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["trian"], "there is no command 'trian'; did you mean 'train'?"),
        (
            ["train", "--pipeline_config_pth=x"],
            "unknown flag --pipeline_config_pth; did you mean 'pipeline_config_path'?",
        ),
        (["train"], "`detzoo train` needs --pipeline_config_path"),
        (["train", "--pipeline_config_path=x", "--steps=0"], "steps"),
        (["train", "--pipeline_config_path=x", "--steps=many"], "steps"),
        (["train", "--pipeline_config_path=x", "y"], "y is no project: there is no such folder"),
        (["config", "chek"], "`detzoo config` has no 'chek'; did you mean 'check'?"),
        (["config", "check"], "`detzoo config check` takes PATH; received: nothing"),
        (["config", "diff", "a"], "`detzoo config diff` takes A B; received: a"),
    ],
)
def test_usage_errors_exit_2_with_a_hint(verb, monkeypatch, arguments, says, capsys):
    if arguments[0] != "config":
        verb(lambda flag_values: pytest.fail("must not run"))
    assert cli.main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("detzoo: ")
    assert says in printed.err
    assert "Traceback" not in printed.err


@pytest.mark.parametrize(
    ("problem", "code", "says"),
    [
        (ConfigError("no"), 2, "detzoo: no\n"),
        (DataError("empty"), 1, "detzoo: empty\n"),
        (KeyboardInterrupt(), 130, "detzoo: interrupted\n"),
        (ZeroDivisionError("oops"), 1, "detzoo: ZeroDivisionError: oops (--debug shows where)\n"),
    ],
)
def test_errors_are_one_message_and_a_code(verb, problem, code, says, capsys):
    def run(flag_values):
        raise problem

    verb(run)
    assert cli.main(["train", "--pipeline_config_path=x"]) == code
    assert capsys.readouterr().err == says


def test_debug_shows_the_traceback(verb, capsys):
    def run(flag_values):
        raise DataError("empty")

    verb(run)
    assert cli.main(["train", "--pipeline_config_path=x", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_flags_arrive_and_set_repeats(verb):
    seen = {}

    def run(flag_values):
        seen.update(path=flag_values.pipeline_config_path, set=flag_values.set, steps=flag_values.steps)

    verb(run)
    arguments = ["train", "--set", "a=1", "--pipeline_config_path", "x", "--set=b=2,3", "--steps=7"]
    assert cli.main(arguments) == 0
    assert seen == {"path": "x", "set": ["a=1", "b=2,3"], "steps": 7}


def test_every_command_refuses_a_model_that_cannot_be_built(verb, tmp_path, capsys):
    path = tmp_path / "x.config"
    path.write_text("model {\n ssd { num_classes: 3 feature_extractor { type: 'ssd_pnasnet' } }\n}\n")
    verb(load_pipeline_from_flags)
    assert cli.main(["train", f"--pipeline_config_path={path}"]) == 2
    printed = capsys.readouterr().err
    refused = "'ssd_pnasnet' is not supported yet"
    assert problem_text(path, 2, "model.ssd.feature_extractor.type", refused) in printed
    assert "train_input_reader" not in printed


def test_help_does_not_import_tensorflow():
    code = """
import sys
from detzoo.cli.main import main, VERBS
main(['--help'])
[main([verb, '--help']) for verb in VERBS]
sys.exit(7 if 'tensorflow' in sys.modules or 'keras' in sys.modules else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def test_the_command_starts_without_packages_that_only_keras_would_import():
    script = (
        "import sys, detzoo.cli.main as program\n"
        "program.main = lambda _: __import__('keras') and print([sys.modules.get(n) for n in ('sklearn', 'pandas')])\n"
        "program.console()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[None, None]"
