"""Fields that are accepted without effect, and fields whose meaning is not supported: options of protos/.

A field with the option ``no_effect`` may have any value. A field with the option ``unsupported`` may be absent or have
its default, because only another value asks for an unsupported feature.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from detzoo.config import pb, values
from detzoo.config.problems import MISSING, Findings


@functools.cache
def reasons(descriptor: Descriptor, option: str) -> dict[str, str]:
    """Returns the fields of a message that have an option (``no_effect`` or ``unsupported``), with their reasons."""
    found = {field.name: pb.option_of(field, option) for field in descriptor.fields if field.has_options}
    return {name: reason for name, reason in found.items() if reason}


def supported_branches(message: Any, oneof: str) -> list[str]:
    """Returns the branches of a ``oneof`` that this version supports."""
    refused = reasons(message.DESCRIPTOR, "unsupported")
    return [field.name for field in message.DESCRIPTOR.oneofs_by_name[oneof].fields if field.name not in refused]


def check_effects(message: Any, findings: Findings) -> None:
    """Walks all fields that are set in a message and the messages in it; adds errors and "no effect" notes."""
    no_effect, unsupported = (reasons(message.DESCRIPTOR, option) for option in ("no_effect", "unsupported"))
    for field, value in message.ListFields():
        if field.name in no_effect:
            findings.no_effect(field.name, no_effect[field.name])
        elif field.name in unsupported and _asks_for_something(field, value):
            findings.error(field.name, "not-supported", unsupported[field.name])
        else:
            for block, path in values.blocks_in(field, value, field.name):
                check_effects(block, findings.at(path))


def _asks_for_something(field: FieldDescriptor, value: Any) -> bool:
    """Returns True if a set field differs from an absent one: any block or list, or a scalar off its default."""
    return values.is_message(field) or values.is_repeated(field) or value != field.default_value


def check_choice(part: Any, oneof: str, path: str, findings: Findings, accepted: Sequence[str] = ()) -> str:
    """Returns the chosen branch of a block's ``oneof``; without one adds an error, at ``path`` below the findings.

    The error names the ``accepted`` branches; by default all that this version supports.
    """
    if kind := part.WhichOneof(oneof):
        return kind
    names = ", ".join(accepted or supported_branches(part, oneof))
    findings.error(path, MISSING, f"is missing or empty; choose one of {names}")
    return ""
