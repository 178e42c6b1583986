"""Renders a page that needs no other file: HTML, styles, script, figures and pictures in one.

A page's template extends layout.html, and takes tables and charts from parts.html. All text from data is printable, cut
and escaped. A content security policy names the page's own script by its digest, so no other script can run and nothing
can be fetched.
"""

from __future__ import annotations

import base64
import hashlib
import io
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup
from PIL import Image

from detzoo.pages.text import escaped, printable, script_data

HERE = pathlib.Path(__file__).resolve().parent
LONGEST_TEXT = 200  # characters of a value; the filter ``cut`` sets another limit
JPEG_QUALITY = 82


class Picture(NamedTuple):
    """A picture on a page."""

    jpeg: bytes
    size: tuple[int, int]  # height, width in pixels


def encode_picture(drawn: Image.Image) -> Picture:
    """Encodes a picture for a page."""
    stream = io.BytesIO()
    drawn.save(stream, "JPEG", quality=JPEG_QUALITY)
    return Picture(stream.getvalue(), (drawn.height, drawn.width))


def render(
    template: pathlib.Path,
    *,
    styles: Sequence[pathlib.Path] = (),
    scripts: Sequence[pathlib.Path] = (),
    data: Any = None,
    **values: Any,
) -> str:
    """Returns the HTML of a page.

    Args:
        template: Path of a template that extends layout.html.
        styles: Style sheets besides the common one.
        scripts: Scripts besides the one of tables.
        data: JSON value for the scripts.
        **values: Names of the template. layout.html describes those of all pages.
    """
    style, script = (
        "\n".join(path.read_text(encoding="utf-8") for path in files)
        for files in ([HERE / "page.css", *styles], [HERE / "table.js", *scripts])
    )
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, HERE]),
        autoescape=True,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cut": lambda text, longest: Markup(escaped(text, longest)), "data_uri": _data_uri}
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return environment.get_template(template.name).render(
        policy=Markup(policy),
        style=Markup(style),
        script=Markup(script),
        json=Markup(script_data(data)),
        data=data,
        **values,
    )


def _shown(value: Any) -> Any:
    return value if isinstance(value, Markup) else printable(value, LONGEST_TEXT)


def _data_uri(content: bytes, kind: str) -> Markup:
    return Markup(f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}")
