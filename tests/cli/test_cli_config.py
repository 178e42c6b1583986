"""``detzoo config check|show|diff`` as a user types them: what is printed, and the exit code."""

from __future__ import annotations

import json

import pytest

from detzoo.cli.main import main
from tests.problem_text import problem_text

BAD = """model {
  ssd {
    num_clases: 3
    feature_extractor { type: "ssd_mobilenet_v2" depth_multiplier: "wide" }
  }
}
train_config { sync_replicas: true }
"""


@pytest.fixture
def bad(tmp_path):
    path = tmp_path / "bad.config"
    path.write_text(BAD)
    return str(path)


@pytest.fixture
def braces(tmp_path):
    path = tmp_path / "braces.config"
    path.write_text("model {\n ssd {\n  num_classes: 3\n}\ntrain_config {}\n")
    return str(path)


def test_check_prints_every_problem_with_its_line_and_exits_2(bad, capsys):
    assert main(["config", "check", bad]) == 2
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    problems = {tuple(line.removeprefix(bad).split(": ", 3)[:3]): line for line in lines[:-1] if ": " in line}
    assert problems[":3", "error", "model.ssd.num_clases"].endswith("unknown field of Ssd; did you mean 'num_classes'?")
    assert (":4", "error", "model.ssd.feature_extractor.depth_multiplier") in problems
    assert ": is missing or empty" in problems[":2", "error", "model.ssd.matcher"]
    assert ": accepted, no effect: " in problems[":7", "note", "train_config.sync_replicas"]
    assert ": is missing" in problems["", "error", "train_input_reader"]
    assert printed.err.startswith(f"detzoo: {bad}: ")
    assert printed.err.endswith("errors, 2 warnings, 1 accepted field has no effect\n")


def test_a_field_that_cannot_be_read_is_not_called_missing_as_well(tmp_path, capsys):
    path = tmp_path / "x.config"
    path.write_text("model { ssd { num_classes: three image_resizer { fixed_shape_resize {} } } }")
    assert main(["config", "check", str(path)]) == 2
    printed = capsys.readouterr().out
    assert printed.count("model.ssd.num_classes") == 1
    assert printed.count("model.ssd.image_resizer") == 1
    assert printed.count("model.ssd.matcher: is missing") == 1


