"""The form in which the functions of this package are traced: for TensorFlow, or for other runtimes (floor 1).

A few steps have no operators in common among runtimes. With ``tracing_for`` they are traced in another form:

============ ================================ ============================ =======================
form         suppression                      resizing                     crops of a pyramid
============ ================================ ============================ =======================
TENSORFLOW   prefixes until the result is     of uint8                     a parallel stitch
             exact, fused operator
ONNX         one prefix, fused operator       of float32                   gathered
PORTABLE     one prefix, one suppression for  of float32                   gathered
             all classes and images
============ ================================ ============================ =======================
"""

from __future__ import annotations

import contextlib
import contextvars
import enum
from collections.abc import Iterator


class GraphForm(enum.Enum):
    """The runtimes that a graph is traced for."""

    TENSORFLOW = "tensorflow"
    ONNX = "onnx"  # operators that tf2onnx converts to efficient ones, and no conditionals
    PORTABLE = "portable"  # operators that TensorFlow.js and OpenVINO have, too, and no conditionals


_form: contextvars.ContextVar[GraphForm] = contextvars.ContextVar("graph_form", default=GraphForm.TENSORFLOW)


@contextlib.contextmanager
def tracing_for(form: GraphForm) -> Iterator[None]:
    """Traces in a form within the block."""
    token = _form.set(form)
    try:
        yield
    finally:
        _form.reset(token)


def graph_form() -> GraphForm:
    """Returns the form of the current trace."""
    return _form.get()
