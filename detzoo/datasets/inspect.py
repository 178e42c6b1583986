"""Looks into TFRecord files before training does: counts, histograms, data issues, and some records drawn.

Flow: record files -> ``record_check`` -> ``record_statistics``, ``IssueLog`` and samples -> report and files.
"""

from __future__ import annotations

import csv
import os
import pathlib
import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from detzoo.config.label_map import LabelMap
from detzoo.config.names import counted
from detzoo.data.records import ReadOptions, RecordFile, RecordSource, match_files, scan_file
from detzoo.data.sequences import examples_of
from detzoo.datasets.conversion import in_parallel
from detzoo.datasets.drawing import draw_detections
from detzoo.datasets.fonts import LabelFonts
from detzoo.datasets.record_check import CheckedRecord, check_record, image_of, masks_of
from detzoo.datasets.record_statistics import RecordStatistics
from detzoo.errors import DataError, UsageError
from detzoo.files.issues import DataIssue, IssueLog
from detzoo.folders import PAGE_FILE, write_atomically
from detzoo.pages.render import Picture, encode_picture, render
from detzoo.progress import track

PAGE_SIDE_PX = 480  # of a picture on the page
SAMPLE_SEED = 0  # the same records are drawn each time


def inspect_records(
    pattern: str,
    label_map: LabelMap | None,
    output_dir: pathlib.Path,
    num_samples: int = 16,
    fonts: LabelFonts | None = None,
) -> str:
    """Reads all records of a pattern, and writes a report (text and page), CSV files and pictures to a folder.

    Args:
        pattern: TFRecord files as an ``input_path`` names them.
        label_map: The label map of the training; None takes the names from the records.
        output_dir: An existing folder.
        num_samples: Number of records to draw; those with objects come first.
        fonts: Fonts of the names; None for DejaVu Sans.

    Returns:
        The report as text.

    Raises:
        UsageError: No file matches.
        DataError: No file holds a record.
    """
    log, statistics, samples = IssueLog(), RecordStatistics(label_map), _Samples(num_samples)
    try:
        files = [scan_file(path) for path in match_files(pattern)]
    except DataError as problem:  # here the pattern is a flag, not a field of a config
        raise UsageError(f"--input_path: {problem}") from None
    total = sum(file.num_records for file in files)
    for file in files:
        if file.truncated:
            log.add(DataIssue.RECORD_FILE_TRUNCATED, file.path, f"{file.num_records} whole records before it")
    if not total:
        sizes = ", ".join(f"{file.path} ({os.path.getsize(file.path)} bytes)" for file in files[:3])
        raise DataError(
            f"no whole record in {sizes}; TFRecord files without compression are read"
            " (`detzoo dataset coco|voc|yolo|csv|shapes` write them)"
        )
    first_with: dict[bytes, str] = {}
    checked = in_parallel(lambda item: check_record(item[1], item[0], label_map), _records(files, log))
    for record in track(checked, total, "inspecting", "records"):
        log.extend(record.findings)
        statistics.add(record)
        if not record.usable:
            continue
        samples.offer(record)
        before = first_with.setdefault(record.digest, record.where)
        if before != record.where:
            log.add(DataIssue.SAME_IMAGE, record.where, f"as {before}")
    report = _report(files, statistics, log)
    fonts = fonts or LabelFonts()
    _write_tables(report, statistics, log, output_dir)
    statistics.draw(output_dir / "histograms.png", fonts.extra)
    drawn = samples.draw(output_dir / "samples", fonts)
    write_atomically(output_dir / PAGE_FILE, _page(files, statistics, log, drawn))
    return report


def _records(files: Sequence[RecordFile], log: IssueLog) -> Iterator[tuple[str, bytes]]:
    """Yields the place and content of each record, or each image of a sequence, without the damaged ones."""
    places = enumerate((file.path, number) for file in files for number in range(file.num_records))
    source = RecordSource(files, ReadOptions(shuffle=False, num_readers=1), seed=0)
    # The mark at the end has a negative index: it ends the search for what is missing behind the last record.
    for index, serialized in source.stream(num_epochs=1).as_numpy_iterator():
        for position, (path, number) in places:
            if position == index:
                where = f"{os.path.basename(path)}: record {number}"
                images = examples_of(serialized)
                yield from ((f"{where}, image {image}", example) for image, example in enumerate(images))
                if not images:
                    yield where, serialized
                break
            log.add(DataIssue.RECORD_CHECKSUM, f"{path}: record {number}")


