"""``detzoo detect`` from flags to pictures."""

from __future__ import annotations

import json
import os
import re

import numpy as np
import pytest
from PIL import Image

from detzoo.builders.detector import build_detector
from detzoo.builders.resize import build_model_resizer
from detzoo.cli.main import main
from detzoo.data.proposals import write_proposals
from detzoo.ensemble.description import Ensemble, EnsembleModel, write_ensemble
from detzoo.export.exporter import Export, export_detector
from tests.detectors.test_spp_net import message_of as spp_net_of

LABEL_MAP = """
item { id: 1 name: "cat" }
item {
  id: 2 name: "dog"
  display_name: "Dog"
}
item { id: 3 name: "bird" }
"""


@pytest.fixture(scope="module")
def exported(toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    export_detector(toy.toy_detector(), toy.ToyResizer(), folder, "image_tensor", Export("", LABEL_MAP))
    return folder


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (50 + 20 * number, 90, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg")
    (folder / "broken.jpg").write_bytes(b"nothing")
    return folder


def arguments(exported, photos, *more):
    out = photos.parent / "out"
    flags = [f"--saved_model={exported}", f"--images={photos}", f"--output_dir={out}", "--score_threshold=0.0"]
    return ["detect", *flags, *more]


def test_a_folder_becomes_pictures(exported, photos, capsys):
    assert main(arguments(exported, photos)) == 0
    shown = capsys.readouterr()
    assert "10 detections on 2 images, 1 unreadable files skipped" in shown.out
    assert "broken.jpg is skipped" in shown.err
    out = photos.parent / "out"
    assert sorted(path.name for path in out.glob("*.png")) == ["0.png", "1.png"]
    entries = json.loads((out / "detections.json").read_text())
    assert {entry["category_name"] for entry in entries} <= {"cat", "Dog", "bird"}
    assert main(arguments(exported, photos, "--max_boxes=1")) == 0
    assert len(json.loads((out / "detections.json").read_text())) == 2


def test_files_of_every_kind_cost_themselves_alone(exported, photos, capsys):
    pixels = np.random.default_rng(7).integers(0, 256, (40, 50, 3), np.uint8)
    image = Image.fromarray(pixels)
    read = {
        "cmyk.jpg": image.convert("CMYK"),
        "deep.png": Image.fromarray(pixels[..., 0].astype(np.uint16) * 200),
        "palette.png": image.quantize(8),
        "la.png": image.convert("LA"),
        "a.webp": image,
        "a.gif": image,
    }
    for name, picture in read.items():
        several = {"save_all": True, "append_images": [picture.rotate(90)]} if name.startswith("a.") else {}
        transparent = {"transparency": 1} if name == "palette.png" else {}
        picture.save(photos / name, **several, **transparent)
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "folder.jpg").mkdir()
    (photos / "link.jpg").symlink_to(photos / "gone.jpg")
    (photos / "zero.jpg").symlink_to("/dev/zero")
    os.mkfifo(photos / "pipe.png")
    image.save(photos / "cut.bmp")
    (photos / "cut.bmp").write_bytes((photos / "cut.bmp").read_bytes()[:900])
    Image.new("L", (2000, 1001)).save(photos / "large.png")
    assert main(arguments(exported, photos, "--max_image_megapixels=2")) == 0
    shown = capsys.readouterr()
    assert f"on {2 + len(read)} images, 6 unreadable files skipped" in shown.out
    reasons = {
        "empty.jpg is skipped: image file is empty",
        "link.jpg is skipped: image file is missing",
        "pipe.png is skipped: not a regular file",
        "cut.bmp is skipped: ",
        "large.png is skipped: 2000 x 1001 = 2002000 pixels, more than --max_image_megapixels=2",
        "1 links in",  # to /dev/zero
    }
    assert not [reason for reason in reasons if reason not in shown.err]


def test_another_model_threshold_or_font_starts_over(exported, photos, capsys, monkeypatch):
    monkeypatch.setattr("detzoo.tasks.detect_journal.Journal.finish", lambda self: None)
    assert main(arguments(exported, photos)) == 0
    assert main(arguments(exported, photos)) == 0
    assert "resuming: 2 images were done by the interrupted run" in capsys.readouterr().err
    assert main(arguments(exported, photos, "--score_threshold=0.1")) == 0
    assert "score_threshold changed since the interrupted run: starting over" in capsys.readouterr().err
    os.utime(exported / "saved_model" / "saved_model.pb")
    assert main(arguments(exported, photos, "--score_threshold=0.1")) == 0
    assert "saved_model changed since the interrupted run: starting over" in capsys.readouterr().err


def test_a_font_that_is_none(exported, photos, capsys):
    assert main(arguments(exported, photos, "--font=gone.ttf")) == 2
    assert "--font gone.ttf: there is no such file" in capsys.readouterr().err
    assert main(arguments(exported, photos, f"--font={photos / '0.jpg'}")) == 2
    assert "cannot be read as a font" in capsys.readouterr().err


def test_a_label_map_is_found_named_or_missed(exported, photos, capsys, tmp_path):
    (tmp_path / "names.pbtxt").write_text("""
        item { id: 1 name: 'x' }
        item { id: 2 name: 'y' }
        item { id: 3 name: 'z' }
        """)
    assert main(arguments(exported, photos, f"--label_map={tmp_path / 'names.pbtxt'}")) == 0
    entries = json.loads((photos.parent / "out" / "detections.json").read_text())
    assert {entry["category_name"] for entry in entries} <= {"x", "y", "z"}
    (exported / "saved_model").rename(tmp_path / "alone")
    try:
        assert main(arguments(tmp_path / "alone", photos)) == 0
    finally:
        (tmp_path / "alone").rename(exported / "saved_model")
    assert "no label map next to" in capsys.readouterr().err
    entries = json.loads((photos.parent / "out" / "detections.json").read_text())
    assert all(entry["category_name"] == f"class {entry['category_id']}" for entry in entries)


def test_a_video_becomes_an_annotated_video(exported, tmp_path, capsys, caplog):
    write_video = pytest.importorskip("tests.video_files", reason="needs the extra detzoo[video]").write_video
    clip, out = tmp_path / "clip.mp4", tmp_path / "out"
    write_video(str(clip))
    flags = ["detect", f"--saved_model={exported}", f"--output_dir={out}", "--score_threshold=0.0"]
    assert main([*flags, f"--video={clip}", "--frame_stride=2", "--batch_size=2"]) == 0
    shown = capsys.readouterr()
    assert f"{clip}: 5 frames, " in shown.out
    assert re.search(r" per second \(\d+ % of the time in the model\), 25 detections", shown.out)
    assert f"the annotated video and detections.jsonl are in {out}" in shown.out
    assert sorted(path.name for path in out.iterdir()) == ["clip.mp4", "detections.jsonl"]
    lines = [json.loads(line) for line in (out / "detections.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == [1, 3, 5, 7, 9]
    assert {name for line in lines for name in line["counts"]} <= {"cat", "Dog", "bird"}
    assert main([*flags, f"--images={clip}", "--max_frames=1", "--no_pictures"]) == 0
    shown = capsys.readouterr()
    assert f"{clip}: 1 frames, 5 detections" in shown.out
    assert f"\ndetections.jsonl is in {out}" in shown.out
    for more, code, expected in [
        ([], 2, "needs either --images or --video"),
        ([f"--video={clip}", "--images=a.jpg"], 2, "needs either --images or --video"),
        ([f"--video={clip}", "--proposals=p.npz"], 2, "--proposals goes with --images"),
        (["--video=gone.mp4"], 2, "--video gone.mp4: there is no such file or folder"),
        (["--video=http://127.0.0.1:9/x"], 1, "detzoo: http://127.0.0.1:9/x cannot be opened: Connection refused"),
        ([f"--video={clip}", f"--output_dir={tmp_path}"], 2, "clip.mp4 would be replaced by its annotated video"),
    ]:
        assert main([*flags, *more]) == code
        [line] = capsys.readouterr().err.splitlines()
        assert expected in line


def test_video_and_tracking_need_their_extras(exported, tmp_path, capsys, monkeypatch):
    missing = {"video": {"no_such_module": "av"}, "track": {"no_such_module": "av", "another": "supervision"}}
    monkeypatch.setattr("detzoo.extras._PACKAGES", missing)
    flags = ["detect", f"--saved_model={exported}", f"--output_dir={tmp_path / 'out'}", "--video=a.mp4"]
    assert main(flags) == 2
    assert re.search(r"reading videos needs .*: av. Install: .*detzoo\[video\]", capsys.readouterr().err)
    assert main([*flags, "--track"]) == 2
    assert re.search(r"tracking needs .*: av, supervision. Install: .*detzoo\[track\]", capsys.readouterr().err)


def test_mistakes_get_one_message(exported, photos, capsys):
    assert main(arguments(exported, photos, f"--images={photos}/3.jpg")) == 2
    assert "no such file or folder; did you mean" in capsys.readouterr().err
    assert main(arguments("nowhere", photos)) == 2
    assert "--saved_model nowhere does not exist" in capsys.readouterr().err
    assert main(arguments(exported, photos, "--score_threshold=2")) == 2
    assert "score_threshold" in capsys.readouterr().err
    (photos / "0.jpg").unlink()
    (photos / "1.jpg").unlink()
    assert main(arguments(exported, photos)) == 1
    assert (
        "none of the 1 files could be read as an image and detected on: not an image of a known format"
        in capsys.readouterr().err
    )


@pytest.fixture(scope="module")
def given_regions(tmp_path_factory):
    """An exported SPP-net, whose scores are those of drawn weights."""
    message = spp_net_of()
    detector = build_detector(message)
    for variable in detector.svm.variables:
        variable.assign(np.random.default_rng(0).normal(0.0, 0.05, variable.shape))
    folder = tmp_path_factory.mktemp("given_regions")
    beside = Export("", LABEL_MAP, compares=False)
    export_detector(detector, build_model_resizer(message), folder, "image_tensor", beside)
    return folder


def test_regions_come_from_a_file_by_the_names_of_the_images(given_regions, photos, capsys):
    whole, half = np.float32([[0, 0, 1, 1]]), np.float32([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]])
    names = ["0.jpg", "1.jpg", "broken.jpg"]
    write_proposals(photos.parent / "photos.npz", names, [whole, half, half[:0]], [[1.0], [1.0, 0.5], []])
    assert main(arguments(given_regions, photos, f"--proposals={photos.parent / 'photos.npz'}")) == 0
    capsys.readouterr()
    entries = json.loads((photos.parent / "out" / "detections.json").read_text())
    boxes = {(entry["file_name"][-5:], *entry["bbox"]) for entry in entries}
    # Box regression of zeros leaves the windows as they are: of an image 50 x 90 and of one 70 x 90.
    assert boxes == {("0.jpg", 0, 0, 90, 50), ("1.jpg", 0, 0, 45, 35), ("1.jpg", 45, 35, 45, 35)}


def test_a_model_that_classifies_regions_needs_those_of_every_image(given_regions, exported, photos, capsys):
    assert main(arguments(given_regions, photos)) == 2
    assert "name them with --proposals=FILE. `detzoo proposals" in capsys.readouterr().err
    write_proposals(photos.parent / "other.npz", ["0.jpg"], [np.float32([[0, 0, 1, 1]])], [[1.0]])
    assert main(arguments(given_regions, photos, f"--proposals={photos.parent / 'other.npz'}")) == 2
    assert "has no entry for 2 of the 3 images, such as '1.jpg'" in capsys.readouterr().err
    assert main(arguments(exported, photos, f"--proposals={photos.parent / 'other.npz'}")) == 2
    assert "--proposals has no meaning for this model" in capsys.readouterr().err


def test_an_ensemble_brings_no_regions(given_regions, photos, capsys):
    file = photos.parent / "ensemble.json"
    write_ensemble(file, Ensemble((EnsembleModel("spp_net", str(given_regions)),)))
    flags = [f"--ensemble={file}", f"--images={photos}", f"--output_dir={photos.parent / 'out'}"]
    assert main(["detect", *flags]) == 2
    assert "classifies given regions, which an ensemble's images do not bring" in capsys.readouterr().err


def test_the_best_threshold_comes_from_an_evaluation(exported, photos, capsys, tmp_path):
    assert main(arguments(exported, photos)) == 0
    entries = json.loads((photos.parent / "out" / "detections.json").read_text())
    middle = sorted(entry["score"] for entry in entries)[5]
    metrics = {"best_score_threshold": middle, "per_class": {"cat": {}, "dog": {}, "bird": {}}, "weights": "ab"}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    given = [argument for argument in arguments(exported, photos) if not argument.startswith("--score_threshold")]
    best = [*given, "--score_threshold=best"]
    assert main(best) == 2
    assert "there is none next to " in capsys.readouterr().err
    assert main([*best, f"--metrics={tmp_path}"]) == 0
    found = json.loads((photos.parent / "out" / "detections.json").read_text())
    assert len(found) == 5
    assert min(entry["score"] for entry in found) == middle
    capsys.readouterr()
    for change, message in (
        ({"best_score_threshold": None}, "no best score threshold, because no detection was right"),
        ({"per_class": {"cat": {}, "wolf": {}}}, "is of another model, with other classes (bird, dog, wolf)"),
        ({"best_score_threshold": None, "per_class": 1}, "no best score threshold"),
    ):
        (tmp_path / "metrics.json").write_text(json.dumps({**metrics, **change}))
        assert main([*best, f"--metrics={tmp_path / 'metrics.json'}"]) == 2
        assert message in capsys.readouterr().err
    record = json.loads((exported / "export.json").read_text())
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("detzoo.tasks.detect.export_record", lambda model: {**record, "weights": "cd"})
        assert main([*best, f"--metrics={tmp_path}"]) == 2
    assert "is of another model, with other weights" in capsys.readouterr().err
    (tmp_path / "metrics.json").write_text("{}")
    assert main([*best, f"--metrics={tmp_path}"]) == 2
    assert "has no best_score_threshold" in capsys.readouterr().err
    assert main([*given, "--score_threshold=bets"]) == 2
    assert "--score_threshold=bets: accepted: 0 to 1, or best" in capsys.readouterr().err


def test_labels_and_crops_without_pictures(exported, photos, capsys):
    (photos / "more").mkdir()
    (photos / "0.jpg").rename(photos / "more" / "1.jpg")
    flags = ["--formats=yolo,voc", "--formats=csv", "--save_crops", "--no_pictures", "--batch_size=2"]
    assert main(arguments(exported, photos, *flags)) == 0
    assert "label files, crops and detections.json are in" in capsys.readouterr().out
    out = photos.parent / "out"
    assert sorted(path.name for path in out.iterdir()) == ["crops", "detections.csv", "detections.json", "voc", "yolo"]
    assert (out / "voc" / "more" / "1.xml").is_file()
    assert (out / "voc" / "1.xml").is_file()
    assert (out / "yolo" / "classes.txt").read_text().splitlines() == ["cat", "Dog", "bird"]
    label_map = f"--label_map={photos.parent / 'label_map.pbtxt'}"
    (photos.parent / "label_map.pbtxt").write_text(LABEL_MAP.replace("Dog", "dog"))
    assert main(arguments(exported, photos, "--formats=yolo", label_map)) == 0
    words = [f"--images_dir={photos}", f"--labels_dir={out / 'yolo' / 'labels'}", "--num_shards=1"]
    words += [f"--class_names={out / 'yolo' / 'data.yaml'}", f"--output_path={photos.parent / 'records'}"]
    assert main(["dataset", "yolo", *words]) == 0
    assert "10 objects" in capsys.readouterr().out


def test_tiles_find_objects_in_parts_of_an_image(exported, photos, capsys):
    assert main(arguments(exported, photos, "--tile=48", "--tile_overlap=0.25")) == 0
    assert "unreadable files skipped" in capsys.readouterr().out
    entries = json.loads((photos.parent / "out" / "detections.json").read_text())
    # The toy finds the same 5 boxes in each tile; 90 x 70 pixels have 3 x 2 of them.
    assert len(entries) > 10
    boxes = np.array([entry["bbox"] for entry in entries])
    assert (boxes[:, :2] + boxes[:, 2:] <= [90.01, 70.01]).all()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tile_overlap=0.3"], "--tile_overlap goes with --tile: give the side of the tiles in pixels"),
        (["--tile=8"], "--tile"),
        (["--tile=64", "--tile_overlap=0.9"], "--tile_overlap"),
        (["--formats=vok"], "--formats has 'vok'; did you mean 'voc'?; accepted: yolo, voc, csv, labelme"),
        (["--batch_size=0"], "--batch_size"),
    ],
)
def test_wrong_tiles_and_formats(exported, photos, capsys, flags, message):
    assert main(arguments(exported, photos, *flags)) == 2
    assert message in capsys.readouterr().err
    assert not (photos.parent / "out").exists()


def test_tiles_and_given_regions(given_regions, photos, capsys):
    write_proposals(photos.parent / "photos.npz", ["0.jpg"], [np.float32([[0, 0, 1, 1]])], [[1.0]])
    flags = ["--tile=64", f"--proposals={photos.parent / 'photos.npz'}", f"--images={photos / '0.jpg'}"]
    assert main([word for word in arguments(given_regions, photos, *flags) if word != f"--images={photos}"]) == 2
    assert "--tile has no meaning for a model that classifies given regions" in capsys.readouterr().err
