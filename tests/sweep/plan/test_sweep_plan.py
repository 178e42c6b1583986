"""Sweep files: expansion by hand, what is shared, and every problem before anything runs."""

from __future__ import annotations

import pathlib

import pytest

from detzoo.config.diff import diff_configs
from detzoo.config.load import load_pipeline, to_text
from detzoo.errors import ConfigError, UsageError
from detzoo.sweep.plan.files import replace_output_dir
from detzoo.sweep.plan.sweep_plan import SweepPlan, load_plan
from detzoo.sweep.plan.traits import traits_of
from tests.problem_text import problem_text

CONFIGS = pathlib.Path(__file__).parents[3] / "model_configs"
SSD = f'base {{ config: "{CONFIGS}/ssd_mobilenet_v1_300.config" }}\n'
FASTER = f'base {{ config: "{CONFIGS}/faster_rcnn_resnet101_600.config" }}\n'
RFCN = f'base {{ config: "{CONFIGS}/rfcn_resnet101_600.config" }}\n'
EMBEDDED = "data { embedded { num_train_images: 8 num_eval_images: 4 } }\n"


def plan_of(folder: pathlib.Path, text: str, overrides: tuple[str, ...] = ()) -> SweepPlan:
    file = folder / "test.sweep"
    file.write_text(text)
    return load_plan(str(file), overrides)


def num_trainings(plan: SweepPlan) -> int:
    return len({point.training_key for point in plan.points if point.training_key})


def problems_of(folder: pathlib.Path, text: str, overrides: tuple[str, ...] = ()) -> str:
    with pytest.raises(ConfigError, match=r"test\.sweep|config") as caught:
        plan_of(folder, text, overrides)
    return str(caught.value).replace(str(folder / "test.sweep"), "SWEEP")


def names(plan: SweepPlan) -> list[str]:
    return [point.name for point in plan.points]


def test_every_combination_once_in_the_order_of_the_file(tmp_path: pathlib.Path) -> None:
    text = SSD + FASTER + "axis { resolution { values: [300, 600] } }\naxis { proposals { values: [10, 300] } }\n"
    plan = plan_of(tmp_path, text)
    # SSD has no proposals: 2 points. Faster R-CNN: 2 x 2.
    assert names(plan) == [
        "ssd_mobilenet_v1_300_300",
        "ssd_mobilenet_v1_300_600",
        "faster_rcnn_resnet101_600_300_proposals10",
        "faster_rcnn_resnet101_600_300_proposals300",
        "faster_rcnn_resnet101_600_600_proposals10",
        "faster_rcnn_resnet101_600_600_proposals300",
    ]
    assert [point.traits.proposals for point in plan.points] == [None, None, 10, 300, 10, 300]
    assert [point.how.image_height for point in plan.points] == [300, 600, 300, 300, 600, 600]
    assert len({point.key for point in plan.points}) == 6
    assert all(len(point.key) == 12 for point in plan.points)


def test_bases_are_chosen_by_meta_architecture_and_extractor(tmp_path: pathlib.Path) -> None:
    text = f"""{SSD}{FASTER}{RFCN}
        axis {{ meta_architecture {{ values: ["rfcn", "ssd"] }} }}
        axis {{ extractor {{ values: ["resnet101", "mobilenet_v1"] }} }}
        exclude {{
          reason: "no such config" meta_architecture: "rfcn"
          extractor: "mobilenet_v1"
        }}
        exclude {{
          reason: "neither" meta_architecture: "ssd"
          extractor: "resnet101"
        }}"""
    plan = plan_of(tmp_path, text)
    assert [(point.name, point.base.name) for point in plan.points] == [
        ("rfcn_resnet101", "rfcn_resnet101_600"),
        ("ssd_mobilenet_v1", "ssd_mobilenet_v1_300"),
    ]
    assert [exclusion.matched for exclusion in plan.exclusions] == [["rfcn_mobilenet_v1"], ["ssd_resnet101"]]


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        ("resolution { values: 300 }", "faster_rcnn_resnet101_300"),
        ("output_stride { values: 8 }", "faster_rcnn_resnet101_600_stride8"),
        ("proposals { values: 50 }", "faster_rcnn_resnet101_600_proposals50"),
    ],
)
def test_a_named_axis_gives_the_config_that_was_written_by_hand(
    tmp_path: pathlib.Path, axis: str, expected: str
) -> None:
    [point] = plan_of(tmp_path, f"{FASTER}axis {{ {axis} }}").points
    by_hand = load_pipeline(str(CONFIGS / f"{expected}.config")).message
    assert diff_configs(by_hand.model, point.message.model) == []


