"""Annotation files of any encoding -> text, JSON, YAML and XML, with bounds on the cost of a hostile file.

Only regular files are opened. The encoding is UTF-8, that of a byte order mark or a declaration, or a guess that is
logged. Deep nesting, entities of XML and aliases of YAML's collections are refused: each of them can make a few hundred
bytes cost minutes or all memory.
"""

from __future__ import annotations

import codecs
import collections
import itertools
import json
import os
import pathlib
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Collection, Iterator
from typing import Any, BinaryIO
from xml.parsers import expat

from detzoo.errors import DataError, UsageError
from detzoo.files.issues import DataIssue, IssueLog
from detzoo.files.remote import RemotePath
from detzoo.folders import check_regular

STREAMED_BYTES = 32_000_000  # size of a file from which lines and lists are read one by one
_CHUNK_BYTES = 1_000_000
LINE = "line"  # attribute that keeps the line of an XML element
MAX_NUL_PART = 0.05  # of the characters; few cost the lines that they are in, many are no text
MAX_XML_DEPTH = 100
MAX_YAML_CHARS = 2_000_000  # a minute of PyYAML; a data.yaml of 1,000 classes has 20,000
MAX_YAML_BRACKETS = 100  # open at a time
MAX_INT_DIGITS = 400  # longer whole numbers are beyond the range of a float

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"),
          (codecs.BOM_UTF16_BE, "utf-16"))  # fmt: skip
# Chinese tools declare the smallest set and write the largest.
_WIDER = {"gb2312": "gb18030", "gbk": "gb18030", "iso8859-1": "cp1252", "ascii": "utf-8"}
_SLOW_CODECS = ("idna", "punycode")  # quadratic
_CHINESE = re.compile(rb"(?:[\x00-\x7f]|[\xa1-\xf7][\xa1-\xfe])*")
_DECLARED = re.compile(rb"""^\s*<\?xml[^>]{0,100}?encoding\s*=\s*["']([\w.:-]{1,40})["']""")


