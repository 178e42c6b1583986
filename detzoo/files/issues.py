"""Data issues of annotations, images and records: their kinds, the action taken on each, and the table of findings.

The importers, the conversion and ``dataset inspect`` add findings to an ``IssueLog``. (``data.issue_counter`` counts
while training reads records.)
"""

from __future__ import annotations

import collections
import enum
import threading
from collections.abc import Iterable
from typing import NamedTuple

KEPT_PER_KIND = 1000  # findings remembered of each kind; all are counted
EXAMPLES_PER_KIND = 2  # findings shown of each kind in the table
EXAMPLE_WIDTH = 100  # characters
MESSAGE_WIDTH = 500  # characters of a finding in an error message


class Action(enum.Enum):
    """The action taken on a finding. ``NOTED`` changes nothing and is no error with ``--strict``."""

    IMAGE_SKIPPED = "image skipped"
    OBJECT_SKIPPED = "object skipped"
    REST_SKIPPED = "rest of the file skipped"
    REPAIRED = "repaired"
    NOTED = "kept"


class DataIssue(enum.Enum):
    """A kind of data issue: its ``text`` in the table, and the ``action`` taken."""

    # Annotation files
    ANNOTATION_FILE_UNREADABLE = ("annotation of an image cannot be read", Action.IMAGE_SKIPPED)
    ANNOTATION_MISSING = ("image listed without an annotation file", Action.IMAGE_SKIPPED)
    ANNOTATION_WITHOUT_IMAGE = ("annotation of an unknown image", Action.OBJECT_SKIPPED)
    ANNOTATION_UNREADABLE = ("annotation of an object cannot be read", Action.OBJECT_SKIPPED)
    WRONG_FILENAME = ("annotation names another file; the file with the annotation's name used", Action.REPAIRED)
    ENCODING_GUESSED = ("text is not UTF-8 and states no encoding; guessed", Action.NOTED)
    IDS_RENUMBERED = ("category ids below 1, above the limit, or not numbers; renumbered from 1", Action.NOTED)
    FRACTIONS = ("all coordinates are within 0..1; read as fractions of the image", Action.NOTED)
    UNLABELLED = ("image file that no annotation names; not read", Action.NOTED)
    IN_NO_SPLIT = ("image in none of the splits; not used", Action.NOTED)
    CATEGORY_UNREADABLE = ("category cannot be read", Action.OBJECT_SKIPPED)
    # Image files
    IMAGE_AMBIGUOUS = ("several files have the stated name", Action.IMAGE_SKIPPED)
    IMAGE_OUTSIDE = ("file outside of the folder, or not a regular file", Action.IMAGE_SKIPPED)
    IMAGE_MISSING = ("image file is missing", Action.IMAGE_SKIPPED)
    IMAGE_EMPTY = ("image file is empty", Action.IMAGE_SKIPPED)
    IMAGE_UNKNOWN = ("not an image of a known format", Action.IMAGE_SKIPPED)
    IMAGE_CORRUPT = ("image is corrupt or truncated", Action.IMAGE_SKIPPED)
    IMAGE_HUGE = ("image has too many pixels", Action.IMAGE_SKIPPED)
    IMAGE_PIXEL_TYPE = ("pixel type without a standard conversion to RGB", Action.IMAGE_SKIPPED)
    IMAGE_UNFIT = ("image that the model cannot process", Action.IMAGE_SKIPPED)
    EXIF_ROTATED = ("EXIF-rotated; turned upright", Action.REPAIRED)
    ANIMATED = ("animated; first frame used", Action.REPAIRED)
    DEEP_PIXELS = ("16-bit; upper 8 bits used", Action.REPAIRED)
    GRAY = ("gray; converted to RGB", Action.REPAIRED)
    CMYK = ("CMYK; converted to RGB", Action.REPAIRED)
    PALETTE = ("palette; converted to RGB", Action.REPAIRED)
    ALPHA = ("transparency; dropped", Action.REPAIRED)
    OTHER_FORMAT = ("neither JPEG nor PNG; encoded again", Action.REPAIRED)
    SIZE_SCALED = ("stated size has another scale; boxes scaled", Action.REPAIRED)
    SIZE_WRONG = ("stated size is wrong; size of the image used", Action.REPAIRED)
    WRONG_EXTENSION = ("extension does not match the content", Action.NOTED)
    NO_BOXES = ("image without boxes", Action.NOTED)
    # Objects
    BOX_OF_OUTLINE = ("no box; box of the outline used", Action.NOTED)
    ORIENTED_BOX = ("oriented box; upright box around its corners used", Action.NOTED)
    SEVERAL_LABELS = ("several labels of one object; first one used", Action.REPAIRED)
    KEYPOINTS = ("keypoints ignored; box used", Action.NOTED)
    CONFIDENCE = ("confidence behind the coordinates; ignored", Action.NOTED)
    AREA_UNUSABLE = ("area is not a number of pixels; area of the mask or box used", Action.REPAIRED)
    FLAG_UNKNOWN = ("flag is neither yes nor no; read as no", Action.REPAIRED)
    SHAPE_UNUSABLE = ("shape that bounds no object, such as a point or a line", Action.OBJECT_SKIPPED)
    CORNER_OR_SIZE = ("maximum below minimum: exchanged corners, or a width and height?", Action.OBJECT_SKIPPED)
    SIZE_FOR_CORNER = ("width and height instead of the maximum; converted to corners", Action.REPAIRED)
    OUTLINE_PART = ("part of an outline is not a polygon; dropped", Action.REPAIRED)
    BOX_NOT_FINITE = ("box with NaN or infinity", Action.OBJECT_SKIPPED)
    BOX_WITHOUT_AREA = ("box without area", Action.OBJECT_SKIPPED)
    BOX_OUTSIDE = ("box entirely outside the image", Action.OBJECT_SKIPPED)
    BOX_INVERTED = ("box with minimum above maximum; swapped", Action.REPAIRED)
    BOX_CLIPPED = ("box extends beyond the image; clipped", Action.REPAIRED)
    WEIGHT_WRONG = ("weight is not finite, negative or above 1e4; 1 used", Action.REPAIRED)
    AREA_WRONG = ("area is not finite or negative; read as unknown", Action.REPAIRED)
    CLASS_WITHOUT_NAME = ("class id without a name", Action.OBJECT_SKIPPED)
    CLASS_NOT_IN_LABEL_MAP = ("class is not in the label map", Action.OBJECT_SKIPPED)
    MASK_UNREADABLE = ("mask cannot be drawn; left empty", Action.REPAIRED)
    MASK_MISSING = ("object without a mask; left empty", Action.REPAIRED)
    # Records
    RECORD_FILE_TRUNCATED = ("TFRecord file ends within a record", Action.REST_SKIPPED)
    RECORD_CHECKSUM = ("record's checksum does not match its data", Action.IMAGE_SKIPPED)
    RECORD_EMPTY = ("empty record", Action.IMAGE_SKIPPED)
    RECORD_UNREADABLE = ("record is not a tf.Example", Action.IMAGE_SKIPPED)
    KEY_MISSING = ("record without a required key", Action.IMAGE_SKIPPED)
    KEY_TYPE = ("key of a type or length that training cannot read", Action.IMAGE_SKIPPED)
    LENGTHS_DIFFER = ("lists of objects of different lengths", Action.IMAGE_SKIPPED)
    MASK_UNUSABLE = ("masks do not match image or objects (skipped if masks are loaded)", Action.IMAGE_SKIPPED)
    IMAGE_UNUSUAL = ("image is not plain upright RGB; decoded as stored", Action.NOTED)
    KEY_ABSENT = ("record without an optional key of evaluation", Action.NOTED)
    LABEL_CONTRADICTS = ("class text and label disagree; text used", Action.NOTED)
    SAME_IMAGE = ("image that another record also has", Action.NOTED)

    def __init__(self, text: str, action: Action) -> None:
        self.text, self.action = text, action


