"""The schema's sources: compiled, commented, and in step with the table of effects."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest

from detzoo.config import pb
from detzoo.config.check.effects import NO_EFFECT, UNSUPPORTED

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIELD = re.compile(r"(?:optional |repeated |)(?:map<[^>]*>|[\w.]+) (\w+) = \d+")
BLOCK = re.compile(r"(message|enum|oneof|extend) ([\w.]+) \{(\})?")


def commented_fields():
    """(file, message.field or message or enum, its comment in one line), for all of protos/."""
    for path in sorted((ROOT / "protos").glob("*.proto")):
        blocks, comment = [], []
        for line in map(str.strip, path.read_text().splitlines()):
            block, field = BLOCK.match(line), FIELD.match(line)
            owner = ".".join(name for kind, name in blocks if kind != "oneof")
            if line.startswith("//"):
                comment.append(line.removeprefix("//").strip())
                continue
            if block:
                kind, name, closed = block.groups()
                if kind != "oneof":
                    yield path.name, f"{owner}.{name}" if owner else name, " ".join(comment)
                if not closed:
                    blocks.append((kind, name))
            elif line == "}":
                blocks.pop()
            elif field and blocks[-1][0] != "enum":
                yield path.name, f"{owner}.{field[1]}", " ".join(comment)
            comment = []


def test_every_message_enum_and_field_has_a_comment():
    everything = list(commented_fields())
    assert len(everything) > 1000
    assert [f"{file}: {name}" for file, name, comment in everything if not comment] == []


def test_what_the_comments_call_without_effect_is_in_the_table():
    said = {name for _, name, comment in commented_fields() if comment.startswith("Accepted, no effect")}
    said = {name for name in said if name.count(".") == 1 and name.split(".")[1][0].islower()}
    listed = {f"{message}.{field}" for message, fields in NO_EFFECT.items() for field in fields}
    assert said - listed == set()


def test_the_tables_name_fields_that_exist():
    for table in (NO_EFFECT, UNSUPPORTED):
        for message, fields in table.items():
            assert set(fields) <= set(getattr(pb, message).DESCRIPTOR.fields_by_name), message


def test_no_field_is_in_both_tables():
    for message, fields in NO_EFFECT.items():
        assert not set(fields) & set(UNSUPPORTED.get(message, {})), message


def test_the_committed_schema_is_what_protos_say():
    pytest.importorskip("grpc_tools")
    done = subprocess.run([sys.executable, str(ROOT / "scripts" / "compile_protos.py"), "--check"], timeout=120)
    assert done.returncode == 0


def test_importing_the_schema_warns_of_nothing():
    code = "from detzoo.config import pb; pb.TrainEvalPipelineConfig(); import detzoo.config.check.pipeline"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (0, "")
