"""A trained model applied to a scan: tiles, blended, brought back to the scan's grid."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch.nn import functional

from napari_medcl.checkpoint import Checkpoint
from napari_medcl.data.conform import Conformed
from napari_medcl.device import Device, Precision, autocast, resolve_device, reuse_memory
from napari_medcl.device import precision as number_format
from napari_medcl.errors import Stopped, UserError
from napari_medcl.inference.crop import Crop
from napari_medcl.inference.prediction import Prediction, beside, on_scan
from napari_medcl.inference.tiles import blended
from napari_medcl.models.layers import fuse
from napari_medcl.models.uafs import uncertainties

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_medcl.data.volume import Volume
    from napari_medcl.inference.tiles import Image
    from napari_medcl.models import Network

    Progress = Callable[[float], None]
    Stop = Callable[[], bool]


class Predictor:
    """A model on a device, ready for any number of scans.

    Args:
        checkpoint: A fine-tuned model or its file.
        device: Where to compute.
        overlap: Part of a window that it shares with the next one, along every axis.
        batch: Windows at a time, which has no influence on the result; without it 4 on GPUs, 2 on processors, and 1
            there in half precision.
        precision: Number format of the network's products.
        flips: Whether to average over all mirrored forms of every window: 4 times the work in 2D, 8 times in 3D. Only
            for models that do not tell left from right.
        compile: Whether to compile the network first (`torch.compile`): takes up to a minute, pays for many scans.

    Raises:
        UserError: The file is no model, has only been pre-trained, or there is no such device.
    """

    def __init__(
        self,
        checkpoint: Checkpoint | Path | str,
        device: Device = "auto",
        overlap: float = 0.5,
        batch: int | None = None,
        precision: Precision = "auto",
        flips: bool = False,
        compile: bool = False,
    ) -> None:
        name = "This model" if isinstance(checkpoint, Checkpoint) else str(checkpoint)
        if not isinstance(checkpoint, Checkpoint):
            checkpoint = Checkpoint.load(checkpoint)
        if not checkpoint.classes:
            raise UserError(f"{name} was pre-trained only and knows no classes yet. Fine-tune it on some masks first.")
        self.device = resolve_device(device)
        reuse_memory(self.device)
        self._dtype = number_format(self.device, precision)
        if batch is None:
            batch = (2 if self._dtype is None else 1) if self.device.type == "cpu" else 4
        if not 0 <= overlap < 1 or batch < 1:
            raise UserError(f"overlap ({overlap}) must be from 0 to below 1 and batch ({batch}) at least 1.")
        self.checkpoint = checkpoint
        self.overlap = overlap
        self.batch = batch
        net = checkpoint.build()
        fuse(net)
        self._net = net.to(self.device)
        self._apply = _compiled(self._net, batch, self.device) if compile else self._net
        axes = range(2, 2 + checkpoint.plan.spatial_dims) if flips else ()
        self._flips = [some for count in range(len(axes) + 1) for some in itertools.combinations(axes, count)]

    def __call__(
        self,
        volume: Volume,
        *,
        probabilities: bool = False,
        eight_bits: bool = False,
        uncertainty: bool = False,
        scratch: Path | None = None,
        progress: Progress | None = None,
        stop: Stop | None = None,
    ) -> Prediction:
        """Segments a scan.

        Args:
            volume: The scan, with as many channels as the model was trained on.
            probabilities: Whether to give the probability of every class, too.
            eight_bits: Whether to give it in 8 bits, which take a quarter of the memory.
            uncertainty: Whether to give the entropy, too.
            scratch: A folder whose disk holds the results for memory, until nothing refers to them any more.
            progress: Is told how far it is, from 0 to 1.
            stop: Is asked before every batch of windows whether to stop.

        Raises:
            UserError: The scan has another number of channels, it does not fit into the device's memory, or the network
                cannot be compiled there.
            Stopped: `stop` said so.
        """
        watch = _Watch(progress, stop)
        watch(0)
        bands = self._bands(Conformed(self.checkpoint.plan, volume), self._probabilities, watch)
        prediction = on_scan(
            self.checkpoint.plan, self.checkpoint.classes, volume, bands, probabilities=probabilities,
            eight_bits=eight_bits, uncertainty=uncertainty, scratch=scratch,
        )  # fmt: skip
        watch(1)
        return prediction

    def on_grid(self, image: NDArray[np.float32], watch: Progress | None = None) -> NDArray[np.float32]:
        """Class probabilities on the network's grid, averaged over the windows that cover a voxel.

        Probabilities are averaged, not logits: a mean of distributions is a distribution, and one window
        that is far too sure cannot outvote the others.

        Args:
            image: (C, Z', Y', X'), what `Plan.conform` gives.
            watch: Is called before every batch of windows with the part that is done; may raise to stop.

        Returns:
            (K, Z', Y', X').

        Raises:
            UserError: A batch of windows does not fit into the device's memory.
        """
        return np.concatenate([*self._bands(image, self._probabilities, watch)], 1)

    def block_uncertainty(
        self,
        volume: Volume,
        at: tuple[int, int] | None = None,
        *,
        progress: Progress | None = None,
        stop: Stop | None = None,
    ) -> dict[str, Volume]:
        """What the model's UAFS blocks are unsure of: their H (see `UAFS`), on the scan's grid.

        Args:
            volume: The scan, with as many channels as the model was trained on.
            at: Axis (0, 1, 2 for z, y, x) and number of the one slice to look at; without it the whole scan.
            progress: Is told how far it is, from 0 to 1.
            stop: Is asked before every batch of windows whether to stop.

        Returns:
            By the name of the map that a block is behind, (1, Z, Y, X) float32 from 0 (sure) to 1 (every class
            equally probable); one voxel thick along the axis of `at`.

        Raises:
            UserError: The model has no UAFS blocks, the scan has another number of channels, or does not fit into
                the device's memory.
            Stopped: `stop` said so.
        """
        names, plan = self.blocks(), self.checkpoint.plan
        watch = _Watch(progress, stop)
        watch(0)
        image = plan.conform(volume)
        crop = None if at is None else Crop.about(plan, image, volume, *at)
        image = image if crop is None else crop.of(image)
        found = np.concatenate([*self._bands(image, self._entropies, watch)], 1)
        if crop is not None:
            found, volume = crop.middle(found), crop.slice
        maps = {
            name: beside(volume, np.clip(plan.restore(found[index : index + 1], volume), 0, 1))
            for index, name in enumerate(names)
        }
        watch(1)
        return maps

    def blocks(self) -> tuple[str, ...]:
        """Names of the maps that the model has UAFS blocks behind.

        Raises:
            UserError: There are none.
        """
        if not self.checkpoint.network.uafs:
            raise UserError("This model has no UAFS blocks. Fine-tune one with uafs set, or choose another model.")
        return self.checkpoint.network.uafs

    def _entropies(self, tiles: Tensor) -> Tensor:
        """H of every block (B, blocks, *S), interpolated to the windows (B, C, *S)."""
        spec, maps = self.checkpoint.network, uncertainties(self._net, tiles)
        linear = "bilinear" if spec.spatial_dims == 2 else "trilinear"
        grown = [functional.interpolate(maps[n], scale_factor=spec.stride(n), mode=linear) for n in spec.uafs]
        inside: Any = (..., *(slice(0, size) for size in tiles.shape[2:]))
        return torch.cat(grown, 1)[inside]

    def _probabilities(self, tiles: Tensor) -> Tensor:
        found = [self._apply(tiles.flip(axes)).float().softmax(1).flip(axes) for axes in self._flips]
        return torch.stack(found).mean(0) if len(found) > 1 else found[0]

    def _bands(
        self, image: Image, compute: Callable[[Tensor], Tensor], watch: Progress | None
    ) -> Iterator[NDArray[np.float32]]:
        """What is computed of (C, Z', Y', X') in windows: (D, z', Y', X') after each other."""

        def cast(tiles: Tensor) -> Tensor:
            with autocast(self.device, self._dtype):
                return compute(tiles)

        patch = self.checkpoint.plan.patch
        overlap = [self.overlap] * len(patch)
        found = blended(image, cast, patch=patch, overlap=overlap, batch=self.batch, device=self.device, watch=watch)
        return (band.numpy() for band in found)


def _compiled(net: Network, batch: int, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The network, compiled when it is first applied, for whole batches: another number would be compiled anew."""
    from torch._dynamo.exc import TorchDynamoException

    compiled = cast("Callable[[Tensor], Tensor]", torch.compile(net, dynamic=False))

    def apply(tiles: Tensor) -> Tensor:
        missing = tiles.new_zeros(batch - len(tiles), *tiles.shape[1:])
        try:
            return compiled(torch.cat([tiles, missing]))[: len(tiles)]
        except TorchDynamoException as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"The network cannot be compiled for {device} ({reason}). Leave out compile.") from error

    return apply


class _Watch:
    """Passes the progress on and raises when a stop is asked for."""

    def __init__(self, progress: Progress | None, stop: Stop | None) -> None:
        self._progress, self._stop = progress, stop

    def __call__(self, done: float) -> None:
        if self._stop is not None and self._stop():
            raise Stopped("The prediction was stopped.")
        if self._progress is not None:
            self._progress(done)
