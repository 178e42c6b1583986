"""Imports only go down the floors, packages on one floor do not import each other, and tf_keras is never touched."""

from __future__ import annotations

import ast
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1] / "detzoo"

# From the lowest floor to the highest one. A package imports packages of lower floors only, and itself.
FLOORS = (
    (
        "config.pb",
        "errors",
        "extras",
        "contracts",
        "provenance",
        "folders",
        "figures",
        "pages",
        "gradients",
        "progress",
        "keras_files",
        "__init__",
    ),
    ("config", "ops", "layers"),
    ("checkpoints", "files"),
    ("data", "features", "necks", "heads", "targets", "losses", "postprocess", "optim"),
    ("datasets", "detectors", "serving", "evaluate"),
    ("builders",),
    ("train", "export", "benchmark", "ensemble", "analyze"),
    ("recipes",),
    ("tasks",),
    ("sweep", "api"),
    ("cli",),
    ("__main__",),
)
FLOOR_OF = {package: number for number, packages in enumerate(FLOORS) for package in packages}


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
            if there not in FLOOR_OF:
                there = "__init__"
            if there != here and FLOOR_OF[there] >= FLOOR_OF[here] and FLOOR_OF[here] > 0:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {here} (floor {FLOOR_OF[here]}) imports {name}")
    assert not wrong, "\n".join(wrong)


def module_of(dotted: str) -> str | None:
    """The module that an imported name is or comes from, None outside of the project."""
    parts = dotted.split(".")
    while parts[0] == "detzoo" and len(parts) > 1:
        path = ROOT.parent.joinpath(*parts)
        if path.with_suffix(".py").exists() or path.is_dir():
            return ".".join(parts)
        parts.pop()
    return None


def test_no_module_imports_itself_through_others():
    imported: dict[str, set[str]] = {}
    for path in files():
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        imported[name] = {module for _, used in imports_of(path) if (module := module_of(used))} - {name}
    # A circle is what is left when modules that import nothing of the rest are removed again and again.
    while leaves := {name for name, used in imported.items() if not used & imported.keys()}:
        imported = {name: used for name, used in imported.items() if name not in leaves}
    circle = {name: sorted(used & imported.keys()) for name, used in imported.items()}
    assert not circle, circle


def test_every_package_has_a_floor():
    packages = {package_of(".".join(p.relative_to(ROOT).with_suffix("").parts)) for p in files()}
    assert packages <= set(FLOOR_OF), packages - set(FLOOR_OF)


def test_tf_keras_is_never_imported_and_model_garden_only_by_train():
    wrong = []
    for path in files():
        here = package_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for line, name in imports_of(path):
            root = name.split(".")[0]
            if root == "tf_keras" or (root in ("orbit", "official") and here != "train"):
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {name}")
    assert not wrong, "\n".join(wrong)


def test_generated_messages_are_for_config_builders_and_sweep_files_only():
    wrong = []
    for path in files():
        here = package_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for line, name in imports_of(path):
            if name.startswith("detzoo.config.pb") and here not in ("config", "config.pb", "builders", "sweep"):
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {name}")
    assert not wrong, "\n".join(wrong)
