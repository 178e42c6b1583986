"""No text and no path crashes or hangs the reading of configs, label map files and sweep files."""

from __future__ import annotations

import contextlib
import os
import random
import re
import time

import pytest

from detzoo.cli.main import main
from detzoo.config.check.pipeline import check_file
from detzoo.config.label_map import load_label_map
from detzoo.config.load import load_pipeline, read_text
from detzoo.config.problems import format_problems
from detzoo.config.show import show_config
from detzoo.errors import DetzooError, UsageError
from tests.problem_text import problem_text

MOST_SECONDS = 5.0  # of this thread: other tests of the worker may have left threads that compute
STEP = "data_augmentation_options { random_horizontal_flip {} }"


def answer(path, *overrides) -> str:
    """Returns what `config check` prints of a file; fails if it takes too long."""
    start = time.thread_time()
    text = format_problems(check_file(str(path), overrides), "CONFIG")
    assert time.thread_time() - start < MOST_SECONDS
    assert len(text) < 300_000
    return text


LONG = {
    "a number of 400 digits": ("num_classes: 2", "num_classes: " + "9" * 400, "is out of range|is not|expected"),
    "a hexadecimal number that no float holds": (
        "alpha: 0.25",
        "alpha: 0x" + "f" * 400,
        "alpha: is inf; accepted: 0 to 1",
    ),
    "a number of five million digits": ("num_classes: 2", "num_classes: " + "9" * 5_000_000, "num_classes"),
    "surplus braces": ("eval_config {", "}" * 100_000 + "\neval_config {", "more errors, which are not listed"),
    "nested braces": ("eval_config {", "{" * 100_000 + "\neval_config {", "expected a field name, found '{'"),
    "a list of lists": ('metrics_set: "', "metrics_set: " + "[" * 100_000 + '"', "has no value|never closed"),
    "a name of a million letters": ("num_classes: 2", "n" * 1_000_000 + ": 2", r"\(1000000 characters\)"),
    "a path of a million letters": (
        "FOLDER/label_map",
        "q/" * 500_000 + "label_map",
        "label map q/q/.* cannot be read: File name too long",
    ),
    "a NUL in a path": ("FOLDER/label_map", r"a\0b", "has a NUL character"),
    "a device": ("FOLDER/label_map.pbtxt", "/dev/zero", "not a regular file"),
    "many strings": ('metrics_set: "', 'metrics_set: "a" ' + "\"b\" 'c' " * 200_000 + '"', "there is no metrics set"),
    "unknown fields": ("num_classes: 2", "".join(f"number{i}: 2\n" for i in range(300_000)), "has 299.* more errors"),
    "augmentations": (STEP, f"{STEP}\n" * 200_000, "has more than 10000 items"),
    "shards beyond counting": ("FOLDER/val.tfrecord", "val@" + "9" * 5000, "no file matches"),
    "a regular expression of parentheses": (
        "num_steps: 100",
        f"freeze_variables: '{'(' * 5000}'",
        "no.* regular expression",
    ),
    "a regular expression of repetitions": (
        "num_steps: 100",
        "freeze_variables: 'a{99999999999}'",
        "regular expression",
    ),
    "garbage": ("num_classes: 2", "§" * 1_000_000, "unexpected character"),
}


@pytest.mark.parametrize("name", LONG)
def test_a_text_of_absurd_size_is_answered_within_seconds(config_path, name):
    good, bad, says = LONG[name]
    text, good = config_path.read_text(), good.replace("FOLDER", str(config_path.parent))
    assert good in text
    config_path.write_text(text.replace(good, bad))
    assert re.search(says, answer(config_path)), name


@pytest.mark.parametrize(
    "override",
    [
        "train_config.batch_size=" + "9" * 10_000,
        "n" * 100_000 + "=1",
        "train_config.fine_tune_checkpoint=" + "/x" * 100_000,
        "eval_input_reader[" + "9" * 5000 + "].shuffle=true",
        "train_config.fine_tune_checkpoint=a\0b",
        "train_config.fine_tune_checkpoint=\udcff",
        "train_config.optimizer.weight_decay=nan",
    ],
)
def test_an_override_is_refused_in_words(config_path, override):
    assert ": error: " in answer(config_path, override)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/dev/zero", "not a regular file"),
        ("/" + "x" * 5000, "cannot be read"),
        ("a\0b", "embedded null"),
        ("", "is empty"),
        (".", "is a folder"),
    ],
)
def test_what_is_no_file_is_refused(path, says):
    with pytest.raises(UsageError, match=says):
        read_text(path, "pipeline config")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="not a regular file"):
        read_text(tmp_path / "pipe", "label map")


