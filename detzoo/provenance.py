"""The versions and the commit behind a result, as written next to every SavedModel and result row."""

from __future__ import annotations

import importlib.metadata
import pathlib
import platform
import subprocess

PACKAGES = ("detzoo", "tensorflow", "keras", "tf-models-official", "numpy", "protobuf")


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that affect a model's outputs."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Returns the git commit of detzoo's checkout, with "-dirty" if it was changed; None outside a checkout."""
    folder = pathlib.Path(__file__).resolve().parents[1]
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None
