"""Reading what a run makes of a case while it learns."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from napari_medcl.data.volume import Labels, Source, matching_source
from napari_medcl.errors import UserError
from napari_medcl.gui.docks import HELPER, is_helper
from napari_medcl.gui.inputs import case_ids
from napari_medcl.gui.layers import image_layers, labels_layer, source_of
from napari_medcl.gui.reader import layers_of
from napari_medcl.training.events import Noted, read_event
from napari_medcl.training.preview import Preview, asked_preview, cases_of, preview_stamp, request_stamp
from napari_medcl.training.run import ALIVE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from napari_medcl.gui.layers import LayerData
    from napari_medcl.training.preview import Stamp
    from napari_medcl.training.run import Run

MARK = "preview"
"""In the metadata of a layer and of its copies: the run and the case that it shows,"""
STEP = "step"
"""and the step after which it shows them."""
_REFUSED = b'"message":"No preview: '
"""So a run begins to say why it makes none."""
_OPACITY = 0.6


@dataclass(frozen=True)
class Opened:
    """A scan that is open, so that it can be told which one it is.

    Attributes:
        name: Of its layer.
        shape: Voxels along the layer's axes, those of a time series and of colours left out.
        scale: Millimetres between them.
        translate: Where the first one is.
        path: The file that it came from, if any.
    """

    name: str
    shape: tuple[int, ...]
    scale: tuple[float, ...]
    translate: tuple[float, ...]
    path: Path | None

    @classmethod
    def of(cls, layer: Any) -> Opened:
        """What there is to say about an image layer."""
        shape = tuple(layer.data.shape[: layer.ndim][-3:])
        scale, translate = (tuple(map(float, place[-len(shape) :])) for place in (layer.scale, layer.translate))
        source = source_of(layer.metadata)
        return cls(layer.name.removesuffix(" [0]"), shape, scale, translate, source.path if source else None)

    def shows(self, preview: Preview, run: Run) -> bool:
        """Whether it is the scan of a preview.

        It is if it came from the same file. What was written into the run folder from open layers has their names and
        their place.
        """
        files = [path.resolve() for path in preview.images]
        if self.path is not None and self.path.resolve() in files:
            return True
        if not files[0].is_relative_to((run.folder / "inputs").resolve()):
            return False
        same_place = matching_source(self.shape, self.scale, self.translate, [Source.from_dict(preview.source)])
        return same_place is not None and case_ids([self.name]) == [preview.case]


@dataclass(frozen=True, eq=False)
class Look:
    """What there is to be seen of the preview that a run makes.

    Attributes:
        answers: Which question.
        cases: That can be asked for, and their sides.
        asked: The one that somebody asked for.
        comes: Whether the run goes on.
        stamp: Of the last preview of that case; None where there is none.
        layer: Its labels or colours, where it is not the one that was seen before.
        scan: The layers of its scan, where that is not open.
        trouble: What cannot be made or read.
    """

    answers: int
    cases: dict[str, str]
    asked: str | None
    comes: bool = True
    stamp: Stamp | None = None
    layer: LayerData | None = None
    scan: tuple[LayerData, ...] = ()
    trouble: str = ""


class Notes:
    """What a run said of a preview that it could not make. Each look reads on where the last one ended."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._offset = 0
        self._last: Noted | None = None

    def last(self) -> str:
        """Of the one that is asked for; empty where it said nothing."""
        with suppress(OSError), (self.run.folder / "events.jsonl").open("rb") as file:
            file.seek(self._offset)
            while (line := file.readline()).endswith(b"\n"):
                self._offset += len(line)
                if _REFUSED in line:
                    self._take(line)
        asked = request_stamp(self.run)
        return self._last.message if self._last and asked and self._last.time > asked[1] / 1e9 else ""

    def _take(self, line: bytes) -> None:
        with suppress(ValidationError):  # a line that a crash cut short
            if isinstance(event := read_event(line), Noted):
                self._last = event


def look_for(
    notes: Notes,
    cases: dict[str, str],
    seen: tuple[str, Stamp] | None,
    shown: Collection[str],
    opened: Sequence[Opened],
    answers: int,
    **_: Callable[..., Any],
) -> Look:
    """Reads what is new.

    Args:
        notes: Of the run.
        cases: What is known of its cases.
        seen: The case that was seen last, and what tells its preview from the next one.
        shown: Cases that a layer shows.
        opened: The scans that are open.
        answers: Number of the question.
    """
    run, asked = notes.run, None
    with suppress(UserError):
        asked = asked_preview(run)
    look = Look(answers, cases or cases_of(run), asked)
    if asked is None:
        return look
    if (stamp := preview_stamp(run, asked)) is None:
        comes = run.state in ALIVE
        return replace(look, comes=comes, trouble=notes.last() if comes else "")
    look = replace(look, stamp=stamp)
    try:
        if seen == (asked, stamp) or (preview := Preview.last(run, asked)) is None:
            return look
        look = replace(look, layer=layer_of(preview, run))
        if asked in shown or any(scan.shows(preview, run) for scan in opened):
            return look
        return replace(look, scan=tuple(one for path in preview.images for one in layers_of(str(path))))
    except UserError as error:
        return replace(look, trouble=str(error))


def layer_of(preview: Preview, run: Run) -> LayerData:
    """The labels or colours of a preview as a layer.

    Raises:
        UserError: They cannot be read.
    """
    found, name = preview.read(run), f"preview {preview.case} ({run.name})"
    if isinstance(found, Labels):
        data, meta, kind = labels_layer(found, name)
    else:
        ((data, meta, kind),) = image_layers(found, name, opacity=_OPACITY)
    meta["metadata"]["medcl"] |= {MARK: mark_of(run, preview.case), STEP: preview.step}
    return np.ascontiguousarray(data), meta, kind


def hand_over(event: Any) -> None:
    """A preview that the user paints on becomes a mask of the user's."""
    for key in (MARK, HELPER, STEP):
        event.source.metadata["medcl"].pop(key, None)


def mark_of(run: Run, case: str) -> dict[str, str]:
    """What marks the layer of a preview."""
    return {"run": str(run.folder), "case": case}


def marked(layer: Any) -> dict[str, str] | None:
    """Of which preview a layer is the layer; a copy of that one is the user's."""
    found: dict[str, str] | None = layer.metadata.get("medcl", {}).get(MARK)
    return found if is_helper(layer) else None