def test_the_stride_of_ssd_is_that_of_its_first_map(tmp_path: pathlib.Path) -> None:
    text = f'base {{ config: "{CONFIGS}/ssd_resnet101_300.config" }}'
    own, dense = plan_of(tmp_path, f"{text} axis {{ output_stride {{ values: [16, 8] }} }}").points
    assert [point.name for point in (own, dense)] == ["ssd_resnet101_300_stride16", "ssd_resnet101_300_stride8"]
    by_hand = load_pipeline(str(CONFIGS / "ssd_resnet101_300.config")).message.model
    assert diff_configs(by_hand, own.message.model) == []
    [difference] = diff_configs(by_hand, dense.message.model)
    assert difference.path == "ssd.feature_extractor.output_stride"
    assert dense.traits.output_stride == dense.message.model.ssd.feature_extractor.output_stride == 8
    wrong = problems_of(tmp_path, f"{text} axis {{ output_stride {{ values: 32 }} }}")
    assert "output_stride is 32; accepted for SSD: 8 or 16 pixels" in wrong
    pyramid = text.replace("ssd_resnet101_300", "retinanet_resnet50_400")
    pyramid += ' axis { output_stride { values: 8 } only_for: "retinanet" }'
    assert "output_stride needs a feature extractor without a pyramid" in problems_of(tmp_path, pyramid)


def test_of_two_bases_of_one_kind_that_of_the_resolution_is_taken(tmp_path: pathlib.Path) -> None:
    text = f"""base {{ config: "{CONFIGS}/ssd_vgg16_300.config" }} base {{ config: "{CONFIGS}/ssd_vgg16_600.config" }}
        axis {{ extractor {{ values: "vgg16" }} }} axis {{ resolution {{ values: [300, 600] }} }}"""
    plan = plan_of(tmp_path, text)
    assert [point.base.name for point in plan.points] == ["ssd_vgg16_300", "ssd_vgg16_600"]
    without = text[: text.index("axis { resolution")]
    assert "several bases (ssd_vgg16_300, ssd_vgg16_600) for ssd_vgg16" in problems_of(tmp_path, without)


def test_other_axes_set_one_field_or_several(tmp_path: pathlib.Path) -> None:
    text = f"""{SSD}
        axis {{
          path {{
            path: "model.ssd.feature_extractor.depth_multiplier" values: ["0.5", "1.0"]
            name: "width"
          }}
        }}
        axis {{ choice {{ name: "nms"
            values {{ name: "few" set: "model.ssd.post_processing.batch_non_max_suppression.max_total_detections=20"
                set: "model.ssd.post_processing.batch_non_max_suppression.max_detections_per_class=5" }}
            values {{ name: "many" }} }} }}"""
    plan = plan_of(tmp_path, text)
    assert names(plan) == [
        f"ssd_mobilenet_v1_300_width{width}_{nms}" for width in ("0.5", "1.0") for nms in ("few", "many")
    ]
    first, second = plan.points[:2]
    suppression = first.message.model.ssd.post_processing.batch_non_max_suppression
    assert (suppression.max_total_detections, suppression.max_detections_per_class) == (20, 5)
    assert second.message.model.ssd.post_processing.batch_non_max_suppression.max_total_detections == 100
    assert first.other_axes == {"width": "0.5", "nms": "few"}
    assert first.message.model.ssd.feature_extractor.depth_multiplier == 0.5


