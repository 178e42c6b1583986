"""Label maps: protobuf text with one ``item`` of ``id`` (from 1) and ``name`` per class."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from detzoo.config import pb
from detzoo.config.load import read_text
from detzoo.config.problems import Problem, Severity, error, format_problems, has_errors
from detzoo.config.text import ParsedText, parse_text
from detzoo.errors import ConfigError

UNNAMED = "???"  # line of a class without a name, in TensorFlow's label files

_MOST_CLASSES = 1_000_000


class LabelMap:
    """Class names by id (from 1, gaps allowed).

    Attributes:
        names: id -> name, in ascending order of id.
        display_names: id -> the name to show; by default the name itself.
        id_by_name: name -> id.
        id_by_any_name: name or display name -> id; a name takes precedence over a display name.
        keypoints: id -> the names of the keypoints of the class, for classes that have some.
        num_classes: The highest id, the least ``num_classes`` of a model.
    """

    def __init__(
        self, names: Mapping[int, str] | Sequence[str], display_names: Mapping[int, str] | None = None
    ) -> None:
        """Takes id -> name, or a list of names for the ids 1, 2, ...; raises a ConfigError for none or equal ones."""
        by_id = dict(names) if isinstance(names, Mapping) else dict(enumerate(names, start=1))
        if not by_id:
            raise ConfigError("a label map needs at least one class")
        if min(by_id) < 1:
            raise ConfigError(f"label map ids start at 1 (0 is the background), received {min(by_id)}")
        self.names: dict[int, str] = {identifier: by_id[identifier] for identifier in sorted(by_id)}
        self.display_names: dict[int, str] = {
            identifier: (display_names or {}).get(identifier) or name for identifier, name in self.names.items()
        }
        self.id_by_name: dict[str, int] = {}
        for identifier, name in self.names.items():
            if name in self.id_by_name:
                raise ConfigError(f"the name '{name}' is given to id {self.id_by_name[name]} and to id {identifier}")
            self.id_by_name[name] = identifier
        displayed = {name: identifier for identifier, name in self.display_names.items()}
        self.id_by_any_name: dict[str, int] = displayed | self.id_by_name
        self.num_classes: int = max(self.names)
        self.keypoints: dict[int, tuple[str, ...]] = {}

    def __len__(self) -> int:
        return len(self.names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LabelMap) and (self.names, self.display_names) == (other.names, other.display_names)

    __hash__ = None  # type: ignore[assignment]

    def to_text(self) -> str:
        """Returns the map as protobuf text."""
        items = []
        for identifier, name in self.names.items():
            lines = [f"  id: {identifier}", f"  name: {_quote(name)}"]
            if self.display_names[identifier] != name:
                lines.append(f"  display_name: {_quote(self.display_names[identifier])}")
            for number, label in enumerate(self.keypoints.get(identifier, ())):
                lines.append(f"  keypoints {{ id: {number} label: {_quote(label)} }}")
            items.append("\n".join(["item {", *lines, "}"]))
        return "\n".join(items) + "\n"

    def save(self, path: str | pathlib.Path) -> None:
        """Writes the map as protobuf text, which ``load_label_map`` reads as an equal map."""
        pathlib.Path(path).write_text(self.to_text(), encoding="utf-8")


def load_label_map(path: str | pathlib.Path) -> LabelMap:
    """Reads a label map file, or a text file with one class name per line, as TFLite models have it.

    Raises:
        UsageError: The file cannot be read.
        ConfigError: The text has problems; the message lists all of them, one per line.
    """
    text = read_text(path, "label map")
    if str(path).endswith(".txt") and "{" not in text:
        return label_map_of_lines(text)
    return parse_label_map(text, str(path))


def parse_label_map(text: str, where: str) -> LabelMap:
    """Reads the text of a label map; ``where`` is its file in messages.

    Raises:
        ConfigError: The text has problems; the message lists all of them, one per line.
    """
    parsed, problems = _parse(text)
    if has_errors(problems):
        raise ConfigError(format_problems([p for p in problems if p.severity is Severity.ERROR], where))
    items = [item for item in parsed.message.item if not _is_background(item)]
    names = {item.id: item.name or item.display_name for item in items}
    shown = {item.id: item.display_name for item in items if item.display_name}
    return LabelMap(names, shown)


def label_map_of_lines(text: str) -> LabelMap:
    """Returns the label map of class names, one per line, from the id 1; from 0 if the first line is ``UNNAMED``.

    Ids whose line is ``UNNAMED`` or empty have no name.
    """
    lines = [line.strip() for line in text.splitlines()]
    first_id = 0 if lines[:1] == [UNNAMED] else 1
    return LabelMap({number: name for number, name in enumerate(lines, first_id) if name not in ("", UNNAMED)})


class KeypointNames(NamedTuple):
    """The keypoints of a class: column of a keypoint in records -> its name, in the order of the label map."""

    class_id: int
    display_name: str
    labels: dict[int, str]


def load_keypoints(path: str | pathlib.Path) -> dict[str, KeypointNames]:
    """Reads the classes with keypoints of a label map: name of a class -> its keypoints.

    Raises:
        UsageError: The file cannot be read.
        ConfigError: The text has problems, or no class has keypoints; the message lists the names of the classes.
    """
    names = load_label_map(path).names  # refuses a file with problems
    parsed, _ = read_label_map(path)
    found = {}
    for item in parsed.message.item:
        columns = [keypoint.id for keypoint in item.keypoints]
        labels = [keypoint.label for keypoint in item.keypoints]
        for what, values in (("id", columns), ("label", labels)):
            if twice := next((value for value in values if values.count(value) > 1), None):
                raise ConfigError(f"{path}: the keypoints of '{item.name}' have the {what} '{twice}' twice")
        if columns:
            found[item.name or item.display_name] = KeypointNames(
                item.id, item.display_name or item.name, dict(zip(columns, labels))
            )
    if not found:
        raise ConfigError(f"{path}: no class has keypoints; its classes are {', '.join(names.values())}")
    return found


def read_label_map(path: str | pathlib.Path) -> tuple[ParsedText, list[Problem]]:
    """Returns the message of a label map and its problems, with lines; raises UsageError if it cannot be read."""
    return _parse(read_text(path, "label map"))


def _parse(text: str) -> tuple[ParsedText, list[Problem]]:
    parsed = parse_text(text, pb.StringIntLabelMap, _MOST_CLASSES)
    problems = list(parsed.problems)
    if not parsed.message.item and not problems:
        problems.append(error("", 0, "has no `item { id: 1 name: 'x' }`"))
    lines_of_ids: dict[int, int] = {}
    lines_of_names: dict[str, int] = {}
    for index, item in enumerate(parsed.message.item):
        here = f"item[{index}]"
        line = parsed.lines.get(here, 0)
        name = item.name or item.display_name
        if not item.HasField("id"):
            problems.append(error(here, line, "has no id"))
        elif _is_background(item):
            continue
        elif item.id < 1:
            text = (
                f"id {item.id}: ids start at 1, because 0 is the background; add 1 to every id, here and in the records"
            )
            problems.append(error(f"{here}.id", parsed.lines.get(f"{here}.id", line), text))
        elif item.id in lines_of_ids:
            problems.append(error(f"{here}.id", line, f"id {item.id} is taken on line {lines_of_ids[item.id]}"))
        if not name:
            problems.append(error(here, line, "has neither name nor display_name"))
        elif name in lines_of_names:
            text = f"the name '{name}' is taken on line {lines_of_names[name]}"
            problems.append(error(f"{here}.name", line, text))
        lines_of_ids.setdefault(item.id, line)
        lines_of_names.setdefault(name, line)
    return parsed, problems


def _is_background(item: Any) -> bool:
    """Returns True for id 0 with the name background, which some label maps have. It is no class."""
    return item.id == 0 and item.HasField("id") and "background" in (item.name.lower(), item.display_name.lower())


def _quote(text: str) -> str:
    """Returns a protobuf string. The text format reads all escapes of JSON except ``\\u``."""
    return json.dumps(text, ensure_ascii=False)
