"""The schema's sources: compiled, commented, and in step with the table of effects."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest

from detzoo.config import pb
from detzoo.config.check.effects import reasons

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


def fields_with(option):
    """``message.field`` of every field with an option, by the message's own name."""
    messages = [m for file in pb.FILES for m in pb.POOL.FindFileByName(file).message_types_by_name.values()]
    messages += [nested for message in messages for nested in message.nested_types]
    return {f"{message.name}.{name}" for message in messages for name in reasons(message, option)}


def test_what_the_comments_call_without_effect_has_the_option():
    said = {name for _, name, comment in commented_fields() if comment.startswith("Accepted, no effect")}
    said = {name for name in said if name.count(".") == 1 and name.split(".")[1][0].islower()}
    assert len(said) > 50
    assert said - fields_with("no_effect") == set()


def test_no_field_is_both_without_effect_and_unsupported():
    assert (len(fields_with("no_effect")), len(fields_with("unsupported"))) == (84, 51)
    assert fields_with("no_effect") & fields_with("unsupported") == set()


def test_the_committed_schema_is_what_protos_say():
    pytest.importorskip("grpc_tools")
    done = subprocess.run([sys.executable, str(ROOT / "scripts" / "compile_protos.py"), "--check"], timeout=600)
    assert done.returncode == 0


def test_importing_the_schema_warns_of_nothing():
    code = "from detzoo.config import pb; pb.TrainEvalPipelineConfig(); import detzoo.config.check.pipeline"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=600, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (0, "")
