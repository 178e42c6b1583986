"""Hooks of mkdocs: pages of the documentation site that are not files in docs/.

The reference of commands is made of the texts of ``--help``. The configs of model_configs/ are part of the site, and
pages link to them as they do in a checkout.
"""

from __future__ import annotations

import importlib
import pathlib
import re
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = pathlib.Path(__file__).resolve().parents[1]
COMMANDS = "reference/commands.md"
CONFIG_LINK = re.compile(r"\]\((?:\.\./)+(model_configs/[^)]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Adds the reference of commands and the configs."""
    files.append(File.generated(config, COMMANDS, content=commands_page()))
    for file in sorted((ROOT / "model_configs").rglob("*")):
        if file.suffix in (".config", ".sweep"):
            files.append(File.generated(config, str(file.relative_to(ROOT)), abs_src_path=str(file)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Points links at configs to those of the site, which stand in docs/ there."""
    up = "../" * page.file.src_uri.count("/")
    return CONFIG_LINK.sub(rf"]({up}\1)", markdown)


def commands_page() -> str:
    """Returns a page with the help of every command and subcommand."""
    from detzoo.cli.help import overview, verb_help
    from detzoo.cli.main import VERBS

    commands = {verb: importlib.import_module(f"detzoo.cli.{verb}") for verb in VERBS}
    parts = ["# Commands\n", "The output of `detzoo COMMAND --help`.\n", fenced(overview(commands))]
    for verb, command in commands.items():
        parts += [f"## detzoo {verb}\n", fenced(verb_help(verb, command))]
        for name, part in getattr(command, "SUBCOMMANDS", {}).items():
            parts += [f"### detzoo {verb} {name}\n", fenced(verb_help(f"{verb} {name}", part))]
    return "\n".join(parts)


def fenced(text: str) -> str:
    """Returns a help text as a block of code, without the line that names the installed documents."""
    lines = [line for line in text.splitlines() if str(ROOT) not in line]
    return "\n".join(["```text", *lines, "```", ""])