class Finding(NamedTuple):
    """One data issue: its kind, its file and line (or record), and a detail."""

    issue: DataIssue
    where: str
    detail: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.issue.text}" + (f" ({self.detail})" if self.detail else "")
        return _printable(text, MESSAGE_WIDTH)


class IssueLog:
    """Findings in order, counted by kind; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: collections.Counter[DataIssue] = collections.Counter()
        self._kept: dict[DataIssue, list[Finding]] = collections.defaultdict(list)

    def add(self, issue: DataIssue, where: str, detail: str = "") -> None:
        """Adds one finding."""
        self.extend([Finding(issue, where, detail)])

    def extend(self, findings: Iterable[Finding], number: int | None = None) -> None:
        """Adds findings. ``number`` is that of all findings if these, of one kind, are only the first of them."""
        findings = list(findings)
        with self._lock:
            if number is not None:
                self._counts[findings[0].issue] += number - len(findings)
            for finding in findings:
                self._counts[finding.issue] += 1
                if len(self._kept[finding.issue]) < KEPT_PER_KIND:
                    self._kept[finding.issue].append(finding)

    def counts(self) -> dict[DataIssue, int]:
        """Returns the count of each kind that occurred, in the order of ``DataIssue``."""
        return {issue: self._counts[issue] for issue in DataIssue if self._counts[issue]}

    def findings(self, issue: DataIssue | None = None) -> list[Finding]:
        """Returns the findings of one kind or of all, by kind; the first ``KEPT_PER_KIND`` of each."""
        return [finding for kind in DataIssue if issue in (None, kind) for finding in self._kept.get(kind, [])]

    def strict_findings(self) -> list[Finding]:
        """Returns the findings that are an error with ``--strict``: those that were skipped or repaired."""
        return [finding for finding in self.findings() if finding.issue.action is not Action.NOTED]

    @property
    def num_strict(self) -> int:
        """Number of findings that are an error with ``--strict``, also of those that are not kept."""
        return sum(count for issue, count in self._counts.items() if issue.action is not Action.NOTED)

    def table(self) -> str:
        """Returns a table by action: count, kind, and the first places; or one line if nothing was found."""
        counts = self.counts()
        if not counts:
            return "no data issues found"
        lines = []
        for action in Action:
            of_action = {issue: count for issue, count in counts.items() if issue.action is action}
            if of_action:
                lines.append(f"{action.value} ({sum(of_action.values())})")
            for issue, count in sorted(of_action.items(), key=lambda item: -item[1]):
                lines.append(f"  {count:>7}  {issue.text}")
                lines += [f"             {_example(finding)}" for finding in self._kept[issue][:EXAMPLES_PER_KIND]]
                if count > EXAMPLES_PER_KIND:
                    lines.append(f"             ... and {count - EXAMPLES_PER_KIND} more")
        return "\n".join(lines)


def _example(finding: Finding) -> str:
    text = " ".join(f"{finding.where}: {finding.detail}".removesuffix(": ").split())
    return _printable(text, EXAMPLE_WIDTH)


def _printable(text: str, width: int) -> str:
    """Cuts a text to a width; halves of surrogate pairs, which UTF-8 cannot encode, become escapes."""
    text = text if len(text) <= width else text[: width - 3] + "..."
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
