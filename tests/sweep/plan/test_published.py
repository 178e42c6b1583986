"""Tests of sweeps with published tables: numbers of the points, the small version, shared features, given proposals."""

from __future__ import annotations

import pathlib

import pytest

from detzoo.config.check.anchors import check_cells
from detzoo.config.load import load_pipeline, to_text
from detzoo.config.problems import Findings
from detzoo.errors import ConfigError
from detzoo.sweep.plan.files import replace_output_dir
from detzoo.sweep.plan.sweep_plan import SweepPlan, load_plan
from tests.problem_text import problem_text

CONFIGS = pathlib.Path(__file__).parents[3] / "model_configs"
PAPERS = sorted(path.name for path in (CONFIGS / "sweeps").glob("*_table*.sweep"))
SSD = f'base {{ config: "{CONFIGS}/ssd_mobilenet_v1_300.config" name: "ssd" }}\n'
SHAPES = f"{CONFIGS}/shapes_ssd_mobilenet_v1.config"
PYRAMID = f"{CONFIGS}/shapes_faster_rcnn_mobilenet_v1_fpn.config"
ALPHA = 'axis { path { path: "model.ssd.num_classes" values: ["5", "7"] name: "classes" } }\n'
TWO_ROWS = """published {
  source: "a paper, table 9"
  conditions: "its data"
  columns: ["mAP", "latency.median_ms"]
  row { of: "classes=5" values: [31.1, 64] }
  row { of: "classes=7" values: [28.35, -1] }
}
"""
EMBEDDED = "data { embedded { num_train_images: 8 num_eval_images: 4 } }\n"


def plan_of(folder: pathlib.Path, text: str, small: bool = False, overrides: tuple[str, ...] = ()) -> SweepPlan:
    file = folder / "test.sweep"
    file.write_text(text)
    return load_plan(str(file), overrides, small)


def num_trainings(plan: SweepPlan) -> int:
    return len({point.training_key for point in plan.points if point.training_key})


def problems_of(folder: pathlib.Path, text: str, small: bool = False) -> str:
    with pytest.raises(ConfigError, match=r"test\.sweep") as caught:
        plan_of(folder, text, small)
    return str(caught.value).replace(str(folder / "test.sweep"), "SWEEP")


def test_numbers_are_joined_with_points_as_shares_and_milliseconds(tmp_path: pathlib.Path) -> None:
    plan = plan_of(tmp_path, SSD + ALPHA + TWO_ROWS)
    # A table's per cent are shares of 1 in results.csv; a number below 0 is none.
    assert plan.published == {
        "ssd_classes5": {"mAP": 0.311, "latency.median_ms": 64.0},
        "ssd_classes7": {"mAP": 0.2835},
    }


def test_a_row_finds_its_points_by_base_path_and_what_a_config_has(tmp_path: pathlib.Path) -> None:
    rows = 'row { of: ["base=ssd", "model.ssd.num_classes=5", "extractor=mobilenet_v1", "resolution=300"] values: 50 }'
    text = SSD + ALPHA + f'published {{ source: "here" columns: "mAP" {rows} }}'
    assert plan_of(tmp_path, text).published == {"ssd_classes5": {"mAP": 0.5}}


