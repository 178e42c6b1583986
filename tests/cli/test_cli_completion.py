"""``detzoo completion``: the words that bash offers, asked of bash itself."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from detzoo.cli.completion import script
from detzoo.cli.main import VERBS, main
from detzoo.config.library import config_names, sweep_names

CASES = {  # words, of which the last is completed -> what is offered besides files
    ("",): VERBS,
    ("tr",): ["train", "train_four_step"],
    ("--v",): ["--version"],
    ("config", ""): ["check", "show", "diff"],
    ("--quiet", "config", "c"): ["check"],
    ("train", "--model_d"): ["--model_dir"],
    ("train", "--q"): ["--quiet"],
    ("config", "check", "--s"): ["--set", "--strict"],
    ("sweep", "--dry"): ["--dry_run"],
    ("sweep", "merge", "--out"): ["--output_dir"],
    ("sweep", "report", "--sweep"): [],
    ("train", "--pipeline_config_path", ""): config_names(),
    ("train", "--pipeline_config_path", "ssd_mobilenet_v2_fpn"): [
        "ssd_mobilenet_v2_fpnlite_320",
        "ssd_mobilenet_v2_fpnlite_640",
    ],
    ("train", "--pipeline_config_path", "=", "ssd_vgg16_3"): ["ssd_vgg16_300"],  # bash splits at =
    ("train", "--pipeline_config_path", "="): config_names(),
    ("train", "--pipeline_config_path=ssd_vgg16_3"): ["--pipeline_config_path=ssd_vgg16_300"],  # zsh does not
    ("sweep", "--dry_run", "--sweep_config", "q"): ["quick"],
    ("sweep", "--sweep_config", ""): sweep_names(),
    ("benchmark", "--precision", ""): ["float32", "bfloat16", "float16"],
    ("models", "copy", "retinanet_resnet152"): ["retinanet_resnet152_800"],
    ("config", "diff", "ssd_vgg16_300", "ssd_vgg16_6"): ["ssd_vgg16_600"],
    ("config", "check", "my"): ["my file.config"],  # files, next to names
    ("train", "--model_dir", "my"): ["my file.config"],
    ("export", "--output_directory", "fo"): ["folder"],
    ("completion", "z"): ["zsh"],
}


@pytest.fixture(scope="module")
def offered(tmp_path_factory):
    """The words that bash offers for each case, in a folder with a file and a folder. One process serves all cases."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    folder = tmp_path_factory.mktemp("folder")
    (folder / "my file.config").touch()
    (folder / "folder").mkdir()
    lines = [script("bash")]
    for words in CASES:
        quoted = " ".join(f"'{word}'" for word in ("detzoo", *words))
        lines += [f"COMP_WORDS=({quoted}) COMP_CWORD={len(words)}", "_detzoo", 'printf "%s\\n" "${COMPREPLY[@]}" --end']
    done = subprocess.run([bash, "--norc"], input="\n".join(lines), cwd=folder, capture_output=True, text=True)
    assert done.stderr == ""
    texts = done.stdout.split("--end\n")
    return {words: [line for line in text.splitlines() if line] for words, text in zip(CASES, texts)}


@pytest.mark.parametrize("words", CASES, ids=" ".join)
def test_bash_offers(offered, words):
    files = {"my file.config", "folder"} if words[-1] in ("", "=") else set()  # they fit an empty word, too
    found = [word for word in offered[words] if word not in files]
    assert found == list(CASES[words])


def test_the_command_prints_the_script_of_a_shell(capsys):
    for shell in ("bash", "zsh"):
        assert main(["completion", shell]) == 0
        printed = capsys.readouterr().out
        assert printed == script(shell)
        assert printed.splitlines()[-1] == "complete -o default -F _detzoo detzoo"
    assert "bashcompinit" in printed
    assert main(["completion", "fish"]) == 2
    assert "there is no completion for 'fish'; accepted: bash, zsh" in capsys.readouterr().err
