"""Tests of what explains an evaluation: matching, curves, thresholds, errors by kind, confusions, worst images."""

from __future__ import annotations

import numpy as np
import pytest

from detzoo.evaluate.analysis import summary
from detzoo.evaluate.analysis.confusion import confusion_matrix, outcome_at
from detzoo.evaluate.analysis.difference import Measured, compare
from detzoo.evaluate.analysis.errors import ErrorKind, classify_errors
from detzoo.evaluate.analysis.precision import score_curves, shortest_between
from detzoo.evaluate.analysis.summary import analyze
from detzoo.evaluate.analysis.table import make_table, match
from detzoo.evaluate.coco import MASKS, evaluate_coco
from detzoo.evaluate.masks import encode_mask
from detzoo.evaluate.pascal_voc import evaluate_voc
from tests.evaluate.scenes import box, crowded, image, six_errors

NAMES = {1: "cat", 2: "dog"}
THREE = {1: "cat", 2: "dog", 5: "unicorn"}
KIND = ErrorKind


def test_one_error_of_each_kind():
    table = make_table([six_errors()], NAMES)
    errors = classify_errors(table, match(table))
    wanted = [KIND.RIGHT, KIND.DUPLICATE, KIND.CLASSIFICATION, KIND.LOCALIZATION, KIND.BOTH, KIND.BACKGROUND]
    assert errors.kinds.tolist() == wanted
    assert errors.objects.tolist() == [-1, -1, 1, 2, -1, -1]
    # The second dog; the first one and the second cat would be found with another class and place.
    assert errors.is_missed.tolist() == [False, False, False, True]


def test_the_cost_of_each_kind():
    # Cats: right, wrong, wrong, wrong for 2 objects. The precision is 1 up to a recall of .5, 51 of COCO's 101 recalls:
    # AP 51/101. Dogs: two wrong ones for 2 objects, AP 0. The mean is 51/202.
    found = analyze([six_errors()], NAMES)
    assert found.average_precision_50 == pytest.approx(51 / 202)
    costs = {kind.label: cost for kind, cost in found.errors.items()}
    assert [cost.num_errors for cost in costs.values()] == [1] * 6
    # The third detection becomes a right dog, the first of its class: AP 51/101.
    assert costs["classification"].cost == pytest.approx(51 / 202)
    # Right, wrong, wrong, right: a precision of 2/4 at the 50 recalls above .5.
    assert costs["localization"].cost == pytest.approx(0.5 * 50 / 202)
    # The other wrong detections come after all right ones, or their class has none.
    assert [costs[name].cost for name in ("both", "duplicate", "background", "missed")] == [0.0] * 4
    # Without the objects that are not found the cat's AP is 1, and dogs have detections without objects: 0.
    assert found.total_costs == {
        "all wrong detections": pytest.approx(0.0),
        "all objects not found": pytest.approx(50 / 202),
    }


def test_only_the_best_detection_of_an_object_becomes_right():
    # Two dogs on one cat: when classes are corrected the first is right and the second is removed.
    objects, wrong = [(0, box(0, 0))], [(1, box(0, 0), 0.9), (1, box(0, 1), 0.8)]
    found = analyze([image(objects, wrong)], NAMES)
    assert found.errors[KIND.CLASSIFICATION] == (2, pytest.approx(1.0))
    # A wrong class of an object that is found is removed: a wrong detection before the right one costs half.
    found = analyze(
        [image([(0, box(0, 0)), (1, box(50, 50))], [(1, box(0, 0), 0.9), (0, box(0, 0), 0.8), (1, box(50, 50), 0.7)])],
        NAMES,
    )
    assert found.average_precision_50 == pytest.approx((1 + 0.5) / 2)
    assert found.errors[KIND.CLASSIFICATION] == (1, pytest.approx(0.25))


# mAP at IoU .5, then count and cost of each kind, in per cent: tidecv 1.0.1 on crowded(3, with_crowds=False).
TIDECV = {
    "AP": 31.36596,
    "classification": (161, 4.67102),
    "localization": (108, 1.18928),
    "both": (24, 0.22800),
    "duplicate": (573, 6.09096),
    "background": (240, 8.82505),
    "missed": (37, 11.51699),
}