def test_published_numbers_do_not_change_what_is_measured(tmp_path: pathlib.Path) -> None:
    with_numbers, without = plan_of(tmp_path, SSD + ALPHA + TWO_ROWS), plan_of(tmp_path, SSD + ALPHA)
    assert [point.key for point in with_numbers.points] == [point.key for point in without.points]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('source: "a paper, table 9"', ""), problem_text("SWEEP", 3, "published", "has no source")),
        (('"mAP",', '"mAPs",'), "published.columns[0]: there is no column 'mAPs'; did you mean 'mAP'"),
        (
            ("[31.1, 64]", "[31.1]"),
            problem_text("SWEEP", 7, "published.row[0].values", "has 1 numbers; accepted: 2"),
        ),
        (("classes=5", "clases=5"), "published.row[0].of[0]: there is no axis 'clases'; did you mean 'classes'"),
        (("classes=5", "base=sdd"), "published.row[0].of[0]: there is no base 'sdd'; did you mean 'ssd'"),
        (("classes=5", "classes"), "published.row[0].of[0]: 'classes' is no AXIS=VALUE"),
        (('of: "classes=5"', ""), "published.row[0]: is of no point; give `of: 'AXIS=VALUE'`"),
        (("classes=5", "classes=6"), problem_text("SWEEP", 7, "published.row[0]", "no point has classes=6")),
        (("classes=5", "base=ssd"), "published.row[1]: is of ssd_classes7, as published.row[0] is"),
    ],
)
def test_what_is_wrong_with_published_numbers_is_told(
    tmp_path: pathlib.Path, change: tuple[str, str], message: str
) -> None:
    assert message in problems_of(tmp_path, SSD + ALPHA + TWO_ROWS.replace(*change))


def test_the_small_version_takes_the_place_of_what_it_gives(tmp_path: pathlib.Path) -> None:
    text = f"""{SSD}{ALPHA}{TWO_ROWS}description: "large"
measure {{ runs: 500 device: GPU }}
small {{
  base {{ config: "{SHAPES}" name: "ssd" }}
  set: "train_config.num_steps=7"
  measure {{ speed: false }}
  {EMBEDDED}
  train {{ }}
}}
"""
    large, small = plan_of(tmp_path, text), plan_of(tmp_path, text, small=True)
    assert [point.name for point in large.points] == ["ssd_classes5", "ssd_classes7"]
    assert large.points[0].how.runs == 500
    assert num_trainings(large) == 0
    assert [point.name for point in small.points] == ["ssd_classes5", "ssd_classes7"]  # the axis is the sweep's own
    assert small.points[0].training.train_config.num_steps == 7
    assert small.points[0].how.device == "CPU"
    assert not small.points[0].how.speed
    assert num_trainings(small) == 2
    assert small.message.description == "large"
    assert small.published == large.published


def test_problems_of_the_small_version_have_its_lines_and_those_of_the_large_one_are_not_told(
    tmp_path: pathlib.Path,
) -> None:
    text = f"""base {{ config: "nowhere.config" }}
small {{
  base {{ config: "{SHAPES}" }}
  set: "model.ssd.x=1"
}}
"""
    found = problems_of(tmp_path, text, small=True)
    assert problem_text("SWEEP", 4, "set[0]", "model.ssd.x=1: model.ssd (Ssd) has no field 'x'") in found
    assert "nowhere" not in found
    assert "--small: the file has no `small { }` block" in problems_of(tmp_path, SSD, small=True)


def test_exclusions_of_the_large_version_that_do_not_fit_the_small_axes_are_dropped(tmp_path: pathlib.Path) -> None:
    large = """axis { resolution { values: [300, 600] } } exclude { reason: "too large" resolution: 600 }
"""
    own = 'exclude { reason: "too small" resolution: 64 }'
    for more, names in (("", ["ssd_64", "ssd_96"]), (own, ["ssd_96"])):
        text = SSD + large + "small { axis { resolution { values: [64, 96] } } " + more + " }"
        assert [point.name for point in plan_of(tmp_path, text, small=True).points] == names
    [point] = plan_of(tmp_path, SSD + large + "small { measure { runs: 7 } }", small=True).points
    assert (point.name, point.how.runs) == ("ssd_300", 7)


def test_overrides_change_the_small_version(tmp_path: pathlib.Path) -> None:
    text = SSD + "small { measure { runs: 7 } }"
    [point] = plan_of(tmp_path, text, small=True, overrides=("measure.warmup=2",)).points
    assert (point.how.runs, point.how.warmup) == (7, 2)


def test_a_point_of_which_nothing_is_measured_is_an_error(tmp_path: pathlib.Path) -> None:
    found = problems_of(tmp_path, SSD + "measure { speed: false }")
    assert "measure.speed: is false, and ssd has no accuracy: no checkpoint is given" in found


