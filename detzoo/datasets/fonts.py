"""Fonts of the names in pictures: DejaVu Sans, which comes with matplotlib, and a user's file for other letters.

DejaVu Sans has Latin, Greek, Cyrillic, Armenian, Georgian, Hebrew and Arabic letters, but no Chinese, Japanese, Korean,
Thai or Indian ones.
"""

from __future__ import annotations

import functools
import logging
import pathlib
import unicodedata

from PIL import ImageFont

from detzoo.errors import UsageError

logger = logging.getLogger(__name__)


class LabelFonts:
    """Chooses the font of each text: the first that has all of its letters.

    Args:
        extra: A .ttf, .otf or .ttc file that is tried behind DejaVu Sans; None or "" for none.

    Raises:
        UsageError: There is no such file, or it is no font.
    """

    def __init__(self, extra: str | pathlib.Path | None = None) -> None:
        import matplotlib

        self._files = [str(pathlib.Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")]
        self.extra = str(extra or "")
        self._warned: set[str] = set()
        if extra:
            if not pathlib.Path(extra).is_file():
                raise UsageError(f"--font {extra}: there is no such file")
            self._files.append(str(extra))
            try:
                _glyphs(str(extra))
                _font(str(extra), 12)
            except Exception as problem:  # matplotlib and Pillow raise several kinds
                raise UsageError(f"--font {extra} cannot be read as a font (.ttf, .otf, .ttc): {problem}") from None

    def of(self, text: str, size_px: int) -> ImageFont.FreeTypeFont:
        """Returns the font for a text; letters that no font has are drawn as boxes, with one warning per script."""
        lacking = [self._lacking(file, text) for file in self._files]
        best = min(range(len(lacking)), key=lambda index: len(lacking[index]))
        scripts = {_script(letter) for letter in lacking[best]} - self._warned
        if scripts:
            self._warned |= scripts
            remedy = f"--font {self.extra} lacks them, too" if self.extra else "--font FILE names a font that has them"
            named = ", ".join(sorted(scripts))
            logger.warning("%r has letters that DejaVu Sans lacks (%s): %s", text[:40], named, remedy)
        return _font(self._files[best], size_px)

    @staticmethod
    def _lacking(file: str, text: str) -> set[str]:
        """Returns the visible letters of a text that a font has no glyph for."""
        glyphs = _glyphs(file)
        return {letter for letter in text if ord(letter) not in glyphs and unicodedata.category(letter)[0] not in "CZ"}


def _script(letter: str) -> str:
    """Returns the first word of a letter's name, such as CJK, HANGUL, THAI or DEVANAGARI; SYMBOL for an emoji."""
    if unicodedata.category(letter) == "So":
        return "SYMBOL"
    return unicodedata.name(letter, "UNKNOWN").partition(" ")[0]


@functools.lru_cache(maxsize=8)
def _glyphs(file: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(file).get_charmap())


@functools.lru_cache(maxsize=64)
def _font(file: str, size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size_px)