def test_several_ways_of_measuring_make_several_points(tmp_path: pathlib.Path) -> None:
    plan = plan_of(
        tmp_path,
        SSD
        + """
            measure {
              device: [CPU, GPU] batch_size: [1, 8]
              image_height: 200 image_width: 320
            }
            """,
    )
    assert [(p.name, p.how.device, p.how.batch_size) for p in plan.points] == [
        ("ssd_mobilenet_v1_300_cpu_batch1", "CPU", 1),
        ("ssd_mobilenet_v1_300_cpu_batch8", "CPU", 8),
        ("ssd_mobilenet_v1_300_gpu_batch1", "GPU", 1),
        ("ssd_mobilenet_v1_300_gpu_batch8", "GPU", 8),
    ]
    assert {(p.how.image_height, p.how.image_width) for p in plan.points} == {(200, 320)}
    assert len({point.key for point in plan.points}) == 4


def test_keys_change_with_the_config_and_how_it_is_measured_only(tmp_path: pathlib.Path) -> None:
    axis = "axis { resolution { values: [300, 600] } }\n"
    before = [point.key for point in plan_of(tmp_path, SSD + axis).points]
    assert [point.key for point in plan_of(tmp_path, "# a comment\n" + SSD + axis).points] == before
    more = [p.key for p in plan_of(tmp_path, SSD + axis.replace("600]", "600, 200]")).points]
    assert more[:2] == before
    assert not set(before) & {p.key for p in plan_of(tmp_path, SSD + axis + "measure { runs: 7 }").points}
    edited = plan_of(tmp_path, SSD + axis + 'set: "model.ssd.num_classes=7"')
    assert not set(before) & {point.key for point in edited.points}


def test_points_that_differ_in_testing_only_share_a_training(tmp_path: pathlib.Path) -> None:
    text = f"""base {{ config: "{CONFIGS}/shapes_faster_rcnn_mobilenet_v1.config" }} {EMBEDDED} train {{}}
        axis {{ resolution {{ values: [96, 128] }} }} axis {{ proposals {{ values: [5, 20] }} }}"""
    plan = plan_of(tmp_path, text)
    first, second, third, fourth = (point.training_key for point in plan.points)
    assert first == second != third == fourth
    assert num_trainings(plan) == 2
    assert all(point.measures_accuracy for point in plan.points)
    assert plan.points[0].training.model.faster_rcnn.first_stage_max_proposals == 50  # the base's
    assert plan.points[0].message.model.faster_rcnn.first_stage_max_proposals == 5
    # An axis of the resolution is seen by a training, unless the file says that it is not.
    tested = text.replace("values: [96, 128] }", "values: [96, 128] } only_at_test_time: true")
    assert num_trainings(plan_of(tmp_path, tested)) == 1


START = 'train { start_from: "shapes_ssd_mobilenet_v1_128" set_after_start: "train_config.num_steps=30" }'


def test_trainings_start_from_the_one_that_comes_first(tmp_path: pathlib.Path) -> None:
    text = f"""base {{ config: "{CONFIGS}/shapes_ssd_mobilenet_v1.config" }} {EMBEDDED} {START}
        base {{ config: "{CONFIGS}/shapes_faster_rcnn_mobilenet_v1.config" }}
        axis {{ resolution {{ values: [96, 128] }} only_for: "retinanet" }}"""
    other, first, faster = plan_of(tmp_path, text).points
    assert first.starts_after is None
    assert first.training.train_config.num_steps == 1200  # its config's
    assert not first.training.train_config.fine_tune_checkpoint
    for point in (other, faster):
        config = point.training.train_config
        assert point.starts_after is first
        assert (config.num_steps, config.fine_tune_checkpoint_type) == (30, "classification")
        assert config.fine_tune_checkpoint == f"{{output_dir}}/training/{first.training_key}/model"
        run = replace_output_dir(point.training, "/here").train_config
        assert run.fine_tune_checkpoint == f"/here/training/{first.training_key}/model"
    assert len({point.training_key for point in (other, first, faster)}) == 3


