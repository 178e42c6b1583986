"""The wheel: built by the source distribution, installed away from the checkout, and the page of a package index."""

from __future__ import annotations

import importlib.metadata
import json
import pathlib
import re
import shutil
import site
import subprocess
import sys
import tarfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PARTS = ("detzoo", "docs", "model_configs", "protos")
FILES = ("CHANGELOG.md", "LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py")
BUILD = "from setuptools import build_meta; build_meta.build_{}('..')"  # what pip and build call


def run(words, folder, **options):
    done = subprocess.run([str(word) for word in words], cwd=folder, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the source distribution of this checkout and the wheel that the source distribution builds."""
    if tuple(map(int, importlib.metadata.version("setuptools").split(".")[:2])) < (77, 0):
        pytest.skip("building needs setuptools 77, as pyproject.toml requires")
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    source.mkdir()
    for name in PARTS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, source / name)
    run([sys.executable, "-c", BUILD.format("sdist")], source)
    [archive] = folder.glob("detzoo-*.tar.gz")
    with tarfile.open(archive) as members:
        members.extractall(folder, filter="data")
    run([sys.executable, "-c", BUILD.format("wheel")], folder / archive.name.removesuffix(".tar.gz"))
    return folder


@pytest.fixture(scope="module")
def installed(built):
    """A new environment with the wheel, and its folder of packages. It sees those of this environment."""
    pytest.importorskip("pip")
    folder = built / "environment"
    run([sys.executable, "-m", "venv", "--without-pip", folder], built)
    [wheel] = built.glob("detzoo-*.whl")
    options = ["--no-deps", "--no-index", "--no-compile", "--quiet", "--disable-pip-version-check"]
    run([sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", *options, wheel], built)
    [packages] = folder.glob("lib/python*/site-packages")
    # The .pth files in these folders, such as that of an editable installation, have no effect from here.
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()))
    return folder, packages


def test_commands_work_away_from_the_checkout(installed, tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    folder, packages = installed
    detzoo = folder / "bin" / "detzoo"
    where = run([folder / "bin" / "python", "-c", "import detzoo; print(detzoo.__file__)"], tmp_path)
    assert where.strip() == str(packages / "detzoo" / "__init__.py")
    names = {file.stem for file in (ROOT / "model_configs").glob("*.config")}
    assert names == {line.split()[0] for line in run([detzoo, "models"], tmp_path).splitlines()} & names
    text = run([detzoo, "config", "check", "ssd_mobilenet_v2_300"], tmp_path)
    assert str(packages / "detzoo" / "model_configs" / "ssd_mobilenet_v2_300.config") in text
    words = ["sweep", "--sweep_config", "quick", "--dry_run"]
    assert "8 points" in run([detzoo, *words], tmp_path)
    assert str(packages / "detzoo" / "docs") in run([detzoo, "sweep", "--help"], tmp_path)
    assert list(tmp_path.iterdir()) == []


def files_in(folder):
    """Returns the paths below a folder, without caches and hidden files."""
    paths = {file.relative_to(folder) for file in folder.rglob("*") if file.is_file()}
    return {path for path in paths if not any(part[0] == "." or part == "__pycache__" for part in path.parts)}


def test_the_wheel_has_every_file_that_comes_with_detzoo(installed):
    package = installed[1] / "detzoo"
    for name in ("docs", "model_configs", "protos"):
        assert files_in(package / name) == files_in(ROOT / name)
    assert files_in(ROOT / "detzoo") <= files_in(package)


def test_twine_accepts_both(built):
    pytest.importorskip("twine", reason="twine, of detzoo[test], is not installed")
    files = [str(file) for pattern in ("*.whl", "*.tar.gz") for file in built.glob(pattern)]
    assert run([sys.executable, "-m", "twine", "check", "--strict", *files], built).count("PASSED") == 2


def index_pages(*arguments):
    """Calls setup.index_page with each tuple of arguments, in a new process: setuptools must come before distutils."""
    code = "import json, sys, setup; print(json.dumps([setup.index_page(*each) for each in json.load(sys.stdin)]))"
    return json.loads(run([sys.executable, "-c", code], ROOT, input=json.dumps(arguments)))


README = """# A
![Detections](docs/a.jpg)

*Made by
the first command.*

The [guide](docs/a.md#part), [docs/b.md](docs/b.md), [site](https://b.org/c) and [part](#a) ([tables](docs/c.md)).
"""


def test_the_page_of_an_index_leads_to_the_repository():
    [page] = index_pages((README, "https://x.org/o/n"))
    assert "![Detections](https://x.org/o/n/raw/main/docs/a.jpg)" in page
    assert "[guide](https://x.org/o/n/blob/main/docs/a.md#part)" in page
    assert "[site](https://b.org/c) and [part](#a)" in page


def test_without_an_address_the_page_names_the_installed_files():
    [page] = index_pages((README, ""))
    assert page.startswith(
        "# A\nThe guide [`docs/a.md`], docs/b.md, [site](https://b.org/c) and [part](#a) (tables [`docs/c.md`]).\n"
    )
    assert "detzoo.__path__[0]" in page


def test_the_readme_has_no_relative_link_on_an_index():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in index_pages((readme, ""), (readme, "https://x.org/o/n")):
        targets = re.findall(r"\]\(([^)\s]+)\)", page)
        assert [target for target in targets if "://" not in target and not target.startswith("#")] == []
        assert '<img src="' not in page
