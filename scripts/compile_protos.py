"""Compiles protos/*.proto into detzoo/config/pb: schema.binpb, which the package loads, and __init__.pyi for mypy.

    scripts/compile_protos.py            writes both files
    scripts/compile_protos.py --check    exits with 1 if a committed file differs from what protos/ gives

The bytes depend on protos/ only: files in the order of their names, no source information. grpcio-tools brings the
compiler, so that neither users nor developers need protoc.
"""

from __future__ import annotations

import argparse
import pathlib
import re
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROTOS = ROOT / "protos"
SCHEMA = ROOT / "detzoo" / "config" / "pb" / "schema.binpb"
STUB = SCHEMA.with_name("__init__.pyi")
STUB_HEADER = """\
# Written by scripts/compile_protos.py from protos/.
# ruff: noqa
from google.protobuf.descriptor import FieldDescriptor as _FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool as _DescriptorPool

PACKAGE: str
POOL: _DescriptorPool
FILES: list[str]

def option_of(field: _FieldDescriptor, name: str) -> str: ...

"""


def run_protoc(folder: pathlib.Path, *arguments: str) -> None:
    """Runs protoc on files of ``folder``; exits if protoc refuses them."""
    import grpc_tools
    from grpc_tools import protoc

    included = pathlib.Path(grpc_tools.__file__).with_name("_proto")  # google/protobuf/descriptor.proto
    status = protoc.main(["protoc", f"--proto_path={folder}", f"--proto_path={included}", *arguments])
    if status != 0:
        raise SystemExit(f"protoc refused {folder} (exit {status}); its messages are above")


def compile_schema() -> bytes:
    """Returns the serialized FileDescriptorSet of protos/, in which a dependency precedes the files that import it."""
    from google.protobuf import descriptor_pb2

    names = sorted(path.name for path in PROTOS.glob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        output = pathlib.Path(folder) / "set.binpb"
        run_protoc(PROTOS, f"--descriptor_set_out={output}", *names)
        compiled = descriptor_pb2.FileDescriptorSet.FromString(output.read_bytes())
    by_name = {file.name: file for file in compiled.file}
    ordered = descriptor_pb2.FileDescriptorSet()
    done: set[str] = set()

    def add(name: str) -> None:
        if name in done:
            return
        done.add(name)
        for dependency in sorted(by_name[name].dependency):
            if dependency in by_name:  # all but protobuf's own
                add(dependency)
        ordered.file.append(by_name[name])

    for name in names:
        add(name)
    return ordered.SerializeToString(deterministic=True)


def compile_stub() -> bytes:
    """Returns the type stub of all messages and enums, without the constants of field numbers.

    ``detzoo.config.pb`` has the names of all files in one namespace, so protoc reads them as one file.
    """
    sources = [path.read_text(encoding="utf-8") for path in sorted(PROTOS.glob("*.proto"))]
    bodies = [re.sub(r"(?m)^(syntax|package|import \"(?!google/))\b.*\n", "", source) for source in sources]
    with tempfile.TemporaryDirectory() as folder:
        merged = pathlib.Path(folder) / "schema.proto"
        merged.write_text("\n".join(['syntax = "proto2";', *bodies]), encoding="utf-8")
        run_protoc(merged.parent, f"--pyi_out={folder}", merged.name)
        stub = merged.with_name("schema_pb2.pyi").read_text(encoding="utf-8")
    return (STUB_HEADER + re.sub(r"(?m)^ *\w+_FIELD_NUMBER: .*\n", "", stub)).encode("utf-8")


def main() -> int:
    """Writes or checks both files; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare only; exit with 1 if a committed file is stale")
    arguments = parser.parse_args()
    wanted = {SCHEMA: compile_schema(), STUB: compile_stub()}
    stale = [file for file, content in wanted.items() if not file.is_file() or file.read_bytes() != content]
    for file in stale:
        if arguments.check:
            print(f"{file.relative_to(ROOT)} is stale: run scripts/compile_protos.py", file=sys.stderr)
        else:
            file.write_bytes(wanted[file])
    return 1 if arguments.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
