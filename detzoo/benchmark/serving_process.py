"""A program that loads a SavedModel with nothing but TensorFlow, detects, and prints the costs as JSON.

    python serving_process.py SAVED_MODEL INPUT.npz RUNS [HIDDEN,MODULES [SETTINGS]]

Peak memory and load time belong to a whole process, so they are measured in a fresh one.
"""

import json
import resource
import sys
import time


def peak_mib():  # type: ignore[no-untyped-def]
    """Returns the most memory that this process has held in RAM so far, shared libraries included."""
    try:
        with open("/proc/self/status", encoding="utf-8") as status:
            [line] = [line for line in status if line.startswith("VmHWM")]
        return int(line.split()[1]) / 1024.0
    except (OSError, ValueError):
        # The second choice, because on Linux a process starts with its parent's peak.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024.0 if sys.platform != "darwin" else 1024.0**2)


def choose(config, settings):  # type: ignore[no-untyped-def]
    """Applies ``detzoo.benchmark.process.ServingSettings``."""
    if settings.get("hides_gpus"):
        config.set_visible_devices([], "GPU")
    for gpu in config.get_visible_devices("GPU"):
        config.experimental.set_memory_growth(gpu, True)
    if settings.get("intra_op_threads"):
        config.threading.set_intra_op_parallelism_threads(settings["intra_op_threads"])
    if settings.get("inter_op_threads"):
        config.threading.set_inter_op_parallelism_threads(settings["inter_op_threads"])
    if settings.get("optimizer"):
        config.optimizer.set_experimental_options({settings["optimizer"]: True})


def main():  # type: ignore[no-untyped-def]
    """Prints one JSON object: seconds and MiB after each step."""
    saved_model, input_file, runs = sys.argv[1], sys.argv[2], int(sys.argv[3])
    for name in filter(None, sys.argv[4].split(",") if len(sys.argv) > 4 else ()):
        sys.modules[name] = None  # type: ignore[assignment]  # its import fails as if it were not installed
    started = time.perf_counter()
    import numpy as np
    import tensorflow as tf

    choose(tf.config, json.loads(sys.argv[5]) if len(sys.argv) > 5 else {})
    costs = {"import_seconds": time.perf_counter() - started, "import_peak_mib": peak_mib()}
    with np.load(input_file, allow_pickle=False) as stored:
        given = [tf.constant(stored[name]) for name in stored.files]
    started = time.perf_counter()
    loaded = tf.saved_model.load(saved_model)
    detect = loaded.signatures["serving_default"]
    costs["load_seconds"] = time.perf_counter() - started
    costs["load_peak_mib"] = peak_mib()
    names = sorted(detect.structured_input_signature[1], key=lambda name: name == "proposals")
    inputs = dict(zip(names, given))
    started = time.perf_counter()
    detect(**inputs)
    costs["first_call_seconds"] = time.perf_counter() - started
    for _ in range(runs):
        detect(**inputs)
    costs["peak_mib"] = peak_mib()
    sys.stdout.write(json.dumps(costs) + "\n")


if __name__ == "__main__":
    main()
