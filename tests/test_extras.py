"""Compares the extras of pyproject.toml with the imports of detzoo/, and tests the message if one is missing."""

from __future__ import annotations

import ast
import importlib.util
import pathlib
import pkgutil
import re
import sys

import pytest

import detzoo
from detzoo import extras
from detzoo.cli.main import main
from detzoo.errors import UsageError

ROOT = pathlib.Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "model_configs"
PACKAGE_OF = {  # where the name of the package is not that of the module
    "PIL": "pillow",
    "absl": "absl-py",
    "apache_beam": "apache-beam",
    "ai_edge_litert": "ai-edge-litert",
    "cv2": "opencv-contrib-python-headless",
    "faster_coco_eval": "faster-coco-eval",
    "google": "protobuf",
    "orbit": "tf-models-official",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
NOT_IMPORTED = {
    "setuptools": "tensorboard 2.20 imports its pkg_resources",
}


@pytest.fixture(scope="module")
def declared():
    """Packages by extra, "" for those of `pip install detzoo`."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    return {extra: {re.match(r"[\w.-]+", line)[0].lower() for line in lines} for extra, lines in groups.items()}


@pytest.fixture(scope="module")
def imported():
    """(package, file, whether the import stands within a function) of every import of another project in detzoo/."""
    found = set()
    for file in (ROOT / "detzoo").rglob("*.py"):
        tree = ast.parse(file.read_text())
        for parent in ast.walk(tree):
            if isinstance(parent, ast.If) and ast.unparse(parent.test) == "TYPE_CHECKING":
                continue
            for node in ast.iter_child_nodes(parent):
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [node.module]
                else:
                    continue
                for name in names:
                    root = name.split(".")[0]
                    if root not in sys.stdlib_module_names and root not in ("detzoo", "__future__"):
                        package = PACKAGE_OF.get(root, root)
                        found.add((package, file.relative_to(ROOT).as_posix(), parent is not tree))
    return found


def test_pip_install_detzoo_brings_what_is_imported_and_no_more(declared, imported):
    of_extras = set().union(
        *(declared[extra] for extra in ("train", "spp", "video", "track", "onnx", "litert", "openvino", "fast", "beam"))
    )
    assert {package for package, _, _ in imported} - of_extras == declared[""] - set(NOT_IMPORTED)


def test_packages_of_extras_are_imported_where_they_are_used(declared, imported):
    on_demand = ("spp", "video", "track", "onnx", "litert", "openvino", "fast", "beam")
    of_functions = set().union(*(declared[extra] for extra in on_demand))
    of_functions -= {"detzoo", "onnxruntime"}  # the second is imported by require_package
    assert {package for package, _, _ in imported} >= declared["train"] | of_functions
    for package, file, within_function in imported:
        if package in declared["train"]:
            assert file.startswith("detzoo/train/"), (package, file)
        elif package in of_functions:
            assert within_function, (package, file)


def test_every_module_is_imported_with_what_is_installed():
    missing = {}
    for module in pkgutil.walk_packages(detzoo.__path__, "detzoo."):
        try:
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
        except ModuleNotFoundError as problem:
            missing[module.name] = problem.name
    assert set(missing.values()) <= {"orbit"}
    assert all(name.startswith(("detzoo.train.", "detzoo.recipes.")) for name in missing)  # what trains
    assert bool(missing) == (importlib.util.find_spec("orbit") is None)


def test_the_messages_know_the_extras(declared):
    packages = {extra: set(modules.values()) for extra, modules in extras._PACKAGES.items()}
    assert packages["train"] == declared["train"]
    assert packages["video"] == declared["video"]
    assert packages["track"] == declared["video"] | declared["track"] - {"detzoo"}
    assert packages["spp"] | {"opencv-contrib-python-headless"} == declared["spp"]  # selective search has its own


def test_installed_packages_pass_also_where_the_command_line_hides_them(monkeypatch):
    monkeypatch.setattr(extras, "_PACKAGES", {"spp": {"yaml": "PyYAML"}})
    monkeypatch.setitem(sys.modules, "yaml", None)
    extras.require_extras("training", "spp")


@pytest.fixture
def nothing_extra(monkeypatch):
    """As in an environment without extras."""
    missing = {extra: dict.fromkeys(["no_such_module"], f"package-of-{extra}") for extra in ("train", "spp")}
    monkeypatch.setattr(extras, "_PACKAGES", missing)


def test_what_is_missing_is_named_with_its_command(nothing_extra):
    command = f'{sys.executable} -m pip install "detzoo[train,spp]"'
    expected = f"training needs packages that are not installed: package-of-train, package-of-spp. Install: {command}"
    with pytest.raises(UsageError, match=re.escape(expected)):
        extras.require_extras("training", "train", "spp")


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["train", f"--pipeline_config_path={CONFIGS}/shapes_ssd_mobilenet_v1.config"], "train"),
        (["train", f"--pipeline_config_path={CONFIGS}/shapes_spp_net_zf5.config"], "train,spp"),
        (["train_four_step", f"--pipeline_config_path={CONFIGS}/shapes_faster_rcnn_mobilenet_v1.config"], "train"),
    ],
)
def test_commands_that_train_stop_with_one_line(nothing_extra, words, extra, tmp_path, capsys):
    assert main([*words, f"--model_dir={tmp_path / 'run'}"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("detzoo: training needs packages that are not installed: package-of-train")
    assert line.endswith(f'-m pip install "detzoo[{extra}]"')
    assert not list(tmp_path.iterdir())


def test_a_sweep_that_trains_stops_before_its_first_point(nothing_extra, tmp_path, capsys):
    flags = [f"--sweep_config={CONFIGS}/sweeps/quick.sweep", f"--output_dir={tmp_path / 'out'}"]
    assert main(["sweep", *flags]) == 2
    expected = 'needs packages that are not installed: package-of-train. Install: .* -m pip install "detzoo.train."'
    assert re.search(expected, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()
    assert main(["sweep", *flags, "--dry_run"]) == 0