def test_the_key_of_a_training_depends_on_where_it_starts(tmp_path: pathlib.Path) -> None:
    bases = f"""base {{ config: "{CONFIGS}/shapes_ssd_mobilenet_v1.config" }} {EMBEDDED}
        axis {{ resolution {{ values: [96, 128] }} }}"""
    scratch, _ = plan_of(tmp_path, bases + "train {}").points
    after, first = plan_of(tmp_path, bases + START).points
    _, same_first = plan_of(tmp_path, bases + "train {}").points
    assert (first.key, first.training_key) == (same_first.key, same_first.training_key)
    assert after.key != scratch.key
    assert after.training_key != scratch.training_key


def test_where_trainings_start_is_checked(tmp_path: pathlib.Path) -> None:
    base = f'base {{ config: "{CONFIGS}/shapes_ssd_mobilenet_v1.config" }} {EMBEDDED}'
    two = base + " axis { resolution { values: [96, 128] } } "
    told = problems_of(tmp_path, two + START.replace("v1_128", "v1_182"))
    assert "there is no point 'shapes_ssd_mobilenet_v1_182'; did you mean" in told
    told = problems_of(tmp_path, two + START.replace("num_steps", "num_step"))
    assert "TrainConfig) has no field 'num_step'; did you mean" in told
    told = problems_of(tmp_path, base + 'train { set_after_start: "train_config.num_steps=3" }')
    assert "set_after_start: means nothing without start_from" in told


def test_a_resolution_scales_the_sizes_of_training_as_well(tmp_path: pathlib.Path) -> None:
    keep = "model.ssd.image_resizer.keep_aspect_ratio_resizer"
    sizes = {"min_dimension": 800, "max_dimension": 1280, "training_min_dimensions[0]": 640}
    text = f'base {{ config: "{CONFIGS}/retinanet_resnet50_600.config" }} axis {{ resolution {{ values: 400 }} }}'
    sets = " ".join(f'set: "{keep}.{name}={value}"' for name, value in sizes.items())
    [point] = plan_of(tmp_path, text.replace('600.config"', f'600.config" {sets}')).points
    resizer = point.message.model.ssd.image_resizer.keep_aspect_ratio_resizer
    assert (resizer.min_dimension, resizer.max_dimension, *resizer.training_min_dimensions) == (400, 640, 320)


def test_the_embedded_data_is_named_by_every_reader_and_not_in_the_key(tmp_path: pathlib.Path) -> None:
    text = f'base {{ config: "{CONFIGS}/shapes_ssd_mobilenet_v1.config" }} {EMBEDDED} train {{}}'
    [point] = plan_of(tmp_path, text).points
    assert "{output_dir}/data/shapes_" in to_text(point.message)
    run = replace_output_dir(point.message, "/here")
    assert run.eval_input_reader[0].label_map_path.startswith("/here/data/shapes_")
    assert run.eval_input_reader[0].tf_record_input_reader.input_path[0].endswith("heldout-?????-of-00001.tfrecord")
    assert run.train_input_reader.tf_record_input_reader.input_path[0].endswith("train-?????-of-00004.tfrecord")
    [other] = plan_of(tmp_path, text.replace("num_eval_images: 4", "num_eval_images: 5")).points
    assert other.key != point.key


