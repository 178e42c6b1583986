"""Settings of all tests: a quiet TensorFlow, two logical CPUs, fixed seeds, and the optional data in ../shared."""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import os
import pathlib
import resource
import signal
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# The pool of TensorFlow's oneDNN build returns no memory to the system: it would add the largest models of all files.
os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background of a script: tests of Ctrl-C need it
    signal.signal(signal.SIGINT, signal.default_int_handler)

import psutil
import pytest

CAN_TRAIN = importlib.util.find_spec("orbit") is not None
SHARED = pathlib.Path(__file__).resolve().parents[1].parent / "shared"


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """Returns the folder of real data, ../shared. Tests that use it are skipped if it does not exist."""
    if not (SHARED / "README.md").is_file():
        pytest.skip(f"{SHARED} does not exist: it holds real configs, data and golden outputs")
    return SHARED


@pytest.fixture(scope="session")
def two_cpus():
    """Two logical CPU devices, for tests with two replicas; asked for before TensorFlow starts its runtime."""
    import tensorflow as tf

    devices = tf.config.list_logical_devices("CPU")
    if len(devices) < 2:
        pytest.skip("TensorFlow was started with a single logical CPU")
    return [device.name for device in devices]


@pytest.fixture(scope="session")
def load_module():
    """A function: path below tests/ -> the module, for code that several test files share."""
    import sys

    def load(path):
        file = pathlib.Path(__file__).resolve().parent / path
        spec = importlib.util.spec_from_file_location(file.stem, file)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # AutoGraph looks functions up by their module
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def archives(load_module):
    """The module tests/zoo_server.py."""
    return load_module("zoo_server.py")


@pytest.fixture
def server(archives, monkeypatch, tmp_path):
    """A server of the detection zoo on localhost, and an empty cache."""
    monkeypatch.setenv("DETZOO_CACHE", str(tmp_path / "cache"))
    with archives.serving() as server:
        monkeypatch.setenv("DETZOO_ZOO_URL", server.url)
        yield server


@pytest.fixture(scope="session")
def golden_weights(load_module):
    """The module tests/detectors/golden_weights.py."""
    return load_module("detectors/golden_weights.py")


@pytest.fixture(scope="session")
def logged_scalars():
    """A function: folder of TensorBoard events -> the values of each tag of scalars, in the order of the steps."""

    def read(folder):
        import tensorflow as tf
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        accumulator = EventAccumulator(str(folder))
        accumulator.Reload()
        return {
            tag: [float(tf.make_ndarray(event.tensor_proto)) for event in accumulator.Tensors(tag)]
            for tag in accumulator.PluginTagToContent("scalars")
        }

    return read


@pytest.fixture(scope="session")
def toy(load_module):
    """The module tests/toy_detector.py (``toy_detector``, ``ToyResizer``), for tests of what runs a detector."""
    return load_module("toy_detector.py")


@pytest.fixture(scope="session")
def small(load_module):
    """The module tests/small_two_stage.py: a two-stage detector of each kind, and images for it."""
    return load_module("small_two_stage.py")


PEAK_MIB = pytest.StashKey[dict[str, float]]()


def pytest_addoption(parser):
    parser.addoption(
        "--all",
        action="store_true",
        help="also run the full sweeps: every config is built and stepped, every extractor built, every benchmark run",
    )


def pytest_collection_modifyitems(config, items):
    """Skips tests that train if training is not installed, and deselects ``full_sweep`` unless ``--all`` is given."""
    if not CAN_TRAIN:
        for item in items:
            if item.get_closest_marker("train"):
                item.add_marker(pytest.mark.skip(reason="needs detzoo[train]: tf-models-official is not installed"))
    if config.getoption("--all"):
        return
    rows = [item for item in items if item.get_closest_marker("full_sweep")]
    if rows:
        config.hook.pytest_deselected(items=rows)
        items[:] = [item for item in items if not item.get_closest_marker("full_sweep")]


def _peak_mib():
    """Returns the peak resident memory of this process in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes on macOS, KiB elsewhere


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    """Records the peak memory: an xdist worker sends it to the controller, which prints it in the summary."""
    workers = getattr(session.config, "workeroutput", None)
    if workers is not None:
        workers["peak_mib"] = _peak_mib()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """Collects the peak memory of an xdist worker that has finished."""
    output = getattr(node, "workeroutput", {})  # missing if the worker crashed
    if "peak_mib" in output:
        node.config.stash.setdefault(PEAK_MIB, {})[node.gateway.id] = output["peak_mib"]


def pytest_terminal_summary(terminalreporter, config):
    peaks = config.stash.get(PEAK_MIB, {"this process": _peak_mib()})
    terminalreporter.write_line("peak memory: " + ", ".join(f"{name} {peak:,.0f} MiB" for name, peak in peaks.items()))


GROWTH_MIB = 200  # after which memory is released


def _release():
    """Collects models, which are cycles, and gives their pages back."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # glibc keeps freed pages otherwise


@pytest.fixture(scope="session")
def _resident():
    """The resident memory in MiB after the last release, in a list of one."""
    return [psutil.Process().memory_info().rss / 2**20]


@pytest.fixture(autouse=True)
def _release_after_growth(_resident):
    yield
    if psutil.Process().memory_info().rss / 2**20 > _resident[0] + GROWTH_MIB:
        _release()
        _resident[0] = psutil.Process().memory_info().rss / 2**20


@pytest.fixture(scope="module", autouse=True)
def _release_memory():
    """Frees what the file before left behind, so that a worker's memory is bounded by its largest file.

    It runs before a file, because the fixtures of a test are referenced until the next test. What remains belongs to
    modules and to the session, and is hidden from later collections: with TensorFlow's objects each takes 0.3 s.
    """
    keras = sys.modules.get("keras")
    if keras is not None:
        keras.utils.clear_session(free_memory=False)
    _release()
    gc.freeze()


def pytest_configure(config):
    """Splits the CPU in two before any test starts the TensorFlow runtime. The controller of workers runs no test."""
    gc.set_threshold(20_000, 20, 20)  # a collection walks through all graphs; the usual 700 cost a tenth of the time
    is_controller = config.getoption("tx", None) and not hasattr(config, "workerinput")
    if is_controller or importlib.util.find_spec("tensorflow") is None:
        return
    # Imported lazily by the tests; a meta-path hook would be clever, an environment-free call is simple.
    import tensorflow as tf

    _share_kernels_of_variables()
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration(), tf.config.LogicalDeviceConfiguration()],
    )
    assert "tf_keras" not in sys.modules


def _share_kernels_of_variables():
    """Creates variables without their debug names, each of which has a kernel of 36 KB that takes 0.6 ms to make."""
    from tensorflow.python.ops import gen_resource_variable_ops as generated

    create = generated.var_handle_op
    generated.var_handle_op = lambda *args, debug_name="", **options: create(*args, **options)


@pytest.fixture(autouse=True)
def _fixed_seed():
    """Every test starts from the same seeds."""
    import keras

    keras.utils.set_random_seed(7)


@pytest.fixture(scope="session")
def images(load_module):
    """The module datasets/dirty_images.py."""
    return load_module("datasets/dirty_images.py")


@pytest.fixture(scope="module")
def quick_initializers():
    """Clipped instead of truncated normals: TensorFlow takes 54 ns for a truncated one, two thirds of building."""
    import tensorflow as tf

    def clipped(shape, seed, mean=0.0, stddev=1.0, dtype=tf.float32):
        return mean + stddev * tf.clip_by_value(tf.random.stateless_normal(shape, seed, dtype=dtype), -2.0, 2.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf.random, "stateless_truncated_normal", clipped)
        yield
