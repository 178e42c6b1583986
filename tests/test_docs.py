"""Pages do not rot: what they link to exists, and so do the files and configs that they name."""

from __future__ import annotations

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAPERS = sorted((ROOT / "docs" / "papers").glob("*.md"))
LINK = re.compile(r"\]\(([^)\s]+)\)")
# `losses/focal.py`, `detzoo/data/`, `recipes/four_step*.py`, `model_configs/sweeps/fpn_table1.sweep`.
FILE = re.compile(r"`((?:[\w*]+/)+(?:[\w*{},]+\.(?:py|config|sweep|proto|md))?)`")
CONFIG = re.compile(r"`([\w{},]+\.config)`")


def identify(page: pathlib.Path) -> str:
    return str(page.relative_to(ROOT))


def anchors_of(page: pathlib.Path) -> set[str]:
    """Returns the anchors that GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def expanded(name: str) -> list[str]:
    """``a{1,2}`` -> ``a1``, ``a2``; several braces make every combination."""
    match = re.search(r"\{([^}]*)\}", name)
    if match is None:
        return [name]
    return [
        whole
        for part in match[1].split(",")
        for whole in expanded(f"{name[: match.start()]}{part}{name[match.end() :]}")
    ]


def test_braces():
    assert expanded("a{1,2}_{x,y}.config") == ["a1_x.config", "a1_y.config", "a2_x.config", "a2_y.config"]


@pytest.mark.parametrize("page", PAGES, ids=identify)
def test_links_lead_somewhere(page):
    dead = []
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors_of(file)):
            dead.append(target)
    assert dead == []


@pytest.mark.parametrize("page", PAPERS, ids=identify)
def test_named_files_exist(page):
    text = page.read_text(encoding="utf-8")
    named = [name for match in FILE.findall(text) for name in expanded(match)]
    # Files of the library are named from detzoo/.
    folders = (ROOT / "detzoo", ROOT)
    missing = [name for name in named if not any(next(folder.glob(name), None) for folder in folders)]
    configs = [name for match in CONFIG.findall(text) for name in expanded(match)]
    missing += [name for name in configs if not (ROOT / "model_configs" / name).is_file()]
    assert missing == []
    assert named or page.name == "README.md"


def test_the_site_builds_without_a_warning(tmp_path):
    """Unknown names of the Python reference and links that the site does not resolve are warnings, which are errors."""
    build = pytest.importorskip("mkdocs.commands.build", reason="needs the extra detzoo[docs]").build
    from mkdocs.config import load_config

    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path)))
    assert "detzoo export" in (tmp_path / "reference" / "commands.html").read_text(encoding="utf-8")
    assert (tmp_path / "model_configs" / "ssd_mobilenet_v2_fpnlite_320.config").is_file()
    pages = [page.read_text(encoding="utf-8") for page in tmp_path.rglob("*.html")]
    outside = re.compile(r'<(?:script|img|link)[^>]*(?:src|href)="https?://')
    assert not [page for page in pages if outside.search(page)], "a page loads something from another server"
