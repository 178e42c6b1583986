"""``detzoo models``."""

from __future__ import annotations

import copy
import logging
import pathlib
import shutil
import sys
from collections.abc import Iterable
from typing import Any

from absl import flags

from detzoo.errors import DetzooError, UsageError

SUMMARY = "List the configs in model_configs/: input size, parameters, multiply-adds, published result."
DESCRIPTION = """
    detzoo models
    detzoo models --match=retinanet
    detzoo models --paper=fpn

Start from one of them: copy it, edit what says PATH_TO_BE_CONFIGURED, and train. They are grouped by kind of detector;
those of the first group train on the embedded data set or on your own first images within minutes. --paper has the
rows of a paper's result tables instead, in the paper's order, each with the config that reproduces it; the paper's
page in docs/papers/ says what differs. Results are cut to the width of a terminal; in a file or a pipe they are whole.

Parameters count the moving statistics of batch normalisation; multiply-adds are of one image of 480 x 640 pixels,
of a classifier's one crop, without post-processing, to which the masks of a Mask R-CNN belong.

After a change of a config, --refresh builds what has changed and writes model_configs/models.csv anew.
"""
POSITIONAL = ()

FIRST_STEPS = "First steps"
# What ``config.sweep_traits`` calls a kind of detector -> heading, in the order of the list.
GROUPS = {
    "ssd": "SSD",
    "retinanet": "RetinaNet, and SSD with a feature pyramid",
    "efficientdet": "EfficientDet",
    "faster_rcnn": "Faster R-CNN",
    "rfcn": "R-FCN",
    "mask_rcnn": "Mask R-CNN",
    "rpn": "Region proposals alone",
    "fast_rcnn": "Fast R-CNN on given proposals",
    "spp_net": "SPP-net",
    "spp_classifier": "Classifiers, for SPP-net",
    "segmentation_proposals": "Segmentation proposals",
}
OTHERS = "Others"
_FIRST_STEPS = ("custom_", "shapes_")  # names of configs that train within minutes

logger = logging.getLogger(__name__)


def define_flags(flag_values: flags.FlagValues) -> None:
    """--model_configs, --match, --paper, --refresh."""
    default = str(pathlib.Path(__file__).resolve().parents[2] / "model_configs")
    text = "Folder with .config files."
    flags.DEFINE_string("model_configs", default, text, flag_values=flag_values)
    flags.DEFINE_string("match", "", "Only configs whose name contains this.", flag_values=flag_values)
    papers = ["fpn", "retinanet", "tradeoffs", "spp"]  # of detzoo.benchmark.models, which is not imported for --help
    text = "The rows of this paper's result tables, and their configs."
    flags.DEFINE_enum("paper", None, papers, text, flag_values=flag_values)
    flags.DEFINE_bool("refresh", False, "Build what has changed and update the table.", flag_values=flag_values)


def run(flag_values: flags.FlagValues) -> None:
    """Prints one line for each config, or for each row of a paper."""
    from detzoo.benchmark import models

    folder = pathlib.Path(flag_values.model_configs)
    files = [file for file in folder.glob("*.config") if flag_values.match in file.stem]
    files.sort(key=lambda file: models.natural(file.stem))
    if not files:
        among = f" whose name contains '{flag_values.match}'" if flag_values.match else ""
        raise UsageError(f"--model_configs {folder} has no .config file{among}")
    if flag_values.refresh:
        for file in files:
            _refresh(file)
    rows = models.read_table(folder)
    lines = _of_paper(files, rows, flag_values.paper) if flag_values.paper else _by_group(files, rows)
    for line in lines:
        print(_cut(line))


def grouped(files: Iterable[pathlib.Path]) -> dict[str, list[pathlib.Path]]:
    """Heading of a kind of detector -> its configs, in their order; kinds without a config are left out."""
    from detzoo.config.load import read_pipeline
    from detzoo.sweep.plan.traits import traits_of

    groups: dict[str, list[pathlib.Path]] = {name: [] for name in (FIRST_STEPS, *GROUPS.values(), OTHERS)}
    for file in files:
        kind = traits_of(read_pipeline(str(file))[0].message.model).meta_architecture
        groups[FIRST_STEPS if file.stem.startswith(_FIRST_STEPS) else GROUPS.get(kind, OTHERS)].append(file)
    return {name: members for name, members in groups.items() if members}


