"""Protobuf text format -> message, through the schema's reflection, with the line of every field.

``google.protobuf.text_format`` stops at the first error. This reader goes on, so that a config's owner sees every
problem in one run: an unknown field is skipped with its value, a wrong value leaves the field unset, a missing or
surplus brace is named once where it shows. On text without problems both give the same message.
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
    """What a text says.

    Attributes:
        message: without what was wrong.
        lines: line of every field path that the text sets.
        problems: what was wrong.
        braces_match: whether as many blocks are closed as opened; if not, fields may be in the wrong block.
    """

    message: Any
    lines: dict[str, int]
    problems: list[Problem]
    braces_match: bool


class _Block(NamedTuple):
    """A message that is being read: where it stands and where it was opened."""

    message: Any
    path: str
    closing: str
    line: int


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
    """The path of a field in the message at ``path``."""
    return f"{path}.{name}" if path else name


class _Reader:
    """The tokens, how far they are read, and what was found on the way."""

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

    def complain(self, path: str, line: int, message: str) -> None:
        self.complaints.add(path, line, message)

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
                self.complain(
                    block.path, block.line, f"the block opened here is never closed: a '{block.closing}' is missing"
                )
            return True
        if not self.at("}", ">"):
            return False
        self.take()
        if token.text != block.closing:
            self.complain(
                block.path,
                token.line,
                f"expected '{block.closing}' for the block of line {block.line}, found '{token.text}'",
            )
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
            self._skip_until("]")
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
        if self._is_full(block, field, path, line):
            self._skip_until("}", ">")
            return
        self._note_oneof(block, field, path, line)
        if values.is_map(field):
            self._read_map_entry(block, field, path, opening)
            return
        if values.is_repeated(field):
            items = getattr(block.message, field.name)
            child, path = items.add(), self._item_path(path, len(items), line)
        else:
            self._note_repetition(block, field, path, line)
            child = getattr(block.message, field.name)
            child.SetInParent()
        self.lines.setdefault(path, line)
        self.read_block(_Block(child, path, CLOSING[opening.text], line))

    def _read_map_entry(self, block: _Block, field: FieldDescriptor, path: str, opening: Token) -> None:
        entry = message_factory.GetMessageClass(field.message_type)()
        container = getattr(block.message, field.name)
        path = self._item_path(path, len(container) + 1, opening.line)
        self.lines.setdefault(path, opening.line)
        self.read_block(_Block(entry, path, CLOSING[opening.text], opening.line))
        if values.is_message(field.message_type.fields_by_name["value"]):
            container[entry.key].CopyFrom(entry.value)
        else:
            container[entry.key] = entry.value

    def _read_scalar(self, block: _Block, field: FieldDescriptor, path: str, line: int) -> None:
        token = self.peek()
        if self.at("{", "<"):
            self.complain(path, token.line, f"takes {values.accepted(field)}; write `{field.name}: VALUE`, not a block")
            self._skip_value()
            return
        if token.kind == tokens.END or (token.kind == tokens.SYMBOL and token.text != "-"):
            self.complain(path, line, f"has no value; expected {values.accepted(field)}")
            return
        if token.kind == tokens.NAME and self._is_field_start(block.message.DESCRIPTOR):
            self.complain(path, line, f"has no value; expected {values.accepted(field)}")
            return
        try:
            value = values.parse_scalar(field, self._take_scalar())
        except ValueError as problem:
            self.complain(path, token.line, str(problem))
            return
        if self._is_full(block, field, path, line):
            return
        self._note_oneof(block, field, path, line)
        if values.is_repeated(field):
            items = getattr(block.message, field.name)
            items.append(value)
            path = self._item_path(path, len(items), line)
        else:
            self._note_repetition(block, field, path, line)
            setattr(block.message, field.name, value)
        self.lines.setdefault(path, line)

    def _take_scalar(self) -> str:
        """The text of one value: a word, a signed number, or adjacent strings joined into one."""
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
        """Whether a known field starts here (``name:`` or ``name {``), so that the value before it was left out."""
        after = self.tokens[self.index + 1] if self.index + 1 < len(self.tokens) else self.peek()
        return self.peek().text in descriptor.fields_by_name and after.text in (":", "{", "<")

    def _is_full(self, block: _Block, field: FieldDescriptor, path: str, line: int) -> bool:
        """Returns whether a repeated field takes no further item; reports that once."""
        if not values.is_repeated(field) or len(getattr(block.message, field.name)) < self.most_items:
            return False
        if path not in self.full_lists:
            self.full_lists.add(path)
            self.complain(path, line, f"has more than {self.most_items} items; the rest is not read")
        return True

    def _item_path(self, path: str, count: int, line: int) -> str:
        self.lines.setdefault(path, line)
        return f"{path}[{count - 1}]"

    def _note_repetition(self, block: _Block, field: FieldDescriptor, path: str, line: int) -> None:
        if block.message.HasField(field.name) and path in self.lines:
            self.complain(path, line, f"is set twice (first on line {self.lines[path]}); keep one")

    def _note_oneof(self, block: _Block, field: FieldDescriptor, path: str, line: int) -> None:
        oneof = field.containing_oneof
        other = block.message.WhichOneof(oneof.name) if oneof else None
        if other and other != field.name:
            first = self.lines.get(join(block.path, other), 0)
            self.complain(
                path, line, f"excludes {other} of line {first}: only one of {oneof.name} may be set; keep one"
            )

    def _unknown_field(self, block: _Block, name: Token) -> None:
        """Complains with the nearest names, or about the brace that explains the stranger; skips its value."""
        fields = block.message.DESCRIPTOR.fields_by_name
        kind = block.message.DESCRIPTOR.name
        path = join(block.path, clip(name.text))
        owner = next(
            (
                i
                for i, b in reversed([*enumerate(self.open_blocks)])
                if name.text in b.message.DESCRIPTOR.fields_by_name
            ),
            None,
        )
        if owner is not None and self.missing_closings > 0:
            self.complain(
                block.path,
                name.line,
                f"{name.text} is no field of {kind}: a '{block.closing}' is missing before this line "
                f"for the block of line {block.line}",
            )
            self.missing_closings -= len(self.open_blocks) - 1 - owner
            self.index -= 1
            self.unwind_to = owner + 1
            return
        hint = "" if self.complaints.is_full else suggestion(name.text, fields)
        if owner is not None and not nearest(name.text, fields):
            hint = f"; it belongs to {self.open_blocks[owner].path or 'the top level'}"
        elif (
            self.missing_closings < 0
            and self.last_closed
            and name.text in self.last_closed[0].message.DESCRIPTOR.fields_by_name
        ):
            closed, line = self.last_closed
            hint = f"; it belongs to {closed.path}, closed on line {line}: is that '}}' one too many?"
        self.complain(path, name.line, f"unknown field of {kind}{hint}")
        if self.at(":"):
            self.take()
        self._skip_value()

    def _skip_stray(self, block: _Block, token: Token) -> None:
        """Complains once about what is no field, and steps to the next thing that may be one."""
        hint = "; this looks like JSON, a config is protobuf text: `model { ... }`" if self.index == 1 else ""
        self.complain(
            block.path,
            token.line,
            f"expected a field name, found {token.describe()}{hint if token.text == '{' else ''}",
        )
        while True:
            if token.text in ("{", "<", "[") and token.kind == tokens.SYMBOL:
                self._skip_until(CLOSING[token.text])
            if self.peek().kind in (tokens.NAME, tokens.END) or self.at("}", ">"):
                return
            token = self.take()

    def _skip_extension(self, block: _Block, opening: Token) -> None:
        start = self.index
        self._skip_until("]")
        name = "".join(token.text for token in self.tokens[start : self.index - 1])
        self.complain(block.path, opening.line, f"the extension [{clip(name)}] is not known here")
        if self.at(":"):
            self.take()
        self._skip_value()

    def _skip_value(self) -> None:
        """Steps over one value: a scalar, adjacent strings, a list, or a whole block."""
        if self.at("{", "<"):
            self.take()
            self._skip_until("}", ">")
        elif self.at("["):
            self.take()
            self._skip_until("]")
        elif self.peek().kind in (tokens.NAME, tokens.NUMBER, tokens.STRING) or self.at("-"):
            self._take_scalar()

    def _skip_until(self, *closings: str) -> None:
        """Steps behind the closing symbol that matches one already taken."""
        depth = 1
        while depth and self.peek().kind != tokens.END:
            token = self.take()
            if token.kind != tokens.SYMBOL:
                continue
            if token.text in CLOSING:
                depth += 1
            elif token.text in CLOSING.values():
                depth -= 1
