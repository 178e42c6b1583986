"""Files, folders, globs and commas become image files, each once."""

from __future__ import annotations

import pytest

from detzoo.data.image_files import find_images
from detzoo.errors import UsageError


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