def test_a_sweep_may_wait_for_its_data(tmp_path: pathlib.Path) -> None:
    text = SSD + "train { where_data_is_given: true }"
    [point] = plan_of(tmp_path, text).points
    assert (point.training_key, point.measures_accuracy) == ("", False)
    assert "PATH_TO_BE_CONFIGURED" in point.checkpoint_note
    # A path that is given and wrong is an error all the same.
    found = problems_of(tmp_path, text + f'data {{ train_input_path: "{tmp_path}/no-*" }}')
    assert "ssd: cannot be trained" in found


SHARED = f"""base {{ config: "{PYRAMID}" name: "pyramid" }}
axis {{ shared_features {{ values: [false, true] }} }}
train {{ first_stage_set: "train_config.num_steps=3" second_stage_set: "train_config.num_steps=5" }}
{EMBEDDED}"""


def test_shared_features_are_two_points_of_one_training_in_four_steps(tmp_path: pathlib.Path) -> None:
    from detzoo.sweep.run.trainings import num_steps, works_before

    plan = plan_of(tmp_path, SHARED)
    alone, shared = plan.points
    assert (alone.name, shared.name) == ("pyramid_not_shared", "pyramid_shared")
    assert (alone.shares_features, shared.shares_features) == (False, True)
    assert alone.training_key == shared.training_key
    assert alone.key != shared.key
    assert num_trainings(plan) == 1
    assert num_steps(alone, plan.message.train) == 2 * 3 + 2 * 5  # two trainings of each stage
    [work] = works_before(alone, plan.message.train, tmp_path)
    assert work.command[3] == "train_four_step"
    assert "--rpn_set=train_config.num_steps=3" in work.command
    assert "--box_set=train_config.num_steps=5" in work.command
    # The same config without the axis is trained otherwise, and other steps make another training.
    [at_once] = plan_of(tmp_path, f'base {{ config: "{PYRAMID}" name: "pyramid" }} train {{}} {EMBEDDED}').points
    longer = plan_of(tmp_path, SHARED.replace("num_steps=5", "num_steps=6")).points
    assert len({at_once.training_key, alone.training_key, longer[0].training_key}) == 3


def test_two_networks_are_measured_again_by_two_commands(tmp_path: pathlib.Path) -> None:
    from detzoo.sweep.run.sweep import command_of

    alone, _ = plan_of(tmp_path, SHARED).points
    command = command_of(alone, "t", pathlib.Path("out/pipeline.config"))
    first, second = (words.split() for words in command.replace("'", "").split(" && "))
    evaluate = ("detzoo", "evaluate", "--pipeline_config_path=out/pipeline.config")
    assert first == [
        *(*evaluate, "--checkpoint_dir=t/1_rpn", "--output_dir=out/evaluation/proposals"),
        "--set=model.faster_rcnn.number_of_stages=1",
    ]
    assert second == [
        *(*evaluate, "--checkpoint_dir=t/2_fast_rcnn", "--output_dir=out/evaluation"),
        "--set=model.faster_rcnn.proposals_from_reader=true",
        "--set=eval_input_reader[0].proposals_path=out/evaluation/proposals/proposals.npz",
        "--set=eval_input_reader[0].max_number_of_proposals=50",  # the config's first_stage_max_proposals
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("train {", "#"), "axis[0]: both values come from one training in four steps: add `train { }`"),
        (("axis {", "#"), "train.first_stage_set: means nothing without the axis shared_features"),
        (("train_config.num_steps=3", "model.x=3"), "only fields of train_config can differ between the stages"),
        (("num_steps=3", "num_stps=3"), "did you mean 'num_steps'"),
        ((PYRAMID, SHAPES), "the axis 'shared_features' applies to no base"),
    ],
)
def test_what_is_wrong_with_shared_features_is_told(
    tmp_path: pathlib.Path, change: tuple[str, str], message: str
) -> None:
    assert message in problems_of(tmp_path, SHARED.replace(*change))