def test_a_text_that_is_too_large_is_not_read(tmp_path):
    with (tmp_path / "large.config").open("wb") as file:
        file.truncate(2**33)  # sparse
    with pytest.raises(UsageError, match="has 8589934592 bytes; a pipeline config has 67108864 at most"):
        read_text(tmp_path / "large.config", "pipeline config")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_texts_of_windows_editors_are_read(config_path, encoding):
    config_path.write_bytes(config_path.read_text().encode(encoding))
    assert answer(config_path) == ""


def test_invalid_utf_8_is_no_text(config_path):
    config_path.write_bytes(config_path.read_bytes() + b"\xff")
    with pytest.raises(UsageError, match="is not a text file"):
        check_file(str(config_path))


def test_the_most_severe_problems_are_listed_and_the_rest_counted(config_path):
    text = config_path.read_text()
    [reader] = re.findall(r"^eval_input_reader \{.*?^\}", text, re.DOTALL | re.MULTILINE)
    reader = "\n" + reader.removesuffix("}") + "queue_capacity: 5 }"
    config_path.write_text(text.replace("num_classes: 2", "num_classes: -1") + reader * 500)
    lines = answer(config_path).splitlines()
    assert problem_text("CONFIG", 3, "model.ssd.num_classes", "is -1; accepted: 1 to 65536 classes") in lines[0]
    assert lines[-1] == "CONFIG: not listed: 401 accepted fields have no effect"
    assert len(lines) == 101


def test_the_command_ends_with_a_usage_error_and_no_traceback(config_path, capsys):
    config_path.write_text("}" * 5000)
    assert main(["config", "check", str(config_path)]) == 2
    assert "Traceback" not in "".join(capsys.readouterr())


PIECES = [
    *"{}[]<>:,;'\"#-\\\0\ufeffé",
    *("nan", "-inf", "1e39", "0x" + "f" * 400, "9" * 400, "-1", "4294967295", "[[[[", "}}}}", "model", "true"),
    *('"\\x00"', '"\\ud800"', '"\\777"', "/dev/zero", "../" * 50, "@" + "9" * 30),
]


def mutated(text: str, rng: random.Random) -> str:
    """The text with a few random changes of one kind."""
    kind = rng.randrange(6)
    for _ in range(rng.randrange(1, 5)):
        start = rng.randrange(len(text) + 1)
        end = min(len(text), start + rng.randrange(1, 200))
        if kind == 0:
            text = text[:start] + rng.choice(PIECES) + text[start:]
        elif kind == 1:
            text = text[:start]
        elif kind == 2:
            text = text[:start] + text[end:]
        elif kind == 3:
            text = text[:end] + text[start:end] * rng.randrange(1, 20) + text[end:]
        elif kind == 4:
            text = text[:start] + chr(rng.randrange(256)) + text[start + 1 :]
        else:
            values = [*re.finditer(r"(?<=: )\S+", text)]
            chosen = rng.choice(values) if values else None
            text = text[: chosen.start()] + rng.choice(PIECES) + text[chosen.end() :] if chosen else text
    return text


@pytest.mark.parametrize("seed", range(4))
def test_a_changed_text_is_read_or_refused(request, config_path, seed):
    fixture = "region_path" if seed % 2 else "config_path"
    original, rng = request.getfixturevalue(fixture).read_text(), random.Random(seed)
    for _ in range(100):
        config_path.write_text(mutated(original, rng), encoding="utf-8")
        answer(config_path)
        with contextlib.suppress(DetzooError):
            assert isinstance(show_config(load_pipeline(str(config_path)).message, defaults=True), str)


def test_a_changed_label_map_is_read_or_refused(tmp_path):
    rng, path = random.Random(0), tmp_path / "label_map.pbtxt"
    original = "\n".join(f"item {{ id: {i} name: 'class {i}' display_name: \"Class {i}\" }}" for i in range(1, 30))
    for _ in range(200):
        path.write_text(mutated(original, rng), encoding="utf-8")
        with contextlib.suppress(DetzooError):
            assert len(load_label_map(path)) >= 1
