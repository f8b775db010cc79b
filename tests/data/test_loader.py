"""The loader: crops hold what they should, wherever they are cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from napari_medcl.data.loader import Item, Loader
from napari_medcl.data.needs import Needs
from napari_medcl.data.plan import Intensity, Plan
from napari_medcl.data.superpixels import SuperpixelSettings
from napari_medcl.data.views import CHANGED, FREE, Appearance, Geometry, Part
from napari_medcl.data.volume import IGNORE

if TYPE_CHECKING:
    from pathlib import Path

STILL = Geometry(p=1, flip=False, rotation=0, scale=(1, 1), elastic=0)
PLAIN = Appearance(p=0, brightness=0, contrast=0, gamma=0, noise=0, blur=0)


def plan(dims: int, patch: tuple[int, ...]) -> Plan:
    return Plan(channels=1, spatial_dims=dims, spacing=(1, 1, 1), patch=patch, intensities=(Intensity(scheme="scan"),))


def loader(items: list[Item], needs: Needs, patch: tuple[int, ...], size: int = 4, **changes: object) -> Loader:
    how = {"geometry": STILL, "appearance": PLAIN, **changes}
    return Loader(items, plan(len(patch), patch), needs, size, torch.device("cpu"), seed=1, **how)  # type: ignore[arg-type]


def coordinates(shape: tuple[int, int, int]) -> np.ndarray:
    """An image whose value tells the voxel, so that a crop tells where it was cut."""
    return np.arange(np.prod(shape), dtype=np.float32).reshape(1, *shape)


@pytest.mark.parametrize("patch", [(8, 6), (6, 8, 6)])
def test_labels_and_superpixels_lie_on_the_first_fixed_view(patch: tuple[int, ...]) -> None:
    shape = (12, 20, 18)
    image = coordinates(shape)
    mask = (image[0] % 7 < 2).astype(np.uint8)
    item = Item("a", image, labels=mask, superpixels=image[0].astype(np.int32))
    both = loader([item], Needs(fixed=2, superpixels=SuperpixelSettings()), patch).draw()
    inside = both.fixed[0][:, 0]
    assert torch.equal(inside.long(), both.superpixels)
    assert torch.equal(both.fixed[0], both.fixed[1])
    batch = loader([item], Needs(fixed=1, labels=True), patch, size=6).draw()
    assert batch.labels is not None
    known = batch.labels != IGNORE
    values = batch.fixed[0][:, 0].round().long()
    assert torch.equal(((values % 7) < 2)[known].long(), batch.labels[known])
    assert known.float().mean() > 0.8


def test_a_small_scan_is_continued_past_its_edge_and_ignored_there() -> None:
    item = Item("a", np.ones((1, 4, 6, 6), np.float32), labels=np.ones((4, 6, 6), np.uint8))
    batch = loader([item], Needs(fixed=1, labels=True), (8, 8, 8), size=2).draw()
    assert batch.labels is not None
    assert torch.equal(batch.fixed[0], torch.ones(2, 1, 8, 8, 8))
    assert (batch.labels == 1).sum() == 2 * 4 * 6 * 6
    assert (batch.labels == IGNORE).sum() == 2 * (8**3 - 4 * 6 * 6)


def test_only_annotated_slices_are_drawn_in_2d() -> None:
    labels = np.full((10, 8, 8), IGNORE, np.uint8)
    labels[[2, 7]] = 0
    labels[2, 3, 3] = 1
    image = np.broadcast_to(np.arange(10, dtype=np.float32)[:, None, None], (10, 8, 8))[None].copy()
    drawn = loader([Item("a", image, labels=labels)], Needs(fixed=1, labels=True), (8, 8), size=16)
    seen = torch.cat([drawn.draw().fixed[0].flatten() for _ in range(6)])
    assert set(seen.unique().tolist()) == {2.0, 7.0}


def test_items_without_annotation_are_left_out() -> None:
    blank = Item("blank", np.zeros((1, 4, 8, 8), np.float32), labels=np.full((4, 8, 8), IGNORE, np.uint8))
    good = Item("good", np.zeros((1, 4, 8, 8), np.float32), labels=np.zeros((4, 8, 8), np.uint8))
    assert set(loader([blank, good], Needs(fixed=1, labels=True), (8, 8)).draw().cases) == {"good"}


def test_foreground_is_drawn_far_more_often_than_it_occurs() -> None:
    labels = np.zeros((40, 40, 40), np.uint8)
    labels[20, 20, 20] = 1
    drawn = loader([Item("a", coordinates((40, 40, 40)), labels=labels)], Needs(fixed=1, labels=True), (8, 8, 8), 8)
    hits = [(drawn.draw().labels == 1).flatten(1).any(1).float().mean().item() for _ in range(10)]
    assert np.mean(hits) > 0.35


def test_position_is_the_middle_slice_in_its_volume() -> None:
    image = np.broadcast_to(np.arange(10, dtype=np.float32)[:, None, None], (10, 8, 8))[None].copy()
    batch = loader([Item("a", image)], Needs(free=1, position=True), (8, 8), size=32).draw()
    assert batch.position is not None
    torch.testing.assert_close(batch.position.float(), (batch.free[0][:, 0, 0, 0] + 1) / 10)
    assert batch.position.min() > 0
    assert batch.position.max() <= 1


def test_where_positions_count_the_crops_of_a_batch_lie_at_one_place_of_their_slices() -> None:
    """Slices at near positions are alike only where one looks at the same part of them."""
    shape = (10, 60, 50)
    at = np.broadcast_to(np.arange(60 * 50, dtype=np.float32).reshape(1, 60, 50), shape)[None].copy()

    def places(needs: Needs) -> tuple[int, int]:
        """Different places inside a batch, and over all batches."""
        drawn = loader([Item("a", at), Item("b", at)], needs, (8, 8), size=6)
        corners = [drawn.draw().fixed[0][:, 0, 0, 0] for _ in range(12)]
        return max(len(batch.unique()) for batch in corners), len(torch.cat(corners).unique())

    inside, over_all = places(Needs(fixed=1, position=True))
    assert inside == 1
    assert over_all > 6
    assert places(Needs(fixed=1))[0] > 1


def test_the_same_seed_gives_the_same_batches_and_every_item_comes_once_a_round() -> None:
    items = [Item(str(n), coordinates((6, 16, 16)) + n) for n in range(4)]
    needs = Needs(fixed=2, free=2, position=True)
    one, other = (loader(items, needs, (8, 8), size=2, appearance=Appearance(1, 0.1, 0.1, 0.1, 0.1, 0.5)) for _ in "ab")
    seen = []
    for _ in range(2):
        a, b = one.draw(), other.draw()
        seen += a.cases
        assert a.cases == b.cases
        for left, right in zip(a.fixed + a.free, b.fixed + b.free, strict=True):
            assert torch.equal(left, right)
    assert sorted(seen) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("patch", [(8, 6), (6, 8, 6)])
def test_the_parts_of_a_batch_are_together_the_whole(patch: tuple[int, ...]) -> None:
    image = coordinates((12, 20, 18))
    mask = (image[0] % 7 < 2).astype(np.uint8)
    items = [Item(str(n), image / (n + 1), labels=mask, superpixels=image[0].astype(np.int32)) for n in range(5)]
    needs = Needs(fixed=2, free=2, labels=True, superpixels=SuperpixelSettings(), position=True)
    how = {"geometry": FREE, "appearance": CHANGED}
    whole = loader(items, needs, patch, 6, **how)
    parts = [loader(items, needs, patch, 2, part=Part(index, 3), **how) for index in range(3)]
    for _ in range(2):
        one, others = whole.draw(), [part.draw() for part in parts]
        assert one.cases == sum((other.cases for other in others), ())
        for name in ("labels", "superpixels", "position"):
            assert torch.equal(getattr(one, name), torch.cat([getattr(other, name) for other in others]))
        for views in zip(one.fixed + one.free, *(other.fixed + other.free for other in others), strict=True):
            torch.testing.assert_close(views[0], torch.cat(views[1:]))
    states = [part.state() for part in (whole, *parts)]
    assert all(state["places"] == states[0]["places"] for state in states)
    assert all(torch.equal(state["views"], states[0]["views"]) for state in states)


@pytest.mark.parametrize("patch", [(8, 6), (6, 8, 6)])
def test_memory_maps_give_the_same_batches(patch: tuple[int, ...], tmp_path: Path) -> None:
    shape, needs = (12, 20, 18), Needs(fixed=1, superpixels=SuperpixelSettings())
    image, ids = coordinates(shape), coordinates(shape)[0].astype(np.uint16)
    np.save(tmp_path / "image.npy", image)
    np.save(tmp_path / "ids.npy", ids)
    maps = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("image", "ids")]
    one, other = (loader([Item("a", some[0], superpixels=some[1])], needs, patch) for some in ((image, ids), maps))
    for _ in range(3):
        first, second = one.draw(), other.draw()
        assert torch.equal(first.fixed[0], second.fixed[0])
        assert first.superpixels is not None
        assert second.superpixels is not None
        assert torch.equal(first.superpixels, second.superpixels)


def test_what_goes_wrong_ahead_is_raised_when_it_is_drawn() -> None:
    class Lost(np.ndarray):
        def __getitem__(self, key: object) -> object:
            raise OSError("the disk is gone")

    item = Item("a", coordinates((12, 20, 18)))
    some = loader([item], Needs(fixed=1), (8, 6))
    some.draw()
    assert some._ahead is not None
    some._ahead[1].result()  # was cut before the disk goes
    object.__setattr__(item, "image", item.image.view(Lost))
    some.draw()
    with pytest.raises(OSError, match="the disk is gone"):
        some.draw()


def test_an_epoch_has_every_item_once() -> None:
    items = [Item(str(number), coordinates((3, 9, 9))) for number in range(7)]
    some = loader(items, Needs(fixed=1), (8, 6), size=3)
    assert some.epoch == 3
    assert loader(items, Needs(fixed=1), (8, 6), size=2, part=Part(0, 2)).epoch == 2
