"""``detzoo models``: the committed table is that of the committed configs."""

from __future__ import annotations

import json
import os
import pathlib
import shutil

import pytest

from detzoo.benchmark.models import PAPERS, ModelRow, PublishedRow, read_header, read_table, short_result, write_table
from detzoo.cli.main import main
from detzoo.cli.models import FIRST_STEPS, GROUPS
from detzoo.tasks.count_models import count_model, model_digest

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "model_configs"


def test_the_committed_table_is_up_to_date():
    rows = read_table(FOLDER)
    digests = {file.stem: model_digest(file) for file in FOLDER.glob("*.config")}
    stale = [name for name, digest in digests.items() if name not in rows or rows[name].digest != digest]
    assert not stale, "run `detzoo models --refresh`"
    assert set(rows) <= set(digests)


def test_a_row_is_what_building_its_config_gives():
    file = FOLDER / "ssd_mobilenet_v2_fpnlite_320.config"
    assert count_model(file, model_digest(file)) == read_table(FOLDER)[file.stem]


def test_every_config_is_listed_once_below_its_kind_with_its_published_result(capsys):
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = [line.split()[0] for line in lines[1:] if line.startswith("  ")]
    assert sorted(listed) == sorted(file.stem for file in FOLDER.glob("*.config"))
    headings = [line for line in lines[1:] if not line.startswith("  ")]
    assert headings == [name for name in (FIRST_STEPS, *GROUPS.values()) if name in headings]
    [line] = [line for line in lines if line.startswith("  ssd_mobilenet_v2_300 ")]
    assert line.split()[:6] == ["ssd_mobilenet_v2_300", "300x300", "6.10", "M", "0.77", "B"]
    assert line.endswith("  20.2 mAP on COCO 2017 val, published for this configuration")


