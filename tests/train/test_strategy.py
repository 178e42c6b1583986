"""Tests of the choice of a strategy by name and environment."""

from __future__ import annotations

import json
import signal
import time

import pytest
import tensorflow as tf

from detzoo.errors import TrainingError, UsageError
from detzoo.train import strategy as strategy_module
from detzoo.train import workers as workers_module
from detzoo.train.strategy import create_strategy, is_chief, num_workers, workers_of_environment
from detzoo.train.workers import check_data_service


def test_auto_without_gpus_is_one_device(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    strategy = create_strategy("auto", device_type="CPU")
    assert isinstance(strategy, tf.distribute.OneDeviceStrategy)
    assert (num_workers(strategy), is_chief(strategy)) == (1, True)


def test_mirrored_takes_all_devices(two_cpus):
    strategy = create_strategy("mirrored", device_type="CPU")
    assert strategy.num_replicas_in_sync == len(two_cpus)
    assert is_chief(strategy)


def test_errors_say_what_is_accepted(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(UsageError, match="'tpu' is not known; accepted: auto, one_device, mirrored, multi_worker"):
        create_strategy("tpu")
    with pytest.raises(UsageError, match=r"needs the environment variable TF_CONFIG, for example '\{\"cluster\""):
        create_strategy("multi_worker")


WORKERS = {"worker": ["a:1", "b:2"]}
FIRST = {"type": "worker", "index": 0}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("worker 1", r"is not a JSON object: .*received: worker 1"),
        ("[" * 100_000, r"is not a JSON object: "),
        ([1], "is not a JSON object: it is a list"),
        ({"task": FIRST}, 'names no "cluster"'),
        ({"cluster": ["a:1"], "task": FIRST}, 'names no "cluster"'),
        ({"cluster": WORKERS}, 'names no "task"'),
        (
            {"cluster": {**WORKERS, "ps": ["c:3"]}, "task": FIRST},
            'has the role "ps": parameter servers train asynchronously, with --strategy parameter_server',
        ),
        ({"cluster": WORKERS, "task": {"type": "ps", "index": 0}}, 'has the role "ps"'),
        ({"cluster": WORKERS, "task": {"type": "evaluator", "index": 0}}, "run `detzoo evaluate --continuous` on that"),
        (
            {"cluster": {**WORKERS, "master": ["c:3"]}, "task": FIRST},
            'role "master": that is TensorFlow 1',
        ),
        ({"cluster": {**WORKERS, "boss": ["c:3"]}, "task": FIRST}, 'role "boss": the roles are "worker" and "chief"'),
        ({"cluster": WORKERS, "task": {"index": 0}}, "has the role null"),
        ({"cluster": {"worker": []}, "task": FIRST}, "names no address of any machine"),
        (
            {"cluster": {"chief": ["a:1", "c:3"], **WORKERS}, "task": FIRST},
            "names (an address twice|more than one chief)",
        ),
        ({"cluster": {"chief": ["c:3", "d:4"], **WORKERS}, "task": FIRST}, "names more than one chief"),
        ({"cluster": WORKERS, "task": {"type": "chief", "index": 0}}, 'is a "chief", which its cluster does not have'),
        (
            {"cluster": WORKERS, "task": {"type": "worker", "index": 2}},
            "task index 2: the workers .* are 0 to 1",
        ),
        ({"cluster": WORKERS, "task": {"type": "worker", "index": -1}}, "has the task index -1"),
        ({"cluster": WORKERS, "task": {"type": "worker", "index": "1"}}, 'has the task index "1"'),
        (
            {"cluster": {"worker": ["a", "b:2"]}, "task": FIRST},
            'as the addresses of "worker": it takes a list',
        ),
        ({"cluster": {"worker": "a:1,b:2"}, "task": FIRST}, r'as the addresses of "worker"'),
        ({"cluster": {"worker": ["a:1", "a:1"]}, "task": FIRST}, "names an address twice"),
    ],
)
def test_clusters_that_cannot_train_are_refused_with_the_reason(monkeypatch, config, message):
    monkeypatch.setenv("TF_CONFIG", config if isinstance(config, str) else json.dumps(config))
    for name in ("auto", "multi_worker"):
        with pytest.raises(UsageError, match=rf"TF_CONFIG .*{message}(.|\n)*unset it to train on this machine alone$"):
            create_strategy(name)


SERVERS = {"chief": ["a:1"], "ps": ["b:1"], "worker": ["c:1"]}


@pytest.mark.parametrize(
    ("cluster", "role", "message"),
    [
        (SERVERS, "evaluator", 'has the role "evaluator"'),
        ({**SERVERS, "ps": []}, "worker", "which has no 'ps'; for example"),
        ({"worker": ["c:1"]}, "worker", "which has no 'chief' and no 'ps'"),
        (None, "", "which has no 'chief' and no 'ps' and no 'worker'"),
    ],
)
def test_a_cluster_of_parameter_servers_has_all_roles(monkeypatch, cluster, role, message):
    config = {"cluster": cluster, "task": {"type": role, "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config) if cluster else "")
    with pytest.raises(UsageError, match=message):
        create_strategy("parameter_server")


@pytest.mark.parametrize(
    ("config", "count"),
    [
        ({"cluster": WORKERS, "task": FIRST}, 2),
        ({"cluster": {"chief": ["c:3"], **WORKERS}, "task": FIRST}, 3),
        ({"cluster": {"chief": ["c:3"]}, "task": {"type": "chief", "index": 0}}, 1),  # a managed job of one machine
    ],
)
def test_workers_are_counted_with_the_chief(monkeypatch, config, count):
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert workers_of_environment() == count


def test_a_worker_waits_for_the_others_and_says_for_whom(monkeypatch, caplog):
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"chief": ["c:3"], **WORKERS}, "task": FIRST}))
    monkeypatch.setattr(strategy_module, "SECONDS_BETWEEN_REPORTS", 0.01)

    def wait_for_the_cluster():
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # TensorFlow does not return to Python
        time.sleep(0.2)

    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", wait_for_the_cluster)
    caplog.set_level("INFO")
    before = signal.getsignal(signal.SIGTERM)
    create_strategy("multi_worker")
    assert signal.getsignal(signal.SIGTERM) is before
    assert "still waiting for the other workers: c:3, b:2. Did one of them refuse to start?" in caplog.text


def test_a_data_service_without_a_worker_or_a_dispatcher_is_an_error(monkeypatch):
    monkeypatch.setattr(workers_module, "SERVICE_SECONDS", 0.1)
    monkeypatch.setattr(workers_module, "_LOOK_SECONDS", 1.0)
    service = tf.data.experimental.service
    dispatcher = service.DispatchServer()
    address = f"grpc://localhost:{dispatcher.target.rpartition(':')[2]}"
    with pytest.raises(TrainingError, match=rf"the dispatcher at {address} has no worker after 0\.1 s; start it"):
        check_data_service(address)
    monkeypatch.setattr(workers_module, "SERVICE_SECONDS", 60)
    worker = service.WorkerServer(service.WorkerConfig(dispatcher_address=address.removeprefix("grpc://")))
    check_data_service(address)
    worker._stop()
    dispatcher._stop()
    check_data_service("")
    for absent in (address, "grpc://localhost"):
        with pytest.raises(TrainingError, match=rf"data_service: no dispatcher answers at {absent}; start it"):
            check_data_service(absent)