def test_a_checkpoint_is_found_by_the_values_of_the_point(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "runs" / "ssd_mobilenet_v1_600"
    folder.mkdir(parents=True)
    (folder / "ckpt-9.index").touch()
    pattern = f"{tmp_path}/runs/{{meta_architecture}}_{{extractor}}_{{resolution}}"
    text = SSD + f'axis {{ resolution {{ values: [300, 600] }} }} accuracy {{ checkpoint: "{pattern}" }}'
    without, with_one = plan_of(tmp_path, text).points
    assert (without.checkpoint, without.checkpoint_note) == (
        "",
        f"there is no checkpoint at {tmp_path}/runs/ssd_mobilenet_v1_300",
    )
    assert with_one.checkpoint == str(folder / "ckpt-9")
    assert not with_one.measures_accuracy  # the config's records are placeholders
    assert "PATH_TO_BE_CONFIGURED" in with_one.checkpoint_note


def test_accuracy_needs_the_records_that_it_is_measured_on_only(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the config names records below the current folder
    (tmp_path / "ckpt-1.index").touch()
    (tmp_path / "heldout.tfrecord").write_bytes(b"x")
    labels = tmp_path / "labels.pbtxt"
    labels.write_text("".join(f"item {{ id: {index} name: 'c{index}' }} " for index in range(1, 6)))
    text = f"""base {{ config: "{CONFIGS}/shapes_ssd_mobilenet_v1.config" }}
        accuracy {{ checkpoint: "{tmp_path}/ckpt-1" }}
        data {{ eval_input_path: "{tmp_path}/heldout.tfrecord" label_map_path: "{labels}" }}"""
    [point] = plan_of(tmp_path, text).points
    assert point.measures_accuracy  # though the records to train on are not there
    untrained = problems_of(tmp_path, text.replace("ckpt-1", "ckpt-2") + " train { }")
    assert "shapes_ssd_mobilenet_v1: cannot be trained: no file matches 'quickstart/data/train" in untrained
    labels.write_text("item { id: 9 name: 'nine' }")
    assert "shapes_ssd_mobilenet_v1: eval_input_reader[0].label_map_path" in problems_of(tmp_path, text)


def test_the_grid_of_the_paper(tmp_path: pathlib.Path) -> None:
    plan = load_plan(str(CONFIGS / "sweeps" / "tradeoffs.sweep"))
    counts: dict[str, int] = {}
    for point in plan.points:
        counts[point.traits.meta_architecture] = counts.get(point.traits.meta_architecture, 0) + 1
    # Faster R-CNN has (6 + 2 at stride 8) x 2 resolutions x 5 numbers of proposals. R-FCN has (4 + 2) x 2 x 5, and SSD
    # has (5 + 2) x 2.
    assert counts == {"faster_rcnn": 80, "rfcn": 60, "ssd": 14}
    # R-FCN with VGG-16 has 2 strides x 2 x 5 points. Inception v3 has 2 x 2 of SSD and 2 x 2 x 5 of R-FCN. Stride 8 of
    # the three remaining light extractors has 2 x 2 x 5 of R-FCN, 4 x 2 x 5 of Faster R-CNN and 3 x 2 of SSD.
    assert [len(exclusion.matched) for exclusion in plan.exclusions] == [20, 24, 66]
    assert len({point.name for point in plan.points}) == len({point.key for point in plan.points}) == 154
    ssd = {p.name: p.message.model.ssd for p in plan.points if p.traits.meta_architecture == "ssd"}
    at_8 = sorted(name for name, model in ssd.items() if model.feature_extractor.output_stride == 8)
    assert [name.split("_stride8")[0] for name in at_8] == [
        "ssd_inception_resnet_v2_300",
        "ssd_inception_resnet_v2_600",
        "ssd_resnet101_300",
        "ssd_resnet101_600",
    ]
    assert all(not model.feature_extractor.output_stride for name, model in ssd.items() if name not in at_8)


def test_the_quick_sweep_has_eight_points(tmp_path: pathlib.Path) -> None:
    plan = load_plan(str(CONFIGS / "sweeps" / "quick.sweep"))
    assert 7 <= len(plan.points) <= 9
    assert num_trainings(plan) < len(plan.points)
    assert all(point.measures_accuracy for point in plan.points)


def test_all_problems_at_once_with_their_lines(tmp_path: pathlib.Path) -> None:
    text = f"""base {{ config: "{CONFIGS}/ssd_mobilenet_v1_300.config" }}
base {{ config: "nowhere.config" }}
axis {{ path {{ path: "model.ssd.loss.classification_wieght" values: ["1"] }} }}
axis {{ path {{ path: "model.ssd.num_classes" values: ["20", "many"] }} }}
axis {{ resolution {{ values: [300, 300] }} }}
axis {{ path {{ path: "model.ssd.image_resizer.fixed_shape_resizer.height" values: ["300"] }} }}
exclude {{ reason: "?" resolution: 400 }}
exclude {{ resolution: 300 }}
accuracy {{ checkpoint: "runs/{{extractr}}" }}
measure {{ runs: 0 }}
measures {{ }}
"""
    found = problems_of(tmp_path, text)
    expected = {  # line -> field, message
        2: ("base[1].config", "there is no pipeline config at"),
        3: (
            "axis[0].path.values[0]",
            "model.ssd.loss.classification_wieght=1: model.ssd.loss (Loss) has no field 'classification_wieght'; "
            "did you mean 'classification_weight'",
        ),
        4: ("axis[1].path.values[1]", "model.ssd.num_classes=many: model.ssd.num_classes: "),
        5: ("axis[2].resolution.values[1]", "'300' is there twice"),
        6: ("axis[3]", "sets model.ssd.image_resizer.fixed_shape_resizer.height, as axis[2] (resolution)"),
        7: ("exclude[0].resolution", "'400' is no value of the axis 'resolution'"),
        8: ("exclude[1]", "has no reason"),
        9: ("accuracy.checkpoint", "'{extractr}' is no value of a point; did you mean 'extractor'?"),
        10: ("measure.runs", "is 0; accepted: 1 to 1000000 calls"),
        11: ("measures", "unknown field of Sweep; did you mean 'measure'?"),
    }
    for line, (field, message) in expected.items():
        assert problem_text("SWEEP", line, field, message) in found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("axis { }", "axis[0]: names nothing that varies; accepted: meta_architecture, extractor"),
        ("axis { resolution { } }", "axis[0].resolution: has no values"),
        ("axis { resolution { values: ['a'] } }", "axis[0].resolution.values"),
        ("axis { resolution { values: -1 } }", "resolution is -1; accepted: pixels, 1 or more"),
        ("axis { proposals { values: 5 } }", "the axis 'proposals' applies to no base"),
        ("axis { proposals { values: 5 } only_for: 'ssd' }", "proposals are of detectors of two stages"),
        (
            "axis { resolution { values: 5 } only_for: 'sdd' }",
            "there is no meta-architecture 'sdd'; did you mean 'ssd'",
        ),
        ("axis { extractor { values: 'mobilenet_v2' } }", "no base has the extractor 'mobilenet_v2'"),
        ("axis { choice { values { name: 'x' } } }", "axis[0].choice: has no name"),
        ("axis { path { values: 'x' } }", "axis[0].path: has no path"),
        (
            """
            axis { path { path: 'model.ssd.num_classes' values: '5' } }
            axis {
              path {
                path: 'model . ssd.num_classes' values: '6'
                name: 'classes'
              }
            }
            """,
            "axis[1]: sets model.ssd.num_classes, as axis[0] (num_classes) does; keep one",
        ),
        (
            """
            exclude {
              reason: 'x'
              where { axis: 'size' values: '1' }
            }
            """,
            "there is no axis 'size'",
        ),
        ("exclude { reason: 'x' meta_architecture: 'rfcn' }", "leaves nothing out"),
        ("exclude { reason: 'x' meta_architecture: 'ssd' }", "every combination is left out"),
        ("exclude { reason: 'x' }", "has no condition"),
        ("set: 'model.ssd.nothing=1'", "set[0]: model.ssd.nothing=1: model.ssd (Ssd) has no field 'nothing'"),
        ("set: 'model.ssd.num_classes=0'", "model.ssd.num_classes: is "),
        ("train { }", "ssd_mobilenet_v1_300: cannot be trained: the config names no data set yet"),
        ("accuracy { example_image: 'no.jpg' }", "there is no file no.jpg"),
        ("measure { time_out_seconds: 0 }", "accepted: above 0, at most 100000000 seconds"),
        ("base { }", "base[1]: has no config"),
        (SSD, "two bases are called 'ssd_mobilenet_v1_300'"),
        (SSD.replace("}", "name: 'twin' }"), "ssd_mobilenet_v1_300 and twin are the same config; leave one out"),
    ],
)
def test_each_problem_is_named(tmp_path: pathlib.Path, text: str, message: str) -> None:
    assert message in problems_of(tmp_path, SSD + text)


