"""What makes a package of it: names, versions, licence, manifest, README, scripts."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import napari_medcl

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "src" / "napari_medcl"
HEAVY = {"torch", "monai", "napari", "qtpy", "PyQt6", "PySide6", "pyqtgraph", "magicgui"}
TEXTS = sorted(
    path
    for pattern in ("*.md", "*.toml", "*.ini", "scripts/*", ".ci/*", "src/**/*", "docs/**/*", "examples/**/*")
    for path in ROOT.glob(pattern)
    if path.is_file() and path.suffix not in (".pyc", ".png")
)


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_nothing_heavy() -> None:
    loaded = python("import sys, napari_medcl; print(*sys.modules)").split()
    assert "napari_medcl" in loaded
    assert not HEAVY & {name.partition(".")[0] for name in loaded}


def test_torch_free_names_stay_torch_free() -> None:
    names = "read_volume, find_cases, superpixels, SuperCL, JCL, PDCR, PretrainConfig, FinetuneConfig"
    code = f"import sys; from napari_medcl import {names}; print(*sys.modules)"
    assert not HEAVY & {name.partition(".")[0] for name in python(code).split()}


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("--help", "Usage"),
        ("pretrain --help", "--method.blocks"),
        ("finetune --method pdcr --help", "--method.windows"),
        ("runs list nowhere", "no runs in nowhere"),
    ],
)
def test_command_line_answers_without_torch(typed: str, answer: str) -> None:
    listen = "import atexit, sys; atexit.register(lambda: print('LOADED', *sys.modules))"
    start = f"sys.argv = ['medcl', *{typed.split()}]; from napari_medcl.__main__ import main; main()"
    said, _, loaded = python(f"{listen}; {start}").rpartition("LOADED")
    assert answer in said
    assert not HEAVY & {name.partition(".")[0] for name in loaded.split()}


@pytest.mark.parametrize("name", napari_medcl.__all__)
def test_public_name(name: str) -> None:
    value = getattr(napari_medcl, name)
    assert value.__name__ == name
    assert value.__doc__, "documented"
    assert value.__module__.startswith("napari_medcl.")
    assert name in dir(napari_medcl)


def test_no_other_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        napari_medcl.nonsense  # noqa: B018


def test_version_is_that_of_the_distribution_and_of_the_changelog() -> None:
    assert metadata.version("medcl") == napari_medcl.__version__
    latest = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)[0]
    assert latest == napari_medcl.__version__


def test_entry_points() -> None:
    points = {(point.group, point.name): point.value for point in metadata.distribution("medcl").entry_points}
    assert points["napari.manifest", "medcl"] == "napari_medcl:napari.yaml"
    assert points["console_scripts", "medcl"] == "napari_medcl.__main__:main"


def test_manifest_at_the_top_is_the_one_in_the_package() -> None:
    top = ROOT / "napari.yaml"
    assert top.is_symlink()
    assert top.resolve() == SOURCES / "napari.yaml"


def test_licence() -> None:
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert text.startswith("BSD 3-Clause License")
    assert metadata.metadata("medcl")["License-Expression"] == "BSD-3-Clause"


def test_readme_commands_are_there_and_ci_runs_the_second() -> None:
    readme = (ROOT / "README.md").read_text("utf-8").splitlines()
    for command in ("sh scripts/demo", "sh scripts/test"):
        assert readme.count(command) == 1
        assert (ROOT / command.split()[1]).is_file()
    assert "sh scripts/test" in (ROOT / ".ci" / "run").read_text("utf-8").splitlines()


def test_links_in_the_texts_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for link in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_path_of_a_machine(path: Path) -> None:
    found = re.search(r"(?<![\w./-])/(?:home|root|work|Users|tmp)/\w|[A-Z]:\\\w", path.read_text("utf-8"))
    assert found is None, found


def test_shell_scripts_parse() -> None:
    for script in ("scripts/demo", "scripts/test", "scripts/environment.sh"):
        subprocess.run(["sh", "-n", ROOT / script], check=True)
    subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=True)
