"""``detzoo sweep merge``."""

from __future__ import annotations

import pathlib

from absl import flags

from detzoo.errors import UsageError

SUMMARY = "Join the folders of a sweep that ran in parts."
DESCRIPTION = """
Joins results.csv, points/ and examples/ of folders that `detzoo sweep --shard` wrote. Where a point failed in one part
and was measured in another, the measurement counts. Parts of different processors, GPUs or numbers of cores are
refused, because their times cannot be compared.

    detzoo sweep merge --output_dir all part1 part2 part3
    detzoo sweep report --output_dir all
"""
POSITIONAL = ("PART...",)


def define_flags(flag_values: flags.FlagValues) -> None:
    """--output_dir, --allow_mixed_hardware."""
    text = "Folder to write to; its own results.csv, if any, is one of the parts."
    flags.DEFINE_string("output_dir", None, text, flag_values=flag_values, required=True)
    text = "Join parts of different hardware."
    flags.DEFINE_bool("allow_mixed_hardware", False, text, flag_values=flag_values)


def run(flag_values: flags.FlagValues) -> None:
    """Joins, and says what came from where."""
    from detzoo.sweep.run.merge import merge

    parts = [pathlib.Path(part) for part in flag_values.positional]
    output_dir = pathlib.Path(flag_values.output_dir)
    repeated = sorted({str(part) for part in parts if parts.count(part) > 1 or part.resolve() == output_dir.resolve()})
    if repeated:
        raise UsageError(f"{', '.join(repeated)} is given twice, or is --output_dir itself; give each part once")
    merged = merge(output_dir, parts, flag_values.allow_mixed_hardware)
    width = max(len(folder) for folder in merged.taken)
    for folder, count in merged.taken.items():
        print(f"{folder:<{width}}  {count:>5} {'point' if count == 1 else 'points'}")
    failed = f", {merged.num_failed} of them failed" if merged.num_failed else ""
    print(f"{output_dir}/results.csv: {merged.num_rows} points{failed}")
