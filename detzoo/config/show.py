"""A config as text: the values in use, optionally with every default written out."""

from __future__ import annotations

from typing import Any

from google.protobuf import text_format

from detzoo.config import values
from detzoo.config.load import to_text
from detzoo.config.names import suggestion
from detzoo.errors import UsageError


def show_config(message: Any, *, defaults: bool = False, path: str = "") -> str:
    """Returns the protobuf text of a config, or of the block at ``path``.

    With ``defaults`` every scalar that its block leaves unset appears with its default value; a block that is absent
    stays absent, because its presence means something. The text reads back as a config of the same meaning.

    Raises:
        UsageError: ``path`` names no block or field of the config.
    """
    for step in path.split(".") if path else []:
        message = _descend(message, step, path)
        if not hasattr(message, "DESCRIPTOR"):
            return f"{message}\n"
    if defaults:
        filled = type(message)()
        filled.CopyFrom(message)
        _fill(filled)
        message = filled
    return to_text(message)


def _descend(message: Any, step: str, path: str) -> Any:
    name, _, rest = step.partition("[")
    field = message.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        hint = suggestion(name, message.DESCRIPTOR.fields_by_name)
        raise UsageError(f"--path {path}: {message.DESCRIPTOR.name} has no field '{name}'{hint}")
    if values.is_repeated(field):
        number = rest.rstrip("]")[:9]
        index = int(number) if number.isdecimal() else 0
        items = getattr(message, name)
        if index >= len(items):
            raise UsageError(f"--path {path}: {name} has {len(items)} items")
        return items[index]
    if values.is_message(field):
        if not message.HasField(name):
            raise UsageError(f"--path {path}: the config has no {name}")
        return getattr(message, name)
    single = type(message)(**{name: getattr(message, name)})  # prints the field as protobuf prints it
    return text_format.MessageToString(single).strip()


def _fill(message: Any) -> None:
    """Writes out the defaults of a message and of all messages in it. The branches of a oneof stay as they are."""
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if values.is_map(field):
            continue
        if values.is_repeated(field):
            for item, _ in values.blocks_in(field, value, ""):
                _fill(item)
        elif values.is_message(field):
            if message.HasField(field.name):
                _fill(value)
        elif field.containing_oneof is None and not message.HasField(field.name):
            setattr(message, field.name, value)
