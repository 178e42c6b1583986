"""Objects of large annotation files, kept in a temporary file (from importers to the conversion).

Memory holds the place of each object, 8 bytes, and the objects of the images that are being converted.
"""

from __future__ import annotations

import array
import os
import pickle
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from detzoo.errors import DataError

SPILLED_BYTES = 16_000_000  # written to the file at a time; fewer stay in memory
_READ_BYTES = 1024  # most objects are shorter
_LENGTH_BYTES = 4  # in front of each object


class ObjectStore:
    """Objects in the order of their addition. One thread adds them, any number of threads read."""

    def __init__(self) -> None:
        self._recent, self._num_spilled = bytearray(), 0
        self._file: Any = None

    def add(self, item: Any) -> int:
        """Returns the place of a new object."""
        place = self._num_spilled + len(self._recent)
        content = pickle.dumps(item, pickle.HIGHEST_PROTOCOL)
        self._recent += len(content).to_bytes(_LENGTH_BYTES, "little") + content
        if len(self._recent) >= SPILLED_BYTES:
            self._spill()
        return place

    def _spill(self) -> None:
        try:
            self._file = self._file or tempfile.TemporaryFile(buffering=0)  # noqa: SIM115, closed with the store
            view = memoryview(self._recent)
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise DataError(
                f"{tempfile.gettempdir()} cannot hold the annotations ({error.strerror}); set TMPDIR to a folder with"
                " more space"
            ) from None
        self._num_spilled += len(self._recent)
        self._recent = bytearray()

    def load(self, place: int) -> Any:
        """Returns the object at a place."""
        begin = place + _LENGTH_BYTES
        content = self._read(place, _READ_BYTES)
        length = int.from_bytes(content[:_LENGTH_BYTES], "little")
        content = content[_LENGTH_BYTES:] if length <= _READ_BYTES - _LENGTH_BYTES else self._read(begin, length)
        return pickle.loads(content)

    def _read(self, place: int, length: int) -> bytes:
        if place >= self._num_spilled:
            return bytes(self._recent[place - self._num_spilled :][:length])
        return os.pread(self._file.fileno(), length, place)


class StoredObjects(Sequence[Any]):
    """The objects of one image; a pickle has the objects themselves."""

    __slots__ = ("_places", "_store")

    def __init__(self, store: ObjectStore) -> None:
        self._store, self._places = store, array.array("q")

    def append(self, item: Any) -> None:
        """Adds an object."""
        self._places.append(self._store.add(item))

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return tuple(map(self._store.load, self._places[index]))
        return self._store.load(self._places[index])

    def __iter__(self) -> Iterator[Any]:
        return map(self._store.load, self._places)

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (list(self),)
