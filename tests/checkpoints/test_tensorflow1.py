"""Checkpoints, frozen graphs and SavedModels of TensorFlow 1: every variable by its name, and what cannot be taken."""

from __future__ import annotations

import csv
import logging

import keras
import numpy as np
import pytest
import tensorflow as tf

from detzoo.builders.detector import build_detector
from detzoo.builders.features import build_feature_extractor
from detzoo.builders.necks import build_neck
from detzoo.checkpoints import restore_for_inference
from detzoo.checkpoints.files import latest_prefix
from detzoo.checkpoints.layout import save_weights, variables_by_path
from detzoo.checkpoints.restore import warm_start
from detzoo.checkpoints.tensorflow1 import describe, match_detector
from detzoo.config import pb
from detzoo.config.load import load_pipeline
from detzoo.errors import CheckpointError
from detzoo.features.network import symbolic

NORM = ("gamma", "beta", "moving_mean", "moving_variance")
GOLDEN = {
    "tf1_faster_rcnn_inception_resnet_v2_atrous_coco": ("a Faster R-CNN on InceptionResnetV2", 0),
    "tf1_faster_rcnn_inception_v2_coco": ("a Faster R-CNN on InceptionV2", 0),
    "tf1_faster_rcnn_nas_coco": ("a Faster R-CNN on NASNet", 0),
    "tf1_faster_rcnn_resnet50_coco": ("a Faster R-CNN on resnet_v1_50", 50),
    "tf1_mask_rcnn_inception_v2_coco": ("a Mask R-CNN on InceptionV2", 0),
    "tf1_rfcn_resnet101_coco": ("an R-FCN on resnet_v1_101", 50),
    "tf1_ssd_inception_v2_coco": ("a one-stage detector on InceptionV2", 0),
    "tf1_ssd_mobilenet_v1_coco": ("a one-stage detector on MobilenetV1", 0),
    "tf1_ssd_mobilenet_v1_ppn_shared_box_predictor_300x300_coco14_sync": ("a one-stage detector on MobilenetV1", 20),
    "tf1_ssd_mobilenet_v2_coco": ("a one-stage detector on MobilenetV2", 0),
    "tf1_ssd_resnet50_v1_fpn_shared_box_predictor_640x640_coco14_sync": ("a one-stage detector on resnet_v1_50", 0),
    "tf1_ssdlite_mobilenet_v2_coco": ("a one-stage detector on MobilenetV2", 0),
    "tf1_ssdlite_mobiledet_cpu_320x320_coco_sync_4x4": ("a one-stage detector on MobileDetCPU", 0),
    "tf1_ssdlite_mobilenet_v3_large_320x320_coco": ("a one-stage detector on MobilenetV3", 0),
}

PROJECTIONS = {"query": "", "key": "_1", "value": "_2"}


@pytest.mark.shared
@pytest.mark.parametrize("name", GOLDEN)
def test_every_published_variable_has_its_place(shared, name):
    folder = shared / "golden" / name
    message = load_pipeline(folder / "pipeline.config").message.model
    detector = symbolic(lambda: build_detector(message))
    ours = {path: tuple(variable.shape) for path, variable in variables_by_path(detector.variables).items()}
    with (folder / "variables.csv").open() as file:
        published = {row["name"]: tuple(map(int, row["shape"].split("x"))) for row in csv.DictReader(file)}
    kind, num_leftovers = GOLDEN[name]
    assert describe(published) == f"{kind}, of TensorFlow 1"
    match = match_detector([*published, "global_step"], ours)
    assert {path: published[key] for path, key in match.keys.items()} == ours
    assert len(set(match.keys.values())) == len(ours)
    assert match.unused == []
    assert len(match.leftovers) == num_leftovers
    assert sorted([*match.keys.values(), *match.leftovers]) == sorted(published)


GATES = ("squeeze_excite/Conv", "squeeze_excite/Conv_1")
MOBILEDET_LAYERS = {
    "IBN": ("Conv", "SeparableConv2d", "Conv_1"),
    "IBNNoExpansion": ("SeparableConv2d", "Conv"),
    "FusedConv": ("Conv", "Conv_1"),
    "TuckerConv": ("Conv", "Conv_1", "Conv_2"),
}


