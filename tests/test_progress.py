"""Progress on stderr: nothing for short loops, lines in a log file, a bar on a terminal of any width."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios

import pytest

from detzoo import progress


def test_a_short_loop_says_nothing_where_there_is_no_terminal(capsys):
    assert list(progress.track([3, 1, 2], 3, "reading")) == [3, 1, 2]
    assert capsys.readouterr() == ("", "")


def test_a_long_loop_says_now_and_then_how_far_it_is(capsys, monkeypatch):
    now = iter(range(0, 100, 4))  # seconds: 0 at the start, then 4 more for each item
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(now)))
    assert list(progress.track(iter("abcdef"), 6, "reading", "records")) == list("abcdef")
    # Ten seconds or more after the line before: at 12 s, after three items, and at 24 s, after six.
    assert capsys.readouterr().err.splitlines() == [
        "reading: 3 of 6 records, 0.25/s",
        "reading: 6 of 6 records, 0.25/s",
    ]


def test_the_number_of_items_may_be_unknown(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    list(progress.track(iter("a"), None, "reading"))
    assert capsys.readouterr().err.startswith("reading: 1 images, ")


@pytest.mark.parametrize("columns", [0, 60])
def test_a_terminal_shows_a_bar_also_where_it_does_not_know_its_width(monkeypatch, columns):
    main_end, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with os.fdopen(terminal, "w") as stderr:
        monkeypatch.setattr("sys.stderr", stderr)
        assert list(progress.track([1, 2], 2, "reading")) == [1, 2]
        stderr.flush()
        shown = b""
        while not shown.endswith(b"\r\n"):  # a terminal hands over what it has, and that may be a part
            shown += os.read(main_end, 10_000)
    os.close(main_end)
    last = shown.decode().replace("\r\n", "").split("\r")[-1]
    assert last.startswith("reading: 100%|")
    assert "2/2" in last
    assert len(last) <= (columns or 80)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s"),
        (59, "59 s"),
        (240, "4 min"),
        (2 * 3600, "2 h"),
        (7400, "2 h"),
        (9000, "2 h 30 min"),
        (3e5, "3 days 11 h"),
    ],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert progress.duration(seconds) == words