def test_models_that_sweeps_do_not_measure_are_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "classifier.config").write_text("model { spp_classifier { } }")
    found = problems_of(tmp_path, SSD + 'base { config: "classifier.config" }')
    refused = "classifier.config has model.spp_classifier, which sweeps do not"
    assert problem_text("SWEEP", 2, "base[1].config", refused) in found
    assert "accepted: ssd, faster_rcnn, segmentation_proposals" in found


def test_a_point_that_fails_the_checks_of_a_config_is_named(tmp_path: pathlib.Path) -> None:
    axis = "axis { path { path: 'model.ssd.anchor_generator.ssd_anchor_generator.num_layers' values: ['6', '5'] } }"
    found = problems_of(tmp_path, SSD + axis)
    assert "ssd_mobilenet_v1_300.config: error: model.ssd" in found
    assert "(points: ssd_mobilenet_v1_300_num_layers5)" in found


def test_a_combination_without_a_base_is_named(tmp_path: pathlib.Path) -> None:
    axes = "axis { meta_architecture { values: ['ssd', 'rfcn'] } } axis { extractor { values: ['resnet101'] } }"
    found = problems_of(tmp_path, SSD + RFCN + axes)
    assert "no base for ssd resnet101: add one, or exclude it" in found


def test_a_grid_that_is_too_large_is_counted_not_expanded(tmp_path: pathlib.Path) -> None:
    resolutions = ", ".join(str(64 + size) for size in range(200))
    classes = ", ".join(f"'{count}'" for count in range(1, 52))
    text = SSD + f"axis {{ resolution {{ values: [{resolutions}] }} }}\n"
    text += f"axis {{ path {{ path: 'model.ssd.num_classes' values: [{classes}] }} }}"
    found = problems_of(tmp_path, text)
    assert "the grid has 10200 points (1 x 200 x 51); accepted: 10000 at most" in found


