"""Metadata of a TFLite file, read by the field numbers of the published schema."""

from __future__ import annotations

import io
import zipfile

import pytest
from flatbuffers import encode, number_types
from flatbuffers.table import Table

from detzoo.export.tflite_metadata import add_labels, metadata

OFFSET = number_types.UOffsetTFlags


def field(table, number):
    """Position of a field in the buffer: the vtable has two bytes per field after its own two sizes."""
    place = table.Offset(4 + 2 * number)
    assert place, f"field {number} is absent"
    return place + table.Pos


def text(table, number):
    return table.String(field(table, number)).decode()


def child(table, number):
    return Table(table.Bytes, table.Indirect(field(table, number)))


def children(table, number):
    place = table.Offset(4 + 2 * number)
    first = table.Vector(place)
    return [Table(table.Bytes, table.Indirect(first + 4 * row)) for row in range(table.VectorLen(place))]


def numbers(table, number, flags):
    place = table.Offset(4 + 2 * number)
    return [table.Get(flags, table.Vector(place) + 4 * row) for row in range(table.VectorLen(place))]


def byte(table, number):
    return table.Get(number_types.Int8Flags, field(table, number))


@pytest.fixture(scope="module")
def root():
    content = metadata("a detector", has_byte_input=True, labels_file="names.txt")
    assert content[4:8] == b"M001"
    return Table(content, encode.Get(OFFSET.packer_type, content, 0))


def test_the_input_is_an_image_with_its_normalisation(root):
    assert (text(root, 0), text(root, 1), text(root, 7)) == ("Object detector", "a detector", "1.2.0")
    [subgraph] = children(root, 3)  # subgraph_metadata
    [image] = children(subgraph, 2)  # input_tensor_metadata
    assert text(image, 0) == "image"
    content = child(image, 3)
    assert byte(content, 0) == 2  # ImageProperties
    assert byte(child(content, 1), 0) == 1  # RGB
    [unit] = children(image, 4)
    assert byte(unit, 0) == 1  # NormalizationOptions
    options = child(unit, 1)
    assert numbers(options, 0, number_types.Float32Flags) == [0.0]  # mean
    assert numbers(options, 1, number_types.Float32Flags) == [1.0]  # std


def test_outputs_have_the_names_by_which_they_are_found(root):
    [subgraph] = children(root, 3)
    outputs = children(subgraph, 3)
    assert [text(output, 0) for output in outputs] == ["location", "category", "score", "number of detections"]
    boxes = child(child(outputs[0], 3), 1)
    # Left is number 1 of [top, left, bottom, right], top is 0, right is 3, bottom is 2.
    assert numbers(boxes, 0, number_types.Uint32Flags) == [1, 0, 3, 2]
    assert byte(boxes, 1) == 1  # BOUNDARIES
    [labels] = children(outputs[1], 6)  # associated_files
    assert (text(labels, 0), byte(labels, 2)) == ("names.txt", 3)  # TENSOR_VALUE_LABELS
    [group] = children(subgraph, 8)  # output_tensor_groups
    assert text(group, 0) == "detection_result"


def test_names_are_a_zip_archive_after_the_model():
    content = add_labels(b"model", "names.txt", "cat\ndog\n")
    assert content.startswith(b"model")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.read("names.txt") == b"cat\ndog\n"
    assert content == add_labels(b"model", "names.txt", "cat\ndog\n")  # no time of writing