def units(kind, numbers, *layers):
    """Names of layers; a scope has a number from its second use on."""
    return [f"{kind}_{n}/{layer}" if n else f"{kind}/{layer}" for n in numbers for layer in layers]


def mobiledet(**counts):
    kinds = (units(kind, range(count), *MOBILEDET_LAYERS[kind]) for kind, count in counts.items())
    return ["Conv", *(name for names in kinds for name in names)]


def with_leaves(layers):
    """Names of the variables of layers: gates have a bias, the others a normalization."""
    for layer in layers:
        if "queeze" in layer:
            yield from (f"{layer}/weights", f"{layer}/biases")
            continue
        is_depthwise = layer.endswith(("depthwise", "SeparableConv2d", "SepConv"))
        yield f"{layer}/{'depthwise_weights' if is_depthwise else 'weights'}"
        yield from (f"{layer}/BatchNorm/{leaf}" for leaf in NORM)
        if layer.endswith("SepConv"):
            yield f"{layer}/pointwise_weights"


# Type -> the network's scope and layers in the original's graphs, up to the last one that SSD reads.
PARTS = ("expand", "depthwise", "project")
MOBILE = {
    "ssd_mobilenet_v3_small": (
        "MobilenetV3",
        [
            *("Conv", "Conv_1"),
            *units("expanded_conv", [0], "depthwise", "project", *GATES),
            *units("expanded_conv", [1, 2], *PARTS),
            *units("expanded_conv", range(3, 11), *PARTS, *GATES),
        ],
    ),
    "ssd_mobilenet_edgetpu": (
        "MobilenetEdgeTPU",
        [
            *("Conv", "expanded_conv/project"),
            *units("expanded_conv", range(1, 9), "expand", "project"),
            *units("expanded_conv", range(9, 22), *PARTS),
        ],
    ),
    "ssd_mobiledet_cpu": (
        "MobileDetCPU",
        mobiledet(IBN=18, IBNNoExpansion=1)
        + units("IBN", range(18), "SqueezeExcite/Conv", "SqueezeExcite/Conv_1")
        + units("IBNNoExpansion", [0], "SqueezeExcite/Conv", "SqueezeExcite/Conv_1"),
    ),
    "ssd_mobiledet_dsp": ("MobileDetDSP", mobiledet(IBN=11, IBNNoExpansion=1, FusedConv=8, TuckerConv=2)),
    "ssd_mobiledet_edgetpu": ("MobileDetEdgeTPU", mobiledet(IBN=11, FusedConv=10, TuckerConv=1)),
    "ssd_mobiledet_gpu": ("MobileDetGPU", mobiledet(IBN=1, FusedConv=17, TuckerConv=4)),
}


@pytest.mark.parametrize("type_name", MOBILE)
def test_every_variable_of_a_mobile_backbone_has_its_name(type_name):
    scope, layers = MOBILE[type_name]
    message = pb.SsdFeatureExtractor(type=type_name)
    model = symbolic(lambda: build_feature_extractor(message).model)
    names = [f"FeatureExtractor/{scope}/{name}" for name in with_leaves(layers)]
    match = match_detector(names, [weight.path for weight in model.weights])
    assert sorted(match.keys.values()) == sorted(names)
    assert sorted(match.keys) == sorted(weight.path for weight in model.weights)
    assert describe(names) == f"a classification network on {scope}, of TensorFlow 1"


def test_every_variable_of_mnasfpn_has_its_name():
    # Four cells of five blocks, each with two inputs; 325 variables.
    message = pb.SsdFeatureExtractor(type="ssd_mobilenet_v2_mnasfpn", fpn={"min_level": 3, "max_level": 6})

    def build():
        maps = {level: keras.Input((2 ** (8 - level), 2 ** (7 - level), 8)) for level in (3, 4, 5)}
        with keras.name_scope("neck"):
            return keras.Model(list(maps.values()), build_neck(message)(maps))

    blocks = [f"cell_{cell}/block_{block}" for cell in range(4) for block in range(5)]
    layers = [f"{block}/{part}" for block in blocks for part in ("input_0/Conv1x1", "input_1/Conv1x1", "SepConv")]
    names = [f"FeatureExtractor/MnasFPN/{name}" for name in with_leaves([*layers, "C6_Conv1x1"])]
    paths = [weight.path for weight in symbolic(build).weights]
    match = match_detector(names, paths)
    assert len(names) == len(paths) == 325
    assert sorted(match.keys.values()) == sorted(names)
    assert sorted(match.keys) == sorted(paths)