def test_it_equals_the_recorded_results_of_tidecv():
    found = analyze(crowded(3, with_crowds=False), {1: "a", 2: "b", 3: "c"})
    values = {"AP": 100 * found.average_precision_50}
    for kind, (count, cost) in found.errors.items():
        values[kind.label] = (count, pytest.approx(100 * cost, abs=0.01))  # its grid of recalls is rounded differently
    assert values.pop("AP") == pytest.approx(TIDECV["AP"], abs=0.01)
    assert {name: TIDECV[name] for name in values} == values


def test_it_equals_tidecv():
    tidecv = pytest.importorskip("tidecv", reason="tidecv needs opencv-python, which replaces the headless build")
    images = crowded(4, with_crowds=False)
    truth, detections = tidecv.Data("truth"), tidecv.Data("detections")

    def xywh(corners):
        ymin, xmin, ymax, xmax = map(float, corners)
        return [xmin, ymin, xmax - xmin, ymax - ymin]

    for number, each in enumerate(images):
        for corners, kind in zip(each.gt_boxes_px, each.gt_classes):
            truth.add_ground_truth(number, int(kind), xywh(corners))
        for corners, kind, score in zip(each.boxes_px, each.classes, each.scores):
            detections.add_detection(number, int(kind), float(score), xywh(corners))
    run = tidecv.TIDE().evaluate(truth, detections, mode=tidecv.TIDE.BOX)
    costs, counts, totals = run.fix_main_errors(), run.count_errors(), run.fix_special_errors()
    found = analyze(images, {1: "a", 2: "b", 3: "c"})
    assert 100 * found.average_precision_50 == pytest.approx(run.ap, abs=0.01)
    # tidecv's order: Cls, Loc, Both, Dupe, Bkg, Miss.
    assert [cost.num_errors for cost in found.errors.values()] == [counts[kind] for kind in costs]
    assert [100 * cost.cost for cost in found.errors.values()] == pytest.approx(list(costs.values()), abs=0.01)
    assert [100 * cost for cost in found.total_costs.values()] == pytest.approx(list(totals.values()), abs=0.01)


@pytest.mark.parametrize("rounded", [False, True], ids=["distinct scores", "equal scores"])
def test_the_same_precision_as_pycocotools(monkeypatch, rounded):
    monkeypatch.setattr(summary, "SIDES_PX", (0.0, 32.0, 96.0, 1e5))
    images = crowded(1)
    if rounded:  # then the order of the images counts, which is that of their numbers
        images = [
            each._replace(scores=np.round(each.scores, 1), image_id=str(100 - number))
            for number, each in enumerate(images)
        ]
    found, coco = analyze(images, {1: "a", 2: "b", 3: "c"}), evaluate_coco(images, {1: "a", 2: "b", 3: "c"})
    assert found.average_precision_50 == pytest.approx(coco.metrics["mAP@.50IOU"], abs=1e-12)
    sizes = [coco.metrics[f"mAP ({name})"] for name in ("small", "medium", "large")]
    assert [group.average_precision for group in found.by_size] == pytest.approx(sizes, abs=1e-12)
    for each in found.classes:
        assert each.average_precision == pytest.approx(coco.per_class[each.name].average_precision_50, abs=1e-12)
        assert each.num_objects == coco.per_class[each.name].num_objects
    for (low, high), group in zip(summary.COUNTS, found.by_count):
        chosen = [each for each in images if low <= int((~each.gt_is_crowd).sum()) <= high]
        own = evaluate_coco(chosen, {1: "a", 2: "b", 3: "c"})
        assert group.average_precision == pytest.approx(own.metrics["mAP"], abs=1e-12)
        assert group.num_images == len(chosen)


def test_the_same_precision_as_pycocotools_by_masks():
    images = [
        each._replace(
            gt_masks=[_mask(corners, each.shape, 1.0) for corners in each.gt_boxes_px],
            masks=[_mask(corners, each.shape, 0.7) for corners in each.boxes_px],
        )
        for each in crowded(2, num_images=6)
    ]
    names = {1: "a", 2: "b", 3: "c"}
    found = analyze(images, names, by_masks=True)
    assert found.average_precision_50 == pytest.approx(evaluate_coco(images, names, MASKS).metrics["mask mAP@.50IOU"])
    assert found.average_precision_50 < analyze(images, names).average_precision_50


def _mask(corners, shape, share):
    """The left ``share`` of a box."""
    ymin, xmin, ymax, xmax = np.clip(np.round(corners), 0, shape[0]).astype(int)
    mask = np.zeros(shape, bool)
    mask[ymin:ymax, xmin : xmin + int(share * (xmax - xmin))] = True
    return encode_mask(mask)


