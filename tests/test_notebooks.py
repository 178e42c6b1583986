"""The notebooks of docs/notebooks run from the first cell to the last, and hold the outputs of such a run."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs the extra detzoo[test]")
nbclient = pytest.importorskip("nbclient", reason="needs the extra detzoo[test]")

ROOT = pathlib.Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
# Shorter trainings and measurements with the same calls, for the default run.
SHORTER = {
    "steps(250)": "steps(4)",
    "steps(150)": "steps(4)",
    "count=120": "count=30",
    "runs=10": "runs=1",
    ', "ssd_mobilenet_v2_fpnlite_320": 22.2, "ssd_mobilenet_v2_fpnlite_640": 28.2': "",
}


def run(path, folder, shorter=()):
    """Executes a notebook in an empty folder and returns it with its outputs."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for text in shorter:
            cell.source = cell.source.replace(text, SHORTER[text])
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


def pictures(notebook):
    return [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "image/png" in output.get("data", ()) or "image/jpeg" in output.get("data", ())
    ]


def printed(notebook):
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", ()))
    return "".join(output.get("text", "") for output in outputs if output.get("name") == "stdout")


@pytest.fixture
def in_checkout(monkeypatch, tmp_path):
    """Lets the kernel import this checkout, from an empty folder with a cache of its own."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the kernel's own draws into the notebook
    monkeypatch.setenv("DETZOO_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_its_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert pictures(notebook)
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert str(ROOT.parent) not in path.read_text(encoding="utf-8"), "a path of the machine that ran it"


@pytest.mark.train
@pytest.mark.parametrize("full", [False, pytest.param(True, marks=pytest.mark.full_sweep)], ids=["short", "full"])
def test_training_and_fine_tuning(in_checkout, full):
    notebook = run(ROOT / "docs" / "notebooks" / "fine_tune.ipynb", in_checkout, () if full else SHORTER)
    assert len(pictures(notebook)) == 2
    assert (in_checkout / "project3" / "export" / "saved_model" / "saved_model.pb").is_file()
    found = [float(line.rsplit(" ", 1)[1]) for line in printed(notebook).splitlines() if line.startswith("AP at IoU")]
    assert len(found) == 2
    if full:
        assert min(found) > 0.5


@pytest.mark.parametrize("full", [False, pytest.param(True, marks=pytest.mark.full_sweep)], ids=["short", "full"])
def test_comparing_detectors(in_checkout, full):
    notebook = run(ROOT / "docs" / "notebooks" / "compare.ipynb", in_checkout, () if full else SHORTER)
    assert len(pictures(notebook)) == 1
    assert printed(notebook).count("billion multiply-adds") == (3 if full else 1)


@pytest.mark.shared
def test_detecting_with_published_weights(in_checkout, shared, server, archives, tmp_path):
    """A server on this machine has an archive in the zoo's layout with weights that were trained on COCO."""
    name = "ssd_mobilenet_v1_0.75_depth_quantized_300x300_coco14_sync_2018_07_18"
    unpacked = tmp_path / name
    unpacked.mkdir()
    script = shared / "data" / "coco_ssd_mobilenet_v1" / "write_tf1_checkpoint.py"
    subprocess.run([sys.executable, script, unpacked / "model.ckpt"], check=True, capture_output=True)
    config = "ssd_mobilenet_v1_0.75_depth_quantized_300x300_coco14_sync.config"
    shutil.copy(shared / "configs" / "published" / "tf1" / config, unpacked / "pipeline.config")
    server.address, server.content = f"/{name}.tar.gz", archives.archive_of_folder(unpacked, name)
    notebook = run(ROOT / "docs" / "notebooks" / "detect.ipynb", in_checkout)
    assert "person" in printed(notebook)
    assert len(pictures(notebook)) == 1
