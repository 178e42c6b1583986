"""Every problem of a loaded config at once: files, sizes, counts, schedules, and what this version supports.

The text itself (unknown fields, wrong types) is checked by ``load.read_pipeline``; what follows needs a message:

    check_limits                 every number against the range that protos/ gives its field
    check_model                  the parts of an SSD, and whether they fit each other
    check_region_model           the same of a two-stage detector
    check_spp_classifier         a classifier, and its network
    check_training               optimizer, schedule, steps, fine-tune checkpoint
    check_short_training         what is left as it was: statistics, frozen parts, rates of 0
    check_inputs                 label maps, class counts, records, metrics
    check_size                   tensors that no machine holds
    effects                      what is accepted without effect, and what is not supported
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from detzoo.config import stages
from detzoo.config.check.inputs import check_inputs, check_metrics
from detzoo.config.check.model import ACCEPTED_MODELS, check_model
from detzoo.config.check.region_inputs import check_region_inputs
from detzoo.config.check.segmentation_proposals import check_mask_readers
from detzoo.config.check.short_training import check_short_training
from detzoo.config.check.size import check_size
from detzoo.config.check.spp_classifier import check_classifier_inputs
from detzoo.config.check.spp_net import check_spp_net_run
from detzoo.config.check.training import check_merged_labels, check_training
from detzoo.config.effects import check_effects
from detzoo.config.limits import check_limits
from detzoo.config.load import LoadedPipeline, read_pipeline
from detzoo.config.problems import Findings, Problem, Severity, has_errors


def check_file(path: str, overrides: Sequence[str] = (), *, files: bool = True) -> list[Problem]:
    """Every problem of a config file: of its text, of the overrides, and of what it means.

    A field that could not be read is reported once, not again as missing. Where braces do not match, or nothing could
    be read, nothing is said about the meaning, because fields are not where they were meant to be.

    Raises:
        UsageError: the file cannot be read at all.
    """
    loaded, problems = read_pipeline(path, overrides)
    if not loaded.braces_match or (problems and not loaded.message.ListFields()):
        return [*problems, Problem(Severity.NOTE, "", 0, "more is checked once this is mended")]
    unread = {problem.path for problem in problems if problem.path}

    def is_told(problem: Problem) -> bool:
        """Whether the text's problems explain this one: at the same field, or in a block that is called missing."""
        inside = f"{problem.path}."
        is_missing = "is missing" in problem.message or "is chosen" in problem.message
        return problem.path in unread or (is_missing and any(path.startswith(inside) for path in unread))

    return problems + [problem for problem in check_pipeline(loaded, files=files) if not is_told(problem)]


def check_pipeline(loaded: LoadedPipeline, *, files: bool = True) -> list[Problem]:
    """Every problem of a config that could be read: errors, warnings and notes, in the order of its lines.

    Args:
        loaded: the config, overrides applied.
        files: whether label maps, records, checkpoints and weights that it names must exist and agree with it; False
            checks what can be said without them, as for a config that is shipped with placeholders.
    """
    findings = Findings(loaded.line_of)
    config = check_limits(loaded.message, findings)
    outside = list(findings.problems)
    check_model(config.model, findings, files)
    if config.HasField("train_config"):
        check_training(config.train_config, findings, files, stages.trains_by_steps(config.model))
        check_merged_labels(config, findings)
        check_short_training(config, findings)
    else:
        findings.error("train_config", "is missing; `detzoo train` needs batch_size, optimizer and num_steps")
    if not config.HasField("train_input_reader"):
        findings.error("train_input_reader", "is missing; `detzoo train` needs label_map_path and its records")
    if not config.eval_input_reader:
        findings.warning("eval_input_reader", "is missing; `detzoo evaluate` needs label_map_path and its records")
    check_inputs(config, findings, files)
    check_metrics(config, findings)
    check_region_inputs(config, findings, files)
    check_spp_net_run(config, findings)
    check_mask_readers(config, findings)
    check_classifier_inputs(config, findings)
    _check_effects(config, findings)
    if not has_errors(findings.problems):
        check_size(config, findings)
    problems = outside + [problem for problem in findings.problems[len(outside) :] if not _follows(problem, outside)]
    return sorted(problems, key=lambda problem: (problem.line == 0, problem.line))


def _follows(problem: Problem, outside: Sequence[Problem]) -> bool:
    """Returns whether a problem is of a number that is out of range, or of another field against that number."""
    return any(
        problem.path == other.path or re.search(rf"\b{re.escape(other.path.split('.')[-1])}\b", problem.message)
        for other in outside
    )


def _check_effects(config: Any, findings: Findings) -> None:
    """All but the block of a model that is refused as a whole: its details would only repeat that."""
    pruned = type(config)()
    pruned.CopyFrom(config)
    if pruned.model.WhichOneof("model") not in ACCEPTED_MODELS:
        pruned.ClearField("model")
    check_effects(pruned, "", findings)