def test_what_is_no_config_is_one_problem(tmp_path, capsys):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"model": {"ssd": {"num_classes": 3}}}))
    assert main(["config", "check", str(path)]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    problem = lines[0].removeprefix(f"{path}:1: error: ")
    assert problem.startswith("expected a field name, found '{'; this looks like JSON")


def test_with_unmatched_braces_nothing_is_called_missing(braces, capsys):
    assert main(["config", "check", braces]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "'}' is missing" in lines[0]
    assert lines[1].endswith("note: fix these errors first; further checks run after that")


def test_set_is_checked_with_the_file(bad, capsys):
    assert main(["config", "check", bad, "--set", "train_config.batch_siz=3", "--set=model.ssd.num_classes=7"]) == 2
    printed = capsys.readouterr().out
    assert "--set train_config.batch_siz=3: train_config (TrainConfig) has no field 'batch_siz'" in printed
    assert "num_classes: is 0" not in printed


def test_warnings_pass_unless_strict(tmp_path, shared, capsys):
    source = next((shared / "configs" / "published" / "tf2").glob("ssd_mobilenet_v2_320x320*"))
    records = tmp_path / "x.record"
    records.write_bytes(b"x")
    overrides = [
        f"--set={reader}.{field}={path}"
        for reader in ("train_input_reader", "eval_input_reader")
        for field, path in (
            ("label_map_path", shared / "configs" / "label_maps" / "mscoco_label_map.pbtxt"),
            ("tf_record_input_reader.input_path[0]", records),
        )
    ]
    overrides += ["--set=train_config.fine_tune_checkpoint=", "--set=train_config.batch_size=8"]
    assert main(["config", "check", str(source), *overrides]) == 0
    printed = capsys.readouterr().out
    assert "warning: " in printed
    assert "0.8 is high for 8 images per step" in printed
    assert printed.splitlines()[-1] == f"{source}: ok, 1 warning, 7 accepted fields have no effect"
    assert main(["config", "check", str(source), *overrides, "--strict"]) == 2


def test_an_untouched_published_config_is_not_ready_before_its_paths_are_set(shared, capsys):
    path = str(shared / "configs" / "published" / "tf1" / "ssd_mobilenet_v2_quantized_300x300_coco.config")
    assert main(["config", "check", path]) == 0
    lines = capsys.readouterr().out.splitlines()
    heading = lines.index("Placeholders that are still to be set, before records are read:")
    fields = [
        ("train_config.fine_tune_checkpoint", 156),
        ("train_input_reader.tf_record_input_reader.input_path[0]", 175),
        ("train_input_reader.label_map_path", 177),
        ("eval_input_reader[0].tf_record_input_reader.input_path[0]", 189),
        ("eval_input_reader[0].label_map_path", 191),
    ]
    assert len(lines) == heading + len(fields) + 2
    for line, (field, number) in zip(lines[heading + 1 :], fields, strict=False):
        assert line.startswith(f"{path}:{number}: to set: {field}: give ")
        assert line.endswith(f"--set '{field}=PATH'" if "[" in field else f"--set {field}=PATH")
    note = problem_text(path, 196, "graph_rewriter", "accepted, no effect: trains in float", severity="note")
    assert any(line.startswith(note) for line in lines)
    # eval_config.num_examples, eval_config.max_evals and graph_rewriter. The schedule has a separate note.
    assert lines[-1] == f"{path}: not ready to train: 5 paths to set, 1 note, 3 accepted fields have no effect"
    assert main(["config", "check", path, "--strict"]) == 3


@pytest.mark.train
def test_commands_that_read_records_refuse_placeholders_with_the_same_lines(shared, tmp_path, capsys):
    path = str(shared / "configs" / "published" / "tf1" / "ssd_mobilenet_v2_quantized_300x300_coco.config")
    main(["config", "check", path])
    to_set = [line for line in capsys.readouterr().out.splitlines() if ": to set: " in line]
    assert len(to_set) == 5
    run = ["--pipeline_config_path", path]
    assert main(["train", *run, "--model_dir", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.removeprefix("detzoo: ").splitlines() == to_set
    assert main(["evaluate", *run, "--checkpoint_dir", str(tmp_path), "--output_dir", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.removeprefix("detzoo: ").splitlines() == to_set[3:]
    assert list(tmp_path.iterdir()) == []


def test_show_prints_a_config_that_reads_back(tmp_path, capsys):
    path = tmp_path / "a.config"
    path.write_text("train_config { batch_size: 3 }\n")
    command = ["config", "show", str(path), "--set", "train_config.optimizer.adam_optimizer{}"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    (tmp_path / "b.config").write_text(shown)
    assert main(["config", "diff", str(path), str(tmp_path / "b.config")]) == 0
    assert "train_config.optimizer: (absent) -> { adam_optimizer { } }" in capsys.readouterr().out
    assert main([*command, "--path", "train_config.batch_size"]) == 0
    assert capsys.readouterr().out == "batch_size: 3\n"
    assert main([*command, "--defaults"]) == 0
    assert "epsilon: 1e-08" in capsys.readouterr().out


def test_diff_of_equal_configs(tmp_path, capsys):
    (tmp_path / "a.config").write_text("train_config { batch_size: 32 num_steps: 3 }")
    (tmp_path / "b.config").write_text("train_config { num_steps: 3 }  # 32 is the default")
    assert main(["config", "diff", str(tmp_path / "a.config"), str(tmp_path / "b.config")]) == 0
    assert capsys.readouterr().out == "no differences\n"


def test_a_missing_file_is_one_line(tmp_path, capsys):
    (tmp_path / "pipeline.config").write_text("")
    assert main(["config", "check", str(tmp_path / "pipelines.config")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("detzoo: there is no pipeline config at ")
    assert "did you mean pipeline.config" in printed.err


NAME = "ssd_mobilenet_v2_300"
READY = "--set=train_input_reader.{}", "--set=eval_input_reader[0].{}"


@pytest.fixture
def paths(tmp_path):
    """The --set flags that make a config of model_configs/ ready: those for training, and those for evaluation."""
    (tmp_path / "label_map.pbtxt").write_text("".join(f"item {{ id: {i} name: 'n{i}' }}\n" for i in range(1, 91)))
    (tmp_path / "x.record").write_bytes(b"x")
    fields = (("label_map_path", "label_map.pbtxt"), ("tf_record_input_reader.input_path[0]", "x.record"))
    return [[f"{flag.format(field)}={tmp_path / file}" for field, file in fields] for flag in READY]


def test_what_is_not_ready_for_what(paths, capsys):
    for_training, for_evaluation = paths
    for flags, verdict, code in (
        ([], "not ready to train: 4 paths to set", 3),
        (for_evaluation, "not ready to train: 2 paths to set", 3),
        (for_training, "not ready to evaluate: 2 paths to set", 3),
        ([*for_training, *for_evaluation], "ok", 0),
    ):
        assert main(["config", "check", NAME, *flags]) == 0
        assert capsys.readouterr().out.splitlines()[-1].endswith(f"{NAME}.config: {verdict}")
        assert main(["config", "check", NAME, *flags, "--strict"]) == code
        printed = capsys.readouterr()
        assert verdict in printed.out if code == 0 else printed.err.endswith(f"{NAME}.config: {verdict}\n")


def test_strict_puts_errors_and_warnings_above_paths_to_set(capsys):
    warned = "--set=train_config.optimizer.rms_prop_optimizer.learning_rate.cosine_decay_learning_rate.warmup_steps=0"
    warned = [warned, "--set=train_config.batch_size=1"]
    assert main(["config", "check", NAME, *warned]) == 0
    assert ": not ready to train: 4 paths to set, 2 warnings" in capsys.readouterr().out.splitlines()[-1]
    assert main(["config", "check", NAME, *warned, "--strict"]) == 2
    assert "warning" in capsys.readouterr().err
    for strict in ([], ["--strict"]):
        assert main(["config", "check", NAME, "--set=train_config.batch_siz=1", *strict]) == 2
        assert ": 1 error, 4 paths to set" in capsys.readouterr().err


def test_check_as_json(paths, bad, capsys):
    assert main(["config", "check", NAME, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["config"].endswith(f"{NAME}.config")
    assert (document["ready"], document["counts"]) == (False, {"error": 0, "to_set": 4, "warning": 0, "note": 0})
    first = document["problems"][0]
    assert (first["severity"], first["path"], first["code"]) == (
        "to_set",
        "train_input_reader.label_map_path",
        "placeholder",
    )
    assert isinstance(first["line"], int)
    assert main(["config", "check", NAME, "--json", "--strict"]) == 3
    printed = capsys.readouterr()
    assert json.loads(printed.out) == document  # findings are the result
    assert "not ready to train" in printed.err
    assert main(["config", "check", NAME, "--json", *paths[0], *paths[1]]) == 0
    assert json.loads(capsys.readouterr().out)["ready"] is True
    assert main(["config", "check", bad, "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert document["counts"]["error"] == sum(each["severity"] == "error" for each in document["problems"]) > 0
    [missing] = [each for each in document["problems"] if each["path"] == "train_input_reader"]
    assert (missing["severity"], missing["line"], missing["code"]) == ("error", None, "missing")
    assert main(["config", "check", "no_such_config", "--json"]) == 2
    assert capsys.readouterr().out == ""
