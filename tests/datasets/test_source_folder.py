"""Files found by the names of other machines, and nothing outside of the folder."""

from __future__ import annotations

import os
import time
import unicodedata

import pytest

from detzoo.datasets.source_folder import SourceFolder
from detzoo.errors import UsageError
from detzoo.files.images import IMAGE_SUFFIXES
from detzoo.files.issues import DataIssue, IssueLog


@pytest.fixture
def folder(tmp_path):
    """A function: names of empty files -> the index of their folder, and its log."""

    def make(*names, **options):
        for name in names:
            path = tmp_path / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        log = IssueLog()
        return SourceFolder(tmp_path / "images", "--images_dir", IMAGE_SUFFIXES, log, **options), log

    return make


@pytest.mark.parametrize(
    ("stated", "found"),
    [
        ("a.jpg", "a.jpg"),
        ("./a.jpg", "a.jpg"),
        ("images/a.jpg", "a.jpg"),
        ("a", "a.jpg"),
        ("A.JPG", "a.jpg"),
        ("a.png", "a.jpg"),
        ("/data/upload/1/a.jpg", "a.jpg"),
        ("upload/1/0a1b2c3d-a.jpg", "a.jpg"),
        ("C:\\data\\images\\sub\\b.jpg", "sub/b.jpg"),
        ("..\\..\\media\\b.jpg", "sub/b.jpg"),
        ("b", "sub/b.jpg"),
        ("gs://bucket/sub/b.jpg", "sub/b.jpg"),
        ("https://host/x/my%20cat.jpg?token=a/b", "my cat.jpg"),
        ("/data/local-files/?d=photos/my%20cat.jpg", "my cat.jpg"),
        ("file:///home/x/my cat.jpg", "my cat.jpg"),
        ("v1.2", "v1.2.png"),
        (unicodedata.normalize("NFD", "café.jpg"), "café.jpg"),
        ("notes.md", "notes.md"),
        ("notes", None),
        ("gone.jpg", None),
        ("x" * 5000 + ".jpg", None),
        ("a\0.jpg", None),
        ("", None),
        ("../..", None),
        ("/" * 100_000 + "a.jpg", "a.jpg"),
    ],
)
def test_a_file_is_found_by_what_another_machine_calls_it(folder, stated, found):
    index, _ = folder("a.jpg", "sub/b.jpg", "my cat.jpg", "v1.2.png", "café.jpg", "notes.md", "._a.jpg")
    assert [file.relative for file in index.find(stated)] == ([found] if found else [])
    assert "notes.md" not in [file.relative for file in index.files]
    assert "._a.jpg" not in [file.relative for file in index.files]


def test_two_candidates_are_named_and_folders_decide(folder):
    index, log = folder("x/a.jpg", "y/a.jpg", "y/A.jpg", "b.png", "b.jpg", "deep/b.jpg")
    placed = index.place("/other/a.jpg", "here")
    assert placed["unusable"] == (DataIssue.IMAGE_AMBIGUOUS, "x/a.jpg and y/a.jpg; remove one, or state its folder")
    assert index.place("/other/a.jpg", "here", "x/a.jpg")["filename"] == "x/a.jpg"
    assert [file.relative for file in index.find("D:\\y\\a.jpg")] == ["y/a.jpg"]
    assert [file.relative for file in index.find("D:\\y\\A.jpg")] == ["y/A.jpg"]
    assert len(index.find("b.tif")) == 3
    assert [file.relative for file in index.find("b.jpg")] == ["b.jpg"], "a path below the folder is taken as it is"
    assert index.at("B").relative == "b.jpg"
    assert log.counts() == {}


def test_two_annotations_of_one_image_are_noted(folder):
    index, log = folder("a.jpg")
    for stated, claimant in (("x/a.jpg", "line 1"), ("y/a.jpg", "line 2"), ("y/a.jpg", "line 2")):
        assert index.place(stated, claimant)["filename"] == "a.jpg"
    assert {tuple(finding) for finding in log.findings()} == {(DataIssue.SAME_IMAGE, "line 2", "a.jpg, as line 1")}


def test_nothing_outside_is_read(tmp_path, folder):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.jpg").touch()
    (tmp_path / "images").mkdir()
    os.symlink(tmp_path / "outside" / "secret.jpg", tmp_path / "images" / "link.jpg")
    os.symlink(tmp_path / "outside", tmp_path / "images" / "folder")
    os.symlink("/dev/zero", tmp_path / "images" / "zero.jpg")
    os.symlink(tmp_path, tmp_path / "images" / "circle")
    os.mkfifo(tmp_path / "images" / "pipe.jpg")
    os.symlink(tmp_path / "images" / "a.jpg", tmp_path / "images" / "inside.jpg")
    index, log = folder("a.jpg")
    for stated in ("../outside/secret.jpg", str(tmp_path / "outside" / "secret.jpg"), "folder/secret.jpg", "/dev/zero"):
        unusable = index.place(stated, stated)["unusable"]
        assert unusable is not None
        assert unusable[0] in (DataIssue.IMAGE_MISSING, DataIssue.IMAGE_OUTSIDE)
    assert "--follow_links reads it" in index.place("link.jpg", "")["unusable"][1]
    assert index.place("pipe.jpg", "")["unusable"] == (DataIssue.IMAGE_OUTSIDE, "not a regular file")
    assert index.place("inside.jpg", "")["unusable"] is None
    assert sorted(finding.where for finding in log.findings(DataIssue.IMAGE_OUTSIDE)) == ["circle", "folder"]
    index, _ = folder(follow_links=True)
    assert index.place("link.jpg", "")["unusable"] is None
    assert index.place("folder/secret.jpg", "")["unusable"] is None
    assert index.place("zero.jpg", "")["unusable"] == (DataIssue.IMAGE_OUTSIDE, "not a regular file")


def test_a_file_name_that_is_no_unicode_can_be_stored(tmp_path, folder):
    (tmp_path / "images").mkdir()
    with open(os.fsencode(tmp_path / "images") + b"/caf\xe9.jpg", "wb"):
        pass
    index, _ = folder()
    assert index.taken(index.files[0], "")["filename"] == "caf�.jpg"


def test_six_thousand_files_of_one_name_cost_no_minutes(folder):
    index, _ = folder(*(f"{number}/a.jpg" for number in range(6000)))
    begin = time.process_time()
    assert all(len(index.find(f"x/{number}/a.png")) == 1 for number in range(6000))
    assert all(len(index.find("z/a.jpg")) == 3 for _ in range(6000))
    assert time.process_time() - begin < 5


def test_a_folder_that_is_not_there():
    for path in ("none", "x" * 5000, "/dev/null"):
        with pytest.raises(UsageError, match=r"--images_dir .* is not a folder"):
            SourceFolder(path, "--images_dir", IMAGE_SUFFIXES, IssueLog())
