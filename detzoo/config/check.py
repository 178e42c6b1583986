"""Every problem of a loaded config at once: files, sizes, counts, schedules, and what this version supports."""

from __future__ import annotations

from detzoo.config.load import LoadedPipeline
from detzoo.config.problems import Problem


def check_pipeline(loaded: LoadedPipeline) -> list[Problem]:
    """Every problem of a config that could be read, errors, warnings and notes, in the order of its lines."""
    return []