class _Samples:
    """A fair choice of records with objects (reservoir sampling), filled up with records without objects."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._random = random.Random(SAMPLE_SEED)
        self._with_objects: list[CheckedRecord] = []
        self._without: list[CheckedRecord] = []
        self._num_seen = 0

    def offer(self, record: CheckedRecord) -> None:
        """Keeps the record or not."""
        if not record.class_names:
            if len(self._without) < self._count:
                self._without.append(record)
            return
        self._num_seen += 1
        if len(self._with_objects) < self._count:
            self._with_objects.append(record)
            return
        place = self._random.randrange(self._num_seen)
        if place < self._count:
            self._with_objects[place] = record

    def draw(self, folder: pathlib.Path, fonts: LabelFonts) -> list[tuple[str, Picture]]:
        """Writes one PNG per record, and removes those of an earlier run. Returns names and small pictures."""
        folder.mkdir(parents=True, exist_ok=True)
        drawn = []
        for old in folder.glob("[0-9][0-9][0-9]_*.png"):
            old.unlink()
        for number, record in enumerate([*self._with_objects, *self._without][: self._count]):
            masks = masks_of(record.features)
            usable = masks and len(masks) == len(record.class_names) and record.num_masks
            stem = re.sub(r"[^\w.-]+", "_", pathlib.PurePath(record.name).stem)[:60]  # of up to 4 bytes each
            picture = draw_detections(
                image_of(record.features),
                record.boxes_norm,
                record.class_names,
                masks=np.stack(masks) if masks and usable else None,
                fonts=fonts,
            )
            picture.save(folder / f"{number:03d}_{stem}.png")
            picture.thumbnail((PAGE_SIDE_PX, PAGE_SIDE_PX))
            drawn.append((f"{record.name}: {counted(len(record.class_names), 'object')}", encode_picture(picture)))
        return drawn


def _report(files: Sequence[RecordFile], statistics: RecordStatistics, log: IssueLog) -> str:
    num_bytes = sum(os.path.getsize(file.path) for file in files)
    shown = files[0].path + (f" ... {os.path.basename(files[-1].path)}" if len(files) > 1 else "")
    head = f"files:   {len(files)}, {num_bytes / 2**20:.1f} MiB: {shown}"
    issues = [f"  {line}" for line in log.table().splitlines()]
    return "\n".join([head, statistics.text(), "", "data issues, and what training will do about them", *issues])


def _page(
    files: Sequence[RecordFile], statistics: RecordStatistics, log: IssueLog, drawn: Sequence[tuple[str, Picture]]
) -> str:
    """Returns the HTML of report.html."""
    histograms = []
    for histogram in statistics.histograms():
        total, most = max(histogram.counts.sum(), 1), max(histogram.counts.max(), 1)
        bins = [
            (name, count / most, [f"{count:,}", f"{100 * count / total:.1f} %"]) for name, count in histogram.rows()
        ]
        histograms.append((histogram.title, bins))
    columns = [
        {"heading": name, "classes": kind, "better": "more"}
        for name, kind in (("class", ""), ("id", "number"), ("objects", "number"), ("images", "number"))
    ]
    rows = [
        [(name, name), (number, number or None), (f"{objects:,}", objects), (f"{images:,}", images)]
        for number, name, objects, images in statistics.class_rows()
    ]
    facts = statistics.facts()
    return render(
        pathlib.Path(__file__).with_name("inspect.html"),
        title=re.sub(r"-\d{5}-of-\d{5}.*", "", os.path.basename(files[0].path)),
        summary=". ".join(f"{name.capitalize()}: {lines[0]}" for name, lines in facts) + ".",
        environment=[("files", f"{len(files)}: {files[0].path}"), *((name, "; ".join(lines)) for name, lines in facts)],
        columns=columns,
        rows=rows,
        histograms=histograms,
        issues=[
            (issue.text, issue.action.value, count, [f"{each.where} {each.detail}" for each in log.findings(issue)[:3]])
            for issue, count in log.counts().items()
        ],
        drawn=drawn,
    )


def _write_tables(report: str, statistics: RecordStatistics, log: IssueLog, folder: pathlib.Path) -> None:
    (folder / "report.txt").write_text(report + "\n", encoding="utf-8")
    _write_csv(folder / "classes.csv", ("id", "name", "objects", "images"), statistics.class_rows())
    rows = [(histogram.title, *row) for histogram in statistics.histograms() for row in histogram.rows()]
    _write_csv(folder / "histograms.csv", ("histogram", "bin", "objects"), rows)
    found = [(each.issue.text, each.issue.action.value, each.where, each.detail) for each in log.findings()]
    _write_csv(folder / "dirt.csv", ("dirt", "action", "where", "detail"), found)


def _write_csv(path: pathlib.Path, heading: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(heading)
        writer.writerows(rows)
