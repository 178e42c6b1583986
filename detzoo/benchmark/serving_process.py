"""A program that loads an exported model with nothing but its runtime, detects, and prints the costs as JSON.

    python serving_process.py MODEL INPUT.npz RUNS [HIDDEN,MODULES [SETTINGS]]

SETTINGS is a JSON object of ``detzoo.benchmark.process.ServingSettings``.

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
    """Applies the settings of TensorFlow."""
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


def import_tensorflow(settings):  # type: ignore[no-untyped-def]
    """Returns a function (SavedModel, arrays) -> call without arguments."""
    import tensorflow as tf

    choose(tf.config, settings)

    def load(model, arrays):  # type: ignore[no-untyped-def]
        given = [tf.constant(array) for array in arrays]
        detect = tf.saved_model.load(model).signatures["serving_default"]
        names = sorted(detect.structured_input_signature[1], key=lambda name: name == "proposals")
        inputs = dict(zip(names, given))
        return lambda: detect(**inputs)

    return load


def import_onnxruntime(settings):  # type: ignore[no-untyped-def]
    """Returns the same for an .onnx file."""
    import onnxruntime

    def load(model, arrays):  # type: ignore[no-untyped-def]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = settings["intra_op_threads"]
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda: session.run(None, {name: arrays[0]})

    return load


def import_openvino(settings):  # type: ignore[no-untyped-def]
    """Returns the same for an .onnx file in OpenVINO."""
    import openvino

    def load(model, arrays):  # type: ignore[no-untyped-def]
        chosen = {"INFERENCE_PRECISION_HINT": {"bfloat16": "bf16"}.get(settings["precision"], "f32")}
        if settings["intra_op_threads"]:
            chosen["INFERENCE_NUM_THREADS"] = str(settings["intra_op_threads"])
        request = openvino.Core().compile_model(model, "CPU", chosen).create_infer_request()
        return lambda: request.infer([arrays[0]])

    return load


def import_litert(settings):  # type: ignore[no-untyped-def]
    """Returns the same for a .tflite file, whose input is an image of its size that is resized already."""
    import numpy as np

    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tensorflow.lite.python.interpreter import Interpreter

    def load(model, arrays):  # type: ignore[no-untyped-def]
        interpreter = Interpreter(model, num_threads=settings["intra_op_threads"] or None)
        interpreter.allocate_tensors()
        [given] = interpreter.get_input_details()
        image = np.full(given["shape"], arrays[0].flat[0], given["dtype"])

        def call():  # type: ignore[no-untyped-def]
            interpreter.set_tensor(given["index"], image)
            interpreter.invoke()

        return call

    return load


RUNTIMES = {
    "tensorflow": import_tensorflow,
    "onnxruntime": import_onnxruntime,
    "openvino": import_openvino,
    "litert": import_litert,
}


def main():  # type: ignore[no-untyped-def]
    """Prints one JSON object: seconds and MiB after each step."""
    model, input_file, runs = sys.argv[1], sys.argv[2], int(sys.argv[3])
    settings = json.loads(sys.argv[5]) if len(sys.argv) > 5 else {}
    for name in filter(None, sys.argv[4].split(",") if len(sys.argv) > 4 else ()):
        sys.modules[name] = None  # type: ignore[assignment]  # its import fails as if it were not installed
    started = time.perf_counter()
    import numpy as np

    load = RUNTIMES[settings.get("runtime", "tensorflow")](settings)
    costs = {"import_seconds": time.perf_counter() - started, "import_peak_mib": peak_mib()}
    with np.load(input_file, allow_pickle=False) as stored:
        arrays = [stored[name] for name in stored.files]
    started = time.perf_counter()
    detect = load(model, arrays)
    costs["load_seconds"] = time.perf_counter() - started
    costs["load_peak_mib"] = peak_mib()
    started = time.perf_counter()
    detect()
    costs["first_call_seconds"] = time.perf_counter() - started
    for _ in range(runs):
        detect()
    costs["peak_mib"] = peak_mib()
    sys.stdout.write(json.dumps(costs) + "\n")


if __name__ == "__main__":
    main()
