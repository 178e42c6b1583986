"""Tests of training in separate processes: two workers of a cluster, and kill -9."""

from __future__ import annotations

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

SCRIPT = pathlib.Path(__file__).resolve().parent / "training_toy.py"
# Runs SCRIPT as the command line runs a training: without packages that Keras alone would import.
PROGRAM = """
import runpy, sys
from detzoo.tasks.start import start_without_unused_packages
start_without_unused_packages()
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
ENVIRONMENT = {
    **os.environ,
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "-1",
    "PYTHONPATH": str(SCRIPT.parents[2]),
}


def start(strategy, num_steps, *model_dirs, **environment):
    command = [sys.executable, "-c", PROGRAM, str(SCRIPT), strategy, str(num_steps), *map(str, model_dirs)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env={**ENVIRONMENT, **environment}, **pipes)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for opened in sockets:
        opened.bind(("localhost", 0))
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def run_two_workers(folders, **environment):
    """Starts both, waits for both; ``folders`` of each. Returns the processes and their (stdout, stderr)."""
    workers = [f"localhost:{port}" for port in free_ports(2)]
    tasks = [{"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}} for index in range(2)]
    processes = [
        start("multi_worker", 6, *own, TF_CONFIG=json.dumps(task), **environment) for own, task in zip(folders, tasks)
    ]
    try:
        return processes, [process.communicate(timeout=600) for process in processes]
    finally:
        for process in processes:
            process.kill()


def test_two_workers_compute_what_one_device_does(training_toy, one_device, tmp_path):
    trainer = training_toy.make_trainer(one_device, batch_norm="frozen")
    first_loss = trainer.run_steps(1).losses["total"]
    trainer.run_steps(5)
    processes, outputs = run_two_workers([[tmp_path], [tmp_path]])
    for process, (out, err) in zip(processes, outputs):
        assert process.returncode == 0, err[-2000:]
        lines = dict(line.split(" ", 1) for line in out.replace("first loss", "loss").splitlines() if " " in line)
        np.testing.assert_allclose(float(lines["loss"]), first_loss, rtol=1e-5)
        step, finished, kernel = lines["outcome"].split()
        assert (step, finished) == ("6", "True")
        expected = float(trainer.model_variables["head/classes/kernel"].numpy().sum())
        np.testing.assert_allclose(float(kernel), expected, rtol=1e-3, atol=1e-4)
    # The chief alone reports and saves.
    assert "step 6/6" in outputs[0][1]
    assert "step 6/6" not in outputs[1][1]
    assert (tmp_path / "ckpt-6.index").is_file()
    # Three images of the first worker and two of the second, in the order of the records.
    assert "evaluation at step 6: mAP 0.0123" in outputs[0][1]
    assert "mAP" not in outputs[1][1]


@pytest.mark.slow
def test_a_worker_that_cannot_evaluate_fails_the_evaluation_of_all(tmp_path):
    processes, outputs = run_two_workers([[tmp_path], [tmp_path]], FAILING_WORKER="1")
    for process, (_, err) in zip(processes, outputs):
        assert process.returncode == 1
        assert err.count("the evaluation at step") == 3, err[-2000:]  # of steps 2, 4 and 6: training continues
        assert "worker 1: ValueError: no detections" in err
    assert (tmp_path / "ckpt-6.index").is_file()


@pytest.mark.slow
def test_parameter_servers_train_with_a_killed_worker(training_toy, one_device, tmp_path):
    addresses = [f"localhost:{port}" for port in free_ports(4)]
    cluster = {"chief": addresses[:1], "ps": addresses[1:2], "worker": addresses[2:]}
    roles = [("chief", 0), ("ps", 0), ("worker", 0), ("worker", 1)]
    tasks = [{"cluster": cluster, "task": {"type": role, "index": index}} for role, index in roles]
    chief, *others = [start("parameter_server", 60, tmp_path, TF_CONFIG=json.dumps(task)) for task in tasks]
    try:
        while not list(tmp_path.glob("ckpt-*.index")) and chief.poll() is None:
            time.sleep(0.1)
        others[-1].send_signal(signal.SIGKILL)
        out, err = chief.communicate(timeout=600)
        assert chief.returncode == 0, err[-2000:]
        assert re.search(r"^outcome 60 True", out, re.MULTILINE)
        for process in others[:-1]:  # they end with the chief
            _, errors = process.communicate(timeout=600)
            assert process.returncode == 0, errors[-2000:]
    finally:
        for process in (chief, *others):
            process.kill()
    trainer = training_toy.make_trainer(one_device, batch_norm="frozen")
    before = trainer.run_steps(1).losses["total"]
    from detzoo.train.saving import RunCheckpoints

    assert RunCheckpoints(tmp_path, trainer).restore_latest() == 60
    # Two workers had half of the records each, four per step.
    assert 4 * 60 <= int(trainer.next_record) <= 2 * 4 * 60
    assert trainer.run_steps(1).losses["total"] < 0.8 * before


def saved_toy(training_toy, one_device, folder, num_steps):
    training_toy.run_to_end(folder, one_device, training_toy.settings(num_steps=num_steps), batch_norm="frozen")


# Step of each worker's checkpoint, variables of the second worker, message.
REFUSED = [
    ((5, None), {}, r"different steps: worker 0 \(.*, .*/0\) resumes from step 5; worker 1 \(.*, .*/1\) has no"),
    ((5, 10), {}, r"worker 0 .* resumes from step 5; worker 1 .* resumes from step 10\. --model_dir must be one"),
    ((None, None), {"BATCH_SIZE": "8"}, r"train_config\.batch_size: 4 on worker 0 .*, 8 on worker 1"),
    ((5, 5), {"SHIFT": "1.0"}, r"different weights: worker 0 .* has the checksum \w+; worker 1 .* checksum \w+"),
]


@pytest.fixture(scope="module")
def refused(training_toy, tmp_path_factory):
    """Exit code of two workers that tried each of REFUSED, one after another, and (stdout, stderr) of each attempt."""
    folders = [[tmp_path_factory.mktemp("case") / str(index) for _ in REFUSED] for index in range(2)]
    for index, of_worker in enumerate(folders):
        for folder, (steps, second, _) in zip(of_worker, REFUSED):
            folder.mkdir()
            (folder / "environment.json").write_text(json.dumps(second if index else {}))
            if steps[index] is not None:
                saved_toy(training_toy, tf.distribute.OneDeviceStrategy("CPU:0"), folder, steps[index])
    processes, outputs = run_two_workers(folders)
    attempts = [[re.findall(r"(?s)(.*?)^exit (\d)\n", text, re.MULTILINE) for text in streams] for streams in outputs]
    return [process.returncode for process in processes], attempts


@pytest.mark.parametrize("case", range(len(REFUSED)))
@pytest.mark.slow
def test_workers_that_differ_refuse_to_start(refused, case):
    codes, attempts = refused
    assert codes == [1, 1]
    for out, err in attempts:
        assert len(out) == len(err) == len(REFUSED), err
        assert err[case][1] == "1"
        assert re.search(REFUSED[case][2], err[case][0]), err[case][0][-2000:]
        assert "first loss" not in out[case][0]  # nothing was trained


def test_a_killed_run_goes_on_from_its_last_checkpoint(training_toy, one_device, tmp_path):
    process = start("one_device", 1_000_000, tmp_path)
    deadline = time.monotonic() + 600
    while not list(tmp_path.glob("ckpt-*.index")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == -signal.SIGKILL, errors[-2000:]
    trainer = training_toy.make_trainer(one_device, batch_norm="frozen")
    from detzoo.train.saving import RunCheckpoints

    step = RunCheckpoints(tmp_path, trainer).restore_latest()
    assert step >= 5
    assert step % 5 == 0
    assert int(trainer.next_record) == 4 * step
    assert trainer.run_steps(2).step == step + 2