def _by_group(files: list[pathlib.Path], rows: dict[str, Any]) -> list[str]:
    """A heading and the configs of each kind of detector."""
    groups = grouped(files)
    width = max(len(name) for name in (*groups, *(f"  {file.stem}" for file in files)))
    lines = [f"{'':<{width}} {NUMBERS}  published result"]
    for name, members in groups.items():
        lines += [name, *(f"{f'  {file.stem}':<{width}} {_numbers(file, rows)}  {_result(file)}" for file in members)]
    return lines


def _of_paper(files: list[pathlib.Path], rows: dict[str, Any], paper: str) -> list[str]:
    """The rows of a paper in its order, each with a config; a row may have several."""
    from detzoo.benchmark.models import PAPERS, read_header

    headers = {file: read_header(file.read_text(encoding="utf-8")) for file in files}
    found = [(row, file) for file, header in headers.items() for row in header.rows if row.paper == paper]
    if not found:
        raise UsageError(f"none of the {len(files)} configs names a row of --paper={paper}; leave out --match")
    found.sort(key=lambda pair: (pair[0].order(), pair[1].stem))
    labels = [f"table {row.label}{f', {row.name}' if row.name else ''}" for row, _ in found]
    first, second = max(map(len, labels)), max(len(file.stem) for _, file in found)
    lines = [f"{PAPERS[paper].title}; what differs and why: {PAPERS[paper].page}"]
    lines.append(f"{'row':<{first}} {'config':<{second}} {NUMBERS}  published result")
    for label, (_, file) in zip(labels, found, strict=True):
        lines.append(f"{label:<{first}} {file.stem:<{second}} {_numbers(file, rows)}  {_result(file)}")
    return lines


NUMBERS = f"{'input':>9} {'parameters':>10} {'multiply-adds':>13}"


def _numbers(file: pathlib.Path, rows: dict[str, Any]) -> str:
    row = rows.get(file.stem)
    if row is None or row.digest != model_digest(file):
        return f"{'not counted yet: --refresh':>{len(NUMBERS)}}"
    millions, billions = f"{row.parameters / 1e6:.2f} M", f"{row.multiply_adds / 1e9:.2f} B"
    return f"{row.input_size:>9} {millions:>10} {billions:>13}"


def _result(file: pathlib.Path) -> str:
    from detzoo.benchmark.models import read_header, short_result

    return short_result(read_header(file.read_text(encoding="utf-8")).result) or "-"


def _cut(line: str) -> str:
    """The line as far as a terminal is wide; all of it where nobody looks at lines."""
    columns = shutil.get_terminal_size().columns
    return line if not sys.stdout.isatty() or len(line) <= columns else f"{line[: columns - 1]}…"


# Blocks of a model that change neither its size nor its multiply-adds.
UNCOUNTED_FIELDS = (
    "box_coder",
    "loss",
    "matcher",
    "post_processing",
    "similarity_calculator",
    # Of two-stage detectors:
    "hard_example_miner",
    "second_stage_classification_loss",
    "second_stage_post_processing",
    # Of classifiers:
    "map_scale",
    "random_train_size",
    "shorter_side",
    "test_view",
    "train_size",
)


def model_digest(file: pathlib.Path) -> str:
    """A digest of what the numbers of a config depend on."""
    from detzoo.benchmark.models import digest_of
    from detzoo.config.load import read_pipeline, to_text

    model = read_pipeline(str(file))[0].message.model
    kind = model.WhichOneof("model")
    if kind is None:
        return digest_of("")
    counted = copy.deepcopy(getattr(model, kind))
    for name in UNCOUNTED_FIELDS:
        if name in counted.DESCRIPTOR.fields_by_name:
            counted.ClearField(name)
    return digest_of(to_text(counted))


