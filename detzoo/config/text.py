"""Protobuf text format -> message, through the schema's reflection, with the line of every field.

``google.protobuf.text_format`` stops at the first error. This reader continues, so that the user sees every problem in
one run. It skips an unknown field with its value, leaves a field with a wrong value unset, and reports a missing or
surplus brace once. On text without problems both readers return the same message.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from detzoo.config import tokens, values
from detzoo.config.names import clip, nearest, suggestion
from detzoo.config.problems import Problem, error
from detzoo.config.tokens import Complaints, Token, tokenize

MOST_ITEMS = 10_000  # of a repeated field; what follows them is skipped
CLOSING = {"{": "}", "<": ">", "[": "]"}


class ParsedText(NamedTuple):
    """The content of a text."""

    message: Any  # the fields that could be read
    lines: dict[str, int]  # line of every field path that the text sets
    problems: list[Problem]  # problems of the text
    braces_match: bool  # False if more or fewer blocks are closed than opened. Then fields may be in the wrong block.


class _Block(NamedTuple):
    """A message that is being read, with its path, its closing symbol and the line of its opening."""

    message: Any
    path: str
    closing: str
    line: int

    def has(self, name: str) -> bool:
        return name in self.message.DESCRIPTOR.fields_by_name


def parse_text(text: str, message_class: Any, most_items: int = MOST_ITEMS) -> ParsedText:
    """Reads protobuf text into a new message of ``message_class``; a field of more than ``most_items`` is an error.

    Field paths are dotted names from the root, repeated fields with their index: ``eval_input_reader[0].shuffle``. A
    repeated field's bare name has the line of its first item.
    """
    reader = _Reader(text, most_items)
    braces_match = reader.missing_closings == 0
    message = message_class()
    reader.read_block(_Block(message, "", tokens.END, 1))
    complaints = reader.complaints
    if complaints.omitted:
        text = f"has {complaints.omitted} more errors, which are not listed; fix these first"
        complaints.problems.append(error("", reader.tokens[-1].line, text))
    return ParsedText(message, reader.lines, complaints.problems, braces_match)


def join(path: str, name: str) -> str:
    """Returns the path of a field in the message at ``path``."""
    return f"{path}.{name}" if path else name


class _Reader:
    """The tokens, the position in them, and the fields and problems found so far."""

    def __init__(self, text: str, most_items: int) -> None:
        self.most_items = most_items
        self.full_lists: set[str] = set()  # paths of repeated fields with more
        self.complaints = Complaints()
        self.tokens = tokenize(text, self.complaints)
        self.index = 0
        self.lines: dict[str, int] = {}
        self.open_blocks: list[_Block] = []
        self.last_closed: tuple[_Block, int] | None = None
        opened = sum(token.kind == tokens.SYMBOL and token.text in "{<" for token in self.tokens)
        closed = sum(token.kind == tokens.SYMBOL and token.text in "}>" for token in self.tokens)
        self.missing_closings = opened - closed
        self.unwind_to: int | None = None  # number of open blocks to go back to after a missing brace

    def peek(self) -> Token:
        return self.tokens[self.index]

    def take(self) -> Token:
        token = self.tokens[self.index]
        if token.kind != tokens.END:
            self.index += 1
        return token

    def at(self, *symbols: str) -> bool:
        token = self.peek()
        return token.kind == tokens.SYMBOL and token.text in symbols

    def complain(self, path: str, line: int, message: str, code: str = "syntax") -> None:
        self.complaints.add(path, line, message, code)

    def read_block(self, block: _Block) -> None:
        """Reads fields until the block's closing symbol, which it takes."""
        self.open_blocks.append(block)
        while not self._block_ends(block):
            token = self.take()
            if token.kind == tokens.NAME:
                self._read_field(block, token)
                if self.unwind_to is not None:
                    if self.unwind_to < len(self.open_blocks):
                        break
                    self.unwind_to = None
            elif token.text == "[":
                self._skip_extension(block, token)
            elif token.text not in (",", ";"):
                self._skip_stray(block, token)
        self.open_blocks.pop()

    def _block_ends(self, block: _Block) -> bool:
        while block.closing == tokens.END and self.at("}", ">"):
            token, hint = self.take(), ""
            if self.last_closed:
                hint = f"; the block {self.last_closed[0].path} was closed before it, on line {self.last_closed[1]}"
            self.complain("", token.line, f"'{token.text}' closes nothing: there is one too many{hint}")
        token = self.peek()
        if token.kind == tokens.END:
            if block.closing != tokens.END:
                text = f"the block opened here is never closed: a '{block.closing}' is missing"
                self.complain(block.path, block.line, text)
            return True
        if not self.at("}", ">"):
            return False
        self.take()
        if token.text != block.closing:
            text = f"expected '{block.closing}' for the block of line {block.line}, found '{token.text}'"
            self.complain(block.path, token.line, text)
        self.last_closed = (block, token.line)
        return True

    def _read_field(self, block: _Block, name: Token) -> None:
        field = block.message.DESCRIPTOR.fields_by_name.get(name.text)
        if field is None:
            self._unknown_field(block, name)
            return
        path = join(block.path, name.text)
        has_colon = self.at(":")
        if has_colon:
            self.take()
        if self.at("["):
            self._read_list(block, field, path)
        elif values.is_message(field):
            self._read_message(block, field, path, name.line)
        else:
            if not has_colon and not self.at("{", "<"):
                self.complain(path, name.line, f"':' is missing; write `{name.text}: VALUE`")
            self._read_scalar(block, field, path, name.line)

    def _read_list(self, block: _Block, field: FieldDescriptor, path: str) -> None:
        """``name: [a, b]``: several items of a repeated field at once."""
        opening = self.take()
        if not values.is_repeated(field):
            self.complain(path, opening.line, f"takes one value ({values.accepted(field)}), found a list")
            self._skip_until_closed()
            return
        while not self.at("]"):
            token, start = self.peek(), self.index
            if token.kind == tokens.END or (token.kind == tokens.SYMBOL and token.text in "}:"):
                self.complain(path, opening.line, "the list opened here is never closed: a ']' is missing")
                return
            if self.at(","):
                self.take()
            elif values.is_message(field):
                self._read_message(block, field, path, token.line)
            else:
                self._read_scalar(block, field, path, token.line)
            if self.index == start:  # neither a value nor the end of the list
                self._skip_value()
                self.index = max(self.index, start + 1)
        self.take()

    def _read_message(self, block: _Block, field: FieldDescriptor, path: str, line: int) -> None:
        if not self.at("{", "<"):
            found = self.peek()
            self.complain(path, found.line, f"expected a block `{field.name} {{ ... }}`, found {found.describe()}")
            self._skip_value()
            return
        opening = self.take()
        place = self._claim(block, field, path, line)
        if place is None:
            self._skip_until_closed()
            return
        child = getattr(block.message, field.name)
        if values.is_map(field):
            entry = message_factory.GetMessageClass(field.message_type)()
            self.read_block(_Block(entry, place, CLOSING[opening.text], line))
            if values.is_message(field.message_type.fields_by_name["value"]):
                child[entry.key].CopyFrom(entry.value)
            else:
                child[entry.key] = entry.value
            return
        if values.is_repeated(field):
            child = child.add()
        else:
            child.SetInParent()
        self.read_block(_Block(child, place, CLOSING[opening.text], line))

    def _read_scalar(self, block: _Block, field: FieldDescriptor, path: str, line: int) -> None:
        token, accepted = self.peek(), values.accepted(field)
        if self.at("{", "<"):
            self.complain(path, token.line, f"takes {accepted}; write `{field.name}: VALUE`, not a block")
            self._skip_value()
            return
        is_no_value = token.kind == tokens.END or (token.kind == tokens.SYMBOL and token.text != "-")
        if is_no_value or (token.kind == tokens.NAME and self._is_field_start(block.message.DESCRIPTOR)):
            self.complain(path, line, f"has no value; expected {accepted}")
            return
        try:
            value = values.parse_scalar(field, self._take_scalar())
        except ValueError as problem:
            self.complain(path, token.line, str(problem))
            return
        if self._claim(block, field, path, line) is None:
            return
        if values.is_repeated(field):
            getattr(block.message, field.name).append(value)
        else:
            setattr(block.message, field.name, value)

    def _claim(self, block: _Block, field: FieldDescriptor, path: str, line: int) -> str | None:
        """Records the line of a field that is about to be set, and reports if it should not be set again.

        Returns:
            The path of the field, with the index of the new item; None if a repeated field is full.
        """
        self._check_oneof(block, field, path, line)
        if not values.is_repeated(field):
            if block.message.HasField(field.name) and path in self.lines:
                self.complain(path, line, f"is set twice (first on line {self.lines[path]}); keep one")
        else:
            count = len(getattr(block.message, field.name))
            if count >= self.most_items:
                if path not in self.full_lists:
                    self.full_lists.add(path)
                    self.complain(path, line, f"has more than {self.most_items} items; the rest is not read")
                return None
            self.lines.setdefault(path, line)
            path = f"{path}[{count}]"
        self.lines.setdefault(path, line)
        return path

    def _check_oneof(self, block: _Block, field: FieldDescriptor, path: str, line: int) -> None:
        oneof = field.containing_oneof
        other = block.message.WhichOneof(oneof.name) if oneof else None
        if oneof and other and other != field.name:
            first = self.lines.get(join(block.path, other), 0)
            text = f"excludes {other} of line {first}: only one of {oneof.name} may be set; keep one"
            self.complain(path, line, text)

    def _take_scalar(self) -> str:
        """Returns the text of one value: a word, a signed number, or adjacent strings joined into one."""
        token = self.take()
        if token.text == "-":
            return "-" + self.take().text
        if token.kind != tokens.STRING:
            return token.text
        quote, pieces = token.text[0], [token.text[:-1]]
        while self.peek().kind == tokens.STRING:
            following = self.take().text
            inner = following[1:-1]
            pieces.append(inner if following[0] == quote else inner.replace(quote, "\\" + quote))
        return "".join(pieces) + quote

    def _is_field_start(self, descriptor: Descriptor) -> bool:
        """Returns True if a known field starts here (``name:`` or ``name {``): the value before it is missing."""
        after = self.tokens[self.index + 1] if self.index + 1 < len(self.tokens) else self.peek()
        return self.peek().text in descriptor.fields_by_name and after.text in (":", "{", "<")

    def _unknown_field(self, block: _Block, name: Token) -> None:
        """Reports the nearest names, or the brace that explains the unknown field; skips its value."""
        kind, fields = block.message.DESCRIPTOR.name, block.message.DESCRIPTOR.fields_by_name
        path = join(block.path, clip(name.text))
        owner = next((i for i in reversed(range(len(self.open_blocks))) if self.open_blocks[i].has(name.text)), None)
        if owner is not None and self.missing_closings > 0:
            text = (
                f"{name.text} is no field of {kind}: a '{block.closing}' is missing before this line for the block of "
                f"line {block.line}"
            )
            self.complain(block.path, name.line, text)
            self.missing_closings -= len(self.open_blocks) - 1 - owner
            self.index -= 1
            self.unwind_to = owner + 1
            return
        hint = "" if self.complaints.is_full else suggestion(name.text, fields)
        if owner is not None and not nearest(name.text, fields):
            hint = f"; it belongs to {self.open_blocks[owner].path or 'the top level'}"
        elif self.missing_closings < 0 and self.last_closed and self.last_closed[0].has(name.text):
            closed, line = self.last_closed
            hint = f"; it belongs to {closed.path}, closed on line {line}: is that '}}' one too many?"
        self.complain(path, name.line, f"unknown field of {kind}{hint}", "unknown-field")
        if self.at(":"):
            self.take()
        self._skip_value()

    def _skip_stray(self, block: _Block, token: Token) -> None:
        """Reports a token that starts no field once, and steps to the next one that may."""
        is_json = self.index == 1 and token.text == "{"
        hint = "; this looks like JSON, a config is protobuf text: `model { ... }`" if is_json else ""
        self.complain(block.path, token.line, f"expected a field name, found {token.describe()}{hint}")
        while True:
            if token.text in ("{", "<", "[") and token.kind == tokens.SYMBOL:
                self._skip_until_closed()
            if self.peek().kind in (tokens.NAME, tokens.END) or self.at("}", ">"):
                return
            token = self.take()

    def _skip_extension(self, block: _Block, opening: Token) -> None:
        start = self.index
        self._skip_until_closed()
        name = "".join(token.text for token in self.tokens[start : self.index - 1])
        self.complain(block.path, opening.line, f"the extension [{clip(name)}] is not known here")
        if self.at(":"):
            self.take()
        self._skip_value()

    def _skip_value(self) -> None:
        """Skips one value: a scalar, adjacent strings, a list, or a whole block."""
        if self.at("{", "<") or self.at("["):
            self.take()
            self._skip_until_closed()
        elif self.peek().kind in (tokens.NAME, tokens.NUMBER, tokens.STRING) or self.at("-"):
            self._take_scalar()

    def _skip_until_closed(self) -> None:
        """Skips tokens up to the closing symbol that matches one already taken."""
        depth = 1
        while depth and self.peek().kind != tokens.END:
            token = self.take()
            if token.kind != tokens.SYMBOL:
                continue
            if token.text in CLOSING:
                depth += 1
            elif token.text in CLOSING.values():
                depth -= 1