@pytest.mark.slow
def test_ten_thousand_points_can_be_planned(tmp_path: pathlib.Path) -> None:
    resolutions = ", ".join(str(64 + size) for size in range(200))
    classes = ", ".join(f"'{count}'" for count in range(1, 51))
    text = SSD + f"axis {{ resolution {{ values: [{resolutions}] }} }}\n"
    text += f"axis {{ path {{ path: 'model.ssd.num_classes' values: [{classes}] }} }}"
    assert len(plan_of(tmp_path, text).points) == 10_000


def test_the_file_itself_can_be_changed_from_the_command_line(tmp_path: pathlib.Path) -> None:
    [point] = plan_of(tmp_path, SSD, ("measure.runs=500", "measure.device=[GPU]")).points
    assert (point.how.runs, point.how.device) == (500, "GPU")
    assert "--set measure.run=5" in problems_of(tmp_path, SSD, ("measure.run=5",))


def test_a_file_that_is_not_there(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UsageError, match="there is no sweep file at"):
        load_plan(str(tmp_path / "no.sweep"))
    assert "base: is missing" in problems_of(tmp_path, "")
    assert "never closed" in problems_of(tmp_path, "axis { resolution {")


@pytest.mark.parametrize(
    ("config", "meta_architecture", "extractor", "stride", "resolution", "proposals"),
    [
        ("ssd_resnet101_600", "ssd", "resnet101", 16, 600, None),
        ("retinanet_resnext101_32x8d_800", "retinanet", "resnext101_32x8d", None, 800, None),
        ("efficientdet_d0", "efficientdet", "efficientnet_b0", None, 512, None),
        ("faster_rcnn_inception_resnet_v2_600_stride8", "faster_rcnn", "inception_resnet_v2", 8, 600, 300),
        ("faster_rcnn_resnet50_fpn_800", "faster_rcnn", "resnet50", None, 800, 1000),
        ("rfcn_mobilenet_v1_600", "rfcn", "mobilenet_v1", 16, 600, 300),
        ("mask_rcnn_resnet50_fpn_800", "mask_rcnn", "resnet50", None, 800, 1000),
        ("rpn_resnet50_c4_800", "rpn", "resnet50", 16, 800, 1000),
        ("fast_rcnn_resnet50_fpn_800", "fast_rcnn", "resnet50", None, 800, None),
    ],
)
def test_what_a_study_calls_a_config(
    config: str,
    meta_architecture: str,
    extractor: str,
    stride: int | None,
    resolution: int | None,
    proposals: int | None,
) -> None:
    traits = traits_of(load_pipeline(str(CONFIGS / f"{config}.config")).message.model)
    assert (traits.meta_architecture, traits.extractor) == (meta_architecture, extractor)
    assert (traits.output_stride, traits.resolution, traits.proposals) == (stride, resolution, proposals)