def test_the_best_threshold():
    # Of 4 objects: the first k detections have F1 2 TP / (k + 4): 2/5, 2/6, 2/7, ... with only the first one right.
    found = analyze([six_errors()], NAMES)
    assert found.curves.best_f1 == pytest.approx(0.4)
    assert found.best_thresholds == {"best_score_threshold": 0.85, "best_score_thresholds": {"cat": 0.85}}
    assert (found.classes[0].curves.best_f1, found.classes[1].curves.best_threshold) == (pytest.approx(2 / 3), None)
    assert found.curves.recall[[0, 85, 90, 91]].tolist() == [0.25, 0.25, 0.25, 0.0]
    assert found.curves.precision[[0, 60, 85]].tolist() == pytest.approx([1 / 6, 1 / 4, 1.0])
    assert np.isnan(found.curves.precision[91])


def test_equal_scores_pass_a_threshold_together():
    # Right and wrong at .5, wrong at .4; 2 objects. At .5: F1 2 * 1 / (2 + 2), and not 2 / 3.
    curves = score_curves(np.array([0.5, 0.5, 0.4], np.float32), np.array([True, False, False]), 2)
    assert curves.best_f1 == pytest.approx(0.5)
    assert curves.best_threshold == 0.45
    # The lowest score is its own threshold, and it passes.
    curves = score_curves(np.array([0.7], np.float32), np.array([True]), 1)
    assert np.float32(curves.best_threshold) == np.float32(0.7)
    assert curves.f1[[70, 71]].tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [(0.4, 0.5, 0.45), (0.4431, 0.4512, 0.45), (0.5011, 0.5018, 0.501), (0.1234, 0.1235, 0.12345)],
)
def test_a_threshold_is_a_short_number_in_the_gap(low, high, wanted):
    low, high = float(np.float32(low)), float(np.float32(high))
    found = shortest_between(low, high)
    assert low < np.float32(found) <= high
    assert found == pytest.approx(wanted, abs=1e-3)
    assert len(repr(found)) <= 7


def test_the_confusion_matrix_with_background():
    table = make_table([six_errors()], NAMES)
    matching = match(table)
    # The first four detections: a right cat, a second one on it, the dog taken for a cat, and a misplaced cat.
    matrix = confusion_matrix(table, outcome_at(table, matching, 0.6), 2)
    assert matrix.tolist() == [[1, 0, 1], [1, 0, 1], [2, 0, 0]]
    # All: one more dog at the place of the misplaced cat, and one on the background.
    assert confusion_matrix(table, outcome_at(table, matching, 0.0), 2).tolist() == [[1, 0, 1], [1, 0, 1], [2, 2, 0]]
    assert analyze([six_errors()], NAMES).confusion.tolist() == [[1, 0, 1], [0, 0, 2], [0, 0, 0]]  # at .85


def test_a_confused_object_takes_the_best_detection_only():
    found = analyze([image([(0, box(0, 0))], [(1, box(0, 0), 0.9), (1, box(0, 0), 0.9)]), six_errors("other")], NAMES)
    assert found.confusion.tolist() == [[1, 1, 1], [0, 0, 2], [0, 1, 0]]


def test_crowds_and_difficult_objects_are_neither_found_nor_missed():
    objects, right = [(0, box(0, 0, 40)), (0, box(60, 60))], (0, box(60, 60), 0.9)
    inside = (0, box(5, 5), 0.8)  # covers little of the crowd, but lies in it
    found = analyze([image(objects, [right, inside], crowds=[0])], NAMES)
    assert (found.num_objects, found.num_detections, found.average_precision_50) == (1, 1, 1.0)
    assert found.confusion.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    on_difficult = (0, box(0, 0, 40), 0.95)
    both = [image(objects, [right, on_difficult], difficult=[0])]
    assert analyze(both, NAMES).num_objects == 2
    voc = analyze(both, NAMES, ignore_difficult=True)
    assert (voc.num_objects, voc.average_precision_50) == (1, 1.0)
    assert voc.average_precision_50 == evaluate_voc(both, NAMES).per_class["cat"]


def test_classes_that_nobody_labelled_in_an_image_do_not_count():
    detections = [(0, box(0, 0), 0.9), (1, box(50, 50), 0.8)]
    found = analyze([image([(0, box(0, 0))], detections, verified_classes=np.array([0]))], NAMES)
    assert found.num_detections == 1


