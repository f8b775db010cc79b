"""What the user chose in the viewer's preferences."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from napari_medcl.correction.places import home_beside
from napari_medcl.data.superpixels import SuperpixelSettings
from napari_medcl.training.run import default_root


@dataclass(frozen=True)
class Settings:
    """The page MedCL ▸ General of the preferences; older viewers have no such page and use the defaults."""

    runs: Path = field(default_factory=default_root)
    device: str = "auto"
    segments: int = SuperpixelSettings().segments
    compactness: float = SuperpixelSettings().compactness

    @property
    def corrections(self) -> Path:
        """Where it is noted which masks are being corrected, beside the runs."""
        return home_beside(self.runs)


def settings() -> Settings:
    """The settings as they are now."""
    try:
        from napari.settings import get_plugin_settings

        page = get_plugin_settings("medcl").general
    except (ImportError, KeyError, AttributeError):
        return Settings()
    runs = Path(page.runs_folder).expanduser() if page.runs_folder else default_root()
    return Settings(runs, page.device, page.segments, page.compactness)
