"""Feature maps of images on disk, with a limit on size. Maps that do not fit are computed when they are needed.

Every step of SPP-net's training reads the convolutions of the same images, which never change (arXiv:1406.4729,
section 4.1: "we only fine-tune the fully-connected layers"; the maps are cached before). Maps are kept, not the pooled
features of each window: 5000 images of VOC take 13 GB of maps at one scale, 500 GB of pooled windows.

A file is named by the image's id, and its folder by a digest of the weights and scales that made the maps. So runs can
share a cache without reading the maps of another network. Files are written atomically.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import pathlib
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np

from detzoo.errors import UsageError
from detzoo.folders import write_atomically

BYTES_A_GIGABYTE = 10**9
_DIGEST_CHARACTERS = 16
_DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)

logger = logging.getLogger(__name__)


def fingerprint(weights: Mapping[str, np.ndarray], *facts: object) -> str:
    """Returns a digest of the weights (path to value) and of other facts that the maps depend on."""
    digest = hashlib.sha256(repr(facts).encode())
    for path in sorted(weights):
        value = np.ascontiguousarray(weights[path])
        digest.update(f"{path} {value.dtype} {value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()[:_DIGEST_CHARACTERS]


class MapCache:
    """Feature maps of images on disk, in a folder that is created if it is missing.

    Args:
        folder: Folder of the files. Maps of other networks in it count towards the limit.
        made_by: ``fingerprint`` of the network that makes the maps.
        max_bytes: Largest size of the folder; 0 keeps nothing.

    Raises:
        UsageError: The folder cannot be created or is not writable.
    """

    def __init__(self, folder: str | pathlib.Path, made_by: str, max_bytes: float) -> None:
        self._root = pathlib.Path(folder)
        self._folder = self._root / made_by
        self._max_bytes = max_bytes
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise UsageError(f"the cache of feature maps {folder} cannot be made: {problem.strerror}") from None
        if not os.access(self._folder, os.W_OK):
            raise UsageError(f"the cache of feature maps {folder} cannot be written to")
        for draft in self._folder.glob(".*.npz.*"):
            draft.unlink(missing_ok=True)
        self.num_bytes = sum(path.stat().st_size for path in self._root.rglob("*.npz"))
        self._is_full = False

    def get(self, image_id: bytes) -> tuple[np.ndarray, ...] | None:
        """Returns the maps of an image, one per scale, or None if they are missing or damaged."""
        file = self._file(image_id)
        try:
            with np.load(file, allow_pickle=False) as stored:
                return tuple(stored[f"scale_{number}"] for number in range(len(stored.files)))
        except FileNotFoundError:
            return None
        except _DAMAGED as problem:
            logger.warning("%s is damaged (%s): its maps are computed again", file, problem)
            self.num_bytes -= file.stat().st_size
            file.unlink(missing_ok=True)
            return None

    def put(self, image_id: bytes, maps: Sequence[np.ndarray]) -> bool:
        """Stores the maps of an image (one per scale) if they fit. Returns whether they did."""
        size = sum(each.nbytes for each in maps)
        if self.num_bytes + size > self._max_bytes:
            self._tell_full(size)
            return False
        file = self._file(image_id)
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **{f"scale_{number}": each for number, each in enumerate(maps)})
        size = content.getbuffer().nbytes
        if self.num_bytes + size > self._max_bytes:
            self._tell_full(size)
            return False
        try:
            write_atomically(file, content.getvalue())
        except OSError as problem:  # such as a full disk: the training continues without the cache
            self._tell_full(size, problem.strerror or str(problem))
            return False
        self.num_bytes += size
        return True

    def __contains__(self, image_id: bytes) -> bool:
        return self._file(image_id).is_file()

    def _file(self, image_id: bytes) -> pathlib.Path:
        # An id may be any text, with slashes too.
        return self._folder / f"{hashlib.sha256(image_id).hexdigest()[: 2 * _DIGEST_CHARACTERS]}.npz"

    def _tell_full(self, size: int, reason: str = "") -> None:
        if self._is_full:
            return
        self._is_full = True
        logger.warning(
            "the cache of feature maps %s takes no more: it has %.2f GB of at most %.2f, the maps of one more image "
            "take %.3f%s. Those that are not in it are computed again in each step; "
            "model.spp_net.cache.max_gigabytes raises the bound",
            self._root,
            self.num_bytes / BYTES_A_GIGABYTE,
            self._max_bytes / BYTES_A_GIGABYTE,
            size / BYTES_A_GIGABYTE,
            f" ({reason})" if reason else "",
        )
