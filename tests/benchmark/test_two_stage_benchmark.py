"""Stages and multiply-adds of exported two-stage detectors: where the graph is cut, and what is counted in it."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from detzoo.benchmark import machine, runner, stages
from detzoo.benchmark.measures import BenchmarkOptions, Stages
from detzoo.benchmark.random_weights import randomize
from detzoo.benchmark.report import format_table
from detzoo.builders.resize import build_resizer
from detzoo.export.exporter import Export, export_detector
from detzoo.serving.frozen import node_of, to_constants
from detzoo.serving.saved_detector import SavedDetector

KINDS = ("plain", "rfcn", "pyramid_masks", "first_stage")


@pytest.fixture(scope="module")
def exported(small, tmp_path_factory):
    """A kind -> the folder of its export, made once."""

    @functools.cache
    def export(kind):
        folder = tmp_path_factory.mktemp(kind)
        message, detector = small.message_of(kind), small.build(kind)
        randomize(detector)
        export_detector(detector, build_resizer(message.faster_rcnn.image_resizer), folder, "image_tensor", Export())
        return folder

    return export


@pytest.fixture(scope="module")
def loaded(exported):
    """A kind -> its SavedModel, loaded once and kept with its variables."""
    return functools.cache(lambda kind: SavedDetector(exported(kind)))


def nodes_between(frozen, starts, ends):
    """The nodes that the tensors ``ends`` need and that lie behind the tensors ``starts``."""
    nodes = {node.name: node for node in frozen.graph_def.node}
    known, waiting = {node_of(name) for name in starts}, [node_of(name) for name in ends]
    reached = set()
    while waiting:
        name = waiting.pop()
        if name not in known | reached:
            reached.add(name)
            waiting += map(node_of, nodes[name].input)
    return [nodes[name] for name in reached]


def filters_among(nodes):
    """The names of convolutions, and of fully connected layers."""
    return {node.name for node in nodes if node.op in ("Conv2D", "DepthwiseConv2dNative", "MatMul")}


@pytest.mark.parametrize("kind", KINDS)
def test_postprocessing_computes_nothing_of_the_network_again(loaded, kind):
    frozen = to_constants(loaded(kind).function)
    outputs = stages.find_outputs(frozen)
    boxes = [name for output, name in frozen.output_names.items() if output != "detection_masks"]
    assert not filters_among(nodes_between(frozen, outputs.network, boxes))
    after = filters_among(nodes_between(frozen, outputs.network, frozen.output_names.values()))
    # The masks' head follows the boxes, and without a pyramid what it shares with them; nothing of the first stage.
    assert bool(after) == ("masks" in kind)
    assert not after & filters_among(nodes_between(frozen, [], outputs.proposals))


# MobileNet's stem, two layers a block, the proposal head's three. A pyramid has all 13 blocks; laterals of C3 to C5,
# 3 x 3 convolutions, P6, and a head that shares its first layer only, for P3 to P6.
PLAIN_FIRST = 1 + 2 * 11 + 3
PYRAMID_FIRST = 1 + 2 * 13 + 3 + 2 + 1 + 4 * 3
# Two blocks and two predictors, or two fully connected layers and two predictors; R-FCN's reduction and two maps.
SECOND = {"plain": 6, "masks": 6, "pyramid": 4, "pyramid_masks": 4, "rfcn": 7, "first_stage": 0}


@pytest.mark.parametrize("kind", KINDS)
def test_the_second_stage_starts_at_the_proposals(loaded, kind):
    frozen = to_constants(loaded(kind).function)
    outputs = stages.find_outputs(frozen)
    first = filters_among(nodes_between(frozen, [], outputs.proposals or outputs.network))
    both = filters_among(nodes_between(frozen, [], outputs.network))
    assert len(first) == (PYRAMID_FIRST if "pyramid" in kind else PLAIN_FIRST)
    assert len(both - first) == SECOND[kind]
    assert len(outputs.proposals) == (
        0 if kind == "first_stage" else 2
    )  # boxes and how many; scores have done their work
    assert len(outputs.network) == {"first_stage": 3, "masks": 4 + 1, "pyramid_masks": 4 + 4}.get(kind, 4)


def test_a_graph_without_names_has_no_stages(loaded):
    frozen = to_constants(loaded("plain").function)
    for node in frozen.graph_def.node:
        node.name = node.name.replace("stage_", "")
        node.input[:] = [name.replace("stage_", "") for name in node.input]
    assert stages.find_outputs(frozen) is None
    chain = stages.Chain(frozen)
    assert [part.name for part in chain.parts] == [stages.WHOLE]
    assert stages.time_stages(chain, lambda: None, 1, 1, 10.0) is None


def test_an_export_that_names_no_proposals_is_timed_as_a_whole(loaded):
    detector = loaded("plain")
    frozen = to_constants(detector.function)
    for node in frozen.graph_def.node:
        for name in ("stage_proposal", "stage_num"):
            node.name = node.name.replace(name, "other")
            node.input[:] = [text.replace(name, "other") for text in node.input]
    given = detector.as_input(np.zeros((40, 60, 3), np.uint8))
    times = stages.time_stages(stages.Chain(frozen), lambda: given, 1, 3, 10.0)
    assert times.preprocess_ms + times.network_ms + times.postprocess_ms == pytest.approx(10.0)
    assert times.network_ms > times.extractor_ms > 0
    assert times.first_stage_ms is None
    assert times.second_stage_ms is None


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_in_a_row_compute_what_the_whole_computes(loaded, small, kind):
    detector = loaded(kind)
    chain = stages.Chain(to_constants(detector.function))
    names = [stages.PREPROCESS, stages.EXTRACTOR, stages.FIRST_STAGE, stages.NETWORK, stages.BOXES, stages.MASKS]
    missing = {"pyramid_masks": [], "first_stage": [stages.FIRST_STAGE, stages.MASKS]}.get(kind, [stages.MASKS])
    assert [part.name for part in chain.parts] == [name for name in names if name not in missing]
    given = detector.as_input(np.random.default_rng(3).integers(0, 256, (40, 60, 3), np.uint8))
    whole, parts = detector.outputs(given), chain(given)
    assert set(whole) == set(parts)
    for name, value in whole.items():
        np.testing.assert_allclose(parts[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_images_of_other_sizes_are_not_traced_again(loaded):
    detector = loaded("plain")
    chain = stages.Chain(to_constants(detector.function))
    sizes = [(40, 60), (44, 60), (40, 50), (60, 40), (48, 56), (52, 62)]
    for size in sizes:
        chain(detector.as_input(np.zeros((*size, 3), np.uint8)))
    assert all(function._function.experimental_get_tracing_count() <= 3 for function in chain._functions)


def test_parts_add_up_to_the_stages():
    parts = {"preprocess": 2.0, "extractor": 20.0, "first_stage": 10.0, "network": 60.0, "boxes": 5.0, "masks": 11.0}
    # Extractor, rest of the first stage, second stage and masks are the network: 101.
    assert stages.stages_of(parts, 108.0) == Stages(2.0, 101.0, 5.0, 20.0, 30.0, 60.0, 11.0, 108.0)
    # In a call that takes half as long, each part does.
    assert stages.stages_of(parts, 54.0) == Stages(1.0, 50.5, 2.5, 10.0, 15.0, 30.0, 5.5, 108.0)
    del parts["masks"], parts["first_stage"]
    assert stages.stages_of(parts, 87.0) == Stages(2.0, 80.0, 5.0, 20.0, one_by_one_ms=87.0)


def test_multiply_adds_of_parts_add_up_to_all():
    parts = {"preprocess": 1, "extractor": 20, "first_stage": 10, "network": 60, "boxes": 2, "masks": 11}
    two = stages.multiply_adds_of(parts)
    assert two == {"extractor": 21, "heads": None, "first_stage": 31, "second_stage": 62, "masks": 11}
    del parts["masks"], parts["first_stage"]
    one = stages.multiply_adds_of(parts)
    assert one == {"extractor": 21, "heads": 62, "first_stage": None, "second_stage": None, "masks": None}
    assert set(stages.multiply_adds_of({"whole": 7}).values()) == {None}


# MobileNet v1 0.25, 64 x 96: stem to 32 x 48 x 8; then depthwise and pointwise to 32 x 48 x 16, 16 x 24 x 32 twice,
# 8 x 12 x 64 twice, 4 x 6 x 128 six times.
STEM = 32 * 48 * 8 * 27
BLOCKS = [  # cells, channels before and after
    (32 * 48, 8, 16),
    (16 * 24, 16, 32),
    (16 * 24, 32, 32),
    (8 * 12, 32, 64),
    (8 * 12, 64, 64),
    (4 * 6, 64, 128),
    *[(4 * 6, 128, 128)] * 5,
]
# 3 x 3 to 16 channels, then 6 anchors of 4 + 2 values.
PROPOSAL_HEAD = 24 * 16 * 9 * 128 + 24 * 6 * (4 + 2) * 16
# 12 regions: crops of 2 x 2 x 128 after pooling; the first of the last two blocks has stride 2, to 1 x 1 x 256.
REGION_BLOCKS = [(12, 128, 256), (12, 256, 256)]
PREDICTORS = 12 * 256 * (3 * 4 + 4)


@pytest.fixture(scope="module")
def result(exported):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "measure_gflops", functools.partial(machine.measure_gflops, 2, 64))
        options = BenchmarkOptions(runs=4, warmup=1, image_shape=(40, 60), min_seconds=0.0)
        return next(runner.benchmark_batch_sizes(exported("plain"), options, name="small"))


def test_counts_are_those_worked_by_hand(result):
    blocks = BLOCKS + REGION_BLOCKS
    assert result["multiply_adds_by_kind"] == {
        "convolution": STEM + PROPOSAL_HEAD + sum(cells * before * after for cells, before, after in blocks),
        "dense": PREDICTORS,
        "depthwise": sum(cells * before * 9 for cells, before, after in blocks),
        "transposed": 0,
    }


def test_both_stages_are_in_the_result_and_in_the_table(result):
    times = result["stages"]
    assert times["network_ms"] > times["first_stage_ms"] > times["extractor_ms"] > 0
    assert times["masks_ms"] is None
    table = format_table(result)
    expected = f"first stage {times['first_stage_ms']:.1f} ms, second stage {times['second_stage_ms']:.1f} ms)"
    assert f"(extractor {times['extractor_ms']:.1f} ms, {expected}" in table


def test_multiply_adds_by_stage_are_those_worked_by_hand(result):
    extractor = STEM + sum(cells * before * (9 + after) for cells, before, after in BLOCKS)
    second = PREDICTORS + sum(cells * before * 9 + cells * before * after for cells, before, after in REGION_BLOCKS)
    assert result["multiply_adds_by_stage"] == {
        "extractor": extractor,
        "heads": None,
        "first_stage": extractor + PROPOSAL_HEAD,
        "second_stage": second,
        "masks": None,
    }
    assert extractor + PROPOSAL_HEAD + second == result["multiply_adds"]
