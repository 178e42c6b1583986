"""Text of any encoding; JSON, YAML and XML that must not cost minutes."""

from __future__ import annotations

import os
import time

import pytest

from detzoo.files.issues import DataIssue, IssueLog
from detzoo.files.text_files import decode, parse_json, parse_xml, parse_yaml, read_bytes, read_text


@pytest.mark.parametrize(
    ("content", "text", "guess"),
    [
        ("café".encode(), "café", ""),
        ("café".encode("utf-8-sig"), "café", ""),
        ("café".encode("utf-16"), "café", ""),
        ("café".encode("utf-16-be"), "café", ""),
        ("café".encode("utf-16-le"), "café", ""),
        ("café".encode("utf-32"), "café", ""),
        ("café,1".encode("cp1252"), "café,1", "cp1252"),
        ("猫 狗".encode("gb18030"), "猫 狗", "gb18030"),
    ],
)
def test_encodings(content, text, guess):
    assert decode(content) == (text, guess)


def test_a_declared_encoding_is_used_and_a_wrong_one_is_not(tmp_path):
    log = IssueLog()
    for declared, encoding in (("gb2312", "gb18030"), ("GBK", "gb18030"), ("Shift_JIS", "cp932"), ("UTF-8", "utf-8")):
        text = f'<?xml version="1.0" encoding="{declared}"?>\r\n<a>猫</a>'
        (tmp_path / "a.xml").write_bytes(text.encode(encoding))
        assert parse_xml(read_text(tmp_path / "a.xml", "a.xml", log)).text == "猫"
    assert log.counts() == {}
    for declared in ("utf-8", "rot13", "idna", "zip"):
        content = f'<?xml version="1.0" encoding="{declared}"?><a>café</a>'.encode("cp1252")
        (tmp_path / "b.xml").write_bytes(content)
        assert parse_xml(read_text(tmp_path / "b.xml", "b.xml", log)).text == "café"
    assert [tuple(finding) for finding in log.findings()] == [
        (DataIssue.ENCODING_GUESSED, "b.xml", "read as cp1252")
    ] * 4


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a\0b" * 5, b"\x89PNG\0\0"])
def test_what_is_no_text_is_refused(content):
    with pytest.raises(ValueError, match=r"NUL bytes|truncated data"):
        decode(content)


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(OSError, match="not a regular file"):
            read_bytes(path)
    with pytest.raises(OSError, match="Is a directory"):
        read_bytes(tmp_path)


def test_json_with_a_number_that_python_refuses():
    assert parse_json('{"a": [' + "9" * 5000 + ", 12]}") == {"a": [float("inf"), 12]}


def test_yaml_is_text():
    text = """names:
  0: no
  1: 1.50
  2: ~
base: &b /data
val: *b"""
    assert parse_yaml(text) == {"names": {"0": "no", "1": "1.50", "2": "~"}, "base": "/data", "val": "/data"}


LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
MERGES = "a0: &a0 {x: y}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12))


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (parse_json, "[" * 200_000 + "]" * 200_000, "nested too deeply"),
        (parse_json, '{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deeply"),
        (parse_json, "[" + "9" * 5000 + "," + "[" * 10_000, "nested too deeply"),
        (parse_yaml, LAUGHS, "the alias on line 1 repeats a collection"),
        (parse_yaml, MERGES, "the alias on line 1 repeats a collection"),
        (parse_yaml, "[" * 100_000, "nested too deeply"),
        (parse_yaml, "- " * 100_000, "nested too deeply"),
        (parse_yaml, "a: b: c", "not YAML: mapping values"),
        (parse_yaml, "x" * 3_000_000, "3000000 characters, at most 2000000"),
        (parse_xml, "<a>" * 100_000, "nested more than 100 deep"),
        (parse_xml, '<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>', "declares entities"),
        (parse_xml, "<a>\n<b></a>", "mismatched tag: line 2"),
    ],
)
def test_hostile_text_is_refused_at_once(parse, text, message):
    begin = time.process_time()
    with pytest.raises(ValueError, match=message):
        parse(text)
    assert time.process_time() - begin < 2
