"""The small version of a sweep, `--small`: each field that its block gives takes the place of the sweep's own."""

from __future__ import annotations

from typing import Any

_BLOCK = "small"


def choose_small(sweep: Any, lines: dict[str, int]) -> str:
    """Makes a ``pb.Sweep`` its small version; says what is wrong, "" where nothing is.

    Args:
        sweep: is changed.
        lines: of the text, path -> line; changed, so that messages name the lines of what counts now.
    """
    if not sweep.HasField(_BLOCK):
        return "--small: the file has no `small { }` block, which says what to run instead"
    small = type(sweep.small)()
    small.CopyFrom(sweep.small)
    sweep.ClearField(_BLOCK)
    for field, _ in small.ListFields():
        name = field.name
        sweep.ClearField(name)
        for path in [known for known in lines if _is_in(known, name)]:
            del lines[path]
    sweep.MergeFrom(_as_sweep(small, type(sweep)))
    prefix = f"{_BLOCK}."
    for path in [known for known in lines if known.startswith(prefix)]:
        lines[path.removeprefix(prefix)] = lines.pop(path)
    return ""


def _as_sweep(small: Any, sweep_type: Any) -> Any:
    """A ``pb.Sweep`` with the fields of a ``pb.SweepSmall``."""
    made = sweep_type()
    for field, value in small.ListFields():
        if isinstance(value, str):
            setattr(made, field.name, value)
        elif hasattr(value, "CopyFrom"):
            getattr(made, field.name).CopyFrom(value)
        else:
            getattr(made, field.name).extend(value)
    return made


def _is_in(path: str, name: str) -> bool:
    return path == name or path.startswith((f"{name}.", f"{name}["))
