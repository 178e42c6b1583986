"""Compiles protos/*.proto into detzoo/config/pb/schema.binpb, the descriptor set that the package loads.

    scripts/compile_protos.py            write it
    scripts/compile_protos.py --check    exit 1 when the committed file is not what protos/ says

The bytes depend on protos/ only: files in the order of their names, no source information. grpcio-tools brings the
compiler, so that neither users nor developers need protoc.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROTOS = ROOT / "protos"
SCHEMA = ROOT / "detzoo" / "config" / "pb" / "schema.binpb"


def compile_schema() -> bytes:
    """The serialized FileDescriptorSet of protos/, its files sorted so that a dependency comes before its users."""
    from google.protobuf import descriptor_pb2
    from grpc_tools import protoc

    names = sorted(path.name for path in PROTOS.glob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        output = pathlib.Path(folder) / "set.binpb"
        status = protoc.main(["protoc", f"--proto_path={PROTOS}", f"--descriptor_set_out={output}", *names])
        if status != 0:
            raise SystemExit(f"protoc refused {PROTOS} (exit {status}); its messages are above")
        compiled = descriptor_pb2.FileDescriptorSet.FromString(output.read_bytes())
    by_name = {file.name: file for file in compiled.file}
    ordered = descriptor_pb2.FileDescriptorSet()
    done: set[str] = set()

    def add(name: str) -> None:
        if name in done:
            return
        done.add(name)
        for dependency in sorted(by_name[name].dependency):
            add(dependency)
        ordered.file.append(by_name[name])

    for name in names:
        add(name)
    return ordered.SerializeToString(deterministic=True)


def main() -> int:
    """Writes or checks the schema; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 when the committed file is stale")
    arguments = parser.parse_args()
    wanted = compile_schema()
    if arguments.check:
        if not SCHEMA.is_file() or SCHEMA.read_bytes() != wanted:
            print(f"{SCHEMA.relative_to(ROOT)} is stale: run scripts/compile_protos.py", file=sys.stderr)
            return 1
        return 0
    SCHEMA.write_bytes(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
