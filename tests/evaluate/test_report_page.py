"""Tests of report.html: complete, self-contained, safe for any name, and readable on a phone and on paper."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from detzoo.errors import DataError, UsageError
from detzoo.evaluate.classification import ClassificationResult, ClassifiedImage
from detzoo.evaluate.masks import encode_mask
from detzoo.evaluate.runner import (
    CHALLENGE_METRICS,
    COCO_METRICS,
    MASK_METRICS,
    VOC_2007_METRICS,
    VOC_METRICS,
    EvaluationResult,
    measure,
)
from detzoo.tasks.evaluation_report import read_finished, write_evaluation, write_report_of
from tests.evaluate.scenes import box, image, six_errors
from tests.page_elements import Page

HOSTILE = "</script><img src=x onerror=document.title='broken'>"
NAMES = {1: "cat", 2: HOSTILE}
SECTIONS = ["metrics", "errors", "curves", "all", "confusion", "groups", "worst", "reading"]


def result_of(images, names=NAMES, metrics_set=(COCO_METRICS,)):
    metrics, per_class = measure(images, names, metrics_set)
    return EvaluationResult(metrics, per_class, list(images), dict(names), 1.5)


def pixels(names):
    """A source of grey images; one of them is missing."""
    return {name: np.full((100, 120, 3), 128, np.uint8) for name in names if name != "gone"}


IMAGES = [six_errors("one"), six_errors("gone"), image([(0, box(0, 0))], [(0, box(0, 0), 0.95)], "fine")]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder of an evaluation, compared with another one."""
    folder = tmp_path_factory.mktemp("evaluation")
    write_evaluation(
        result_of([*IMAGES[1:], six_errors("one")]), folder / "before", {"checkpoint": "runs/first", "step": 5}
    )
    before = read_finished(folder / "before")
    facts = {"checkpoint": "runs/second", "step": 9}
    better = image([(0, box(0, 0)), (1, box(20, 20)), (0, box(50, 50)), (1, box(80, 80))], [(0, box(0, 0), 0.9)], "one")
    page = write_evaluation(result_of([better, *IMAGES[1:]]), folder, facts, pixels=pixels, compare_with=before)
    assert page == folder / "report.html"
    return folder


def test_the_page_is_well_formed_and_has_every_section(written):
    text = (written / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.problems == []
    assert re.findall(r'<section id="(\w+)"', text) == ["difference", *SECTIONS]
    assert "runs/second, step 9" in page.texts["h1"][0]
    assert text.count("<title>") >= 4  # curves and cells
    assert len(page.attributes("figure")) == 2 + 2 + 2  # curves, curves of each class, the image whose pixels are there
    assert "1 images are not drawn" in text


def test_the_page_fetches_nothing_and_names_stay_text(written):
    page = Page((written / "report.html").read_text(encoding="utf-8"))
    for tag, attributes in page.elements:
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("data:", "#")), (tag, attributes)
    assert not [each for each in page.attributes("img") if each["src"] == "x"]
    [policy] = [each["content"] for each in page.attributes("meta") if each.get("http-equiv")]
    assert policy.startswith("default-src 'none'")


def test_the_metrics_have_the_best_thresholds(written):
    metrics = json.loads((written / "metrics.json").read_text())
    assert set(metrics["best_score_thresholds"]) == {"cat"}
    assert 0.8 < metrics["best_score_threshold"] <= 0.9
    assert (metrics["mAP"] > 0, metrics["checkpoint"]) == (True, "runs/second")


def test_a_stored_evaluation_gives_the_same_page(written, tmp_path):
    page = write_report_of(
        read_finished(written), tmp_path, pixels=pixels, compare_with=read_finished(written / "before")
    )
    body = [text[text.index("<main>") :] for text in (path.read_text() for path in (page, written / "report.html"))]
    assert body[0] == body[1]
    stored, fresh = (json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path, written))
    assert stored == fresh


def test_detections_without_metrics_are_measured(written, tmp_path):
    for name in ("detections.json", "groundtruth.json"):
        (tmp_path / name).write_bytes((written / name).read_bytes())
    assert "images are not drawn, because no config" in write_report_of(read_finished(tmp_path), tmp_path).read_text()
    stored, fresh = (json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path, written))
    assert stored["mAP"] == pytest.approx(fresh["mAP"])


def test_evaluations_on_other_images_are_not_compared_and_nothing_is_lost(written, tmp_path):
    write_evaluation(result_of([six_errors("one")]), tmp_path, {})
    with pytest.raises(DataError, match=r"2 of the 3 images of .* are missing"):
        write_evaluation(result_of(IMAGES), tmp_path, {}, compare_with=read_finished(tmp_path))
    text = (tmp_path / "report.html").read_text()
    assert "Not compared: " in text
    assert re.findall(r'<section id="(\w+)"', text) == SECTIONS
    assert json.loads((tmp_path / "metrics.json").read_text())["num_images"] == 3