def test_the_attention_of_context_rcnn():
    """Names of the original's graph, with attention to the image, two heads and two layers: outputs in their order."""
    blocks = ["image", *(f"head_{head}_layer_{layer}" for layer in range(2) for head in range(2))]
    theirs = ["SelfAttentionBlock", *(f"AttentionBlock{head}_AttentionLayer{layer}" for layer in "01" for head in "01")]
    expected = {}
    for number, (block, scope) in enumerate(zip(blocks, theirs, strict=True)):
        names = {f"_{part}": f"{scope}/fully_connected{suffix}" for part, suffix in PROJECTIONS.items()}
        names["_output"] = f"fully_connected_{number}" if number else "fully_connected"
        for part, name in names.items():
            expected[f"box_head/attention_{block}{part}/kernel"] = f"{name}/weights"
            expected[f"box_head/attention_{block}{part}_batch_norm/gamma"] = f"{name}/BatchNorm/gamma"
    match = match_detector(list(expected.values()), list(expected))
    assert match.keys == expected
    assert describe(expected.values()).startswith("a Context R-CNN")


def make_model(num_classes=3, channels=4):
    """A detector's paths: a convolution and a depthwise of MobileNet v1, an extra level, the heads of two levels."""
    image = keras.Input((8, 12, 3))
    with keras.name_scope("backbone"):
        x = keras.layers.Conv2D(channels, 1, use_bias=False, name="conv1")(image)
        x = keras.layers.BatchNormalization(name="conv1_bn")(x)
        x = fine = keras.layers.DepthwiseConv2D(3, use_bias=False, name="conv_dw_1")(x)
    with keras.name_scope("neck"):
        x = keras.layers.Conv2D(6, 1, use_bias=False, name="extra_5_reduce_conv")(x)
        coarse = keras.layers.Conv2D(7, 1, use_bias=False, name="extra_5_conv")(x)
    with keras.name_scope("head"):
        outputs = []
        for level, features in ((4, fine), (5, coarse)):
            outputs.append(keras.layers.Conv2D(4, 1, name=f"box_predictor_{level}")(features))
            outputs.append(keras.layers.Conv2D(num_classes, 1, name=f"class_predictor_{level}")(features))
    model = keras.Model(image, outputs)
    for variable in model.variables:
        variable.assign(tf.zeros(variable.shape))
    return model


NET = "FeatureExtractor/MobilenetV1"
EXPECTED = {
    "backbone/conv1": 1,
    "backbone/conv1_bn": 2,
    "backbone/conv_dw_1": 3,
    "neck/extra_5_reduce_conv": 4,
    "neck/extra_5_conv": 5,
    "head/box_predictor_4": 14,
    "head/box_predictor_5": 15,
    "head/class_predictor_4": 24,
    "head/class_predictor_5": 25,
}


def published(num_classes=3, channels=4, **more):
    """Name -> value of the tensors for ``make_model``, a different value for each layer."""
    values = {
        f"{NET}/Conv2d_0/weights": np.full([1, 1, 3, channels], 1),
        **{f"{NET}/Conv2d_0/BatchNorm/{leaf}": np.full([channels], 2) for leaf in NORM},
        f"{NET}/Conv2d_1_depthwise/depthwise_weights": np.full([3, 3, channels, 1], 3),
        f"{NET}/Conv2d_1_pointwise_1_Conv2d_1_1x1_6/weights": np.full([1, 1, channels, 6], 4),
        f"{NET}/Conv2d_1_pointwise_2_Conv2d_1_3x3_s2_7/weights": np.full([1, 1, 6, 7], 5),
    }
    for k, width in ((0, channels), (1, 7)):
        for kind, outputs, value in (("BoxEncodingPredictor", 4, 14), ("ClassPredictor", num_classes, 24)):
            values[f"BoxPredictor_{k}/{kind}/weights"] = np.full([1, 1, width, outputs], value + k)
            values[f"BoxPredictor_{k}/{kind}/biases"] = np.full([outputs], value + k)
    return {name: np.asarray(value, np.float32) for name, value in {**values, **more}.items()}


