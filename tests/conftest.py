"""Fixtures that several parts share."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.blobs import write_blobs

if TYPE_CHECKING:
    from collections.abc import Callable


os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: networks as small as these are faster so


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with reference numbers and real scans, beside the checkout; skips where it is missing."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"reference numbers and scans are not at {folder}")
    return folder


@pytest.fixture(autouse=True)
def _own_places(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs, queues and caches go to folders of the test's own."""
    monkeypatch.setenv("MEDCL_RUNS", str(tmp_path_factory.mktemp("runs")))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def blobs(tmp_path: Path) -> Callable[..., Path]:
    """Makes a data folder of scans, each with a bright ball (1) and a dark one (2) at random places."""
    return partial(write_blobs, tmp_path / "blobs")