PROPOSING = f"""base {{
  config: "{PYRAMID}" name: "rpn"
  set: "model.faster_rcnn.number_of_stages=1"
}}
base {{
  config: "{PYRAMID}" name: "fast"
  set: "model.faster_rcnn.proposals_from_reader=true"
  set: "train_input_reader.max_number_of_proposals=40" set: "eval_input_reader[0].max_number_of_proposals=30"
}}
train {{ proposals_from: "rpn" }}
{EMBEDDED}"""


def test_a_point_reads_the_proposals_of_another_one(tmp_path: pathlib.Path) -> None:
    from detzoo.sweep.run.trainings import works_before

    plan = plan_of(tmp_path, PROPOSING)
    rpn, fast = plan.points
    assert rpn.proposals is None
    assert fast.proposals is not None
    assert (fast.proposals.of.name, fast.proposals.num_train, fast.proposals.num_eval) == ("rpn", 40, 30)
    run = replace_output_dir(fast.training, "/here")
    assert run.train_input_reader.proposals_path == f"/here/proposals/{fast.proposals.key}/train.npz"
    assert run.eval_input_reader[0].proposals_path == f"/here/proposals/{fast.proposals.key}/eval.npz"
    works = list(works_before(fast, plan.message.train, tmp_path))
    assert [work.name for work in works] == ["training for rpn", "proposals of rpn", "training for fast"]
    assert works[1].command[3] == "propose"
    # Another first stage makes other proposals, on which the same detector is another point.
    other = plan_of(tmp_path, PROPOSING.replace("=40", "=41")).points
    assert other[1].proposals.key != fast.proposals.key
    assert other[1].key != fast.key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('proposals_from: "rpn"', 'proposals_from: "rnp"'), "there is no point 'rnp'; did you mean 'rpn'"),
        (('proposals_from: "rpn"', 'proposals_from: "fast"'), "'fast' is no first stage alone"),
        (("proposals_from_reader=true", "first_stage_max_proposals=9"), "no point reads proposals"),
    ],
)
def test_what_is_wrong_with_proposals_is_told(tmp_path: pathlib.Path, change: tuple[str, str], message: str) -> None:
    assert message in problems_of(tmp_path, PROPOSING.replace(*change))


def test_every_table_that_was_promised_is_there() -> None:
    promised = [f"retinanet_table1{letter}.sweep" for letter in "abcde"]
    promised += [f"fpn_table{number}.sweep" for number in (1, 2, 3, 5, 6)]
    assert set(promised) <= set(PAPERS)


@pytest.mark.parametrize("name", PAPERS)
def test_the_small_version_of_a_table_trains_and_measures_all_of_its_points(name: str) -> None:
    small, large = (load_plan(str(CONFIGS / "sweeps" / name), (), is_small) for is_small in (True, False))
    assert all(point.training_key and point.measures_accuracy for point in small.points)
    assert all("{output_dir}/data/shapes" in to_text(point.message) for point in small.points)
    assert [point.name for point in small.points] == [point.name for point in large.points]
    assert small.published == large.published
    assert small.published


@pytest.mark.parametrize("name", PAPERS)
def test_a_table_on_coco_trains_all_of_its_points_where_records_are_given(name: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "images.tfrecord").write_bytes(b"x")
    (tmp_path / "labels.pbtxt").write_text("".join(f"item {{ id: {i} name: 'c{i}' }} " for i in range(1, 91)))
    data = [f"data.{part}_input_path={tmp_path}/images.tfrecord" for part in ("train", "eval")]
    plan = load_plan(str(CONFIGS / "sweeps" / name), [*data, f"data.label_map_path={tmp_path}/labels.pbtxt"])
    assert all(point.training_key and point.measures_accuracy for point in plan.points)


