"""The live line of a training on a terminal, with messages and logs above it."""

from __future__ import annotations

import io
import logging
import os
import pty

from detzoo import progress
from detzoo.train.progress import Progress
from detzoo.train.trainer import TOTAL, LoopResult


def test_a_terminal_shows_one_live_line_below_messages_and_logs(monkeypatch):
    main_end, terminal = pty.openpty()
    logger = logging.getLogger("detzoo")
    with os.fdopen(terminal, "w") as stream:
        monkeypatch.setattr("sys.stderr", stream)
        handler = logging.StreamHandler(stream)
        monkeypatch.setattr(logger, "handlers", [handler])
        live_line = Progress(100, 4, 10)
        live_line.message("tracing")
        for step in (1, 20):
            result = LoopResult(step, {TOTAL: 1.5, "box": 0.5}, gradient_norm=1.0, learning_rate=0.01)
            live_line.update(result, None if step == 1 else 2.0)
        logger.warning("look out")
        live_line.close()
        assert logger.handlers == [handler]
        stream.flush()
        shown = b""
        while not shown.endswith(b"\n"):
            shown += os.read(main_end, 10_000)
    os.close(main_end)
    lines = [line.split("\r")[-1] for line in shown.decode().replace("\r\n", "\n").split("\n")]
    # 80 steps of 2 s are 160 s; 4 images in 2 s.
    live = "step 20/100  loss 1.500 (box 0.500)  lr 0.01  2.0 images/s  3 min left"
    assert lines == ["tracing", "look out", live, ""]


def test_hidden_progress_leaves_warnings(monkeypatch):
    monkeypatch.setattr(progress, "_is_quiet", True)
    stream = io.StringIO()
    shown = Progress(100, 4, 10, stream)
    shown.message("tracing")
    shown.update(LoopResult(10, {TOTAL: 1.5}, gradient_norm=1.0, learning_rate=0.01), 2.0)
    shown.warning("look out")
    assert stream.getvalue() == "look out\n"
    assert shown.images_per_second == 2.0  # 4 images in 2 s; the summary of a training has it