def test_ids_with_gaps_and_classes_without_a_name():
    objects = [(0, box(0, 0)), (4, box(50, 50)), (2, box(80, 80))]  # class 2 has no name
    found = analyze([image(objects, [(4, box(50, 50), 0.9), (2, box(80, 80), 0.9)])], THREE)
    assert [(each.name, each.num_objects, each.num_right) for each in found.classes] == [
        ("cat", 1, 0),
        ("dog", 0, 0),
        ("unicorn", 1, 1),
    ]
    assert found.num_objects == 2
    assert found.classes[1].average_precision == -1.0


@pytest.mark.parametrize(
    "images",
    [
        [image([], [])],
        [image([(0, box(0, 0))], [])],
        [image([], [(0, box(0, 0), 0.9)])],
        [image([(0, box(0, 0))], [(0, box(0, 0), 0.9)], crowds=[0])],
        [image([(7, box(0, 0))], [(7, box(0, 0), 0.9)])],
    ],
    ids=["nothing", "no detection", "no object", "a crowd", "no known class"],
)
def test_nothing_to_measure(images):
    found = analyze(images, NAMES)
    assert found.curves.best_threshold is None
    assert found.best_thresholds["best_score_thresholds"] == {}
    assert found.threshold == 0.5
    assert all(cost.cost == 0.0 for cost in found.errors.values())


def test_the_worst_images_have_the_most_errors():
    good = image([(0, box(0, 0))], [(0, box(0, 0), 0.95)], "good")
    bad = image([(0, box(0, 0)), (0, box(40, 40))], [(0, box(80, 80), 0.9)], "bad")
    found = analyze([good, bad, six_errors("six")], NAMES)
    assert found.image_counts == {"good": (1, 0, 0), "bad": (0, 1, 2), "six": (1, 0, 3)}
    worst = found.worst
    assert [each.image.image_id for each in worst] == ["bad", "six"]  # of equal errors the one with fewer right
    assert worst[0].gt_is_found.tolist() == [False, False]
    assert worst[0].kinds.tolist() == [KIND.BACKGROUND]
    assert worst[1].gt_is_found.tolist() == [True, False, False, False]
    many = [bad._replace(image_id=f"bad {number}") for number in range(30)]
    assert len(analyze(many, NAMES).worst) == 20


def test_images_without_objects_have_their_own_count():
    found = analyze([six_errors(), image([], [(0, box(0, 0), 0.95), (0, box(40, 40), 0.1)], "empty")], NAMES)
    assert found.num_wrong_on_empty == (1, 1)


class Result:
    """The fields of a result that a difference reads."""

    def __init__(self, images):
        coco = evaluate_coco(images, NAMES)
        self.metrics = coco.metrics
        self.per_class = {name: {"AP": each.average_precision} for name, each in coco.per_class.items()}


def test_the_difference_of_two_evaluations():
    before = [six_errors("six"), image([(0, box(0, 0))], [(0, box(0, 0), 0.9)], "other")]
    # All objects of the first image are found, the one of the second is not.
    objects = list(zip(before[0].gt_classes.tolist(), map(tuple, before[0].gt_boxes_px)))
    after = [image(objects, [(*each, 0.9) for each in objects], "six"), image([(0, box(0, 0))], [], "other")]
    change = compare(*(Measured("x", Result(images), analyze(images, NAMES)) for images in (before, after)))
    first = change.classes[0]
    assert (first.name, first.gain) == ("dog", pytest.approx(1.0))
    assert {each.name: each.before for each in change.errors}["classification"] > 0
    assert all(each.after == 0 for each in change.errors if each.name != "missed")
    assert [(each.name, each.before, each.after) for each in change.better] == [("six", 3, 0)]
    assert [(each.name, each.before, each.after) for each in change.worse] == [("other", 0, 1)]
    assert change.num_changed == (1, 1)
    assert "mAP (large)" not in {each.name for each in change.metrics}  # nothing to measure


def test_no_loop_over_boxes():
    """Half a million boxes take seconds; the bound has room for a busy machine."""
    import time

    rows = np.arange(100)
    images = [
        each._replace(
            boxes_px=np.concatenate([each.boxes_px] * 3)[rows],
            scores=np.concatenate([each.scores] * 3)[rows],
            classes=np.concatenate([each.classes] * 3)[rows],
        )
        for each in crowded(5, 20)
    ] * 20
    started = time.process_time()
    found = analyze(images, {1: "a", 2: "b", 3: "c"})
    assert found.num_images == 400
    assert time.process_time() - started < 4.0  # 0.4 s for 40,000 detections