def _refresh(file: pathlib.Path) -> None:
    """Counts a config that has changed, and writes the table at once: counting all of them takes minutes."""
    from detzoo.benchmark import models

    rows, digest = models.read_table(file.parent), model_digest(file)
    if file.stem in rows and rows[file.stem].digest == digest:
        return
    alike = next((row for row in rows.values() if row.digest == digest), None)
    if alike is not None:
        fresh = alike._replace(config=file.stem)
    else:
        logger.info("building %s", file.stem)
        try:
            fresh = count_model(file, digest)
        except DetzooError as problem:
            logger.warning("%s cannot be built: %s", file.stem, problem)
            fresh = None
    rows = models.read_table(file.parent)  # again: another process may have counted meanwhile
    rows.pop(file.stem, None)
    known = {other.stem for other in file.parent.glob("*.config")}
    kept = [row for row in rows.values() if row.config in known]
    models.write_table(file.parent, [*kept, fresh] if fresh else kept)


def count_model(file: pathlib.Path, digest: str) -> Any:
    """Builds a config's detector and counts it."""
    from detzoo.benchmark.models import ModelRow
    from detzoo.benchmark.multiply_adds import count_in_function
    from detzoo.builders.resize import build_model_resizer
    from detzoo.checkpoints.layout import variables_by_path
    from detzoo.config.load import load_pipeline
    from detzoo.tasks.models import build_untrained, start_tensorflow

    start_tensorflow()
    import keras
    import tensorflow as tf

    from detzoo.benchmark.models import IMAGE_SHAPE

    model = load_pipeline(str(file)).message.model
    keras.backend.clear_session()
    if model.HasField("spp_classifier"):  # counted on one crop, whatever its views
        model.spp_classifier.test_view = model.spp_classifier.ONE_CROP
        image = tf.zeros([model.spp_classifier.crop_size] * 2 + [3])
    else:
        image, _ = build_model_resizer(model)(tf.zeros([*IMAGE_SHAPE, 3]))
    detector = build_untrained(model)
    spec = tf.TensorSpec([1, *image.shape], tf.float32)
    runs = model.HasField("spp_net")  # its maps have the sizes of its scales, which a graph only knows when it runs
    options = {"proposals": _some_proposals(model)} if detector.wants_proposals else {}

    def outputs(inputs: Any) -> dict[str, Any]:
        found = detector.predict(inputs, **options)._asdict()
        return {name: found[name] for name in ("box_deltas", "class_logits")} if runs else dict(found)

    predict = tf.function(outputs, input_signature=[spec], autograph=False).get_concrete_function()
    counts = _counts_of_run(predict, image) if runs else count_in_function(predict)
    adds = sum(counts.values())
    parameters = sum(int(variable.shape.num_elements()) for variable in variables_by_path(detector.variables).values())
    size = detector.whole_cells(image[tf.newaxis], None).shape[1:3]
    return ModelRow(file.stem, "x".join(map(str, size)), parameters, adds, digest)


def _counts_of_run(function: Any, image: Any) -> dict[str, int]:
    """Multiply-adds by kind of a concrete function, of one image; it is run."""
    from detzoo.benchmark.multiply_adds import count_in_graph_def
    from detzoo.export.freeze import freeze

    frozen, _ = freeze(function)  # without what the outputs do not need
    return count_in_graph_def(frozen.graph_def, frozen.input_name, image.numpy()[None])


def _some_proposals(model: Any) -> Any:
    """As many regions as the papers have in testing, for a detector without a first stage."""
    import tensorflow as tf

    from detzoo.benchmark.models import NUM_GIVEN_PROPOSALS
    from detzoo.contracts import Proposals

    rows = model.spp_net.max_proposals if model.HasField("spp_net") else NUM_GIVEN_PROPOSALS
    boxes = tf.tile(tf.constant([[[0.0, 0.0, 0.5, 0.5]]]), [1, rows, 1])
    return Proposals(boxes, tf.zeros([1, rows]), tf.constant([rows]))
