"""``--set path=value``: one field of a config from the command line, typed by the schema.

Paths are the dotted names of the text. Repeated fields take an index, or ``[+]`` for one more item; a ``oneof`` is
chosen by naming its branch. ``name{}`` selects an empty block, ``name=[a, b]`` replaces a list, and an empty value
after ``=`` clears the field.

    train_config.batch_size=8
    eval_input_reader[0].label_map_path=labels.pbtxt
    model.ssd.loss.classification_loss.weighted_sigmoid_focal.gamma=2
    train_config.optimizer.adam_optimizer{}
    train_config.data_augmentation_options[+].random_vertical_flip{}
"""

from __future__ import annotations

import re
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from detzoo.config import values
from detzoo.config.names import clip, suggestion
from detzoo.config.problems import Problem, error
from detzoo.config.text import join

_STEP = re.compile(r"^(?P<name>[A-Za-z_]\w*)(?:\[(?P<index>[0-9]{1,9}|\+)\])?$")


def apply_override(message: Any, assignment: str, lines: dict[str, int] | None = None) -> list[Problem]:
    """Applies one ``path=value`` to ``message``. Returns the problems; if there are any, nothing is changed.

    The override removes the fields that it replaces from ``lines`` (of the text), so that no message points at them.
    """
    path, separator, value = assignment.partition("=")
    path = path.strip()
    if not separator and path.endswith("{}"):
        path, value = path[:-2].strip(), "{}"
    elif not separator:
        return [error("", 0, f"--set {clip(assignment)}: expected PATH=VALUE, or PATH{{}} for an empty block")]
    changed = type(message)()
    changed.CopyFrom(message)
    try:
        resolved = _assign(changed, path, value.strip())
    except ValueError as problem:
        return [error("", 0, f"--set {clip(assignment)}: {problem}")]
    message.CopyFrom(changed)
    if lines is not None:
        for known in [k for k in lines if k == resolved or k.startswith((resolved + ".", resolved + "["))]:
            del lines[known]
    return []


def _assign(message: Any, path: str, value: str) -> str:
    """Sets the field at a path. Returns the resolved path, raises ValueError with the reason."""
    steps = path.split(".")
    here = ""
    for step in steps[:-1]:
        field, index = _resolve(message, step, here, path)
        if not values.is_message(field):
            raise ValueError(f"{join(here, step)} takes {values.accepted(field)} and has no fields")
        message, here = _enter(message, field, index, join(here, field.name))
    field, index = _resolve(message, steps[-1], here, path)
    return _set(message, field, index, join(here, field.name), value)


def _resolve(message: Any, step: str, here: str, path: str) -> tuple[FieldDescriptor, str | None]:
    match = _STEP.match(step.strip())
    if not match:
        raise ValueError(f"'{clip(step)}' in '{clip(path)}' is not a field name, NAME[INDEX] or NAME[+]")
    field = message.DESCRIPTOR.fields_by_name.get(match["name"])
    if field is None:
        owner = f"{here} ({message.DESCRIPTOR.name})" if here else message.DESCRIPTOR.name
        name = match["name"]
        for oneof in message.DESCRIPTOR.oneofs:
            if oneof.name == name:
                branches = ", ".join(branch.name for branch in oneof.fields)
                raise ValueError(f"{name} is a choice in {owner}: name one of its branches instead: {branches}")
        hint = _deeper(message, name) or suggestion(name, message.DESCRIPTOR.fields_by_name)
        raise ValueError(f"{owner} has no field '{clip(name)}'{hint}")
    if values.is_map(field):
        raise ValueError(f"{join(here, field.name)} is a map; --set cannot change it: edit the file")
    if match["index"] is not None and not values.is_repeated(field):
        raise ValueError(f"{join(here, field.name)} occurs once: leave out [{match['index']}]")
    return field, match["index"]


def _deeper(message: Any, name: str) -> str:
    """Returns a hint if the name exists one block further down, such as ``loss.NAME``."""
    found = [
        f"{field.name}.{name}"
        for field in message.DESCRIPTOR.fields
        if values.is_message(field) and name in field.message_type.fields_by_name
    ]
    return f"; did you mean {' or '.join(found[:3])}?" if found else ""


def _enter(message: Any, field: FieldDescriptor, index: str | None, path: str) -> tuple[Any, str]:
    """Returns the message in a field and its path. Creates the message if it does not exist yet."""
    child = getattr(message, field.name)
    if not values.is_repeated(field):
        child.SetInParent()
        return child, path
    position = _position(child, index, path)
    if position == len(child):
        child.add()
    return child[position], f"{path}[{position}]"


def _position(items: Any, index: str | None, path: str) -> int:
    if index == "+":
        return len(items)
    if index is None:
        if len(items) > 1:
            raise ValueError(
                f"{path} has {len(items)} items: name one as {path}[0] to [{len(items) - 1}], or add with {path}[+]"
            )
        return 0
    if int(index) > len(items):
        raise ValueError(f"{path} has {len(items)} items; accepted: [0] to [{len(items)}], or [+] to add one")
    return int(index)


def _set(message: Any, field: FieldDescriptor, index: str | None, path: str, value: str) -> str:
    if not value:
        return _clear(message, field, index, path)
    if values.is_message(field):
        if value != "{}":
            kind = field.message_type.name
            raise ValueError(
                f"{path} is a block ({kind}); set one of its fields, or {path}{{}} to select it{_fields(field)}"
            )
        child, path = _enter(message, field, index, path)
        child.Clear()  # It stays present: in a oneof this chooses its branch.
        return path
    if value.startswith("[") and value.endswith("]") and values.is_repeated(field) and index is None:
        parsed = [_scalar(field, item.strip(), path) for item in value[1:-1].split(",") if item.strip()]
        message.ClearField(field.name)
        getattr(message, field.name).extend(parsed)
        return path
    parsed_value = _scalar(field, value, path)
    if not values.is_repeated(field):
        setattr(message, field.name, parsed_value)
        return path
    items = getattr(message, field.name)
    position = _position(items, index, path)
    if position == len(items):
        items.append(parsed_value)
    else:
        items[position] = parsed_value
    return f"{path}[{position}]"


def _fields(field: FieldDescriptor) -> str:
    names = list(field.message_type.fields_by_name)
    return f"; its fields are {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}" if names else ""


def _clear(message: Any, field: FieldDescriptor, index: str | None, path: str) -> str:
    if index is None:
        message.ClearField(field.name)
        return path
    items = getattr(message, field.name)
    if index == "+" or int(index) >= len(items):
        raise ValueError(f"{path}[{index}] does not exist and cannot be cleared; it has {len(items)} items")
    del items[int(index)]
    return path


def _scalar(field: FieldDescriptor, text: str, path: str) -> Any:
    """Returns a value from the command line, where strings need no quotes."""
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING and text[:1] not in ("'", '"'):
        return values.no_nul(text)
    try:
        return values.parse_scalar(field, text)
    except ValueError as problem:
        raise ValueError(f"{path}: {problem}") from None
