"""``detzoo proposals`` from flags to a file, with a stand-in for OpenCV's contrib build."""

from __future__ import annotations

import numpy as np
import pytest

from detzoo.cli.main import main
from detzoo.data.proposals import read_proposals
from detzoo.datasets.selective_search import FOLDER_VARIABLE
from tests.datasets.test_selective_search import STAND_IN


@pytest.fixture
def opencv(tmp_path):
    (tmp_path / "contrib" / "cv2" / "ximgproc").mkdir(parents=True)
    contrib = "ximgproc = types.SimpleNamespace(segmentation=segmentation)\n"
    text = STAND_IN.replace("flags == 129", "flags == 1")  # files are turned upright
    (tmp_path / "contrib" / "cv2" / "__init__.py").write_text(text + contrib)
    return f"--opencv_folder={tmp_path / 'contrib'}"


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.png").write_bytes(bytes([100, 200]))  # height and width of the stand-in's image
    (folder / "b.png").write_bytes(b"broken")
    return folder


def test_files_are_searched_under_their_names(opencv, photos, tmp_path, capsys):
    output = tmp_path / "made" / "photos.npz"
    flags = [f"--images={photos}", f"--output={output}", "--mode=quality", "--num_workers=1", opencv]
    assert main(["proposals", *flags]) == 0
    shown = capsys.readouterr()
    assert f"{output}: 2 windows of 2 images" in shown.out
    assert "image 'b.png' cannot be decoded: it gets no windows" in shown.err
    table = read_proposals(str(output))
    np.testing.assert_allclose(table.lookup(b"a.png")[0], [[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.5]])
    assert len(table.lookup(b"b.png")[0]) == 0
    assert main(["proposals", *flags, "--max_proposals=1"]) == 0
    assert "1 windows of 2 images" in capsys.readouterr().out


def test_mistakes_get_one_message(opencv, photos, tmp_path, capsys, monkeypatch):
    records, output = f"--input_path={tmp_path}/none*", f"--output={tmp_path / 'p.npz'}"
    for flags, code, message in (
        ([output, opencv], 2, "needs --input_path (records), or --images instead of it"),
        ([output, opencv, records, f"--images={photos}"], 2, "needs --input_path (records), or --images"),
        ([records, opencv], 2, "`detzoo proposals` needs --output"),
        ([f"--output={tmp_path}", opencv, records], 2, "is a folder; give the file to write"),
        ([output, opencv, records], 1, "no TFRecord file matches"),
        ([output, opencv, f"--images={tmp_path}/none"], 2, "there is no such file or folder"),
        ([output, records, "--opencv_folder=none"], 2, "there is no cv2 in none"),
    ):
        assert main(["proposals", *flags]) == code, flags
        assert message in capsys.readouterr().err
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "nowhere"))
    assert main(["proposals", output, records]) == 2
    assert f"-m pip install --no-deps --target {tmp_path / 'nowhere'}" in capsys.readouterr().err
