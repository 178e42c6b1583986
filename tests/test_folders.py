"""Folders for results are made, or refused with the flag that named them."""

from __future__ import annotations

import errno
import os
import pathlib
import re
import socket
import subprocess
import sys

import pytest
import tensorflow as tf

from detzoo.cli.main import main
from detzoo.errors import DataError, DiskFullError, UsageError
from detzoo.folders import draft_of, full_disk, make_folder, reserved, write_atomically


def test_a_folder_and_those_above_it_are_made(tmp_path):
    assert make_folder(tmp_path / "a" / "b", "--output_dir").is_dir()
    assert make_folder(tmp_path / "a" / "b", "--output_dir").is_dir()  # again


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match=r"^--model_dir .*/file/run cannot be made: Not a directory$"):
        make_folder(tmp_path / "file" / "run", "--model_dir")


def test_a_folder_without_write_permission_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # the superuser may write anywhere
    with pytest.raises(UsageError, match=r"^--output_dir .* cannot be written to$"):
        make_folder(tmp_path, "--output_dir")


@pytest.mark.parametrize(
    "words",
    [
        ["benchmark", "--saved_model=model", "--output={file}/rows.csv"],
        ["dataset", "inspect", "--input_path=x", "--output_dir={file}/look"],
    ],
)
def test_commands_try_the_folder_before_the_work(words, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert main([word.format(file=tmp_path / "file") for word in words]) == 2
    told = capsys.readouterr().err
    assert re.search("cannot be made: (Not a directory|File exists)", told)
    assert "Traceback" not in told


def test_a_full_disk_is_recognized_wherever_it_shows(tmp_path):
    of_tensorflow = tf.errors.ResourceExhaustedError(
        None,
        None,
        "{{function_node __wrapped__SaveV2_device_/job:localhost/task:0/device:CPU:0}} "
        f"{tmp_path}/gone/ckpt-4_temp/part-0.tempstate1; No space left on device [Op:SaveV2]",
    )
    free = re.escape(f": {tmp_path} has ") + r"[\d,.]+ MB \([\d,]+ bytes\) free"
    for problem in (of_tensorflow, OSError(errno.ENOSPC, "No space", str(tmp_path / "gone" / "file"))):
        assert re.match(rf"the disk is full \(No space left on device\){free}\. Free some", str(full_disk(problem)))
    quota = full_disk(OSError(errno.EDQUOT, "x"), tmp_path / "file", needed_bytes=2_500_000)
    assert re.match(
        rf"the disk is full \(Disk quota exceeded\){free}; 2\.5 MB \(2,500,000 bytes\) were to be", str(quota)
    )
    wrapped = DataError("cannot write to records")
    wrapped.__context__ = of_tensorflow  # as if it is raised while the other is handled
    assert isinstance(full_disk(wrapped), DiskFullError)


def test_other_problems_are_no_full_disk():
    memory = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[9,9]")
    for problem in (memory, MemoryError(), OSError(errno.EACCES, "Permission denied"), ValueError("No space")):
        assert full_disk(problem) is None


def test_a_file_is_written_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "run.json"
    write_atomically(file, "before")

    def fail(self, content):
        with self.open("wb") as stream:
            stream.write(content[:2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "write_bytes", fail)
        with pytest.raises(OSError, match="No space left"):
            write_atomically(file, "after")
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]
    write_atomically(file, b"\x00bytes")
    assert file.read_bytes() == b"\x00bytes"


def test_a_draft_takes_the_place_of_its_file_at_the_end_of_the_block(tmp_path):
    file = tmp_path / "maps.npz"
    with draft_of(file) as draft:
        draft.write_bytes(b"whole")
        assert draft.name.startswith(".maps.npz.")
        assert not file.exists()
    assert file.read_bytes() == b"whole"


def test_a_draft_is_removed_where_its_block_raises(tmp_path):
    file = tmp_path / "maps.npz"
    file.write_bytes(b"whole")

    def interrupted():
        with draft_of(file, "partial") as draft:
            draft.write_bytes(b"ha")
            assert draft == tmp_path / ".maps.npz.partial"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        interrupted()
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_bytes() == b"whole"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_results_that_cannot_be_printed_are_a_failure():
    command = [sys.executable, "-m", "detzoo", "--version"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=600)
    assert done.returncode == 1
    assert done.stderr.startswith("detzoo: the disk is full (No space left on device)")
    assert len(done.stderr.splitlines()) == 1


HOLD = """
import sys, time
from detzoo.folders import reserved
with reserved(sys.argv[1], "--model_dir"):
    print("held", flush=True)
    time.sleep(3600)
"""


def test_a_reserved_folder_is_refused_until_its_process_ends_however_it_ends(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        message = rf"--model_dir {tmp_path} is in use by process {holder.pid} on {socket.gethostname()}, started 20"
        with pytest.raises(UsageError, match=message), reserved(tmp_path, "--model_dir"):
            pass
    finally:
        holder.kill()
        holder.communicate(timeout=600)
    with reserved(tmp_path, "--model_dir"), pytest.raises(UsageError, match=f"process {os.getpid()} on"):
        reserved(tmp_path, "--model_dir").__enter__()
    with reserved(tmp_path, "--model_dir"):
        pass  # given back
