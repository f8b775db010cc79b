from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_medcl.data import cache

if TYPE_CHECKING:
    from pathlib import Path

ARRAY = np.arange(1000, dtype=np.int16).reshape(10, 100)


def never() -> Any:
    pytest.fail("it is made again")


def test_an_array_is_made_once_and_then_mapped() -> None:
    path = cache.home() / "kind" / "name.npy"
    for make in (lambda: ARRAY, never):
        found = cache.kept(path, make)
        assert isinstance(found, np.memmap)
        assert np.array_equal(found, ARRAY)
        with pytest.raises(ValueError, match="read-only"):
            found[0] = 0
    assert cache.size() == path.stat().st_size


def test_small_ones_are_not_kept() -> None:
    path = cache.home() / "kind" / "name.npy"
    assert cache.kept(path, lambda: ARRAY, smallest=2001) is ARRAY
    assert not path.exists()
    assert isinstance(cache.kept(path, lambda: ARRAY, smallest=2000), np.memmap)


@pytest.mark.parametrize("damage", [b"", b"text", b"\x93NUMPY\x01\x00v\x00{'descr'", None])
def test_damage_is_mended(damage: bytes | None) -> None:
    path = cache.home() / "kind" / "name.npy"
    cache.kept(path, lambda: ARRAY)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100] if damage is None else damage)
    assert np.array_equal(cache.kept(path, lambda: ARRAY), ARRAY)
    assert path.read_bytes() == whole


def test_objects_are_not_read(tmp_path: Path) -> None:
    np.save(tmp_path / "name.npy", np.array([{"a": 1}], object), allow_pickle=True)
    assert cache.mapped(tmp_path / "name.npy") is None


def test_a_folder_that_cannot_be_written_to_costs_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert cache.kept(tmp_path / "file" / "name.npy", lambda: ARRAY) is ARRAY


def test_a_blank_array_is_a_file_without_a_name(tmp_path: Path) -> None:
    array = cache.blank((3, 4), np.float32, tmp_path / "new")
    assert isinstance(array, np.memmap)
    assert not array.any()
    array[1] = 2
    assert array.sum() == 8
    assert not [*(tmp_path / "new").iterdir()]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system does not reserve room on a disk")
def test_a_blank_array_larger_than_the_disk_is_refused_before_it_is_written_to(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"space|large"):
        cache.blank((2**56,), np.uint8, tmp_path)
    assert not [*tmp_path.iterdir()]


def test_what_was_not_used_for_longest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [cache.home() / "kind" / f"{number}.npy" for number in range(4)]
    for number, path in enumerate(paths):
        cache.kept(path, lambda: ARRAY)
        os.utime(path, (number, number))
    cache.kept(paths[0], never)  # used now
    each = paths[0].stat().st_size
    total = int(3.5 * each / cache._SHARE)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: type("Usage", (), {"total": total}))
    cache.kept(cache.home() / "other" / "new.npy", lambda: ARRAY)
    assert [path.exists() for path in paths] == [True, False, False, True]
    assert cache.size() == 3 * each


def test_all_of_it_is_cleared_and_what_is_read_stays_readable() -> None:
    found = cache.kept(cache.home() / "kind" / "name.npy", lambda: ARRAY)
    cache.clear()
    assert cache.size() == 0
    assert np.array_equal(found, ARRAY)


def test_the_place_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDCL_CACHE", str(tmp_path / "here"))
    assert cache.home() == tmp_path / "here"
