"""`medcl edit` and `medcl corrections`: what the dock Correct does, for masks in files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path  # noqa: TC003 - read at run time by cyclopts
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter
from rich.console import Console

from napari_medcl.errors import UserError
from napari_medcl.files import write_rows
from napari_medcl.inference.edits import EDITS, Interpolate, On
from napari_medcl.options import checked, options
from napari_medcl.terminal import attend, say, table
from napari_medcl.training.launch import new_folder
from napari_medcl.training.run import default_root

if TYPE_CHECKING:
    from napari_medcl.correction.journal import Recovered
    from napari_medcl.data.volume import Labels
    from napari_medcl.inference.edits import Edit

edit = App(name="edit", help="Edit a mask: fill holes, keep the largest piece, smooth, interpolate and more.")
corrections = App(name="corrections", help="Corrected masks: where to look, what was done, and training on from them.")
console = Console()
if not console.is_terminal:
    console.width = 500  # a table is as wide as it must be where nobody sees a screen

_Flag = Annotated[bool, Parameter(negative=())]
_SHOWN = 10


def _add_edit(name: str, kind: type[Edit]) -> None:
    """Adds the command of an edit, with its settings as options."""
    unset = (typed := options(kind.model_fields))()

    def command(
        mask: Path,
        *,
        label: int | None = None,
        slice_: Annotated[int | None, Parameter(name="--slice")] = None,
        axis: int = 0,
        out: Path | None = None,
        typed: Any = unset,
    ) -> None:
        made = checked(kind, {one: getattr(typed, one) for one in kind.model_fields})
        _edit(made, mask, On((), 0.0, label, axis), slice_, out or mask)

    command.__doc__ = f"""{(kind.__doc__ or "").splitlines()[0]}

    Args:
        mask: The mask.
        label: Which label; without it all.
        slice_: Edit this slice alone, from 0; without it the volume.
        axis: Which axis counts the slices: 0 is z, 1 y, 2 x.
        out: Where to save; without it in place, the old file is kept in .medcl-backups.
    """
    command.__annotations__["typed"] = Annotated[typed, Parameter(name="*")]
    edit.command(command, name=name)


for _name, _kind in EDITS.items():
    _add_edit(_name, _kind)


def _edit(made: Edit, path: Path, on: On, index: int | None, out: Path) -> None:
    from napari_medcl.correction.record import Record
    from napari_medcl.correction.save import save_mask
    from napari_medcl.data.formats import read_labels

    labels = read_labels(path)
    ml = float(labels.spacing[0] * labels.spacing[1] * labels.spacing[2]) / 1000
    if not 0 <= on.axis < 3:
        raise UserError(f"There is no axis {on.axis}: 0 is z, 1 is y, 2 is x.")
    array = labels.array.copy()
    if index is None:
        array = _applied(made, labels.array, replace(on, spacing=labels.spacing, voxel_ml=ml))
    else:
        if isinstance(made, Interpolate):
            raise UserError("Interpolation fills the slices between others: leave out --slice.")
        if not 0 <= index < labels.shape[on.axis]:
            raise UserError(
                f"{path} has no slice {index} along axis {on.axis}: it has {labels.shape[on.axis]}, from 0."
            )
        spacing = tuple(step for axis, step in enumerate(labels.spacing) if axis != on.axis)
        place = (slice(None),) * on.axis + (index,)
        array[place] = _applied(made, labels.array[place], replace(on, spacing=spacing, voxel_ml=ml))
    count = int((array != labels.array).sum())
    if not count and out == path:
        say(console, "Nothing was to be changed.")
        return
    record = Record.load(path) if path.exists() else Record(origin=path.name)
    saved = save_mask(replace(labels, array=array), out, record.with_edit())
    kept = f" The file that was there is {saved.backup}." if saved.backup else ""
    say(console, f"{count} voxels changed: {saved.path}.{kept}")


def _applied(made: Edit, array: Any, on: On) -> Any:
    try:
        return made(array, on)
    except ValueError as error:
        raise UserError(str(error)) from error


@corrections.command(name="next")
def next_(mask: Path, /, *, uncertainty: Path | None = None, axis: int = 0) -> None:
    """Say which slices of a mask to look at first.

    Args:
        mask: The mask.
        uncertainty: A map of uncertainty, as `medcl predict --uncertainty` writes it.
        axis: Which axis counts the slices: 0 is z, 1 y, 2 x.
    """
    from napari_medcl.correction.rank import ranked, slice_scores
    from napari_medcl.correction.record import Record
    from napari_medcl.data.formats import read_labels, read_volume

    labels, record = read_labels(mask), Record.load(mask)
    doubt = None if uncertainty is None else read_volume(uncertainty).array[0]
    if doubt is not None and doubt.shape != labels.shape:
        raise UserError(f"{uncertainty} has another shape than {mask}. Give the map of the same scan.")
    scores = slice_scores(labels.array, axis, doubt)
    found = [[str(index), f"{scores[index]:.2f}"] for index in ranked(scores, record.reviewed_along(axis))[:_SHOWN]]
    console.print(table(mask.name, ["slice", "doubt"], found, words=2))
    say(console, f"{len(record.reviewed_along(axis))} of {len(scores)} slices are reviewed.")


@corrections.command(name="table")
def table_(folder: Path, /, *, csv: Path) -> None:
    """Write edits, minutes, volumes in ml and Dice between the versions of all corrected masks of a folder.

    Args:
        folder: The folder of the masks, or the data folder.
        csv: Where to write.
    """
    from napari_medcl.correction.record import find_records, rows

    records = find_records(folder)
    if not records:
        raise UserError(f"No mask in {folder} was saved by the dock Correct or by medcl edit.")
    write_rows(csv, rows(records))
    say(console, f"{len(records)} masks: {csv}")


@corrections.command(name="list")
def list_() -> None:
    """List edits that were never saved, because their viewer was killed."""
    found = _left()
    if not found:
        say(console, "All edits have been saved.")
        return
    lines = [
        [one.about["layer"]["name"], str(one.changes), one.about.get("mask") or "", str(one.path)] for one in found
    ]
    console.print(table("Not saved", ["mask", "edits", "file", "journal"], lines, words=2))
    say(console, "To save one: medcl corrections recover JOURNAL --out FILE")


@corrections.command
def recover(journal: Path, /, *, out: Path) -> None:
    """Save a mask with the edits that were never saved; the journal is deleted after that.

    Args:
        journal: The journal, as medcl corrections list shows it.
        out: Where to save the mask.
    """
    from napari_medcl.correction.journal import discard, forget_journal
    from napari_medcl.correction.places import home_beside
    from napari_medcl.correction.record import Record
    from napari_medcl.correction.save import save_mask

    one = next((found for found in _left() if found.path == journal.absolute()), None)
    if one is None:
        raise UserError(f"{journal} holds no edits that were left behind. medcl corrections list shows those that do.")
    saved = save_mask(_labels_of(one), out, Record(origin=one.about["layer"]["name"]))
    discard(one.path)
    forget_journal(home_beside(default_root()), one.path)
    say(console, f"{one.changes} edits: {saved.path}")


def _left() -> list[Recovered]:
    from napari_medcl.correction.journal import known_journals, pending
    from napari_medcl.correction.places import home_beside

    return pending(known_journals(home_beside(default_root())))


def _labels_of(one: Recovered) -> Labels:
    """The mask with the geometry of its scan, or of its own file, as far as they are still there."""
    from napari_medcl.data.volume import Labels, Source

    layer: dict[str, Any] = one.about["layer"]
    kept = layer["metadata"]["medcl"].get("source")
    flat = one.mask.ndim == 2
    spacing = [1.0] * flat + [abs(step) for step in layer["scale"]]
    origin = [0.0] * flat + layer["translate"]
    array = one.mask[None] if flat else one.mask
    z, y, x = spacing
    oz, oy, ox = origin
    return Labels(array, (z, y, x), (oz, oy, ox), Source.from_dict(kept) if kept else None)


@corrections.command
def add(scan: Path, mask: Path, /, *, run: Path, to: Path, name: str | None = None, everything: _Flag = False) -> None:
    """Store a corrected scan as a case that teaches, beside the cases of a run.

    Args:
        scan: The scan.
        mask: Its mask; slices that were not marked as reviewed are stored as not annotated.
        run: The fine-tuning run whose model learns on.
        to: Folder of the training set; made where it is missing.
        name: What to call the case; without it as the scan.
        everything: All slices are right, whatever was marked.
    """
    from napari_medcl.correction.record import Record
    from napari_medcl.correction.training_set import TrainingSet
    from napari_medcl.data.formats import read_labels, read_volume, stem
    from napari_medcl.training.run import Run

    volume, labels = read_volume(scan), read_labels(mask)
    if labels.shape != volume.shape:
        raise UserError(f"{mask} has {labels.shape} voxels (z, y, x), {scan} has {volume.shape}. Give its own mask.")
    made = TrainingSet.begin(to.absolute(), Run(run))
    stored = made.add(name or stem(scan), volume, labels, Record.load(mask), everything=everything)
    say(console, f"{stored} is in {to}.")


@corrections.command
def improve(
    folder: Path,
    /,
    *,
    run: Path,
    minutes: float | None = None,
    steps: int | None = None,
    out: Path | None = None,
) -> None:
    """Let the model of a run learn on from a training set.

    Args:
        folder: The training set, see medcl corrections add.
        run: The fine-tuning run to go on from.
        minutes: How long; without minutes and steps 10.
        steps: Gradient steps.
        out: The new run folder.
    """
    from napari_medcl.correction.training_set import TrainingSet
    from napari_medcl.training.finetune import finetune
    from napari_medcl.training.run import Run

    made = TrainingSet(folder.absolute())
    if not made.split.is_file():
        raise UserError(f"{folder} is no training set: store a case with medcl corrections add first.")
    config = made.config(Run(run), steps=steps, minutes=minutes if steps or minutes else 10.0)
    target = out or new_folder(default_root(), "finetune", f"{folder.name}-improved")
    attend(Run(target), finetune(config, target, queue=True), console)
