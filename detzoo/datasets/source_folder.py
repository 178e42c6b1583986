"""The regular files below a folder, found by the names that annotations made on other machines state.

A stated name may have another machine's folders, drive letters, backslashes or URL, another case, Unicode form or
extension, or no extension. The longest tail of the name that ends some file's path decides. Nothing outside of the
folder is found; a link that leads out of it is found only with ``follow_links``.
"""

from __future__ import annotations

import collections
import os
import pathlib
import posixpath
import re
import unicodedata
import urllib.parse
from collections.abc import Iterator
from typing import Any, NamedTuple

from detzoo.errors import DataError, UsageError
from detzoo.files.images import IMAGE_SUFFIXES
from detzoo.files.issues import DataIssue, IssueLog
from detzoo.files.remote import RemotePath, path_of
from detzoo.files.text_files import read_text

MAX_STATED_PARTS = 16  # folders of a stated path that are compared
MAX_CANDIDATES = 3  # files of one name that are remembered
ANNOTATION_SUFFIXES = (".xml", ".txt", ".json")

_URL = re.compile(r"^[a-z][a-z0-9+.-]*://[^/]*/|^[a-z]:", re.IGNORECASE)
_MASKS = re.compile(r"mask|segmentation(class|object)", re.IGNORECASE)  # folders with files of the images' names
_UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)", re.IGNORECASE)  # Label Studio prefixes names by 8 digits


class SourceFile(NamedTuple):
    """A file: its path below the folder, with slashes, and why it must not be read ("" if it may)."""

    relative: str
    problem: str = ""


