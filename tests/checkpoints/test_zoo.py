"""Archives by name: download, unpacking, cache, and everything that can be wrong with them."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import logging
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import time
import types

import numpy as np
import pytest

from detzoo.checkpoints import zoo
from detzoo.checkpoints.files import best_instead, latest_prefix
from detzoo.config.zoo import ARCHIVES, COCO_CLASSES
from detzoo.errors import CheckpointError, DiskFullError, UsageError


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No server, and the folder of an empty cache."""
    monkeypatch.setenv("DETZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DETZOO_ZOO_URL", "http://127.0.0.1:9")  # the port "discard", where nothing listens
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


@pytest.fixture
def log(caplog, monkeypatch):
    """Warnings, also after a test of the command line has configured the logger."""
    monkeypatch.setattr(logging.getLogger("detzoo"), "propagate", True)
    caplog.set_level(logging.WARNING)
    return caplog


def wait_for(log, text, count):
    """Returns when ``count`` messages have the text; threads that wait for a lock look again after 0.05 s."""
    end = time.monotonic() + 60
    while log.text.count(text) < count:
        assert time.monotonic() < end, log.text
        time.sleep(0.01)


def left_in(cache):
    return sorted(entry.name for entry in cache.iterdir() if not entry.name.endswith(".lock"))


def test_an_archive_is_downloaded_once_and_recorded(server, archives, tmp_path, capsys):
    folder = zoo.fetch(archives.NAME)
    assert folder == tmp_path / "cache" / archives.NAME
    for name, content in archives.FILES.items():
        assert (folder / name).read_bytes() == content
    assert left_in(folder.parent) == [archives.NAME, f"{archives.NAME}.json"]
    record = json.loads((folder.parent / f"{archives.NAME}.json").read_text())
    assert record["address"] == server.url + archives.ADDRESS
    assert record["sha256"] == hashlib.sha256(server.content).hexdigest()
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in archives.FILES.items()}
    assert {name: digest for name, digest in record["files"].items() if name != "label_map.pbtxt"} == digests
    assert zoo.size_of(archives.NAME) == sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert zoo.fetch(archives.NAME) == folder
    assert server.requests == [archives.ADDRESS]
    shown = capsys.readouterr()
    assert shown.out == ""  # stdout is for results
    assert server.url + archives.ADDRESS in shown.err


def test_paths_of_the_zoo(server, archives, tmp_path):
    folder = tmp_path / "cache" / archives.NAME
    assert zoo.local("zoo://" + archives.NAME) == str(folder / "checkpoint")
    assert zoo.local(pathlib.Path("zoo://" + archives.NAME), "saved_model") == str(folder / "saved_model")
    assert zoo.local("zoo://" + archives.NAME, "") == str(folder)
    assert zoo.local(f"zoo://{archives.NAME}/") == str(folder / "checkpoint")
    for other in ("runs/my", "gs://bucket/zoo://x", "zoo", "/zoo:/x", ""):
        assert zoo.local(other) == other
    assert best_instead("zoo://" + archives.NAME, 1, "--checkpoint_dir") == ""
    with pytest.raises(CheckpointError, match="is damaged or incomplete"):  # opened, and no checkpoint
        latest_prefix("zoo://" + archives.NAME)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ssd_mobilenet_v2_320", "did you mean .*'ssd_mobilenet_v2_320x320_coco17_tpu-8'"),
        ("efficientdet_d0", "the archive of this config is 'efficientdet_d0_coco17_tpu-32'"),
        ("", "the zoo has no archive ''"),
        ("../../etc", "the zoo has no archive"),
    ],
)
def test_names_that_cannot_be_used(server, name, message):
    with pytest.raises(UsageError, match=message):
        zoo.local("zoo://" + name)
    assert not server.requests


def test_files_that_changed_are_refused(server, archives):
    folder = zoo.fetch(archives.NAME)
    data = folder / "checkpoint" / "ckpt-0.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match=r"data-00000-of-00001 has changed since .*; delete the folder"):
        zoo.fetch(archives.NAME)
    data.unlink()
    with pytest.raises(CheckpointError, match=r"data-00000-of-00001 is missing; delete the folder"):
        zoo.fetch(archives.NAME)
    shutil.rmtree(folder)
    assert zoo.fetch(archives.NAME) == folder
    assert data.read_bytes() == archives.FILES["checkpoint/ckpt-0.data-00000-of-00001"]


