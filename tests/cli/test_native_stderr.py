"""Tests of the filter on stderr while TensorFlow is imported, with a stand-in that writes what 2.21 does."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

STAND_IN = r"""
import os
os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
    b"I0000 00:00:1796033525.36 301 port.cc:153] oneDNN custom operations are on.\n"
    b"I0000 00:00:1796033525.37 301 cpu_feature_guard.cc:227] This TensorFlow binary is optimized\n"
    b"To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow.\n"
    b"E0000 00:00:1796033525.38 301 port.cc:9] something is wrong\nno record of absl\n")
"""
PROGRAM = """
import importlib.util, sys
from detzoo.cli.main import quiet_tensorflow
quiet_tensorflow()
quiet_tensorflow()
importlib.util.find_spec("tensorflow")
import tensorflow
print("I0000 written later", file=sys.stderr)
print(sum(type(finder).__module__ == "detzoo.tasks.native_stderr" for finder in sys.meta_path))
"""
WRONG = "E0000 00:00:1796033525.38 301 port.cc:9] something is wrong\nno record of absl\n"


def run(folder, source, level=None):
    (folder / "tensorflow.py").write_text(source)
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": level} if level else {}
    environment["PYTHONPATH"] = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("level", [None, "1", "3"])
def test_notes_of_the_import_are_dropped_and_nothing_else(tmp_path, level):
    done = run(tmp_path, STAND_IN, level)
    assert (done.returncode, done.stderr) == (0, WRONG + "I0000 written later\n")
    assert done.stdout == "0\n"  # the finder has gone


def test_a_user_who_asks_for_them_gets_them(tmp_path):
    assert run(tmp_path, STAND_IN, "0").stderr.count("\n") == 7


def test_a_failed_import_shows_everything_but_the_notes(tmp_path):
    done = run(tmp_path, STAND_IN + "raise ImportError('no such library')")
    assert done.returncode == 1
    assert done.stderr.startswith(WRONG)
    assert "ImportError: no such library" in done.stderr
