"""Open layers as a data folder that a run can read."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from napari_medcl.data.formats import stem
from napari_medcl.data.writing import write_labels, write_volume
from napari_medcl.errors import Stopped, UserError
from napari_medcl.files import whole, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from napari_medcl.data.volume import Labels, Volume


@dataclass(frozen=True)
class Pair:
    """A scan that is open, with its mask if it has one."""

    name: str
    volume: Volume
    labels: Labels | None = None

    def __post_init__(self) -> None:
        if self.labels is None:
            return
        advice = "Choose the mask that belongs to it, or make one with New Labels."
        if self.labels.shape != self.volume.shape:
            sizes = f"{_size(self.labels.shape)} voxels, the scan has {_size(self.volume.shape)}"
            raise UserError(f"The mask chosen for “{self.name}” has {sizes}. {advice}")
        apart = np.abs(np.subtract(self.labels.origin, self.volume.origin)) / self.volume.spacing
        if not np.allclose(self.labels.spacing, self.volume.spacing, rtol=0.01) or apart.max() > 0.5:
            raise UserError(f"The mask chosen for “{self.name}” lies elsewhere in the patient than the scan. {advice}")


def write_inputs(
    pairs: Sequence[Pair], folder: Path, progress: Callable[[float], None], stop: Callable[[], bool]
) -> Path:
    """Writes `imagesTr`, `labelsTr` and `dataset.json`.

    Returns:
        The folder.

    Raises:
        UserError: The folder cannot be written.
        Stopped: `stop` said so.
    """
    names: dict[int, str] = {}
    try:
        for part in ("imagesTr", "labelsTr"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        for number, (case, pair) in enumerate(zip(case_ids([pair.name for pair in pairs]), pairs, strict=True)):
            if stop():
                raise Stopped
            _write(pair, folder, case)
            names |= pair.labels.names if pair.labels else {}
            progress((number + 1) / len(pairs))
        classes = {name: value for value, name in sorted(names.items()) if value}
        if classes:
            write_json(folder / "dataset.json", {"name": "layers", "labels": {"background": 0, **classes}})
    except OSError as error:
        raise UserError(f"The layers cannot be written to {folder}: {error}. Choose another runs folder.") from error
    return folder


def case_ids(names: Sequence[str]) -> list[str]:
    """Names of layers as names of files, each once."""
    ids: list[str] = []
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9.-]+", "-", stem(name) if name.endswith(".gz") else name).strip("-.") or "scan"
        number, one = 2, plain
        while one in ids:
            one, number = f"{plain}-{number}", number + 1
        ids.append(one)
    return ids


def _write(pair: Pair, folder: Path, case: str) -> None:
    picture = pair.volume.rgb and pair.volume.planar and pair.volume.array.dtype == np.uint8
    suffix = ".png" if picture else ".nii.gz"
    path = folder / "imagesTr" / f"{case}{suffix}"
    if picture:
        with whole(path) as part:
            Image.fromarray(np.moveaxis(pair.volume.array[:, 0], 0, -1).copy()).save(part)
    else:
        write_volume(pair.volume, path)
    if pair.labels is not None:
        scan = pair.volume
        mask = replace(pair.labels, spacing=scan.spacing, origin=scan.origin, source=scan.source)
        write_labels(mask, folder / "labelsTr" / f"{case}{suffix}")


def _size(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))