def test_an_archive_of_tensorflow_1(offline, archives):
    name = "rfcn_resnet101_coco_2018_01_28"
    files = ("checkpoint", "model.ckpt.index", "model.ckpt.data-00000-of-00001", "model.ckpt.meta", "pipeline.config")
    packed = archives.packed([(f"{name}/{file}", b"x") for file in (*files, "saved_model/saved_model.pb")])
    (offline / f"{name}.tar.gz").write_bytes(packed)
    assert zoo.local(f"zoo://{name}") == str(offline / name)
    assert zoo.local(f"zoo://{name}", "saved_model") == str(offline / name / "saved_model")
    assert (offline / name / "label_map.pbtxt").is_file()


def test_another_archive_than_the_first_is_refused(server, archives, tmp_path):
    shutil.rmtree(zoo.fetch(archives.NAME))
    server.content = archives.archive(("other/file", b""), top="other")
    record = tmp_path / "cache" / f"{archives.NAME}.json"
    with pytest.raises(
        CheckpointError, match=r"is not the archive of the first download: its SHA-256 is .*delete .*json"
    ):
        zoo.fetch(archives.NAME)
    assert left_in(tmp_path / "cache") == [record.name]
    record.write_text("{")
    with pytest.raises(CheckpointError, match=r"json cannot be read .*delete it"):
        zoo.fetch(archives.NAME)
    record.unlink()
    assert (zoo.fetch(archives.NAME) / "pipeline.config").is_file()


def test_a_download_that_breaks_off_starts_again(server, archives, log):
    server.break_off = 2
    folder = zoo.fetch(archives.NAME)
    assert len(server.requests) == 3
    assert (folder / "checkpoint/ckpt-0.index").read_bytes() == b"index"
    assert log.text.count("broke off (retrieval incomplete") == 2


def broken_three_times(server):
    server.break_off = 3


def ends_early_without_a_length(server):
    server.break_off, server.states_length = 3, False


def truncated_on_the_server(server):
    server.content = server.content[:-20]  # only the checksum is missing


def a_page_of_a_hotel(server):
    server.content = b"<html>Log in to use the network</html>"


def missing(server):
    server.content = None


def resets_connections(server):
    server.before_answer = lambda: (_ for _ in ()).throw(ConnectionAbortedError)


@pytest.mark.parametrize(
    ("fault", "message", "requests"),
    [
        (broken_three_times, r"cannot be downloaded \(retrieval incomplete: got only", 3),
        (ends_early_without_a_length, r"gz is damaged or incomplete \(Compressed file ended before", 1),
        (truncated_on_the_server, r"gz is damaged or incomplete \(", 1),
        (a_page_of_a_hotel, r"gz is damaged or incomplete \(Not a gzipped file", 1),
        (missing, r"cannot be downloaded \(HTTP Error 404: Not Found\)", 1),
        (resets_connections, r"cannot be downloaded \(Remote end closed connection", 3),
    ],
)
def test_a_broken_download_leaves_nothing(server, archives, tmp_path, fault, message, requests):
    fault(server)
    with pytest.raises(CheckpointError, match=message) as caught:
        zoo.fetch(archives.NAME)
    assert server.url + archives.ADDRESS in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(server.requests) == requests
    assert left_in(tmp_path / "cache") == []


def test_a_server_that_does_not_answer_is_given_up(server, archives, tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "_TIMEOUT_SECONDS", 0.2)
    ended = threading.Event()
    server.before_answer = ended.wait
    with pytest.raises(CheckpointError, match=r"cannot be downloaded \(.*timed out\): fetch http"):
        zoo.fetch(archives.NAME)
    ended.set()
    assert len(server.requests) == 1
    assert left_in(tmp_path / "cache") == []


def test_without_a_connection_a_file_put_by_hand_is_used(offline, archives):
    with pytest.raises(CheckpointError, match="Connection refused") as caught:
        zoo.fetch(archives.NAME)
    address = f"http://127.0.0.1:9{archives.ADDRESS}"
    assert f"fetch {address} with another program or on another machine and put the file into {offline};" in str(
        caught.value
    )
    given = offline / f"{archives.NAME}.tar.gz"
    given.write_bytes(archives.archive()[:-400])
    with pytest.raises(CheckpointError, match=r"tar\.gz is damaged or incomplete .*; download it again"):
        zoo.fetch(archives.NAME)
    given.write_bytes(archives.archive(top="another_name"))  # as some archives of the zoo have
    folder = zoo.fetch(archives.NAME)
    assert (folder / "pipeline.config").read_bytes() == b"model { }\n"
    assert given.is_file()
    record = json.loads((offline / f"{archives.NAME}.json").read_text())
    assert record["sha256"] == hashlib.sha256(given.read_bytes()).hexdigest()


