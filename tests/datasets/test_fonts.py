"""Fonts of class names: which one is taken for a text, what is reported, and what cannot be a font."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from detzoo.datasets.drawing import draw_detections, printable_name
from detzoo.datasets.fonts import LabelFonts
from detzoo.errors import UsageError
from detzoo.figures import figure_settings, new_figure

CAT = "\N{CJK UNIFIED IDEOGRAPH-732B}"


@pytest.fixture(scope="module")
def square_font(tmp_path_factory):
    """A font whose only letters are the cat, a full square, and the digits and signs of a score."""
    path = tmp_path_factory.mktemp("font") / "square.ttf"
    pen = TTGlyphPen(None)
    for place, draw in zip([(0, 0), (0, 1000), (1000, 1000), (1000, 0)], [pen.moveTo, *[pen.lineTo] * 3]):
        draw(place)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap({ord(letter): "square" for letter in f"{CAT} 0123456789%"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "square": (1000, 0)})
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": "Square", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "cat",
        "Stra\u00dfe",
        "\u03b3\u03ac\u03c4\u03b1",  # Greek
        "\u043a\u043e\u0448\u043a\u0430",  # Russian
        "\u05d7\u05ea\u05d5\u05dc",  # Hebrew
        "\u0642\u0637\u0629",  # Arabic
        "\u0583\u056b\u057d\u056b\u056f",  # Armenian
        "con m\u00e8o \u0111\u1eb9p",  # Vietnamese
    ],
)
def test_dejavu_has_the_letters_of_many_scripts(name, caplog):
    font = LabelFonts().of(name, 20)
    assert font.getname()[0] == "DejaVu Sans"
    assert not caplog.records
    boxes = {bytes(font.getmask("\ufffe"))}  # what is drawn for a letter that a font lacks
    assert not [letter for letter in name if letter != " " and bytes(font.getmask(letter)) in boxes]


def test_what_dejavu_lacks_is_reported_once_per_script(caplog):
    fonts = LabelFonts()
    for name in (CAT, CAT + CAT, "\N{THAI CHARACTER KO KAI}", "cat \N{BROCCOLI}", CAT):
        fonts.of(name, 20)
    assert len(caplog.records) == 3
    for record, script in zip(caplog.records, ("CJK", "THAI", "SYMBOL"), strict=True):
        assert record.levelno == logging.WARNING
        assert f"letters that DejaVu Sans lacks ({script}): --font FILE names a font" in record.getMessage()


def test_the_extra_font_is_taken_for_what_dejavu_lacks_only(square_font, caplog):
    fonts = LabelFonts(square_font)
    assert fonts.of(f"{CAT} 90%", 20).getname()[0] == "Square"
    assert fonts.of("90%", 20).getname()[0] == "DejaVu Sans"
    assert not caplog.records
    fonts.of("\N{HANGUL SYLLABLE GO}", 20)
    assert "square.ttf lacks them, too" in caplog.text


def test_the_extra_font_is_drawn(square_font):
    image, box = np.full((500, 800, 3), 128, np.uint8), np.array([[0.5, 0.25, 0.75, 0.5]])
    # Of a square of the text's colour in the label, rows and columns are all of that colour.
    drawn = np.asarray(draw_detections(image, box, [CAT], fonts=LabelFonts(square_font)))
    without = np.asarray(draw_detections(image, box, [CAT]))
    ink = [((picture == 0).all(-1) | (picture == 255).all(-1))[232:248, 203:215] for picture in (drawn, without)]
    assert ink[0].all(1).sum() >= 10
    assert not ink[1].all(1).any()


def test_figures_take_the_extra_font_behind_dejavu(square_font):
    with figure_settings(str(square_font)):
        figure = new_figure()
        text = figure.text(0.5, 0.5, CAT, fontsize=40)
        figure.canvas.draw()
        assert text.get_fontfamily() == ["DejaVu Sans", "Square"]
        dark = (np.asarray(figure.canvas.buffer_rgba())[..., :3] < 40).all(-1)
    # A full square, not the empty box of an unknown letter: 40 points are 83 pixels at 150 per inch.
    assert dark.sum() == pytest.approx((40 / 72 * 150) ** 2, rel=0.1)


def test_what_is_no_font(tmp_path):
    (tmp_path / "a.ttf").write_bytes(b"text")
    with pytest.raises(UsageError, match=r"--font .*a.ttf cannot be read as a font"):
        LabelFonts(tmp_path / "a.ttf")
    with pytest.raises(UsageError, match=r"--font .*gone.ttf: there is no such file"):
        LabelFonts(tmp_path / "gone.ttf")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", "?"),
        (" a\n\tb\x00c ", "a b c"),
        ("a\ud800b", "a\ufffdb"),
        ("x" * 5000, "x" * 117 + "..."),
        ("e\u0301", "e\u0301"),
    ],
)
def test_any_name_becomes_one_line(name, expected):
    assert printable_name(name) == expected
    draw_detections(np.zeros((40, 60, 3), np.uint8), np.array([[0.1, 0.1, 0.9, 0.9]]), [name])
