"""Builds the package that pyproject.toml declares, with the files next to detzoo/ in it, and the index's page.

``detzoo.config.library.shipped`` finds the files, in a checkout and in an installed package.
"""

from __future__ import annotations

import pathlib
import re
import shutil

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = pathlib.Path(__file__).resolve().parent
SHIPPED = ("docs", "model_configs", "protos")
# Address of the repository, such as https://github.com/OWNER/NAME. With one, the links and pictures of README.md lead
# there on a package index. Without one, pictures are left out there, and links become names of the installed files.
REPOSITORY = ""
_RELATIVE = r"\(((?!#|\w+:)[^)\s]+)\)"
_LINK = re.compile(rf"\[([^\]]*)\]{_RELATIVE}")
_PICTURE = re.compile(rf"!\[[^\]]*\]{_RELATIVE}(?:\n\n\*[^*]+\*)?\n*")  # with its caption in italics


class BuildWithShippedFiles(build_py):
    """Copies the shipped folders into the package. An editable installation finds them in the checkout."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for name in SHIPPED:
                target = pathlib.Path(self.build_lib, "detzoo", name)
                shutil.rmtree(target, ignore_errors=True)  # files of an earlier build
                shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns(".*", "__pycache__"))


def index_page(readme: str, repository: str = REPOSITORY) -> str:
    """Returns the text of README.md for a package index, which has none of the files that its links lead to."""
    if repository:
        return _LINK.sub(lambda link: f"[{link[1]}]({repository}/{_kind(link[2])}/main/{link[2]})", readme)
    page = _LINK.sub(lambda link: _as_text(*link.groups()), _PICTURE.sub("", readme))
    where = "python -c 'import detzoo; print(detzoo.__path__[0])'"
    return f"{page}\nThe pages `docs/...` and the configs are in the installed package: `{where}`.\n"


def _kind(path: str) -> str:
    """Returns the part of an address that leads to the file itself for a picture, to its page for others."""
    return "raw" if path.endswith((".png", ".jpg", ".svg", ".gif")) else "blob"


def _as_text(label: str, target: str) -> str:
    path = target.partition("#")[0]
    return label if pathlib.PurePosixPath(path).stem in label else f"{label} [`{path}`]"


if __name__ == "__main__":
    setup(
        cmdclass={"build_py": BuildWithShippedFiles},
        long_description=index_page((ROOT / "README.md").read_text(encoding="utf-8")),
        long_description_content_type="text/markdown",
        url=REPOSITORY or None,
    )