def save(folder, values, name="model.ckpt", step=7):
    folder.mkdir(exist_ok=True)
    tensors = {**values, "global_step": np.int64(step)}
    tf.raw_ops.SaveV2(
        prefix=f"{folder}/{name}",
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=[tf.constant(value) for value in tensors.values()],
    )
    return f"{folder}/{name}"


def constants(values):
    """The graph that freezing leaves: a constant, and the identity that read the variable, for each weight."""
    graph = tf.Graph()
    with graph.as_default():
        for name, value in values.items():
            tf.identity(tf.constant(value, name=name), name=f"{name}/read")
        tf.constant([1, 300, 300, 3], name="Preprocessor/shape")
    return graph.as_graph_def()


def save_graph(folder, values, name="frozen_inference_graph.pb"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(constants(values).SerializeToString())
    return folder / name


def values_of(model):
    """Path of a layer -> the one value that all its variables have."""
    values = {}
    for weight in model.variables:
        found = np.unique(weight.numpy())
        assert found.size == 1
        owner = weight.path.rsplit("/", 1)[0]
        assert values.setdefault(owner, found[0]) == found[0]
    return values


@pytest.mark.parametrize("form", ["prefix", "folder", "index", "data", "meta"])
def test_what_may_be_named(tmp_path, form):
    prefix = save(tmp_path / "zoo", published())
    ending = {"index": ".index", "data": ".data-00000-of-00001", "meta": ".meta"}.get(form, "")
    model = make_model()
    assert restore_for_inference(model, tmp_path / "zoo" if form == "folder" else prefix + ending) == 7
    assert values_of(model) == EXPECTED


def test_a_training_takes_the_newest_of_a_folder(tmp_path):
    for step in (9, 12):
        save(tmp_path, published(), f"model.ckpt-{step}", step)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/of/another/machine/model.ckpt-12"\n')
    assert restore_for_inference(make_model(), tmp_path) == 12


@pytest.mark.parametrize("form", ["file", "folder"])
def test_frozen_graphs(tmp_path, form):
    path = save_graph(tmp_path, published())
    model = make_model()
    assert restore_for_inference(model, path if form == "file" else tmp_path) == 0
    assert values_of(model) == EXPECTED


@pytest.mark.parametrize("part", ["", "saved_model.pb"])
def test_saved_models_with_constants(tmp_path, part):
    # As the API's exporter writes them: the frozen graph, and variables/ without files.
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.import_graph_def(constants(published()), name="")
        builder = tf.compat.v1.saved_model.Builder(str(tmp_path / "saved_model"))
        builder.add_meta_graph_and_variables(session, ["serve"])
        builder.save()
    model = make_model()
    restore_for_inference(model, tmp_path / "saved_model" / part)
    assert values_of(model) == EXPECTED


@pytest.mark.parametrize("part", ["", "variables", "variables/variables"])
def test_saved_models_with_variables(tmp_path, part):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for name, value in published().items():
            tf.compat.v1.get_variable(name, initializer=value)
        session.run(tf.compat.v1.global_variables_initializer())
        builder = tf.compat.v1.saved_model.Builder(str(tmp_path / "saved_model"))
        builder.add_meta_graph_and_variables(session, ["serve"])
        builder.save()
    model = make_model()
    restore_for_inference(model, tmp_path / "saved_model" / part)
    assert values_of(model) == EXPECTED


def test_the_checkpoint_of_an_archive_comes_first(tmp_path):
    prefix = save(tmp_path, published())
    save_graph(tmp_path, {})
    assert latest_prefix(tmp_path) == prefix


def test_what_training_stored_is_named_with_its_reason(tmp_path, caplog):
    first = f"{NET}/Conv2d_0/weights"
    more = {
        f"{first}/RMSProp": np.ones(1),
        f"{first}/RMSProp_1": np.ones(1),
        f"{first}/ExponentialMovingAverage": np.ones(1),
        f"{NET}/Conv2d_0/weights_quant/min": np.ones(()),
        f"{NET}/MobilenetV1/Conv2d_0/act_quant/max": np.ones(()),
    }
    prefix = save(tmp_path, published(**more))
    model = make_model()
    with caplog.at_level(logging.INFO):
        restore_for_inference(model, prefix)
    assert values_of(model) == EXPECTED
    for line in ("2, optimizer: ", "1, moving averages, which eval_config", "2, ranges of quantization-aware training"):
        assert line in caplog.text
    report = warm_start(make_model(), prefix)
    assert report.unused == []
    assert set(report.leftovers) == set(more)
    assert f"2, optimizer: {first}/RMSProp, {first}/RMSProp_1" in report.describe()


def test_moving_averages(tmp_path):
    # Trained variables have averages; the statistics of batch normalization have none.
    averages = {
        f"{name}/ExponentialMovingAverage": value + 100 for name, value in published().items() if "moving" not in name
    }
    prefix = save(tmp_path / "both", published(**averages))
    model = make_model()
    restore_for_inference(model, prefix)
    assert values_of(model) == EXPECTED
    restore_for_inference(model, prefix, tf1_averages=True)
    values = {variable.path: np.unique(variable.numpy()).tolist() for variable in model.variables}
    assert values["backbone/conv1/kernel"] == [101]
    assert values["backbone/conv1_bn/gamma"] == [102]
    assert values["backbone/conv1_bn/moving_mean"] == [2]
    statistics = {name: value for name, value in published().items() if "moving" in name}
    only = save(tmp_path / "only", {**statistics, **averages})
    for restore in (restore_for_inference, warm_start):
        with pytest.raises(CheckpointError, match=r"has \d+ moving averages without their variables, such as .*/Expon"):
            restore(make_model(), only)
    restore_for_inference(model, only, tf1_averages=True)


def test_another_network_depth_or_number_of_classes(tmp_path):
    model = make_model()
    other = {name.replace("MobilenetV1/Conv2d_0", "MobilenetV2/Conv"): value for name, value in published().items()}
    message = r"\(a one-stage detector on MobilenetV.*backbone/conv1/kernel.*not in the model \(Feat.*MobilenetV2/Conv/"
    with pytest.raises(CheckpointError, match=message):
        restore_for_inference(model, save(tmp_path / "network", other))
    message = (
        r"variables of another shape \(backbone/conv1/kernel \(FeatureExtractor/MobilenetV1/Conv2d_0/weights\): \(1, 1"
    )
    with pytest.raises(CheckpointError, match=message):
        restore_for_inference(model, save(tmp_path / "depth", published(channels=5)))
    with pytest.raises(
        CheckpointError, match=r"another network than this model's: .*first backbone/conv1/kernel \(Feat"
    ):
        warm_start(model, tmp_path / "depth")
    with pytest.raises(CheckpointError, match="set num_classes to that number"):
        restore_for_inference(model, save(tmp_path / "classes", published(num_classes=9)))
    assert set(values_of(model).values()) == {0}
    assert len(warm_start(model, tmp_path / "classes").new) == 4
    assert values_of(model) == {**EXPECTED, "head/class_predictor_4": 0, "head/class_predictor_5": 0}


def test_classification_networks(tmp_path):
    names = {name.removeprefix("FeatureExtractor/"): value for name, value in published().items() if "_0/" in name}
    names = {name: value for name, value in names.items() if name.startswith("MobilenetV1/Conv2d_0")}
    prefix = save(tmp_path, {**names, "MobilenetV1/Logits/Conv2d_1c_1x1/weights": np.ones(3, np.float32)})
    model = make_model()
    report = warm_start(model, prefix, "classification")
    assert report.leftovers == {"MobilenetV1/Logits/Conv2d_1c_1x1/weights": "a classifier's last layers"}
    assert values_of(model)["backbone/conv1_bn"] == 2
    with pytest.raises(CheckpointError, match="holds a classification network, no detector"):
        warm_start(model, prefix)


def test_graphs_without_exact_weights(tmp_path):
    name = "FeatureExtractor/MobilenetV1/Conv2d_0/weights"
    with tf.Graph().as_default() as graph:
        tf.compat.v1.get_variable(name, shape=[2], use_resource=False)
    (tmp_path / "graph.pb").write_bytes(graph.as_graph_def().SerializeToString())
    with pytest.raises(
        CheckpointError, match=r"graph\.pb holds no weights: it has the names of 1 variables.*model\.ckpt"
    ):
        warm_start(make_model(), tmp_path / "graph.pb")
    save_graph(tmp_path, {}, "empty.pb")
    with pytest.raises(CheckpointError, match=r"none of its 1 nodes is a constant \.\.\./weights"):
        warm_start(make_model(), tmp_path / "empty.pb")
    save_graph(tmp_path, {f"{name}_quantized_const": np.ones(3, np.uint8)}, "small.pb")
    with pytest.raises(
        CheckpointError, match=r"small\.pb are quantized to uint8 \(Feature.*take the model\.ckpt or the fr"
    ):
        restore_for_inference(make_model(), tmp_path / "small.pb")
    (tmp_path / "text.pb").write_bytes(b"no graph")
    with pytest.raises(CheckpointError, match=r"text\.pb is damaged, or no graph of TensorFlow"):
        restore_for_inference(make_model(), tmp_path / "text.pb")


def test_inception_v2_of_version_0_1(tmp_path):
    """Its first layer had a bias and no normalization, the others no gamma: the same outputs, before and behind."""

    def build(is_earlier):
        image = keras.Input((6, 7, 3))
        with keras.name_scope("backbone"):
            x = keras.layers.SeparableConv2D(4, 3, use_bias=is_earlier, name="conv_1a_separable")(image)
            if not is_earlier:
                x = keras.layers.BatchNormalization(epsilon=0.001, name="conv_1a_batch_norm")(x)
            x = keras.layers.Conv2D(5, 1, use_bias=False, name="conv_2b_conv")(x)
            x = keras.layers.BatchNormalization(scale=not is_earlier, epsilon=0.001, name="conv_2b_batch_norm")(x)
        return keras.Model(image, x)

    random = np.random.default_rng(0)
    earlier, model = build(True), build(False)
    for variable in [*earlier.variables, *model.variables]:
        variable.assign(random.uniform(0.5, 2, variable.shape))
    save_weights(earlier, tmp_path)
    restore_for_inference(model, tmp_path)
    image = random.uniform(-1, 1, (1, 6, 7, 3)).astype(np.float32)
    np.testing.assert_allclose(model(image), earlier(image), rtol=1e-5)


def test_tensors_of_something_else(tmp_path):
    prefix = save(tmp_path, {"w": np.ones(3, np.float32)})
    with pytest.raises(CheckpointError, match="is no checkpoint of a detector: its first tensors are global_step, w"):
        restore_for_inference(make_model(), prefix)


def test_graphs_with_folded_normalization(tmp_path):
    path = save_graph(tmp_path, {name: value for name, value in published().items() if "BatchNorm" not in name})
    instead = "folded into its weights, take the model.ckpt or the frozen_inference_graph.pb of the same archive"
    with pytest.raises(CheckpointError, match=rf"4 variables of the model are not in it .*{instead}"):
        restore_for_inference(make_model(), path)
    with pytest.raises(
        CheckpointError, match=rf"lacks 4 variables of the backbone \(backbone/conv1_bn/gamma.*{instead}"
    ):
        warm_start(make_model(), path)


def test_the_graph_of_an_own_export(tmp_path):
    """Its constants have other names; the checkpoint lies next to it."""
    path = save_graph(tmp_path, {})
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(CheckpointError, match=rf"holds no weights: .*; take {tmp_path}/checkpoint$"):
        restore_for_inference(make_model(), path)


def test_folders_with_half_of_a_checkpoint(tmp_path):
    prefix = save(tmp_path / "data", published())
    (tmp_path / "data" / "model.ckpt.index").rename(tmp_path / "model.ckpt.index")
    with pytest.raises(CheckpointError, match=rf"has data but no index: {prefix}\.index is missing; copy it too"):
        latest_prefix(tmp_path / "data")
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "checkpoint").write_text('model_checkpoint_path: "/of/another/machine/model.ckpt-12"\n')
    with pytest.raises(CheckpointError, match=r"list/checkpoint names /of/another/machine/model\.ckpt-12, which"):
        latest_prefix(tmp_path / "list")


def test_a_training_from_another_backbone(tmp_path):
    values = {name.replace("V1/Conv2d_", "V2/expanded_conv_"): value for name, value in published().items()}
    message = (
        r"of TensorFlow 1\) is another network than this model's: it has none of the 6 variables of the backbone "
        r"\(backbone/conv1/kernel, backbone/conv1_bn/gamma, \.\.\.\) but FeatureExtractor/MobilenetV2/expanded_conv_0/"
    )
    with pytest.raises(CheckpointError, match=message):
        warm_start(make_model(), save(tmp_path, values), "detection")
