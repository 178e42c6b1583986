"""The door of ``config check``: every problem of a config at once.

``load.read_pipeline`` checks the text (unknown fields, wrong types). The rules of this package need a message:

    limits          every number against the range that protos/ has for its field
    model           one-stage detectors and segmentation proposals; calls two_stage and spp for the other models
    training        optimizer, schedule, augmentation, checkpoint
    short_training  parts that training leaves unchanged: statistics, frozen parts, rates of 0
    readers         label maps, class counts, records, masks, metrics
    effects         fields without effect, and fields that are not supported
    size            tensors that no machine holds

Each problem has the code of the rule that it breaks. ``require`` is the door of builders, for callers from Python whose
message nothing has checked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from detzoo.config.check.effects import check_effects
from detzoo.config.check.limits import check_limits
from detzoo.config.check.model import ACCEPTED_MODELS, check_model
from detzoo.config.check.readers import check_evaluation, check_readers
from detzoo.config.check.short_training import check_short_training
from detzoo.config.check.size import check_size
from detzoo.config.check.training import check_training
from detzoo.config.load import LoadedPipeline, read_pipeline
from detzoo.config.problems import MISSING, Findings, Problem, Severity, has_errors
from detzoo.errors import ConfigError

_MISSING_CODES = (MISSING, "incomplete-pair")


def check_file(path: str, overrides: Sequence[str] = (), *, files: bool = True) -> list[Problem]:
    """Returns every problem of a config file: of its text, of the overrides, and of its fields.

    A field that could not be read is reported once, not again as missing. If braces do not match, or nothing could be
    read, the fields are not checked, because they may be in the wrong block.

    Raises:
        UsageError: The file cannot be read at all.
    """
    loaded, problems = read_pipeline(path, overrides)
    if not loaded.braces_match or (problems and not loaded.message.ListFields()):
        text = "fix these errors first; further checks run after that"
        return [*problems, Problem(Severity.NOTE, "", 0, text, "further-checks")]
    unread = {problem.path for problem in problems if problem.path}

    def is_explained(problem: Problem) -> bool:
        """Returns True if the text has a problem at the same field, or inside a block that is reported as missing."""
        is_missing = problem.code in _MISSING_CODES
        return problem.path in unread or (is_missing and any(path.startswith(f"{problem.path}.") for path in unread))

    return problems + [problem for problem in check_pipeline(loaded, files=files) if not is_explained(problem)]


def check_pipeline(loaded: LoadedPipeline, *, files: bool = True) -> list[Problem]:
    """Returns every problem of a config that could be read: errors, warnings and notes, in the order of its lines.

    With ``files`` label maps, records, checkpoints and weights must exist and agree with the config.
    """
    findings = Findings(loaded.line_of, files=files)
    config = check_limits(loaded.message, findings)
    findings.drop_consequences()
    check_model(config.model, findings.at("model"))
    if config.HasField("train_config"):
        check_training(config, findings)
        check_short_training(config, findings)
    else:
        findings.missing("train_config", "`detzoo train` needs batch_size, optimizer and num_steps")
    if not config.HasField("train_input_reader"):
        findings.missing("train_input_reader", "`detzoo train` needs label_map_path and its records")
    if not config.eval_input_reader:
        text = "is missing; `detzoo evaluate` needs label_map_path and its records"
        findings.warning("eval_input_reader", MISSING, text)
    check_readers(config, findings)
    check_evaluation(config, findings)
    if config.model.WhichOneof("model") not in ACCEPTED_MODELS:
        config.ClearField("model")  # The model is refused as a whole. Its details would only repeat that.
    check_effects(config, findings)
    if not has_errors(findings.problems):
        check_size(config, findings)
    return sorted(findings.problems, key=lambda problem: (problem.line == 0, problem.line))


def require(message: Any, path: str, *rules: Callable[[Any, Findings], None]) -> None:
    """Checks one block, at a path of a config, without the files that it names.

    ``rules`` are checks of the block beyond ranges, effects and what is supported.

    Raises:
        ConfigError: The block has errors; all of them are listed, one per line with the path of their field.
    """
    findings = Findings().at(path)
    message = check_limits(message, findings)
    findings.drop_consequences()
    for rule in rules:
        rule(message, findings)
    check_effects(message, findings)
    errors = [problem for problem in findings.problems if problem.severity is Severity.ERROR]
    if errors:
        raise ConfigError("\n".join(f"{problem.path}: {problem.message}" for problem in errors))
