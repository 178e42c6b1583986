"""The log of findings and its table."""

from __future__ import annotations

import concurrent.futures

from detzoo.files.issues import KEPT_PER_KIND, Action, DataIssue, Finding, IssueLog


def test_the_table_says_what_was_done_how_often_and_where():
    log = IssueLog()
    log.add(DataIssue.GRAY, "b.png")
    log.add(DataIssue.IMAGE_CORRUPT, "a.jpg", "truncated")
    log.extend(Finding(DataIssue.BOX_CLIPPED, f"c.xml:{line}", "by 3 pixels") for line in (7, 8, 9, 10))
    log.add(DataIssue.NO_BOXES, "d.png")
    assert log.table().splitlines() == [
        "image skipped (1)",
        "        1  image is corrupt or truncated",
        "             a.jpg: truncated",
        "repaired (5)",
        "        4  box extends beyond the image; clipped",
        "             c.xml:7: by 3 pixels",
        "             c.xml:8: by 3 pixels",
        "             ... and 2 more",
        "        1  gray; converted to RGB",
        "             b.png",
        "kept (1)",
        "        1  image without boxes",
        "             d.png",
    ]


def test_an_empty_log_says_so():
    assert IssueLog().table() == "no data issues found"
    assert IssueLog().counts() == {}


def test_a_long_finding_is_cut_to_one_line():
    log = IssueLog()
    log.add(DataIssue.MASK_UNREADABLE, "a.json: annotation 1", "line\nbreak " + "x" * 200)
    line = log.table().splitlines()[-1].strip()
    assert len(line) == 100
    assert line.startswith("a.json: annotation 1: line break xxx")
    assert line.endswith("xxx...")


def test_what_is_kept_is_no_error_with_strict():
    log = IssueLog()
    log.extend(
        [Finding(DataIssue.NO_BOXES, "a"), Finding(DataIssue.WRONG_EXTENSION, "b"), Finding(DataIssue.SAME_IMAGE, "c")]
    )
    assert (log.num_strict, log.strict_findings()) == (0, [])
    log.add(DataIssue.GRAY, "d")
    log.add(DataIssue.IMAGE_MISSING, "e")
    assert log.num_strict == 2
    assert [str(finding) for finding in log.strict_findings()] == [
        "e: image file is missing",
        "d: gray; converted to RGB",
    ]


def test_all_are_counted_and_the_first_are_remembered():
    log = IssueLog()
    log.extend(Finding(DataIssue.GRAY, str(number)) for number in range(KEPT_PER_KIND + 5))
    assert log.counts() == {DataIssue.GRAY: KEPT_PER_KIND + 5}
    assert log.num_strict == KEPT_PER_KIND + 5
    kept = log.findings(DataIssue.GRAY)
    assert (len(kept), kept[-1].where) == (KEPT_PER_KIND, str(KEPT_PER_KIND - 1))
    assert log.findings(DataIssue.CMYK) == []


def test_threads_lose_no_finding():
    log = IssueLog()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: log.add(DataIssue.GRAY, str(number)), range(2000)))
    assert log.counts() == {DataIssue.GRAY: 2000}


def test_every_kind_has_a_text_of_its_own():
    texts = [issue.text for issue in DataIssue]
    assert len(set(texts)) == len(texts)
    assert {issue.action for issue in DataIssue} == set(Action)
