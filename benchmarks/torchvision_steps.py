"""torchvision's detectors, with which train_step.py compares detzoo's.

It runs in a separate environment, with torch and torchvision alone:

    python benchmarks/torchvision_steps.py MODEL SIZE BATCH STEPS    prints a JSON object with the seconds of each step

MODEL is a function of torchvision.models.detection. One step consists of forward pass, losses, backward pass and
update, in float32 on a batch in memory, with random weights of 91 classes.
"""

from __future__ import annotations

import json
import sys
import time

import torch
import torchvision

NUM_CLASSES = 91  # 90 and the background
OBJECTS_PER_IMAGE = 7  # COCO's mean


def train(name: str, size_px: int, batch_size: int, num_steps: int) -> list[float]:
    """Returns the seconds of each training step, without the first two (allocation)."""
    torch.manual_seed(0)
    build = getattr(torchvision.models.detection, name)
    sizes = {} if name.startswith("ssd") else {"min_size": size_px, "max_size": size_px}
    # Five blocks of the backbone are trained, and none is read from a file.
    model = build(weights=None, weights_backbone=None, num_classes=NUM_CLASSES, **sizes).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    images = [torch.rand(3, size_px, size_px) for _ in range(batch_size)]
    corners = torch.rand(batch_size, OBJECTS_PER_IMAGE, 2, 2).sort(dim=2).values * size_px
    classes = torch.arange(1, OBJECTS_PER_IMAGE + 1)
    targets = [{"boxes": boxes.reshape(-1, 4), "labels": classes} for boxes in corners]
    seconds = []
    for _ in range(num_steps + 2):
        started = time.perf_counter()
        optimizer.zero_grad()
        sum(model(images, targets).values()).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - started)
    return seconds[2:]


if __name__ == "__main__":
    print(json.dumps(train(sys.argv[1], *map(int, sys.argv[2:]))))
