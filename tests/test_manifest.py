from __future__ import annotations

from fnmatch import fnmatch
from importlib.metadata import entry_points
from pathlib import Path

import npe2
import pytest

from napari_medcl.data.formats import READABLE

ROOT = Path(__file__).parents[1]
PACKAGED = ROOT / "src" / "napari_medcl" / "napari.yaml"


@pytest.fixture(scope="module")
def manifest() -> npe2.PluginManifest:
    return npe2.PluginManifest.from_file(PACKAGED)


def test_top_level_file_is_the_packaged_one() -> None:
    assert (ROOT / "napari.yaml").read_bytes() == PACKAGED.read_bytes()


def test_one_name_everywhere(manifest: npe2.PluginManifest) -> None:
    (entry,) = (e for e in entry_points(group="napari.manifest") if e.name == "medcl")
    assert entry.value == "napari_medcl:napari.yaml"
    assert entry.dist is not None
    assert entry.dist.name == manifest.name == "medcl"
    assert all(command.id.startswith("medcl.") for command in manifest.contributions.commands)


def test_everything_named_can_be_imported(manifest: npe2.PluginManifest) -> None:
    pytest.importorskip("qtpy.QtWidgets", reason="the viewer's part needs a Qt binding", exc_type=ImportError)
    manifest.validate_imports()


def test_reader_takes_what_can_be_read(manifest: npe2.PluginManifest) -> None:
    (reader,) = manifest.contributions.readers
    for suffix in READABLE:
        assert any(fnmatch(f"scan{suffix}", pattern) for pattern in reader.filename_patterns), suffix
    assert sorted(reader.filename_patterns) == sorted(["*.zarr", *(f"*{suffix}" for suffix in READABLE)])
    assert reader.accepts_directories


def test_widgets_are_in_the_segment_menu(manifest: npe2.PluginManifest) -> None:
    offered = {item.command for item in manifest.contributions.menus["napari/layers/segment"]}
    assert offered == {widget.command for widget in manifest.contributions.widgets}


def test_widget_keys_that_older_viewers_reject_are_left_out() -> None:
    text = PACKAGED.read_text()
    assert "tabify" not in text
    assert "default_dock_area" not in text
