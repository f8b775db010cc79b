"""A plain MONAI U-Net on the same labelled volumes as `medcl finetune`: what the recipe is measured against.

    python benchmarks/plain_monai.py DATA --split SPLIT [--groups FILE] [--labelled 8] [--seed 0] [--minutes 5]

`monai.networks.nets.UNet` (16, 32, 64, 128 channels, two residual units), Dice and cross-entropy, AdamW at 1e-3 with a
cosine, batches of two, turned, scaled, noisy, brighter and with other contrast, as a first script would have it. The
last model is measured, in 3D, on the validation and the test side.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from monai.transforms import (
    Compose,
    RandAffined,
    RandGaussianNoised,
    RandScaleIntensityd,
    RandShiftIntensityd,
    RandSpatialCropd,
    SpatialPadd,
)
from monai.utils import set_determinism
from rich.console import Console

from napari_medcl.training.config import FinetuneConfig
from napari_medcl.training.dataset import divide, first_labelled, read_cases

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from napari_medcl.data.cases import Case

PATCH = (40, 56, 40)
BATCH = 2
RATE = 1e-3


def both(case: Case) -> dict[str, Tensor]:
    """The scan at mean 0 and standard deviation 1, and its mask."""
    image = torch.from_numpy(case.volume().array.astype(np.float32))
    mask = torch.from_numpy(case.truth().array.astype(np.float32))[None]
    return {"image": (image - image.mean()) / image.std(), "mask": mask}


def augmentation() -> Compose:
    names = ["image", "mask"]
    return Compose(
        [
            SpatialPadd(names, PATCH),
            RandSpatialCropd(names, PATCH, random_size=False),
            RandAffined(
                names, prob=0.8, rotate_range=(0.3,) * 3, scale_range=(0.2,) * 3, mode=["bilinear", "nearest"],
                padding_mode="border",
            ),
            RandGaussianNoised("image", prob=0.2, std=0.1),
            RandScaleIntensityd("image", 0.2, 0.3),
            RandShiftIntensityd("image", 0.2, 0.3),
        ]
    )  # fmt: skip


def train(net: UNet, scans: list[dict[str, Tensor]], minutes: float) -> int:
    """Trains for so long; the number of steps."""
    optimiser, loss = torch.optim.AdamW(net.parameters(), RATE), DiceCELoss(to_onehot_y=True, softmax=True)
    change, began, steps = augmentation(), time.monotonic(), 0
    while (progress := (time.monotonic() - began) / (60 * minutes)) < 1:
        optimiser.param_groups[0]["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * progress))
        drawn = [change(scans[i]) for i in np.random.permutation(len(scans))[:BATCH]]
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(torch.stack([one["image"].as_tensor() for one in drawn]))
        optimiser.zero_grad()
        loss(logits.float(), torch.stack([one["mask"].as_tensor() for one in drawn])).backward()
        optimiser.step()
        steps += 1
    return steps


@torch.no_grad()
def dice(net: UNet, cases: Iterable[Case], classes: range) -> float:
    """Mean Dice over cases and classes; an empty prediction counts as 0."""
    net.eval()
    scores = []
    for one in map(both, cases):
        found = sliding_window_inference(one["image"][None], PATCH, 4, net, 0.5, mode="gaussian").argmax(1)[0]
        for value in classes:
            there, truth = found == value, one["mask"][0] == value
            scores.append(2 * (there & truth).sum().item() / max(1, (there.sum() + truth.sum()).item()))
    return float(np.mean(scores))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", type=Path)
    parser.add_argument("--groups")
    parser.add_argument("--labelled", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=5)
    asked = parser.parse_args()
    set_determinism(asked.seed)
    config = FinetuneConfig(folder=asked.data, split=asked.split, groups=asked.groups, dims="3d")
    cases = read_cases(config)
    sides = divide(config, cases)
    chosen = first_labelled(sides.train, asked.labelled, asked.seed)
    classes = range(1, max(cases.names) + 1)
    net = UNet(3, 1, len(classes) + 1, (16, 32, 64, 128), (2, 2, 2), num_res_units=2)
    console = Console()
    console.print("Labelled:", *sorted(case.id for case in chosen))
    steps = train(net, [both(case) for case in chosen], asked.minutes)
    console.print(
        f"{steps} steps in {asked.minutes:g} min. Validation Dice {dice(net, sides.val, classes):.4f}, "
        f"test Dice {dice(net, sides.test, classes):.4f}."
    )


if __name__ == "__main__":
    main()
