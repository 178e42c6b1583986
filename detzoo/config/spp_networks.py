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
    for index, bins in enumerate(network.pyramid_bins):
        if bins < 1:
            yield f"pyramid_bins[{index}]", f"is {bins}; accepted: 1 or more bins a side, e.g. [6, 3, 2, 1]"
    if network.fc_depth < 1:
        yield "fc_depth", f"is {network.fc_depth}; accepted: 1 or more units, 4096 in the paper"
    if not 0 <= network.dropout < 1:
        yield "dropout", f"is {network.dropout:g}; accepted: 0 to below 1"
    if not network.depth_multiplier > 0:
        yield "depth_multiplier", f"is {network.depth_multiplier:g}; accepted: above 0"
    if not network.weight_decay >= 0:
        yield "weight_decay", f"is {network.weight_decay:g}; accepted: 0 or more"
