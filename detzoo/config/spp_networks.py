"""What is wrong with the ``network`` block of SPP-net's classifier or detector (a ``pb.SppNetwork``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from detzoo.config.names import suggestion
from detzoo.config.spp_table import SPP_NETWORKS


def problem_of_network(network: Any) -> Iterator[tuple[str, str]]:
    """Field and what is wrong with it, of a ``pb.SppNetwork``."""
    if network.type not in SPP_NETWORKS:
        what = f"is '{network.type}'{suggestion(network.type, SPP_NETWORKS)}" if network.type else "is missing"
        yield "type", what if "accepted" in what else f"{what}; accepted: {', '.join(SPP_NETWORKS)}"