@pytest.mark.parametrize(
    ("name", "heading"),
    [
        ("shapes_ssd_mobilenet_v1", FIRST_STEPS),
        ("ssd_vgg16_300", "SSD"),
        ("ssd_mobilenet_v1_fpn_640", "RetinaNet, and SSD with a feature pyramid"),
        ("efficientdet_d0", "EfficientDet"),
        ("faster_rcnn_resnet50_fpn_800_four_step", "Faster R-CNN"),
        ("rfcn_resnet101_600", "R-FCN"),
        ("mask_rcnn_resnet50_fpn_800", "Mask R-CNN"),
        ("rpn_resnet50_c4_800", "Region proposals alone"),
        ("fast_rcnn_resnet50_c4_800", "Fast R-CNN on given proposals"),
    ],
)
def test_kinds(name, heading, capsys):
    assert main(["models", f"--match={name}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == heading
    assert lines[2].split()[0] == name


def test_numbers_in_names_are_sorted_as_numbers(capsys):
    assert main(["models", "--match=retinanet_resnet"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]]
    depths = [int(name.split("_")[1].removeprefix("resnet")) for name in names]
    assert depths == [50] * 5 + [101] * 6 + [152]


def test_the_rows_of_a_paper_in_its_order(capsys):
    assert main(["models", "--paper=fpn", "--match=faster_rcnn_resnet"]) == 0
    title, columns, *lines = capsys.readouterr().out.splitlines()
    assert title.endswith("arXiv:1612.03144; what differs and why: docs/papers/fpn.md")
    numbers = ["input", "parameters", "multiply-adds", "weights"]
    assert columns.split() == ["row", "config", *numbers, "published", "result"]
    assert [" ".join(line.partition("faster_")[0].split()) for line in lines] == [
        "table 3*",
        "table 3a",
        "table 3b",
        "table 3c",
        "table 4",
        "table 5, R-50 not shared",
        "table 5, R-50 shared",
        "table 5, R-101 not shared",
        "table 5, R-101 shared",
    ]
    # One config in two rows.
    assert [line.split("faster_rcnn_")[1].split()[0] for line in lines if "33.9 AP" in line] == ["resnet50_fpn_800"] * 2
    for paper in PAPERS:
        assert main(["models", f"--paper={paper}", "--match=nothing"]) == 2
        assert "nothing" in capsys.readouterr().err
    assert main(["models", "--paper=fpn", "--match=ssd"]) == 2
    assert "none of the" in capsys.readouterr().err


def test_lines_are_as_wide_as_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr("shutil.get_terminal_size", lambda *fallback, **named: os.terminal_size((80, 24)))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert main(["models", "--match=rpn_resnet50"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [len(line) for line in lines if line.endswith("…")] == [80] * 7  # the columns' names and six configs


def test_refresh_keeps_what_another_process_has_counted(tmp_path, monkeypatch, capsys):
    for name in ("rpn_resnet50_fpn_800", "fast_rcnn_resnet50_fpn_800"):
        shutil.copy(FOLDER / f"{name}.config", tmp_path / f"{name}.config")
    shutil.copy(FOLDER / "rpn_resnet50_fpn_800.config", tmp_path / "rpn_again.config")

    def count(file, digest):
        assert file.stem == "rpn_again"  # the other is equal, and is not built
        other = ModelRow("fast_rcnn_resnet50_fpn_800", "1x2", 3, 4, "other")
        write_table(tmp_path, [other, ModelRow("gone", "1x1", 1, 1, "gone")])
        return ModelRow(file.stem, "800x1067", 27_500_242, 5, digest)

    monkeypatch.setattr("detzoo.tasks.count_models.count_model", count)
    assert main(["models", f"--model_configs={tmp_path}", "--match=rpn", "--refresh"]) == 0
    rows = read_table(tmp_path)
    assert {name: row.parameters for name, row in rows.items()} == {
        "fast_rcnn_resnet50_fpn_800": 3,
        "rpn_again": 27_500_242,
        "rpn_resnet50_fpn_800": 27_500_242,
    }
    assert "27.50 M" in capsys.readouterr().out


def test_a_changed_config_is_not_given_old_numbers(tmp_path, capsys):
    name = "ssd_mobilenet_v2_300"
    shutil.copy(FOLDER / "models.csv", tmp_path)
    text = (FOLDER / f"{name}.config").read_text()
    (tmp_path / f"{name}.config").write_text(text.replace("max_detections_per_class: 100", ""))
    assert main(["models", f"--model_configs={tmp_path}"]) == 0
    assert "6.10 M" in capsys.readouterr().out
    (tmp_path / f"{name}.config").write_text(text.replace("num_classes: 90", "num_classes: 91"))
    assert main(["models", f"--model_configs={tmp_path}"]) == 0
    assert "not counted yet: --refresh" in capsys.readouterr().out


def test_headers():
    text = """# A title.
#
# Paper: x
# Result: 20 mAP,
#   of the paper.
# Hardware: y

model {}
# Result: no
"""
    assert read_header(text) == ("A title.", "20 mAP, of the paper.", ())
    assert read_header("model {}\n") == ("", "", ())


def test_rows_in_headers():
    text = """# A title.
# Row: FPN table 3*; RetinaNet table 12, R-101 at
#   800 pixels; mine
# Result: 1
"""
    header = read_header(text)
    assert header.rows == (PublishedRow("fpn", 3, "*", ""), PublishedRow("retinanet", 12, "", "R-101 at 800 pixels"))
    assert [row.label for row in header.rows] == ["3*", "12"]
    assert header.result == "1"
    # Tables by number, not as text; then letters; then the numbers in names.
    order = [("SPP", 9, "", ""), ("SPP", 10, "a", "R-50"), ("SPP", 10, "a", "R-101"), ("SPP", 10, "b", "R-50")]
    assert sorted((PublishedRow(*row) for row in order[::-1]), key=PublishedRow.order) == order
    assert short_result("20 mAP in the paper; not re-measured here.") == "20 mAP in the paper"


@pytest.mark.parametrize("flag", ["--match=yolo", "--model_configs=nowhere"])
def test_nothing_to_list(flag, capsys):
    assert main(["models", flag]) == 2
    assert "has no .config file" in capsys.readouterr().err


def test_the_list_as_json(capsys):
    assert main(["models", "--json"]) == 0
    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert set(entries) == {file.stem for file in FOLDER.glob("*.config")}
    # From models.csv and the file's header.
    row = read_table(FOLDER)["ssd_mobilenet_v2_300"]
    assert entries["ssd_mobilenet_v2_300"] == {
        "name": "ssd_mobilenet_v2_300",
        "path": str(FOLDER / "ssd_mobilenet_v2_300.config"),
        "group": "SSD",
        "title": "SSD with MobileNet v2, 300 x 300, COCO.",
        "input_height": 300,
        "input_width": 300,
        "parameters": row.parameters,
        "multiply_adds": row.multiply_adds,
        "weights": "ssd_mobilenet_v2_320x320_coco17_tpu-8",
        "published_result": "20.2 mAP on COCO 2017 val, published for this configuration; not re-measured here.",
        "paper_rows": [],
    }
    assert main(["models", "--json", "--paper=fpn", "--match=segmentation_proposals_resnet50_5x5"]) == 0
    [entry] = json.loads(capsys.readouterr().out)
    assert entry["paper_rows"] == [{"paper": "fpn", "table": 6, "letter": "", "name": "5x5 head"}]
    assert main(["models", "--json", "--paper=fpn", "--match=ssd"]) == 2
    assert capsys.readouterr().out == ""


def test_copy_writes_a_new_file_whose_commands_name_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name = "ssd_mobilenet_v2_300"
    assert main(["models", "copy", name, "mine/my.config"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "mine/my.config"
    assert "detzoo train --pipeline_config_path mine/my.config --model_dir runs/my" in out
    text = (tmp_path / "mine" / "my.config").read_text()
    assert "# Train: detzoo train --pipeline_config_path mine/my.config " in text
    original = (FOLDER / f"{name}.config").read_text()
    assert text == original.replace(f"model_configs/{name}.config", "mine/my.config") != original
    assert main(["models", "copy", name, "mine"]) == 0  # a folder: the name stays
    assert (tmp_path / "mine" / f"{name}.config").is_file()


def test_copy_replaces_no_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("my.config").write_text("mine")
    assert main(["models", "copy", "ssd_mobilenet_v2_300", "my.config"]) == 2
    assert "my.config exists already" in capsys.readouterr().err
    assert pathlib.Path("my.config").read_text() == "mine"
    assert main(["models", "copy", "ssd_mobilenet_v2_30", "new/my.config"]) == 2
    assert "did you mean ssd_mobilenet_v2_300" in capsys.readouterr().err
    assert not pathlib.Path("new").exists()
    assert main(["models", "copies"]) == 2
    assert "`detzoo models` has no 'copies'; accepted: copy" in capsys.readouterr().err
