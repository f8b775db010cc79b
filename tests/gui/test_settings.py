from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any

import pytest

from napari_medcl.gui.settings import Settings, settings

if TYPE_CHECKING:
    from pathlib import Path


def test_defaults_where_the_viewer_has_no_such_page(monkeypatch: pytest.MonkeyPatch, runs: Path) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name == "napari.settings":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    assert settings() == Settings(runs, "auto")


@pytest.fixture
def page(plugin_settings: None, npe2pm: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    napari_settings = pytest.importorskip("napari.settings")
    if not hasattr(napari_settings, "get_plugin_settings"):
        pytest.skip("this viewer has no pages for plugins")
    from npe2 import PluginManifest

    npe2pm.register(PluginManifest.from_distribution("medcl"))
    return napari_settings.get_plugin_settings("medcl").general


def test_page_has_the_same_defaults(page: Any, runs: Path) -> None:
    assert settings() == Settings(runs)


def test_what_is_set_on_the_page_holds(page: Any, tmp_path: Path) -> None:
    page.runs_folder = str(tmp_path / "elsewhere")
    page.segments = 250
    page.device = "cpu"
    assert settings() == Settings(tmp_path / "elsewhere", "cpu", 250)


def test_page_knows_the_devices(page: Any) -> None:
    with pytest.raises(ValueError, match="tpu"):
        page.device = "tpu"
