"""The frontier drawn into a scatter, with labels that cover neither points nor each other.

Nothing lies above and to the left of a point of the frontier, else it would not be on it. So each label ends at its
point's place and stands above it, and a label that would touch the one below is moved up: what it then covers is
still empty. The axes are widened where the labels need room.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.text import Text

FRONTIER_COLOUR = "#444444"
LABEL_SIZE = 7.5  # points
LINE_HEIGHT = 1.35  # of the size
MOST_LABELS = 20
MOST_DRIFT = 1.3  # lines that a label may be above its point
GAP_POINTS = 4.5  # between a marker's middle and what stands beside it


def draw_frontier(axes: Axes, xs: Sequence[float], ys: Sequence[float]) -> None:
    """The staircase through the frontier's points, which come by rising x (data units)."""
    axes.step(xs, ys, where="post", color=FRONTIER_COLOUR, linewidth=1.3, zorder=2, gid="frontier")


def label_frontier(
    axes: Axes, xs: Sequence[float], ys: Sequence[float], labels: Sequence[str], colours: Sequence[str]
) -> list[Text]:
    """Writes labels to points of the frontier, which come by rising x; widens the axes to the left and the top.

    Where points are so close that their labels would drift away from them, some of them go without; the ends and the
    points that are far from each other come first.

    Returns:
        The texts.
    """
    figure = axes.get_figure()
    dots = figure.dpi / 72  # type: ignore[union-attr]
    gap, line = GAP_POINTS * dots, LINE_HEIGHT * LABEL_SIZE * dots
    texts = [
        axes.text(0, 0, label, fontsize=LABEL_SIZE, ha="right", va="bottom", color=darkened(colour), zorder=5)
        for label, colour in zip(labels, colours)
    ]
    chosen = _choose_labelled([axes.transData.transform((1.0, y))[1] for y in ys], line)
    for index in set(range(len(texts))).difference(chosen):
        texts[index].remove()
    renderer = figure.canvas.get_renderer()  # type: ignore[union-attr]
    kept = [(xs[index], ys[index], colours[index], texts[index]) for index in chosen]
    _widen_left(axes, [x for x, *_ in kept], [text.get_window_extent(renderer).width + 3 * gap for *_, text in kept])
    bottoms = _make_room_above(axes, [y for _, y, _, _ in kept], line, gap)
    for (x, y, colour, text), bottom in zip(kept, bottoms):
        x_px, y_px = axes.transData.transform((x, y))
        text.set_transform(axes.transAxes)
        left, height = axes.transAxes.inverted().transform((x_px - 1.6 * gap, bottom))
        text.set_position((left, height))
        if bottom - y_px > 1.5 * gap:
            elbow = axes.transData.inverted().transform((x_px - 1.3 * gap, bottom + 0.5 * line))
            axes.plot([x, elbow[0]], [y, elbow[1]], color=colour, linewidth=0.7, zorder=1.6, gid="leader")
    return [text for *_, text in kept]


def darkened(colour: str) -> tuple[float, float, float]:
    """A colour as text on white: dark enough to be read."""
    red, green, blue = (0.62 * part for part in to_rgb(colour))
    return red, green, blue


def _choose_labelled(heights: Sequence[float], line: float) -> list[int]:
    """Indices of the points to label, by rising height: the ends, then what is farthest from all chosen ones."""
    waiting = list(range(len(heights)))
    chosen: list[int] = []
    while waiting and len(chosen) < MOST_LABELS:
        ends = [index for index in (len(heights) - 1, 0) if index in waiting]
        candidate = (
            ends[0] if ends else max(waiting, key=lambda index: min(abs(heights[index] - heights[c]) for c in chosen))
        )
        waiting.remove(candidate)
        tried = sorted([*chosen, candidate])
        own = [heights[index] for index in tried]
        drift = max(placed - true for placed, true in zip(_stacked(own, line), own))
        if drift <= MOST_DRIFT * line or not chosen:
            chosen = tried
    return chosen


def _stacked(own: Sequence[float], line: float) -> list[float]:
    """Heights in pixels of labels that want to be at ``own``: each at least one line above the one before."""
    placed: list[float] = []
    for height in own:
        placed.append(max(height, placed[-1] + line) if placed else height)
    return placed


def _widen_left(axes: Axes, xs: Sequence[float], widths_px: Sequence[float]) -> None:
    """Moves the left end of the x axis so that each label of this width fits between it and its point."""
    is_log = axes.get_xscale() == "log"
    left, right = (math.log10(limit) if is_log else limit for limit in axes.get_xlim())
    total = axes.get_window_extent().width
    for x, width in zip(xs, widths_px):
        share = min(width / total, 0.6)
        place = math.log10(x) if is_log else x
        # (place - left) / (right - left) >= share, solved for left.
        left = min(left, (place - share * right) / (1.0 - share))
    axes.set_xlim(10**left if is_log else left, axes.get_xlim()[1])
    if not is_log:
        # Room for labels is no reason for ticks at negative times.
        axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= axes.get_xlim()[1]])


def _make_room_above(axes: Axes, ys: Sequence[float], line: float, gap: float) -> list[float]:
    """Lower edges of the labels in pixels; makes the y axis higher until they end below its top."""
    for _ in range(40):
        bottoms = _stacked([axes.transData.transform((1.0, y))[1] + 0.5 * gap for y in ys], line)
        if bottoms[-1] + line <= axes.get_window_extent().y1:
            break
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.03 * (high - low))
    return bottoms
