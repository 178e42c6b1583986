"""HTTP server of one model of `detzoo export --format onnx`; needs onnxruntime, numpy, Pillow and waitress.

    python serve_onnx.py model.onnx
    curl --data-binary @street.jpg 'http://localhost:8080/detect?score_threshold=0.3'

GET /health answers 200 once the model is loaded.
"""

from __future__ import annotations

import argparse
import http
import io
import json
import os
import re
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

MAX_BODY_BYTES = 32 * 2**20
MAX_PIXELS = 50_000_000
OUTPUTS = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")
ITEM = re.compile(r"item\s*\{([^}]*)\}")
FIELD = re.compile(r"(id|name|display_name)\s*:\s*(?:\"([^\"]*)\"|'([^']*)'|(\d+))")


class BadRequest(Exception):
    """A request that cannot be answered, with the status of HTTP."""

    def __init__(self, status: http.HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


def class_names(label_map: str) -> dict[int, str]:
    """Returns the names of a label map by id."""
    items = [{key: a or b or c for key, a, b, c in FIELD.findall(item)} for item in ITEM.findall(label_map)]
    return {int(item["id"]): item.get("display_name") or item.get("name", "") for item in items if "id" in item}


class Model:
    """Callable from an encoded image and a threshold to a JSON object."""

    def __init__(self, path: str, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(path, options, providers=onnxruntime.get_available_providers())
        self._names = class_names(self._session.get_modelmeta().custom_metadata_map.get("label_map.pbtxt", ""))
        self._input = self._session.get_inputs()[0].name

    def __call__(self, encoded: bytes, score_threshold: float) -> dict[str, Any]:
        """Returns the detections of an image, in pixels of the upright image."""
        image = read_image(encoded)
        found = self._session.run(OUTPUTS, {self._input: np.asarray(image)[np.newaxis]})
        boxes, scores, class_ids = (rows[0, : int(found[3][0])] for rows in found[:3])
        sides = np.array([image.height, image.width] * 2)
        detections = [
            {
                "class_id": int(class_id),
                "class_name": self._names.get(int(class_id), f"class {int(class_id)}"),
                "score": round(float(score), 5),
                "box": [round(float(side), 2) for side in box * sides],  # ymin, xmin, ymax, xmax in pixels
            }
            for box, score, class_id in zip(boxes, scores, class_ids)
            if score >= score_threshold
        ]
        return {"height": image.height, "width": image.width, "detections": detections}


def read_image(encoded: bytes) -> Image.Image:
    """Returns the upright RGB image of the content of an image file."""
    try:
        image = Image.open(io.BytesIO(encoded))
        if image.width * image.height > MAX_PIXELS:
            raise BadRequest(http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the image has more than {MAX_PIXELS} pixels")
        return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise BadRequest(http.HTTPStatus.BAD_REQUEST, "the body is no image file, or a broken one") from None


def make_app(model: Callable[[bytes, float], dict[str, Any]]) -> Callable[..., Iterable[bytes]]:
    """Returns the WSGI application of a model."""

    def answer(environ: dict[str, Any]) -> dict[str, Any]:
        route = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if route == ("GET", "/health"):
            return {"status": "ok"}
        if route != ("POST", "/detect"):
            raise BadRequest(http.HTTPStatus.NOT_FOUND, "accepted: POST /detect with the content of an image file")
        length = int(environ.get("CONTENT_LENGTH") or 0)
        if not 0 < length <= MAX_BODY_BYTES:
            message = f"the body has {length} bytes; accepted: 1 to {MAX_BODY_BYTES}"
            raise BadRequest(
                http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE if length else http.HTTPStatus.BAD_REQUEST, message
            )
        text = parse_qs(environ.get("QUERY_STRING", "")).get("score_threshold", ["0.3"])[0]
        try:
            threshold = float(text)
        except ValueError:
            message = f"score_threshold is {text!r}; accepted: a number from 0 to 1"
            raise BadRequest(http.HTTPStatus.BAD_REQUEST, message) from None
        return model(environ["wsgi.input"].read(length), threshold)

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        status, result = http.HTTPStatus.OK, {}
        try:
            result = answer(environ)
        except BadRequest as problem:
            status, result = problem.status, {"error": str(problem)}
        body = json.dumps(result).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start_response(f"{status.value} {status.phrase}", headers)
        return [body]

    return app


def main() -> None:
    """Serves until it is stopped."""
    import waitress

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the .onnx file")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads of one detection")
    parser.add_argument("--requests", type=int, default=2, help="requests that are answered at the same time")
    given = parser.parse_args()
    app = make_app(Model(given.model, given.threads))
    waitress.serve(app, port=given.port, threads=given.requests, max_request_body_size=MAX_BODY_BYTES + 1)


if __name__ == "__main__":
    main()