class SourceFolder:
    """An index of a folder, made once.

    Args:
        folder: Path of the folder.
        flag: Name of the flag that names the folder, for messages.
        suffixes: Extensions, in lower case, of the files that are listed and can be found without their extension.
        log: Takes images that two annotations name, and folders that are links.
        follow_links: Follow links to files and folders outside.

    Raises:
        UsageError: The folder is not there.
        DataError: The folder cannot be read.
    """

    def __init__(
        self,
        folder: str | pathlib.Path,
        flag: str,
        suffixes: tuple[str, ...],
        log: IssueLog,
        *,
        follow_links: bool = False,
    ) -> None:
        self.path = path_of(folder)
        is_remote = isinstance(self.path, RemotePath)
        if not (self.path.is_dir() if is_remote else os.path.isdir(self.path)):  # False for names that are too long
            raise UsageError(f"{flag} {folder} is not a folder")
        self._real = str(folder) if is_remote else os.path.realpath(folder)
        self._log, self._follow_links = log, follow_links
        self._claimed: dict[str, str] = {}
        self._by_path: dict[str, SourceFile] = {}
        self._by_name: dict[str, list[SourceFile]] = {}
        self._by_stem: dict[str, list[SourceFile]] = {}
        self._walked = {self._real}
        try:
            walked = self._walk_remote() if is_remote else self._walk(self._real, "")
            found = sorted(walked, key=lambda file: file.relative.split("/"))
        except OSError as error:
            raise DataError(f"{flag} {folder} cannot be read: {error}") from None
        self._own_name = os.path.basename(self._real)
        self.files = [file for file in found if _suffix(file.relative) in suffixes]
        self.others = [file for file in found if _suffix(file.relative) not in suffixes]
        self._at: dict[str, list[SourceFile]] = collections.defaultdict(list)
        for file in self.files:
            self._at[_fold(_without_suffix(file.relative))].append(file)
        for file in found:
            self._by_path[file.relative] = file
            for tail in _tails([self._own_name, *file.relative.split("/")]):
                _remember(self._by_name, tail, file)
                if _suffix(tail) in suffixes:
                    _remember(self._by_stem, _without_suffix(tail), file)

    def _walk_remote(self) -> Iterator[SourceFile]:
        return (SourceFile(file.relative_to(self.path).as_posix()) for file in self.path.files_below())

    def _walk(self, folder: str, prefix: str) -> Iterator[SourceFile]:
        with os.scandir(folder) as entries:
            for entry in entries:
                relative = prefix + entry.name
                target = os.path.realpath(entry.path) if entry.is_symlink() else ""
                leaves = bool(target) and not target.startswith(self._real + os.sep)
                if entry.name.startswith("._"):  # macOS's second halves of files
                    continue
                if entry.is_dir(follow_symlinks=False) or (leaves and self._follow_links and self._is_new(target)):
                    yield from self._walk(entry.path, relative + "/")
                elif leaves and not self._follow_links:
                    problem = f"a link to {target}; --follow_links reads it"
                    if entry.is_dir():
                        self._log.add(DataIssue.IMAGE_OUTSIDE, relative, problem)
                    yield SourceFile(relative, problem)
                elif not entry.is_dir():
                    yield SourceFile(relative, "" if entry.is_file() else "not a regular file")

    def _is_new(self, target: str) -> bool:
        """Returns True if a link's target is a folder that no other link led to; links may form circles."""
        is_new = os.path.isdir(target) and target not in self._walked
        self._walked.add(target)
        return is_new

    def _ends_with(self, file: SourceFile, key: str) -> bool:
        """Returns True if a file has a name in this exact spelling."""
        path = f"/{self._own_name}/{file.relative}"
        return path.endswith("/" + key) or _without_suffix(path).endswith("/" + key)

    def at(self, relative: str) -> SourceFile | None:
        """Returns the file at this path below the folder, in any case, Unicode form and extension."""
        stem = _without_suffix(relative)
        hits = self._at.get(_fold(stem), [])
        exact = [file for file in hits if _without_suffix(file.relative) == stem]
        return next(iter(exact or hits), None)

    def find(self, stated: str) -> list[SourceFile]:
        """Returns the file that a stated name means: none, one, or several that fit equally well."""
        for text in _readings(stated):
            parts = [part for part in text.split("/") if part not in ("", ".", "..")][-MAX_STATED_PARTS:]
            if not parts:
                continue
            if "/".join(parts) in self._by_path:
                return [self._by_path["/".join(parts)]]
            uploaded = _UPLOADED.fullmatch(parts[-1])
            for last in filter(None, (parts[-1], uploaded and uploaded.group(1))):
                tails = list(_tails([*parts[:-1], last]))
                for table, keys in ((self._by_name, tails), (self._by_stem, map(_without_suffix, tails))):
                    for key in keys:
                        hits = table.get(_fold(key), [])
                        exact = [file for file in hits if self._ends_with(file, key)]
                        if hits:
                            return exact or hits
        return []

    def read_text(self, file: SourceFile) -> str:
        """Returns the text of a file.

        Raises:
            OSError, ValueError: The file must not be read, cannot be read, or is no text.
        """
        if file.problem:
            raise ValueError(file.problem)
        return read_text(self.path / file.relative, file.relative, self._log)

    def place(self, stated: str, claimant: str, *other_names: str) -> dict[str, Any]:
        """Returns ``path``, ``filename`` and ``unusable`` of an ``AnnotatedImage`` for a stated name.

        Args:
            stated: Name of the image as its annotation states it.
            claimant: Place of the annotation; two annotations that name one image are logged.
            other_names: Names that decide if ``stated`` means none or several.
        """
        found = self.find(stated)
        for name in other_names:
            found = found if len(found) == 1 else self.find(name) or found
        if len(found) > 1:
            found = [file for file in found if not _MASKS.search(file.relative)] or found
        if len(found) == 1:
            return self.taken(found[0], claimant)
        several = " and ".join(file.relative for file in found)
        unusable = (DataIssue.IMAGE_AMBIGUOUS, f"{several}; remove one, or state its folder") if found else None
        return {"path": self.path, "filename": stated, "unusable": unusable or (DataIssue.IMAGE_MISSING, "")}

    def place_by(self, annotation: str, stated: str, *other_names: str) -> dict[str, Any]:
        """Returns the same fields as ``place`` for an annotation file of one image.

        The stated name is looked for from the file's folder. If there is none, the image with the file's own name is
        used, as files are renamed together with their annotation.

        Args:
            annotation: Path of the annotation file below its folder.
            stated: Name of the image as the file states it; "" if it does not.
            other_names: Further names of the image.
        """
        own_name = os.path.splitext(annotation)[0]
        stated = stated or posixpath.basename(own_name)
        placed = self.place(posixpath.join(posixpath.dirname(own_name), stated), annotation, *other_names)
        if placed["unusable"] is None or placed["unusable"][0] is not DataIssue.IMAGE_MISSING:
            return placed
        by_annotation = self.place(own_name, annotation)
        if by_annotation["unusable"] is not None:
            return placed | {"filename": stated}
        self._log.add(DataIssue.WRONG_FILENAME, annotation, f"filename is {stated}")
        return by_annotation

    def taken(self, file: SourceFile, claimant: str) -> dict[str, Any]:
        """Returns the same fields as ``place`` for a file of this folder."""
        earlier = self._claimed.setdefault(file.relative, claimant)
        name = os.fsencode(file.relative).decode("utf-8", "replace")
        if earlier != claimant:
            self._log.add(DataIssue.SAME_IMAGE, claimant, f"{name}, as {earlier}")
        unusable = (DataIssue.IMAGE_OUTSIDE, file.problem) if file.problem else None
        return {"path": self.path / file.relative, "filename": name, "unusable": unusable}


def _remember(table: dict[str, list[SourceFile]], key: str, file: SourceFile) -> None:
    of_key = table.setdefault(_fold(key), [])
    if len(of_key) < MAX_CANDIDATES:
        of_key.append(file)


def _readings(stated: str) -> list[str]:
    """Returns a stated name as paths with slashes: as it is, and with its URL's query and escapes resolved."""
    path = _URL.sub("/", stated.strip().replace("\\", "/"))
    plain, _, query = path.partition("?")
    local = query[2:] if query.startswith("d=") else ""  # Label Studio's /data/local-files/?d=folder/name.jpg
    return [reading for text in (local, plain, path) if text for reading in (text, urllib.parse.unquote(text))]


def _tails(parts: list[str]) -> Iterator[str]:
    """a/b/c, b/c, c."""
    for first in range(max(len(parts) - MAX_STATED_PARTS, 0), len(parts)):
        yield "/".join(parts[first:])


def _fold(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _without_suffix(name: str) -> str:
    """Removes an extension of images or annotations; other dots belong to the name."""
    return os.path.splitext(name)[0] if _suffix(name) in (*IMAGE_SUFFIXES, *ANNOTATION_SUFFIXES) else name
