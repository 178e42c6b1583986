"""The reader of protobuf text: the same messages as protobuf's own, and every problem at its line."""

from __future__ import annotations

import pytest
from google.protobuf import text_format

from detzoo.config import pb
from detzoo.config.text import parse_text


def read(text, message_class=None):
    return parse_text(text, message_class or pb.TrainEvalPipelineConfig)


def complaints(text, message_class=None):
    return [(p.line, p.path, p.message) for p in read(text, message_class).problems]


def test_reads_published_files_as_protobuf_does(shared):
    paths = [*(shared / "configs" / "published").glob("*/*.config"), *(shared / "configs" / "label_maps").glob("*")]
    assert len(paths) == 104 + 13
    for path in paths:
        kind = pb.TrainEvalPipelineConfig if path.suffix == ".config" else pb.StringIntLabelMap
        text = path.read_text()
        parsed = read(text, kind)
        assert parsed.problems == [], path.name
        assert parsed.message == text_format.Parse(text, kind()), path.name


@pytest.mark.parametrize(
    "text",
    [
        "train_config: { batch_size: 0x10, num_steps: 010; }",  # hexadecimal, octal, separators
        "train_config < batch_size: 1 >",
        'train_input_reader { label_map_path: "a" \'b"c\' "\\n\\x41" }',  # adjacent strings, escapes
        "eval_input_reader [ { shuffle: t }, { shuffle: False } ]",
        "train_config { freeze_variables: ['a', 'b'] freeze_variables: 'c' } # comment",
        "model { ssd { loss { classification_weight: -1.5e-3 localization_weight: inf } } }",
        "model { ssd { loss { classification_weight: 2f localization_weight: .5 } } }",
        "train_config { fine_tune_checkpoint_version: 2 }",
        "eval_config { super_categories { key: 'pet' value: 'cat,dog' } }",
        "train_config { optimizer { adam_optimizer {} } }",
        "\ufefftrain_config {}",
    ],
)
def test_forms_of_the_text_format(text):
    parsed = read(text)
    assert parsed.problems == []
    assert parsed.message == text_format.Parse(text.removeprefix("\ufeff"), pb.TrainEvalPipelineConfig())


def test_lines_of_fields():
    parsed = read(
        "model {\n  ssd {\n    num_classes:\n      3\n  }\n}\n"
        "eval_input_reader {}\neval_input_reader {\n shuffle: true }"
    )
    assert parsed.lines == {
        "model": 1,
        "model.ssd": 2,
        "model.ssd.num_classes": 3,
        "eval_input_reader": 7,
        "eval_input_reader[0]": 7,
        "eval_input_reader[1]": 8,
        "eval_input_reader[1].shuffle": 9,
    }


def test_every_problem_is_reported_and_the_rest_is_read():
    text = """model {
  ssd {
    num_clases: 3
    num_classes: three
    image_resizer { fixed_shape_resizer { height: "300" width: 200 } }
    feature_extractor { type: ssd_mobilenet_v2 }
    unheard_of { a: [1, 2] b { c: "}" } }
    post_processing { score_converter: SIGMOYD }
  }
}
train_config { batch_size: -4 num_steps: 10 }
"""
    parsed = read(text)
    assert [(p.line, p.path) for p in parsed.problems] == [
        (3, "model.ssd.num_clases"),
        (4, "model.ssd.num_classes"),
        (5, "model.ssd.image_resizer.fixed_shape_resizer.height"),
        (6, "model.ssd.feature_extractor.type"),
        (7, "model.ssd.unheard_of"),
        (8, "model.ssd.post_processing.score_converter"),
        (11, "train_config.batch_size"),
    ]
    messages = [p.message for p in parsed.problems]
    assert messages[0] == "unknown field of Ssd; did you mean 'num_classes'?"
    assert messages[1] == "expected an integer, found three"
    assert messages[2] == 'expected an integer, found "300" (a string)'
    assert messages[3] == 'expected a string in quotes, found ssd_mobilenet_v2; write "ssd_mobilenet_v2"'
    assert "did you mean 'SIGMOID'? (accepted: one of IDENTITY, SIGMOID, SOFTMAX)" in messages[5]
    assert parsed.message.model.ssd.image_resizer.fixed_shape_resizer.width == 200
    assert parsed.message.train_config.num_steps == 10


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("train_config {\n batch_size: 3\n batch_size: 4 }", 3, "is set twice (first on line 2)"),
        ("train_config { optimizer { adam_optimizer {}\n momentum_optimizer {} } }", 2, "excludes adam_optimizer"),
        ("train_config { batch_size 3 }", 1, "':' is missing; write `batch_size: VALUE`"),
        ("train_config { batch_size: }", 1, "has no value; expected an integer"),
        ("train_config { batch_size:\n num_steps: 3 }", 1, "has no value"),
        ("train_config: 3", 1, "expected a block `train_config { ... }`, found '3'"),
        (
            "train_config { batch_size { } }",
            1,
            "takes an integer of at least 0; write `batch_size: VALUE`, not a block",
        ),
        ("train_config { batch_size: [1, 2] }", 1, "takes one value (an integer of at least 0), found a list"),
        ("train_config { freeze_variables: ['a' }", 1, "a ']' is missing"),
        ("train_config {\n batch_size: 3\n", 1, "the block opened here is never closed: a '}' is missing"),
        ("train_config { fine_tune_checkpoint: 'abc\n }", 1, "is not closed on its line"),
        ("train_config { use_bfloat16: yes }", 1, "expected true or false, found yes"),
        ("train_config { } @", 1, "unexpected character '@'"),
        ("train_config { fine_tune_checkpoint_version: 'V2' }", 1, "is written without quotes: V2"),
        ("[some.extension] { a: 1 }", 1, "the extension [some.extension] is not known here"),
        ("train_config { num_steps: 5000000000 }", 1, "out of range; accepted: 0 to 4294967295"),
        ("ssd { num_classes: 3 }", 1, "unknown field of TrainEvalPipelineConfig"),
        ("train_config { label_map_path: 'x' }", 1, "unknown field of TrainConfig"),
    ],
)
def test_one_problem(text, line, says):
    found = complaints(text)
    assert any(line == at and says in message for at, _, message in found), found


