"""Files, folders, globs and commas become image files, each once."""

from __future__ import annotations

import os

import pytest

from detzoo.errors import UsageError
from detzoo.files.image_files import find_images


@pytest.fixture
def photos(tmp_path):
    for name in ("b.jpg", "a.PNG", "notes.txt", "sub/c.jpeg", "sub/a.jpg", "x,y.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def names(found, root):
    return [str(path.relative_to(root)) for path in found]


def test_a_folder_is_searched_with_its_subfolders(photos):
    assert names(find_images([str(photos)]), photos) == ["a.PNG", "b.jpg", "sub/a.jpg", "sub/c.jpeg", "x,y.png"]


def test_files_globs_and_commas_in_their_order_each_once(photos):
    given = [f"{photos}/b.jpg,{photos}/notes.txt", f"{photos}/s*", f"{photos}/**/*.jpg", f"{photos}/x,y.png"]
    assert names(find_images(given), photos) == ["b.jpg", "notes.txt", "sub/a.jpg", "sub/c.jpeg", "x,y.png"]


def test_links_out_of_a_folder_are_left_out_unless_they_are_named(photos, tmp_path_factory, caplog):
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.jpg"
    secret.write_bytes(b"")
    (photos / "sub" / "out.jpg").symlink_to(secret)
    (photos / "in.jpg").symlink_to(photos / "b.jpg")
    found = names(find_images([str(photos)]), photos)
    assert "in.jpg" in found
    assert "sub/out.jpg" not in found
    assert "1 links in" in caplog.text
    assert "out.jpg: they lead out of the folder; name the files or a pattern" in caplog.text
    assert names(find_images([f"{photos}/sub/*.jpg"]), photos) == ["sub/a.jpg", "sub/out.jpg"]
    # A folder that is a link itself is the one that was named.
    (photos.parent / "link").symlink_to(photos)
    assert len(find_images([str(photos.parent / "link")])) == 6


def test_what_is_no_readable_file_is_left_to_the_reader(photos):
    # It names, skips and counts them; a folder with an image's suffix is a folder.
    os.mkfifo(photos / "pipe.jpg")
    (photos / "broken.jpg").symlink_to(photos / "gone")
    (photos / "folder.jpg").mkdir()
    (photos / "folder.jpg" / "d.jpg").write_bytes(b"")
    found = names(find_images([str(photos)]), photos)
    assert {"pipe.jpg", "broken.jpg", "folder.jpg/d.jpg"} <= set(found)
    assert "folder.jpg" not in found
    assert names(find_images([f"{photos}/pipe.jpg"]), photos) == ["pipe.jpg"]


@pytest.mark.parametrize("given", ["x" * 5000, "a\0b.jpg", "x" * 300 + "/a.jpg"])
def test_names_that_no_file_can_have(given):
    with pytest.raises(UsageError, match="there is no such file or folder"):
        find_images([given])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("b.jqg", r"b.jqg: there is no such file or folder; did you mean b.jpg"),
        ("*.gif", "matches nothing"),
        ("nowhere/a.jpg", "nor the folder"),
        ("empty", "no image there; looked for .bmp"),
    ],
)
def test_names_that_mean_nothing(photos, given, message):
    (photos / "empty").mkdir()
    with pytest.raises(UsageError, match=message):
        find_images([f"{photos}/{given}"])
