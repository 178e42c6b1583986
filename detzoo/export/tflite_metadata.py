"""TFLite Metadata of a detector: what Android's task library, MediaPipe and their tutorials read from the file itself.

The metadata say that the input is an RGB image, how its values are normalised, which output is which, and which
associated file has the class names. They are a FlatBuffer in the model (schema: metadata_schema.fbs, version 1.2.0,
https://www.tensorflow.org/lite/models/convert/metadata), and associated files are appended to the model as a zip
archive. The package that wrote them, tflite-support, supports no Python above 3.11.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from typing import NamedTuple

import flatbuffers
import numpy as np

METADATA_NAME = "TFLITE_METADATA"  # of the entry in the model
_FILE_IDENTIFIER, _PARSER_VERSION = b"M001", "1.2.0"
_VALUE_LABELS = 3  # AssociatedFileType.TENSOR_VALUE_LABELS
_RGB = 1  # ColorSpaceType.RGB
_BOUNDARIES, _RATIO = 1, 0  # BoundingBoxType, CoordinateType
_FEATURES, _IMAGE, _BOXES = 1, 2, 3  # ContentProperties
_NORMALIZATION = 1  # ProcessUnitOptions
# Places of left, top, right and bottom in a box.
_BOX_ORDER = (1, 0, 3, 2)
# In the order of ``OUTPUTS``; readers find the outputs by these names.
LOCATION, CATEGORY, SCORE, COUNT = "location", "category", "score", "number of detections"
_GROUP = "detection_result"  # the outputs with one row per detection


class _Field(NamedTuple):
    """A value of a table in the FlatBuffer: an offset, or a number of 1 or 4 bytes."""

    value: int
    kind: str = "UOffsetTRelative"


def add_labels(model: bytes, file_name: str, labels: str) -> bytes:
    """Appends a file of class names, which ``metadata`` names, to a model."""
    content = io.BytesIO(model)
    with zipfile.ZipFile(content, "a") as archive:
        archive.writestr(zipfile.ZipInfo(file_name), labels)
    return content.getvalue()


def metadata(description: str, has_byte_input: bool, labels_file: str = "") -> bytes:
    """Returns the metadata of a detector whose input takes pixels from 0 to 255.

    Args:
        description: Sentence for people who inspect the file.
        has_byte_input: The input is uint8, not float32.
        labels_file: Name of the associated file with one class name per line; "" for none.
    """
    write = _Writer()
    image = write.table(_Field(_RGB, "Int8"))
    # (value - mean) / std: the normalisation is a part of the model.
    unit = write.table(_Field(_NORMALIZATION, "Uint8"), write.table(write.floats([0.0]), write.floats([1.0])))
    stats = write.table(write.floats([255.0]), write.floats([0.0]))
    kind = "bytes" if has_byte_input else "floats"
    given = write.tensor("image", f"RGB image, {kind} from 0 to 255.", _IMAGE, image, units=[unit], stats=stats)
    boxes = write.table(write.integers(_BOX_ORDER), _Field(_BOUNDARIES, "Int8"), _Field(_RATIO, "Int8"))
    files = []
    if labels_file:
        described = (write.string(labels_file), write.string("Class names, one per line."))
        files = [write.table(*described, _Field(_VALUE_LABELS, "Int8"))]
    results = [
        write.tensor(LOCATION, "Boxes: top, left, bottom, right, from 0 to 1.", _BOXES, boxes, dimensions=2),
        write.tensor(CATEGORY, "Classes from 0.", _FEATURES, write.table(), dimensions=2, files=files),
        write.tensor(SCORE, "Scores in descending order.", _FEATURES, write.table(), dimensions=2),
        write.tensor(COUNT, "Number of detections.", _FEATURES, write.table()),
    ]
    group = write.table(
        write.string(_GROUP), write.vector([write.string(name) for name in (LOCATION, CATEGORY, SCORE)])
    )
    subgraph = write.table(None, None, write.vector([given]), write.vector(results), *[None] * 4, write.vector([group]))
    name, sentence = write.string("Object detector"), write.string(description)
    version = write.string(_PARSER_VERSION)
    root = write.table(name, sentence, None, write.vector([subgraph]), None, None, None, version)
    write.builder.Finish(root.value, _FILE_IDENTIFIER)
    return bytes(write.builder.Output())


class _Writer:
    """Writer of tables whose fields are given in the order of the schema, None for an absent one."""

    def __init__(self) -> None:
        self.builder = flatbuffers.Builder(1024)

    def string(self, text: str) -> _Field:
        return _Field(self.builder.CreateString(text))

    def floats(self, values: Sequence[float]) -> _Field:
        return _Field(self.builder.CreateNumpyVector(np.array(values, np.float32)))

    def integers(self, values: Sequence[int]) -> _Field:
        return _Field(self.builder.CreateNumpyVector(np.array(values, np.uint32)))

    def vector(self, offsets: Sequence[_Field]) -> _Field:
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset.value)
        return _Field(self.builder.EndVector())

    def table(self, *fields: _Field | None) -> _Field:
        self.builder.StartObject(len(fields))
        for slot, field in enumerate(fields):
            if field is not None:
                getattr(self.builder, f"Prepend{field.kind}Slot")(slot, field.value, 0)
        return _Field(self.builder.EndObject())

    def tensor(
        self,
        name: str,
        description: str,
        kind: int,
        properties: _Field,
        dimensions: int = 0,
        units: Sequence[_Field] = (),
        stats: _Field | None = None,
        files: Sequence[_Field] = (),
    ) -> _Field:
        """Returns a TensorMetadata; ``dimensions`` is the number of those that ``properties`` describe, 0 for all."""
        described = self.table(_Field(dimensions, "Int32"), _Field(dimensions, "Int32")) if dimensions else None
        content = self.table(_Field(kind, "Uint8"), properties, described)
        texts = (self.string(name), self.string(description))
        lists = [self.vector(entries) if entries else None for entries in (units, files)]
        return self.table(*texts, None, content, lists[0], stats, lists[1])