# By hand from the papers: file, point, and what it has there.
@pytest.mark.parametrize(
    ("name", "point", "expected"),
    [
        ("retinanet_table1a", "retinanet_alpha.75", {"mAP": 0.311, "mAP@.50IOU": 0.494, "mAP@.75IOU": 0.33}),
        ("retinanet_table1b", "retinanet_gamma2.0", {"mAP": 0.34, "mAP@.50IOU": 0.525, "mAP@.75IOU": 0.365}),
        ("retinanet_table1c", "retinanet_aspects1_scales1", {"mAP": 0.303, "mAP@.50IOU": 0.49, "mAP@.75IOU": 0.318}),
        ("retinanet_table1d", "retinanet_ohem_128_nms.5", {"mAP": 0.328, "mAP@.50IOU": 0.503, "mAP@.75IOU": 0.351}),
        ("retinanet_table1e", "retinanet_101_800", {"mAP": 0.378, "mAP (large)": 0.492, "latency.median_ms": 198.0}),
        ("fpn_table1", "c_pyramid", {"AR@100": 0.44, "AR@1000": 0.563, "AR@1000 (small)": 0.449}),
        ("fpn_table2", "d_bottom_up", {"mAP": 0.249, "mAP@.50IOU": 0.449}),
        ("fpn_table3", "b_c5", {"mAP": 0.28, "mAP@.50IOU": 0.517}),
        ("fpn_table5", "faster_rcnn_50_shared", {"mAP": 0.343, "mAP@.50IOU": 0.572}),
        ("fpn_table6", "both", {"mask AR@1000": 0.457, "mask AR@1000 (large)": 0.608}),
    ],
)
def test_the_papers_numbers(name: str, point: str, expected: dict[str, float]) -> None:
    found = load_plan(str(CONFIGS / "sweeps" / f"{name}.sweep")).published[point]
    assert {column: found[column] for column in expected} == expected


@pytest.mark.parametrize(
    ("point", "fields"),
    [
        ("retinanet_ohem_512_nms.7", (512, 0.7, 0, False)),
        ("retinanet_ohem1to3_256_nms.5", (256, 0.5, 3, True)),
    ],
)
def test_hard_example_mining_of_table_1d(point: str, fields: tuple[int, float, int, bool]) -> None:
    plan = load_plan(str(CONFIGS / "sweeps" / "retinanet_table1d.sweep"))
    [found] = [p for p in plan.points if p.name == point]
    loss = found.message.model.ssd.loss
    miner = loss.hard_example_miner
    assert loss.classification_loss.WhichOneof("classification_loss") == "weighted_sigmoid"
    told = (miner.num_hard_examples, round(miner.iou_threshold, 4), miner.max_negatives_per_positive)
    assert (*told, miner.reserve_positives) == fields


def test_scales_of_table_1e_are_those_of_the_published_configs() -> None:
    plan = load_plan(str(CONFIGS / "sweeps" / "retinanet_table1e.sweep"))
    sizes = {}
    for point in plan.points:
        resizer = point.message.model.ssd.image_resizer.keep_aspect_ratio_resizer
        sizes[point.name] = (point.traits.extractor, resizer.min_dimension, resizer.max_dimension)
    assert sizes["retinanet_50_600"] == ("resnet50", 600, 1024)
    assert sizes["retinanet_101_800"] == ("resnet101", 800, 1333)
    assert len(sizes) == 10
    for point in plan.points:
        _, depth, side = point.name.split("_")
        row = load_pipeline(str(CONFIGS / f"retinanet_resnet{depth}_{side}.config")).message
        assert to_text(point.message.model) == to_text(row.model)


@pytest.mark.parametrize(
    ("name", "small"),
    [
        *((name, small) for name in PAPERS for small in (False, True)),
        ("quick.sweep", False),
        ("tradeoffs.sweep", False),
    ],
)
def test_no_point_has_anchors_off_their_cells(name: str, small: bool) -> None:
    findings = Findings(lambda path: 0)
    for point in load_plan(str(CONFIGS / "sweeps" / name), small=small).points:
        model = getattr(point.message.model, point.message.model.WhichOneof("model"))
        for field in ("anchor_generator", "first_stage_anchor_generator"):
            if hasattr(model, field):
                check_cells(getattr(model, field), model.image_resizer, findings)
    assert findings.problems == []
