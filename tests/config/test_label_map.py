"""Label maps."""

from __future__ import annotations

import re

import pytest

from detzoo.config.label_map import LabelMap, load_label_map
from detzoo.errors import ConfigError, UsageError
from tests.problem_text import problem_text


def write(tmp_path, text):
    path = tmp_path / "label_map.pbtxt"
    path.write_text(text)
    return path


def test_load(tmp_path):
    path = write(
        tmp_path,
        """
        item {
          name: '/m/01' id: 5
          display_name: 'Cat'
        }
        item { id: 1 name: 'dog' }
        item { id: 7 display_name: 'emu' }
        """,
    )
    label_map = load_label_map(path)
    assert label_map.names == {1: "dog", 5: "/m/01", 7: "emu"}
    assert label_map.display_names == {1: "dog", 5: "Cat", 7: "emu"}
    assert label_map.id_by_name == {"dog": 1, "/m/01": 5, "emu": 7}
    assert label_map.num_classes == 7
    assert len(label_map) == 3


def test_save_then_load_gives_an_equal_map(tmp_path):
    for label_map in (LabelMap(['caf\u00e9 "noir"', "b\\n", "new\nline"]), LabelMap({3: "x"}, {3: "The X"})):
        label_map.save(tmp_path / "saved.pbtxt")
        assert load_label_map(tmp_path / "saved.pbtxt") == label_map


def test_background_of_id_0_is_left_out(tmp_path):
    background = "item { id: 0 name: 'background' }\n"
    assert load_label_map(write(tmp_path, background + ITEM_A)).names == {1: "a"}


ITEM_A = "item { id: 1 name: 'a' }\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("item { id: 0 name: 'cat' }", problem_text("", 1, "item[0].id", "id 0: ids start at 1")),
        (ITEM_A + "item { id: 1 name: 'b' }", problem_text("", 2, "item[1].id", "id 1 is taken on line 1")),
        (ITEM_A + "item { id: 2 name: 'a' }", problem_text("", 2, "item[1].name", "the name 'a' is taken on line 1")),
        ("item { name: 'a' }", "has no id"),
        ("item { id: 1 }", "has neither name nor display_name"),
        ("items { id: 1 }", "unknown field of StringIntLabelMap; did you mean 'item'?"),
        ("", "has no `item { id: 1 name: 'x' }`"),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path, text, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        load_label_map(write(tmp_path, text))


def test_what_is_wrong_with_names():
    with pytest.raises(ConfigError, match="at least one class"):
        LabelMap([])
    with pytest.raises(ConfigError, match="start at 1"):
        LabelMap({0: "a"})
    with pytest.raises(ConfigError, match="'a' is given to id 1 and to id 2"):
        LabelMap(["a", "a"])


def test_a_missing_file(tmp_path):
    with pytest.raises(UsageError, match="there is no label map at"):
        load_label_map(tmp_path / "nowhere.pbtxt")


def test_published_label_maps(shared):
    folder = shared / "configs" / "label_maps"
    coco = load_label_map(folder / "mscoco_label_map.pbtxt")
    assert (coco.num_classes, len(coco)) == (90, 80)
    assert coco.display_names[1] == "person"
    for path in sorted(folder.glob("*.pbtxt")):
        assert load_label_map(path).num_classes >= 1


def test_text_files_with_one_name_per_line(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("cat\n???\ndog \n\n", encoding="utf-8")
    assert load_label_map(path).names == {1: "cat", 3: "dog"}
    path.write_text("???\ncat\n", encoding="utf-8")  # the background first, as in the Object Detection API's archives
    assert load_label_map(path).names == {1: "cat"}
    path.write_text("item { id: 2 name: 'bird' }", encoding="utf-8")  # protobuf text under the same suffix
    assert load_label_map(path).names == {2: "bird"}