class MalformedXml(ValueError):
    """XML that is not well-formed, with the line ``lineno``."""

    def __init__(self, message: str, lineno: int) -> None:
        super().__init__(message)
        self.lineno = lineno


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Returns the content of a regular or remote file; raises as ``check_regular``."""
    if isinstance(path, RemotePath):
        return path.read_bytes()
    check_regular(path)
    return pathlib.Path(path).read_bytes()


def decode(content: bytes, declared: str = "") -> tuple[str, str]:
    """Returns the text and the guessed encoding, "" without a guess; raises ValueError if it is no text."""
    marked = next((name for mark, name in _MARKS if content.startswith(mark)), "")
    if not marked and b"\0" in content[:2]:
        marked = "utf-16-be" if content[0] == 0 else "utf-16-le"
    for name in filter(None, (marked, _codec(declared), "utf-8")):
        try:
            return _checked(content.decode(name)), ""
        except UnicodeDecodeError:
            if name == marked:
                raise
    guess = "gb18030" if _CHINESE.fullmatch(content) else "cp1252"
    return _checked(content.decode(guess, "replace")), guess


def _codec(declared: str) -> str:
    """Returns the codec for a declared encoding; "" for an unknown one."""
    try:
        info = codecs.lookup(declared)
    except LookupError:
        return ""
    usable = getattr(info, "_is_text_encoding", True) and info.name not in _SLOW_CODECS
    return _WIDER.get(info.name, info.name) if usable else ""


def _checked(text: str) -> str:
    if text.count("\0") > len(text) * MAX_NUL_PART:
        raise ValueError("holds NUL bytes, so it is not a text file")
    return text


def read_text(path: pathlib.Path, where: str, log: IssueLog, content: bytes | None = None) -> str:
    """Returns the text of a file with line ends of one character; a guess of its encoding goes to the log."""
    content = read_bytes(path) if content is None else content
    declared = _DECLARED.match(content[:200])
    text, guess = decode(content, declared.group(1).decode() if declared else "")
    if guess:
        log.add(DataIssue.ENCODING_GUESSED, where, f"read as {guess}")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_named_text(path: pathlib.Path, flag: str, log: IssueLog) -> str:
    """Returns the text of a file that a flag names; raises a UsageError if it is missing, a DataError if unreadable."""
    try:
        return read_text(path, path.name, log)
    except FileNotFoundError:
        raise UsageError(f"{flag} {path} is not there") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{flag} {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def iterate_named_lines(path: pathlib.Path, flag: str, log: IssueLog) -> Iterator[str]:
    """Returns the lines of a file that a flag names, without their ends; a large file is not held in memory.

    Raises:
        UsageError, DataError: As ``read_named_text``.
    """
    if _is_large(path) and _is_utf8(path):
        return _lines_of(path)
    return iter(read_named_text(path, flag, log).split("\n"))


def _lines_of(path: pathlib.Path) -> Iterator[str]:
    with open(path, encoding="utf-8-sig") as file:
        for line in file:
            yield line.rstrip("\n")


def _is_large(path: pathlib.Path) -> bool:
    return path.is_file() and path.stat().st_size >= STREAMED_BYTES


def _is_utf8(path: pathlib.Path) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open(path, "rb") as file:
        try:
            while chunk := file.read(_CHUNK_BYTES):
                if "\0" in decoder.decode(chunk):
                    return False
        except UnicodeDecodeError:
            return False
    return True


def read_lines(path: pathlib.Path, flag: str, log: IssueLog) -> list[tuple[int, str]]:
    """Returns (number from 1, stripped line) of a file that a flag names, as ``read_named_text``, but no empty one."""
    lines = enumerate(read_named_text(path, flag, log).split("\n"), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def parse_json(text: str) -> Any:
    """Returns the values of JSON; a number of more than 400 digits becomes infinity.

    Raises:
        ValueError: The text is not JSON or nested too deeply. ``json.JSONDecodeError`` has the line.
    """
    try:
        try:
            return json.loads(text, strict=False)
        except json.JSONDecodeError:
            raise
        except ValueError:  # Python refuses whole numbers of more than 4,300 digits
            return json.loads(text, strict=False, parse_int=_parse_int)
    except RecursionError:
        raise ValueError("nested too deeply for an annotation file") from None


class JsonList:
    """The items of a list in a large JSON file, which every iteration reads from the file."""

    def __init__(self, path: pathlib.Path, begin: int) -> None:
        self._path, self._begin = path, begin

    def __iter__(self) -> Iterator[Any]:
        with open(self._path, "rb") as file:
            yield from _JsonCursor(file, self._begin).items()


class _JsonCursor:
    """A place in the text of a JSON file, with only the text around it in memory; raises ValueError for other text."""

    _decoder = json.JSONDecoder(strict=False)
    _blanks = re.compile(r"[ \t\n\r]*")

    def __init__(self, file: BinaryIO, begin: int = 0) -> None:
        file.seek(begin)
        self._file, self._num_read = file, begin
        self._utf8 = codecs.getincrementaldecoder("utf-8" if begin else "utf-8-sig")()
        self._text, self._at = "", 0

    def _read_more(self) -> None:
        chunk = self._file.read(max(_CHUNK_BYTES, len(self._text) - self._at))
        if not chunk:
            raise ValueError("the text ends within a value")
        self._num_read += len(chunk)
        self._text, self._at = self._text[self._at :] + self._utf8.decode(chunk), 0

    @property
    def num_bytes(self) -> int:
        """Position in the file."""
        return self._num_read - len(self._utf8.getstate()[0]) - len(self._text[self._at :].encode())

    def next_mark(self) -> str:
        """Moves to the next character that is not blank, and returns it."""
        while True:
            self._at = self._blanks.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text):
                return self._text[self._at]
            self._read_more()

    def take(self, accepted: str) -> str:
        """Moves behind the next character, which must be one of the accepted ones, and returns it."""
        mark = self.next_mark()
        if mark not in accepted:
            raise ValueError(f"{mark!r} in place of one of {accepted!r}")
        self._at += 1
        return mark

    def value(self) -> Any:
        """Returns the next value."""
        self.next_mark()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
                if end < len(self._text):  # otherwise a number may go on
                    self._at = end
                    return value
            except json.JSONDecodeError:
                pass  # of a value whose end is not read yet, or at last of the end of the file
            self._read_more()

    def items(self) -> Iterator[Any]:
        """Yields the values of a list."""
        self.take("[")
        if self.next_mark() == "]":
            self.take("]")
            return
        yield self.value()
        while self.take(",]") == ",":
            yield self.value()


def _stream_json(path: pathlib.Path, streamed: Collection[str]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    with open(path, "rb") as file:
        text = _JsonCursor(file)
        separator = text.take("{")
        while separator != "}":
            key = text.value()
            text.take(":")
            if key in streamed and text.next_mark() == "[":
                content[key] = JsonList(path, text.num_bytes)
                collections.deque(text.items(), maxlen=0)  # an error shows here and not when the items are used
            else:
                content[key] = text.value()
            separator = text.take(",}")
    return content


def load_json(path: pathlib.Path, flag: str, log: IssueLog, streamed: Collection[str] = ()) -> Any:
    """Returns the values of a JSON file that a flag names.

    ``streamed`` are keys of its lists that become a ``JsonList`` if the file is large.

    Raises:
        UsageError: The file is missing.
        DataError: The file cannot be read or is not JSON; the message has the line.
    """
    if streamed and _is_large(path):
        try:
            return _stream_json(path, streamed)
        except (ValueError, RecursionError, OSError):
            pass  # other encodings are read as a whole, and an error gets its line
    try:
        return parse_json(read_named_text(path, flag, log))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not JSON ({error.msg} at column {error.colno})") from None
    except ValueError as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _parse_int(digits: str) -> int | float:
    return int(digits) if len(digits) < MAX_INT_DIGITS else float(digits)


def parse_yaml(text: str) -> Any:
    """Returns the values of YAML, all scalars as text, so that a class "no" stays one.

    Raises:
        ValueError: The text is not YAML, is nested too deeply, or repeats collections by aliases.
    """
    import yaml

    class Loader(yaml.BaseLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            is_alias = self.check_event(yaml.AliasEvent)
            node = super().compose_node(parent, index)
            if is_alias and not isinstance(node, yaml.ScalarNode):
                raise yaml.YAMLError(f"the alias on line {node.start_mark.line + 1} repeats a collection; write it out")
            return node

    if len(text) > MAX_YAML_CHARS:
        raise ValueError(f"{len(text)} characters, at most {MAX_YAML_CHARS} are read")
    steps = (1 if bracket in "[{" else -1 for bracket in re.findall(r"[][{}]", text))
    try:
        if max(itertools.accumulate(steps), default=0) > MAX_YAML_BRACKETS:  # PyYAML takes a second per 1,000
            raise RecursionError
        return yaml.load(text, Loader)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {error}") from None


def parse_xml(text: str) -> ElementTree.Element:
    """Returns the root of XML; tags are in lower case, and every element has an attribute ``line``.

    Raises:
        MalformedXml: The text is not well-formed.
        ValueError: The text is nested too deeply or declares entities.
    """
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate("utf-8")
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_XML_DEPTH:
            raise ValueError(f"elements are nested more than {MAX_XML_DEPTH} deep")
        builder.start(tag.lower(), {**attributes, LINE: str(parser.CurrentLineNumber)})

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag.lower())

    def refuse(*_: Any) -> None:
        raise ValueError("declares entities, which annotation files do not need")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(text.lstrip().encode("utf-8", "replace"), True)
    except expat.ExpatError as error:
        raise MalformedXml(str(error), error.lineno) from None
    return builder.close()
