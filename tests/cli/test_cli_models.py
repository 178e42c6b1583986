"""``detzoo models``: the committed table is that of the committed configs."""

from __future__ import annotations

import pathlib
import shutil

import pytest

from detzoo.benchmark.models import read_header, read_table
from detzoo.cli.main import main
from detzoo.cli.models import count_model, model_digest

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


def test_every_config_is_listed_with_its_published_result(capsys):
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(list(FOLDER.glob("*.config")))
    [line] = [line for line in lines if line.startswith("ssd_mobilenet_v2_300 ")]
    assert line.split()[:6] == ["ssd_mobilenet_v2_300", "300x300", "6.10", "M", "0.77", "B"]
    assert "20.2 mAP on COCO 2017 val" in line
    assert main(["models", "--match=retinanet"]) == 0
    assert all("retinanet" in line for line in capsys.readouterr().out.splitlines()[1:])


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
    text = "# A title.\n#\n# Paper: x\n# Result: 20 mAP,\n#   of the paper.\n# Hardware: y\n\nmodel {}\n# Result: no\n"
    assert read_header(text) == ("A title.", "20 mAP, of the paper.")
    assert read_header("model {}\n") == ("", "")


@pytest.mark.parametrize("flag", ["--match=yolo", "--model_configs=nowhere"])
def test_nothing_to_list(flag, capsys):
    assert main(["models", flag]) == 2
    assert "has no .config file" in capsys.readouterr().err