def test_the_example_of_the_guide(tmp_path: pathlib.Path) -> None:
    guide = (CONFIGS.parent / "docs" / "sweep.md").read_text(encoding="utf-8")
    text = guide[guide.index('description: "Two detectors') :].split("```")[0]
    for name in ("ssd_mobilenet_v2_300", "faster_rcnn_resnet101_600"):
        text = text.replace(f'config: "{name}', f'config: "{CONFIGS}/{name}')
    plan = plan_of(tmp_path, text)
    # SSD: 3 resolutions x 2 widths. Faster R-CNN: 3 x 3 numbers of proposals, less the one that is left out.
    assert len(plan.points) == 6 + 8
    assert {point.how.device for point in plan.points} == {"GPU"}
    assert [len(exclusion.matched) for exclusion in plan.exclusions] == [1]


@pytest.mark.parametrize(
    "block",
    [
        'set: "model.ssd.num_classes=7"',
        'axis { path { path: "model.ssd.num_classes" values: ["7"] } }',
        """
        axis {
          choice {
            name: "classes"
            values { name: "few" set: "model.ssd.num_classes=7" }
          }
        }
        """,
    ],
)
def test_a_detector_is_not_turned_into_another_kind(tmp_path: pathlib.Path, block: str) -> None:
    told = problems_of(tmp_path, FASTER + block)
    assert "model.ssd.num_classes=7: the base has model.faster_rcnn; give it to the bases that it is for" in told


def test_a_runtime_is_a_way_of_measuring_and_shares_a_training(tmp_path: pathlib.Path) -> None:
    axis = 'axis { runtime { values: ["tensorflow", "litert", "openvino"] } }\n'
    rest = f"{SSD}{EMBEDDED}train {{ }}\n"
    plan, plain = plan_of(tmp_path, rest + axis), plan_of(tmp_path, rest)
    assert names(plan) == [f"ssd_mobilenet_v1_300_{name}" for name in ("tensorflow", "litert", "openvino")]
    assert [point.how.runtime for point in plan.points] == ["tensorflow", "litert", "openvino"]
    assert num_trainings(plan) == 1
    assert len({point.key for point in plan.points}) == 3
    assert plan.points[0].key == plain.points[0].key  # that of a sweep without the axis
    assert [point.other_axes for point in plan.points] == [{}, {}, {}]
    left_out = 'exclude { reason: "known to be slow" where { axis: "runtime" values: "openvino" } }\n'
    assert len(plan_of(tmp_path, rest + axis + left_out).points) == 2
    wrong = problems_of(tmp_path, rest + axis.replace("litert", "tflite"))
    assert "axis[0].runtime.values[1]: there is no runtime 'tflite'; " in wrong


def test_a_seed_is_an_axis_of_its_own_trainings(tmp_path: pathlib.Path) -> None:
    plan = plan_of(tmp_path, f"{SSD}axis {{ seed {{ values: [1, 7] }} }}\n{EMBEDDED}train {{ }}\n")
    assert [point.message.train_config.seed for point in plan.points] == [1, 7]
    assert [point.name.rpartition("_")[2] for point in plan.points] == ["seed1", "seed7"]
    assert [point.other_axes for point in plan.points] == [{"seed": 1}, {"seed": 7}]
    assert len({point.training_key for point in plan.points}) == 2
