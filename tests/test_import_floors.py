"""Imports only go down the floors, packages on one floor do not import each other, and tf_keras is never touched."""

from __future__ import annotations

import ast
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1] / "detzoo"

FLOORS = {
    "__init__": 0,
    "errors": 0,
    "contracts": 0,
    "provenance": 0,
    "folders": 0,
    "config.pb": 0,
    "figures": 0,
    "gradients": 0,
    "config": 1,
    "ops": 1,
    "layers": 1,
    "data": 2,
    "features": 2,
    "necks": 2,
    "heads": 2,
    "targets": 2,
    "losses": 2,
    "postprocess": 2,
    "detectors": 3,
    "builders": 4,
    "checkpoints": 4,
    "train": 5,
    "evaluate": 5,
    "export": 5,
    "detect": 5,
    "benchmark": 5,
    "sweep": 5,
    "ensemble": 5,
    "analyze": 5,
    "cli": 6,
    "__main__": 7,
}


def package_of(dotted: str) -> str:
    """The package of FLOORS that ``detzoo.<dotted>`` belongs to."""
    if dotted.startswith("config.pb"):
        return "config.pb"
    return dotted.split(".")[0] or "__init__"


def imports_of(path: pathlib.Path):
    """(line, dotted name) of every import in a file, also those inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def files():
    return sorted(ROOT.rglob("*.py"))


def test_imports_go_down_the_floors():
    wrong = []
    for path in files():
        here = package_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for line, name in imports_of(path):
            if not name.startswith("detzoo."):
                continue
            there = package_of(name.removeprefix("detzoo."))
            if there not in FLOORS:
                there = "__init__"
            if there != here and FLOORS[there] >= FLOORS[here] and FLOORS[here] > 0:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {here} (floor {FLOORS[here]}) imports {name}")
    assert not wrong, "\n".join(wrong)


def test_every_package_has_a_floor():
    packages = {package_of(".".join(p.relative_to(ROOT).with_suffix("").parts)) for p in files()}
    assert packages <= set(FLOORS), packages - set(FLOORS)


def test_tf_keras_is_never_imported_and_model_garden_only_by_train():
    wrong = []
    for path in files():
        here = package_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for line, name in imports_of(path):
            root = name.split(".")[0]
            if root == "tf_keras" or (root in ("orbit", "official") and here != "train"):
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {name}")
    assert not wrong, "\n".join(wrong)


def test_generated_messages_are_known_to_config_and_builders_only():
    wrong = []
    for path in files():
        here = package_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for line, name in imports_of(path):
            if name.startswith("detzoo.config.pb") and here not in ("config", "config.pb", "builders"):
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {name}")
    assert not wrong, "\n".join(wrong)
