"""Command lines of the Object Detection API's trainer and exporter on detzoo's commands."""

from __future__ import annotations

import json

import pytest

from detzoo.cli.main import main
from detzoo.config.load import load_pipeline
from detzoo.errors import ConfigError


def train(*words):
    return main(["train", "--pipeline_config_path=my.config", "--model_dir=run", *words])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--checkpoint_dir=run"],
            "--checkpoint_dir means evaluation, which has its own command: detzoo evaluate "
            "--pipeline_config_path=my.config --checkpoint_dir=run --output_dir=run/eval",
        ),
        (["--use_tpu"], "TPUs are not supported"),
        (["--num_workers=2"], "--num_workers=2 needs TF_CONFIG on every machine"),
        (["--worker_replicas=2"], "--num_workers=2 needs TF_CONFIG on every machine"),
        (
            ["--ps_tasks=1"],
            "--ps_tasks=1: --strategy=parameter_server trains on the parameter servers that TF_CONFIG names",
        ),
    ],
)
def test_what_the_trainer_cannot_do_is_one_line(capsys, monkeypatch, words, message):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert train(*words) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line


def test_flags_for_evaluation_are_accepted_by_the_trainer_with_a_note(capsys):
    # The config does not exist, so the notes before that error come from the flags.
    words = ["--eval_on_train_data", "--sample_1_of_n_eval_examples=2", "--sample_1_of_n_eval_on_train_examples=3"]
    assert train(*words, "--eval_timeout=10", "--record_summaries=false", "--num_workers=1", "--tpu_name=x") == 2
    text = capsys.readouterr().err
    assert text.count("has no effect on training; `detzoo evaluate` takes it") == 4
    assert "there is no pipeline config at my.config" in text


def test_flags_of_the_trainer_of_tensorflow_1(capsys):
    words = ["--pipeline_config_path=my.config", "--train_dir=run", "--num_clones=2", "--clone_on_cpu", "--run_once"]
    assert main(["train", *words]) == 2
    text = capsys.readouterr().err
    assert "--num_clones has no effect: TF_CONFIG has the index of a machine, and all its GPUs train together" in text
    assert "--clone_on_cpu has no effect: CUDA_VISIBLE_DEVICES=-1 hides the GPUs" in text
    assert "--run_once has no effect on training; `detzoo evaluate` takes it" in text
    assert "there is no pipeline config at my.config" in text


@pytest.mark.parametrize(
    ("verb", "flag", "message"),
    [
        ("train", "train_config_path", "here: --pipeline_config_path, one file with the blocks model, train_config"),
        ("evaluate", "eval_config_path", "here: --pipeline_config_path, one file"),
        ("export", "inference_graph_path", "here: --output_directory and --tf1_names, which writes frozen_inference"),
        ("export", "detections_per_class", "_suppression.max_detections_per_class=..."),
        ("detect", "inference_graph", "here: detzoo detect --saved_model=..."),
    ],
)
def test_flags_with_a_replacement(capsys, verb, flag, message):
    assert main([verb, f"--{flag}=x"]) == 2
    line = capsys.readouterr().err.splitlines()[0]
    assert line.startswith(f"detzoo: unknown flag --{flag} (of the Object Detection API); ")
    assert message in line


def evaluate(run, *words):
    return main(["evaluate", f"--pipeline_config_path={run.config}", f"--checkpoint_dir={run.model_dir}", *words])


def test_an_evaluation_goes_into_the_model_dir(toy_run, capsys):
    assert evaluate(toy_run, f"--model_dir={toy_run.model_dir}", "--num_train_steps=9", "--record_summaries") == 0
    metrics = json.loads((toy_run.model_dir / "eval" / "metrics.json").read_text())
    assert metrics["step"] == 7
    output = capsys.readouterr()
    assert "step 7: 3 images" in output.out
    assert "--num_train_steps has no effect on an evaluation" in output.err


