"""Starting runs in processes of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_medcl.training import launch

if TYPE_CHECKING:
    from pathlib import Path


def test_new_folders_are_never_taken(tmp_path: Path) -> None:
    first = launch.new_folder(tmp_path, "pretrain", "my scans/../..")
    assert first.parent == tmp_path
    first.mkdir()
    assert launch.new_folder(tmp_path, "pretrain", "my scans/../..") != first