@pytest.mark.parametrize(
    "metrics_set", [[VOC_METRICS], [VOC_2007_METRICS], ["oid_V2_detection_metrics"], [CHALLENGE_METRICS]]
)
def test_other_metrics_sets(tmp_path, metrics_set):
    difficult = image([(0, box(0, 0)), (0, box(40, 40))], [(0, box(0, 0), 0.9)], "difficult", difficult=[1])
    text = write_evaluation(result_of([difficult], metrics_set=metrics_set), tmp_path, {}).read_text()
    assert Page(text).problems == []
    assert "mAP@.50IOU" in text
    assert ("1 image, 1 object; " in text) == metrics_set[0].startswith("pascal")


def test_masks_are_measured_and_drawn(tmp_path):
    mask = np.zeros((100, 120), bool)
    mask[:10, :10] = True
    left = mask.copy()
    left[:, 4:] = False  # IoU .4
    masks = {"gt_masks": [encode_mask(mask)], "masks": [encode_mask(left)]}
    result = result_of([image([(0, box(0, 0))], [(0, box(0, 0), 0.9)], "one", **masks)], metrics_set=[MASK_METRICS])
    text = write_evaluation(result, tmp_path, {}, pixels=pixels).read_text()
    assert "of masks" in text
    assert 'alt="one with its objects"' in text
    assert "mask AP@.5 %" in text
    assert json.loads((tmp_path / "metrics.json").read_text())["best_score_threshold"] is None


def test_proposals_and_classifiers_have_no_report_and_leave_none(tmp_path):
    (tmp_path / "report.html").write_text("of an earlier evaluation")
    proposals = EvaluationResult({"AR@10": 0.5}, {}, [six_errors()], {1: "object"}, 1.0, proposes_only=True)
    assert write_evaluation(proposals, tmp_path, {}) is None
    assert not (tmp_path / "report.html").exists()
    with pytest.raises(UsageError, match="an evaluation of proposals or of a classifier has no report"):
        read_finished(tmp_path)
    images = [ClassifiedImage("a", 0, np.array([0]), np.array([0.9], np.float32))]
    assert write_evaluation(ClassificationResult({"top-1 error": 0.0}, {}, images, NAMES, 1.0), tmp_path, {}) is None


def test_many_classes_fit_the_page(tmp_path):
    names = {number: f"class number {number}" for number in range(1, 1204)}
    images = [image([(number, box(0, 0))], [(number, box(0, 0), 0.9)], str(number)) for number in range(300)]
    per_class = {name: {"AP": 0.5} for name in names.values()}
    path = write_evaluation(EvaluationResult({"mAP": 0.5}, per_class, images, names, 1.0), tmp_path, {})
    assert path.stat().st_size < 2e6
    assert "240 rarer classes are not drawn" in path.read_text()


def test_it_is_readable_on_a_desktop_a_phone_and_paper(written, load_module):
    browsers = load_module("sweep/report/browser.py")
    if browsers.find_programs() is None:
        pytest.skip("needs chromium and chromedriver on the PATH")
    page = written / "report.html"
    with browsers.Browser(1280, 1000) as desktop:
        desktop.open(page)
        assert desktop.console() == []
        assert desktop.run("return document.title") == "runs/second, step 9"
        assert (
            desktop.run('return performance.getEntriesByType("resource").filter((e) => !e.name.startsWith("data:"))')
            == []
        )
        heads = 'document.querySelectorAll("#classes_table th button")'
        desktop.run(f'[...{heads}].find((head) => head.textContent === "objects").click()')
        cells = '[...document.querySelectorAll("#classes_table tbody tr")].map((row) => row.cells[1].textContent)'
        assert desktop.run(f"return {cells}") == ["4", "4"] or desktop.run(f"return {cells}") == ["5", "4"]
        printed = desktop.pdf()
        assert printed.startswith(b"%PDF")
        pages = printed.count(b"/Type /Page\n") or printed.count(b"/Type /Page ")
        assert 4 <= pages <= 12
    with browsers.Browser(mobile_width=390) as phone:
        phone.open(page)
        assert phone.run("return document.documentElement.scrollWidth") <= 390
        widest = (
            'return Math.max(...[...document.querySelectorAll("svg.chart, figure img")].map((e) => e.clientWidth || 0))'
        )
        assert phone.run(widest) <= 390
        assert phone.console() == []