def test_an_evaluation_needs_a_place_for_its_results(toy_run, capsys):
    assert evaluate(toy_run) == 2
    assert "needs --output_dir, where to write the results" in capsys.readouterr().err


def test_every_second_image_of_three(toy_run, capsys):
    assert (
        evaluate(toy_run, f"--eval_dir={toy_run.folder / 'out'}", "--sample_1_of_n_eval_examples=2", "--run_once") == 0
    )
    output = capsys.readouterr()
    assert "step 7: 2 images" in output.out
    assert "--run_once has no effect: one checkpoint is measured without --continuous" in output.err


@pytest.mark.parametrize(("words", "images"), [([], 1), (["--sample_1_of_n_eval_on_train_examples=1"], 3)])
def test_measuring_on_the_training_data(toy_run, capsys, words, images):
    record = f"{toy_run.folder}/data.tfrecord"
    overrides = [
        f"--set=train_input_reader.tf_record_input_reader.input_path=['{record}']",
        f"--set=train_input_reader.label_map_path='{toy_run.folder}/label_map.pbtxt'",
        "--set=train_input_reader.shuffle=true",
    ]
    assert evaluate(toy_run, f"--output_dir={toy_run.folder / 'out'}", "--eval_on_train_data", *overrides, *words) == 0
    assert f"step 7: {images} image" in capsys.readouterr().out


def test_text_is_merged_into_the_config_before_single_fields(toy_run):
    text = "model { ssd { num_classes: 5 } } train_config { freeze_variables: 'a' }"
    before = load_pipeline(str(toy_run.config)).message
    message = load_pipeline(str(toy_run.config), ["model.ssd.num_classes=7"], text).message
    assert message.model.ssd.num_classes == 7
    assert list(message.train_config.freeze_variables) == [*before.train_config.freeze_variables, "a"]
    assert message.model.ssd.box_coder == before.model.ssd.box_coder
    with pytest.raises(ConfigError, match=r"num_clases: --config_override: unknown field"):
        load_pipeline(str(toy_run.config), [], "model { ssd { num_clases: 5 } }")


def export(run, *words):
    flags = [f"--trained_checkpoint_dir={run.model_dir}", f"--output_directory={run.folder / 'exported'}"]
    return main(["export", f"--pipeline_config_path={run.config}", *flags, *words])


def test_the_exporter_merges_text(toy_run):
    text = "model { ssd { post_processing { batch_non_max_suppression { score_threshold: 0.25 } } } }"
    assert export(toy_run, "--config_override", text, "--use_side_inputs=False", "--side_input_names=") == 0
    written = load_pipeline(str(toy_run.folder / "exported" / "pipeline.config")).message
    assert written.model.ssd.post_processing.batch_non_max_suppression.score_threshold == 0.25


def test_the_exporter_of_tensorflow_1(toy_run, capsys):
    words = [f"--trained_checkpoint_prefix={toy_run.model_dir}/ckpt-7", f"--output_directory={toy_run.folder}/old"]
    assert main(["export", f"--pipeline_config_path={toy_run.config}", *words, "--input_shape=1,-1,-1,3"]) == 0
    output = capsys.readouterr()
    assert "saved_model: step 7, input image_tensor" in output.out
    assert "--input_shape has no effect: the model takes images of any size, some at a time" in output.err


def test_side_inputs_need_no_flag(toy_run, capsys):
    assert export(toy_run, "--use_side_inputs") == 0
    assert "--use_side_inputs has no effect: a model with context_config always has" in capsys.readouterr().err
    assert export(toy_run) == 0
    assert "side_inputs" not in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["train", "evaluate", "export"])
def test_help_lists_them_apart(capsys, verb):
    assert main([verb, "--help"]) == 0
    own, borrowed = capsys.readouterr().out.split("\nflags of the Object Detection API:\n")
    assert "--pipeline_config_path" in own
    assert "Object Detection API: " not in borrowed
    assert {"train": "--checkpoint_dir", "evaluate": "--eval_timeout", "export": "--config_override"}[verb] in borrowed