def test_a_folder_put_by_hand_is_used_and_recorded(offline, archives):
    for name, content in archives.FILES.items():
        file = offline / archives.NAME / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    assert zoo.fetch(archives.NAME) == offline / archives.NAME
    (offline / archives.NAME / "pipeline.config").write_text("")
    with pytest.raises(CheckpointError, match=r"pipeline\.config has changed"):
        zoo.fetch(archives.NAME)


def special(name, kind, link="", size=0):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


HOSTILE = {
    "parent": (("top/../../evil", b""), "leads out of the archive"),
    "absolute": (("/evil", b""), "leads out of the archive"),
    "windows": (("top/..\\..\\evil", b""), "leads out of the archive"),
    "drive": (("top/C:evil", b""), "leads out of the archive"),
    "symbolic link": (special("top/link", tarfile.SYMTYPE, "/etc"), "is a link"),
    "hard link": (special("top/link", tarfile.LNKTYPE, "../../evil"), "is a link"),
    "device": (special("top/null", tarfile.CHRTYPE), "a device"),
    "pipe": (special("top/pipe", tarfile.FIFOTYPE), "a device"),
    "two folders": (("other/file", b""), "is not one folder with a checkpoint/"),
    "twice": (("top/pipeline.config", b"other"), "File exists"),
    "bomb": (special("top/zeros", tarfile.REGTYPE, size=3 * 2**20), "expands to more bytes"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused(server, archives, tmp_path, monkeypatch, name):
    member, message = HOSTILE[name]
    server.content = archives.archive(member, top="top")
    monkeypatch.setattr(zoo, "_RATIO_FREE_BYTES", 2**20)
    with pytest.raises(CheckpointError, match=message):
        zoo.fetch(archives.NAME)
    assert left_in(tmp_path / "cache") == []
    assert not (tmp_path / "evil").exists()
    assert not pathlib.Path("/evil").exists()


def test_bombs_in_headers_and_in_numbers_are_refused(server, archives, monkeypatch):
    monkeypatch.setattr(zoo, "_RATIO_FREE_BYTES", 2**20)
    header = special("top/long", tarfile.GNUTYPE_LONGNAME, size=3 * 2**20)
    server.content = archives.archive(header, top="top")
    with pytest.raises(CheckpointError, match="expands to more bytes"):
        zoo.fetch(archives.NAME)
    monkeypatch.setattr(zoo, "_MAX_FILES", 5)
    server.content = archives.archive(("top/more", b""), top="top")
    with pytest.raises(CheckpointError, match="more than 5 files"):
        zoo.fetch(archives.NAME)


def test_a_sparse_file_is_refused(server, archives, tmp_path):
    # A sparse file of 2**40 bytes takes one block in the archive: its header has the size in the PAX records.
    info = tarfile.TarInfo("top/sparse")
    info.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.size": str(2**40),
        "GNU.sparse.map": "0,0",
    }
    server.content = archives.packed([info], format=tarfile.PAX_FORMAT)
    with pytest.raises(CheckpointError, match="a sparse file"):
        zoo.fetch(archives.NAME)


def test_one_thread_downloads_and_the_others_wait(server, archives, log):
    found, arrived = [], threading.Event()

    def fetch():
        found.append(zoo.fetch(archives.NAME))

    server.before_answer = arrived.wait
    threads = [threading.Thread(target=fetch) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_for(log, "waiting for another process", 2)
    arrived.set()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 3
    assert server.requests == [archives.ADDRESS]


def test_another_process_is_waited_for(server, archives, tmp_path, log):
    cache = tmp_path / "cache"
    cache.mkdir()
    program = (
        "import filelock, sys\n"
        f"with filelock.FileLock({str(cache / f'.{archives.NAME}.lock')!r}):\n"
        "    print('locked', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"locked\n"
        thread = threading.Thread(target=zoo.fetch, args=(archives.NAME,))
        thread.start()
        wait_for(log, "waiting for another process", 1)
        assert not server.requests
        other.kill()  # the lock ends with its process
    thread.join()
    assert left_in(cache) == [archives.NAME, f"{archives.NAME}.json"]


def test_remains_of_a_killed_process_are_removed(server, archives, tmp_path):
    remains = tmp_path / "cache" / f".{archives.NAME}.part"
    remains.mkdir(parents=True)
    (remains / f"{archives.NAME}.tar.gz").write_bytes(server.content[:100])
    assert (zoo.fetch(archives.NAME) / "pipeline.config").is_file()
    assert not remains.exists()


def test_a_cache_that_cannot_be_written_to(offline, archives, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DETZOO_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UsageError, match=r"the cache \(DETZOO_CACHE\) .*/file/cache cannot be made: Not a directory"):
        zoo.fetch(archives.NAME)
    monkeypatch.setenv("DETZOO_CACHE", str(offline))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UsageError, match=r"the cache \(DETZOO_CACHE\) .*/cache cannot be written to"):
        zoo.fetch(archives.NAME)


def test_a_read_only_cache_with_the_files_is_used(server, archives, monkeypatch):
    folder = zoo.fetch(archives.NAME)

    def refuse(*arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    (folder.parent / f"{archives.NAME}.json").unlink()
    for owner, name in ((pathlib.Path, "mkdir"), (pathlib.Path, "rename"), (zoo, "write_atomically")):
        monkeypatch.setattr(owner, name, refuse)
    assert zoo.fetch(archives.NAME) == folder


@pytest.mark.parametrize("where", ["detzoo.checkpoints.zoo.track", "shutil.copyfileobj"])
def test_a_full_disk(server, archives, monkeypatch, tmp_path, where):
    def fill(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(where, fill)
    with pytest.raises(DiskFullError, match="the disk is full"):
        zoo.fetch(archives.NAME)
    assert left_in(tmp_path / "cache") == []


def test_progress_outside_a_terminal_is_a_line_per_interval(server, archives, monkeypatch, capsys):
    content = os.urandom(1_900_000)
    server.content = archives.archive((f"{archives.NAME}/saved_model/variables", content))
    zoo.fetch(archives.NAME)
    assert " MB" not in capsys.readouterr().err  # faster than the first interval
    shutil.rmtree(zoo.cache_folder())
    monkeypatch.setattr("detzoo.progress.SECONDS_BETWEEN_LINES", 0.0)
    zoo.fetch(archives.NAME)
    shown = capsys.readouterr().err
    assert f"{archives.NAME}: 2 of 2 MB, " in shown
    assert "\x1b" not in shown
    assert "\b" not in shown


@pytest.mark.parametrize(
    ("platform", "variables", "folder"),
    [
        ("linux", {}, "/home/me/.cache/detzoo/zoo"),
        ("linux", {"XDG_CACHE_HOME": "/scratch/me"}, "/scratch/me/detzoo/zoo"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "/home/me/.cache/detzoo/zoo"),
        ("darwin", {"XDG_CACHE_HOME": "/scratch/me"}, "/home/me/Library/Caches/detzoo/zoo"),
        ("win32", {"LOCALAPPDATA": "/home/me/AppData/Local"}, "/home/me/AppData/Local/detzoo/zoo"),
        ("win32", {}, "/home/me/AppData/Local/detzoo/zoo"),
        ("linux", {"DETZOO_CACHE": "/shared/weights"}, "/shared/weights"),
        ("linux", {"DETZOO_CACHE": "~/weights"}, "/home/me/weights"),
    ],
)
def test_the_cache_is_where_the_platform_keeps_caches(monkeypatch, platform, variables, folder):
    for name in ("DETZOO_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(zoo, "sys", types.SimpleNamespace(platform=platform))
    assert zoo.cache_folder() == pathlib.Path(folder)


def test_the_published_server_is_the_default(monkeypatch):
    monkeypatch.delenv("DETZOO_ZOO_URL", raising=False)
    published = (
        "http://download.tensorflow.org/models/object_detection/tf2/20200711/efficientdet_d0_coco17_tpu-32.tar.gz"
    )
    assert zoo.address_of("efficientdet_d0_coco17_tpu-32") == published


def test_names_need_no_tensorflow():
    program = "import sys, detzoo.checkpoints.zoo, detzoo.config.zoo; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.shared
def test_the_table_is_that_of_the_published_zoo(shared, monkeypatch):
    monkeypatch.delenv("DETZOO_ZOO_URL", raising=False)
    with (shared / "zoo.csv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert sorted(zoo.names()) == sorted(rows)
    for name, archive in ARCHIVES.items():
        row = rows[name]
        assert (archive.published_map, str(archive.published_ms or "")) == (row["published_map"], row["published_ms"])
        assert zoo.address_of(name) == row["address"]
        assert archive.trained_on == row["trained_on"]


@pytest.mark.shared
def test_the_classes_are_those_of_the_published_label_map(shared):
    from detzoo.config.label_map import load_label_map

    published = load_label_map(shared / "configs" / "label_maps" / "mscoco_label_map.pbtxt")
    assert published.display_names == COCO_CLASSES


# Fields that change no variable and no layer. The box head's dropout is off in inference.
HARMLESS = (
    *(
        "image_resizer",
        "pretrained_weights",
        "fc_hyperparams.op",
        "dropout_keep_probability",
        "use_matmul",
        "use_static",
    ),
    # The only convolutions with these hyperparameters are the predictors, which are not normalized.
    "box_predictor.convolutional_box_predictor.conv_hyperparams.batch_norm",
    "override_base_feature_extractor_hyperparams",  # Inception v2: its own are equal in inference
    *("inplace_batchnorm_update", "first_stage_max_proposals", "resize_masks"),
    *("maxpool_kernel_size", "maxpool_stride"),  # of 1, which is none
)


# Starts of archives' names -> names of their configs in the API's repository, where they differ.
OTHER_STEMS = {
    **{f"efficientdet_d{i}": f"ssd_efficientdet_d{i}_*" for i in range(8)},
    "ssd_mobilenet_v3_large": "ssdlite_mobilenet_v3_large_320x320_coco",
    "ssdlite_mobiledet_cpu": "ssdlite_mobiledet_cpu_320x320_coco_sync_4x4",
}


@pytest.mark.shared
def test_configs_have_the_network_of_their_archive(shared):
    from detzoo.config import pb
    from detzoo.config.diff import diff_configs
    from detzoo.config.load import read_pipeline

    ours = pathlib.Path(__file__).resolve().parents[2] / "model_configs"
    published = shared / "configs" / "published"
    count = 0
    for name, archive in ARCHIVES.items():
        for config in archive.configs:
            stem = re.sub(r"_20\d\d_\d\d_\d\d$", "", name)
            stem = next((other for start, other in OTHER_STEMS.items() if name.startswith(start)), stem)
            [file] = published.glob(f"*/{stem}.config")
            models = [read_pipeline(str(path))[0].message.model for path in (file, ours / f"{config}.config")]
            changes = diff_configs(*(pb.TrainEvalPipelineConfig(model=model) for model in models))
            rest = [str(change) for change in changes if not any(field in change.path for field in HARMLESS)]
            # Both generations have the same ResNet.
            same = "feature_extractor.type: 'faster_rcnn_resnet101_keras' -> 'faster_rcnn_resnet101'"
            if "mnasfpn" in name:  # it has hyperparameters of its own
                rest = [change for change in rest if "feature_extractor.conv_hyperparams" not in change]
            assert [change for change in rest if same not in change] == [], (name, config)
            assert zoo.archive_of(config) == name
            count += 1
    assert count == 30
    assert zoo.archive_of("ssd_vgg16_300") is None


@pytest.mark.shared
def test_seeded_weights_arrive_by_name(server, archives, golden_weights, load_module, shared, tmp_path):
    """The published layout, filled with seeded values: each variable of the detector gets the value of its name."""
    from detzoo.builders.detector import build_detector
    from detzoo.checkpoints.layout import variables_by_path
    from detzoo.checkpoints.stored_weights import find_weights
    from detzoo.config.load import load_pipeline
    from detzoo.features.network import symbolic

    golden, source = shared / "golden" / "ssd_mobilenet_v2_320", tmp_path / "source"
    golden_weights.seeded_checkpoint(golden, source / "checkpoint")
    server.content = archives.archive_of_folder(source)
    message = load_pipeline(golden / "pipeline.config").message.model
    paths = list(variables_by_path(symbolic(lambda: build_detector(message)).variables))
    stored = find_weights(f"zoo://{archives.NAME}", paths)
    assert sorted(stored.names) == sorted(paths)
    assert stored.unused == []
    seeded = load_module("../../shared/golden/seeded_checkpoint.py")
    for path in paths[::10]:
        name = stored.names[path] + seeded.SUFFIX
        np.testing.assert_array_equal(stored.read(path), seeded.value_for(name, stored.shapes[path]))
