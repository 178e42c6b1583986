"""The configuration messages, one attribute each: ``pb.TrainEvalPipelineConfig``, ``pb.Hyperparams`` (floor 0).

Made at run time from ``schema.binpb`` (``protos/`` compiled by ``scripts/compile_protos.py``) in a descriptor pool of
its own. So a user needs no protoc, no generated code asks for one exact protobuf runtime, and nothing collides with an
installed ``object_detection`` package. Enums and their values at file level are attributes as well
(``pb.ResizeType``, ``pb.BICUBIC``); nested ones belong to their message (``pb.PostProcessing.SIGMOID``).
"""

from __future__ import annotations

import pathlib
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal import enum_type_wrapper

PACKAGE = "detzoo.protos"
SCHEMA_PATH = pathlib.Path(__file__).with_name("schema.binpb")


def _load_pool() -> tuple[descriptor_pool.DescriptorPool, list[str]]:
    """A private pool with every message of the schema, and the names of its files."""
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(descriptor_pb2.DESCRIPTOR.serialized_pb)
    schema = descriptor_pb2.FileDescriptorSet.FromString(SCHEMA_PATH.read_bytes())
    for file in schema.file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool, [file.name for file in schema.file]


POOL, FILES = _load_pool()


def option_of(field: Any, name: str) -> str:
    """Returns an option of ``limits.proto`` of a field, "" for none. The pool's own class of options holds it."""
    options = message_factory.GetMessageClass(POOL.FindMessageTypeByName("google.protobuf.FieldOptions"))
    extension = POOL.FindExtensionByName(f"{PACKAGE}.{name}")
    return options.FromString(field.GetOptions().SerializeToString()).Extensions[extension]


def __getattr__(name: str) -> Any:
    """Makes the class of a message, an enum or an enum's value at its first use."""
    if name.startswith("_"):
        raise AttributeError(name)
    for file_name in FILES:
        file = POOL.FindFileByName(file_name)
        if name in file.message_types_by_name:
            value: Any = message_factory.GetMessageClass(file.message_types_by_name[name])
        elif name in file.enum_types_by_name:
            value = enum_type_wrapper.EnumTypeWrapper(file.enum_types_by_name[name])
        else:
            numbers = [
                enum.values_by_name[name].number
                for enum in file.enum_types_by_name.values()
                if name in enum.values_by_name
            ]
            if not numbers:
                continue
            value = numbers[0]
        globals()[name] = value
        return value
    raise AttributeError(f"the configuration schema has no message or enum named {name!r}")


def __dir__() -> list[str]:
    messages = {name for file in FILES for name in POOL.FindFileByName(file).message_types_by_name}
    return sorted({*globals(), *messages})