def test_a_missing_brace_is_one_problem_not_many():
    text = (
        "model {\n ssd {\n image_resizer { fixed_shape_resizer { height: 3 }\n num_classes: 3\n }\n}\ntrain_config {}\n"
    )
    parsed = read(text)
    assert not parsed.braces_match
    assert [(p.line, p.path) for p in parsed.problems] == [(4, "model.ssd.image_resizer")]
    assert "a '}' is missing before this line for the block of line 3" in parsed.problems[0].message
    assert parsed.message.model.ssd.num_classes == 3
    assert parsed.message.HasField("train_config")


def test_strays_are_skipped_up_to_the_next_field():
    parsed = read("train_config { 3 'x' : { a: 1 } batch_size: 4 }\n= } train_input_reader {}")
    assert sorted((p.line, p.message.split(",")[0].split(":")[0]) for p in parsed.problems) == [
        (1, "expected a field name"),
        (2, "'}' closes nothing"),
        (2, "unexpected character '='"),
    ]
    assert parsed.message.train_config.batch_size == 4
    assert parsed.message.HasField("train_input_reader")


def test_a_surplus_brace_names_the_block_that_was_closed():
    [problem] = complaints("train_config {\n batch_size: 3 }\n}\n")
    assert problem[0] == 3
    assert "closes nothing: there is one too many; the block train_config was closed before it, on line 2" in problem[2]


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        (r'"C:\data\new.record"', "C:/data/new.record"),  # would be a line break and "ew.record"
        (r'"C:\xml\train.record"', "C:/xml/train.record"),  # \x needs digits
        (r'"data\train.record"', "data/train.record"),  # would be a tabulator and "rain.record"
        (r'"data\2020\val-?????-of-00010"', "data/2020/val-?????-of-00010"),  # octal 202 is no character of UTF-8
        (r'"\\server\share\label_map.pbtxt"', "//server/share/label_map.pbtxt"),
    ],
)
def test_paths_of_windows_are_told_what_to_write(written, instead):
    [(line, path, message)] = complaints(f"train_input_reader {{\n label_map_path: {written}\n}}")
    assert (line, path) == (2, "train_input_reader.label_map_path")
    assert message == (
        f'{written}: a single backslash begins an escape, such as \\n; in a path write "{instead}", elsewhere double it'
    )


def test_a_folder_of_windows_with_a_backslash_at_its_end_is_one_problem():
    text = r"""train_config {
 fine_tune_checkpoint: "C:\models\"
 batch_size: 3
}"""
    [(line, _, message)] = complaints(text)
    assert line == 2
    assert message.endswith(
        r'"C:\models\" is not closed on its line: \ before its end makes the quote a part of it; '
        "write / instead"
    )
    assert read(text).message.train_config.batch_size == 3


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        (r'"C:\\data\\new.record"', "C:\\data\\new.record"),
        ('"C:/data/new.record"', "C:/data/new.record"),
        (r'"one\ntwo"', "one\ntwo"),
        (r'"\\d+\\.kernel"', r"\d+\.kernel"),
        (r"'it\'s'", "it's"),
    ],
)
def test_escapes_that_are_meant(written, read_as):
    parsed = read(f"train_config {{ fine_tune_checkpoint: {written} }}")
    assert parsed.problems == []
    assert parsed.message.train_config.fine_tune_checkpoint == read_as
