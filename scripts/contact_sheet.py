"""Combines the first pictures of a folder in one image: contact_sheet.py FOLDER OUTPUT.jpg [COLUMNS ROWS]."""

from __future__ import annotations

import pathlib
import sys

from PIL import Image

CELL_PX, GAP_PX = 300, 6


def main(folder: str, output: str, columns: str = "4", rows: str = "2") -> None:
    """Writes the contact sheet."""
    files = sorted(pathlib.Path(folder).glob("*.png"))[: int(columns) * int(rows)]
    step = CELL_PX + GAP_PX
    sheet = Image.new("RGB", (int(columns) * step - GAP_PX, int(rows) * step - GAP_PX), "white")
    for place, file in enumerate(files):
        with Image.open(file) as picture:
            cell = picture.convert("RGB").resize((CELL_PX, CELL_PX), Image.Resampling.LANCZOS)
        sheet.paste(cell, (place % int(columns) * step, place // int(columns) * step))
    sheet.save(output, quality=88)


if __name__ == "__main__":
    main(*sys.argv[1:])
