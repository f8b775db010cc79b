"""The command line, as somebody types it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest
from safetensors.numpy import save_file

from napari_medcl.checkpoint import Checkpoint
from napari_medcl.many.done import Result
from napari_medcl.methods import JCL, SuperCL
from napari_medcl.methods.choices import offers
from napari_medcl.training.config import PretrainConfig
from napari_medcl.training.run import Run
from tests.commands import SMALL, alone, medcl
from tests.inference.models import checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def test_the_main_job_end_to_end(blobs: Callable[..., Path], tmp_path: Path) -> None:
    folder = blobs(scans=5, masks=4)
    scan = folder / "imagesTr" / "case_4.nii.gz"
    said = medcl("superpixels", scan, "--out", tmp_path / "regions.nii.gz", "--segments", 20)
    assert "regions.nii.gz" in said
    assert nib.load(tmp_path / "regions.nii.gz").shape == nib.load(scan).shape

    alone("pretrain", folder, "--dims", "2d", "--steps", 4, "--run", tmp_path / "pre", *SMALL)
    said = alone(
        "finetune", folder, "--start", tmp_path / "pre", "--steps", 200, "--rate", 0.01, "--evaluations", 2,
        "--run", tmp_path / "fine", *SMALL,
    )  # fmt: skip
    assert "validation Dice" in said
    assert Run(tmp_path / "fine").state == "finished"

    alone(
        "predict", tmp_path / "fine", scan, "--out", tmp_path / "found", "--uncertainty", "--probabilities",
        "--device", "cpu",
    )  # fmt: skip
    found = nib.load(tmp_path / "found" / "case_4.nii.gz")
    assert np.array_equal(found.affine, nib.load(scan).affine)
    assert set(np.unique(found.dataobj)) <= {0, 1, 2}
    for kind in ("uncertainty", "probabilities"):
        assert (tmp_path / "found" / f"case_4-{kind}.nii.gz").is_file()
    corrected = (tmp_path / "found" / "case_4.nii.gz").read_bytes()
    medcl("predict", tmp_path / "fine", scan, "--out", tmp_path / "found", "--device", "cpu")
    (backup,) = (tmp_path / "found" / ".medcl-backups").iterdir()
    assert backup.read_bytes() == corrected

    said = medcl(
        "evaluate", tmp_path / "fine", folder, "--split", tmp_path / "fine" / "split.json", "--side", "val",
        "--csv", tmp_path / "scores.csv", "--device", "cpu",
    )  # fmt: skip
    assert "Mean Dice" in said
    rows = list(csv.DictReader((tmp_path / "scores.csv").read_text("utf-8").splitlines()))
    assert {row["class"] for row in rows} == {"class 1", "class 2"}
    assert float(rows[0]["dice"]) > 0.3

    (folder / "imagesTr" / "broken.nii.gz").write_bytes(b"no scan")
    everything = ("predict", tmp_path / "fine", folder, "--device", "cpu", "--out")
    assert "5 made, 1 failed" in medcl(*everything, tmp_path / "all", "--processes", 2, fails=True)
    assert "5 made, 1 failed" in medcl(*everything, tmp_path / "alone", fails=True)
    masks = sorted(path.name for path in (tmp_path / "all").glob("*.nii.gz"))
    assert len(masks) == 5
    for name in masks:
        one, other = (np.asarray(nib.load(tmp_path / where / name).dataobj) for where in ("all", "alone"))
        assert np.array_equal(one, other)
    rows = list(csv.DictReader((tmp_path / "all" / "report.csv").read_text("utf-8").splitlines()))
    assert {row["case"]: row["state"] for row in rows}["broken"] == "failed"
    said = medcl(*everything, tmp_path / "all", fails=True)
    assert "5 done before, 1 failed" in said
    assert "broken.nii.gz is not compressed as its name says" in said
    (folder / "imagesTr" / "broken.nii.gz").unlink()
    assert "Mean Dice" in medcl("evaluate", tmp_path / "all", folder)


def test_superpixels_of_a_folder_go_to_a_folder(blobs: Callable[..., Path], tmp_path: Path) -> None:
    folder = blobs(scans=2, masks=0)
    said = medcl("superpixels", folder, "--out", tmp_path / "regions", "--segments", 20, "--processes", 2)
    assert "2 made" in said
    one = nib.load(tmp_path / "regions" / "case_0-superpixels.nii.gz")
    assert np.asarray(one.dataobj).max() > 10
    assert "2 done before" in medcl("superpixels", folder, "--out", tmp_path / "regions", "--segments", 20)
    assert not medcl("cache").startswith("0 bytes in ")
    assert medcl("cache", "--clear").startswith("0 bytes in ")
    assert "--out FOLDER" in medcl("superpixels", folder, fails=True)
    assert "--processes must be 1 or more" in medcl(
        "superpixels", folder, "--out", tmp_path / "x", "--processes", 0, fails=True
    )


def test_an_interruption_says_how_to_go_on(
    blobs: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object, **how: object) -> Iterator[Result]:
        yield Result("case_0", "made", files=(tmp_path / "case_0.nii.gz",))
        raise KeyboardInterrupt

    monkeypatch.setattr("napari_medcl.many.spread.spread", interrupted)
    said = medcl("superpixels", blobs(scans=2), "--out", tmp_path / "out", fails=True)
    assert "case_0.nii.gz" in said
    assert said.endswith("Interrupted. The same command goes on from here.")


def test_settings_come_from_a_file_and_options_win(blobs: Callable[..., Path], tmp_path: Path) -> None:
    folder = blobs(masks=0)
    medcl("pretrain", folder, "--dims", "2d", "--steps", 2, "--run", tmp_path / "one", "--method.blocks", 1, *SMALL)
    medcl("pretrain", "--config", tmp_path / "one" / "config.json", "--steps", 3, "--run", tmp_path / "two")
    one, two = Run(tmp_path / "one").config, Run(tmp_path / "two").config
    assert (one.pop("steps"), two.pop("steps")) == (2, 3)
    assert one == two
    assert one["method"]["blocks"] == 1


def test_uncertainty_of_uafs_blocks_is_written(blobs: Callable[..., Path], tmp_path: Path) -> None:
    folder = blobs()
    scan = folder / "imagesTr" / "case_0.nii.gz"
    medcl(
        "finetune", folder, "--dims", "2d", "--steps", 2, "--network", "attention", "--uafs",
        "--uafs-maps", "dec1", "--uafs-maps", "bottleneck", "--run", tmp_path / "run", *SMALL,
    )  # fmt: skip
    medcl("predict", tmp_path / "run", scan, "--out", tmp_path / "out", "--uafs", "--device", "cpu")
    found = {path.name: nib.load(path) for path in (tmp_path / "out").glob("*.nii.gz")}
    assert set(found) == {"case_0.nii.gz", "case_0-uafs-bottleneck.nii.gz", "case_0-uafs-dec1.nii.gz"}
    for image in found.values():
        assert image.shape == nib.load(scan).shape
        assert np.array_equal(image.affine, nib.load(scan).affine)
    checkpoint((8, 8)).save(tmp_path / "plain.safetensors")
    said = medcl("predict", tmp_path / "plain.safetensors", scan, "--out", tmp_path / "out", "--uafs", fails=True)
    assert "no UAFS blocks" in said


def test_the_file_may_name_the_method_and_the_command_line_wins(tmp_path: Path) -> None:
    file, pcl = tmp_path / "settings.json", SuperCL(positives="position", intra=0, inter=0, temperature=0.5)
    file.write_text(json.dumps({"folder": str(tmp_path), "steps": 7, "method": {"name": "pcl", "temperature": 0.5}}))
    assert asked("pretrain", "--config", file).method == pcl
    assert asked("pretrain", "--config", file, "--method", "pcl", "--steps", 3).method == pcl
    assert asked("pretrain", "--config", file, "--method.threshold", 0.2).method.threshold == 0.2
    other = asked("pretrain", "--config", file, "--method=jcl", "--method.blocks", 1, "--patch", "32,48")
    assert (other.method, other.steps, other.patch) == (JCL(blocks=1), 7, (32, 48))


def asked(*words: object) -> PretrainConfig:
    """The configuration that words on the command line lead to; nothing is trained."""
    code = (
        "from napari_medcl import cli, learn_cli\n"
        "learn_cli._begin = lambda config, folder, queue: print(config.model_dump_json())\n"
        "cli.main()"
    )
    said = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=True)
    return PretrainConfig.model_validate_json(said.stdout)


def test_without_a_word_it_shows_the_commands() -> None:
    said = medcl()
    assert all(name in said for name in ("pretrain", "finetune", "import", "predict"))


def test_help_shows_the_methods_and_the_settings_of_one() -> None:
    said = medcl("pretrain", "--help")
    assert all(f"{name}: {offer.about}" in said for name, offer in offers("pretrain").items())
    assert "--method.blocks" in said
    assert "--now Start beside other runs on the" in said
    said = medcl("pretrain", "--method", "supercl", "--help")
    assert "--method.intra" in said
    assert "--method.blocks" not in said
    said = medcl("finetune", "--method=pdcr", "--help")
    assert "--method.windows" in said
    assert "--method.superpixels" not in said


def test_the_authors_weights_are_imported_and_gone_on_from(
    blobs: Callable[..., Path], shared: Path, tmp_path: Path
) -> None:
    folder, weights = blobs(shape=(40, 40, 10)), shared / "reference" / "jcl_authors_checkpoint.pth"
    said = medcl("import", weights, "-o", tmp_path / "model.safetensors")
    assert "width 4, 4 poolings. Hands on enc1" in said
    model = Checkpoint.load(tmp_path / "model.safetensors")
    assert model.provenance["imported"]["file"] == weights.name
    said = medcl(
        "finetune", folder, "--start", weights, "--method", "pdcr", "--method.windows", "5,7", "--steps", 2,
        "--evaluations", 1, "--batch", 2, "--device", "cpu", "--run", tmp_path / "run",
    )  # fmt: skip
    assert "crops of 48 x 48" in said
    assert Run(tmp_path / "run").config["method"]["windows"] == [5, 7]
    made = Checkpoint.load(Run(tmp_path / "run").checkpoint)
    assert (made.network.width, made.plan.spacing) == (4, (None, None, None))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("predict", "{tmp}/nothing", "{scan}", "--out", "{tmp}/out"), "no model file or run folder"),
        (("pretrain", "{tmp}/nowhere"), "nowhere"),
        (("finetune", "{unlabelled}"), "mask"),
        (("pretrain", "{unlabelled}", "--device", "cuda"), "CUDA"),
        (("pretrain", "{unlabelled}", "--steps", "-3"), "--steps: Input should be greater than or equal to 1."),
        (("pretrain", "{unlabelled}", "--method", "pcl", "--method.intra", "1"), "Unknown option: --method.intra"),
        (("pretrain", "{unlabelled}", "--method", "jcl", "--method.blocks", "3", "--depth", "2"), "with 2 poolings"),
        (("pretrain", "{unlabelled}", "--method", "pdcr", "--method.maps", "enc8"), "no map 'enc8'"),
        (("finetune", "{unlabelled}", "--method", "jcl"), "JCL learns without masks only."),
        (("finetune", "{unlabelled}", "--uafs", "--uafs-maps", "dec8"), "no map 'dec8'"),
        (("finetune", "{unlabelled}", "--start", "{broken}"), "broken.nii.gz"),
        (("finetune", "{unlabelled}", "--start", "{headless}"), "header of {headless} is broken"),
        (("import", "{broken}", "-o", "{tmp}/model.safetensors"), "it is broken"),
        (("pretrain", "{unlabelled}", "--method", "magic"), "Choose jcl, supercl"),
        (("superpixels", "{broken}"), "broken.nii.gz"),
        (("evaluate", "{unlabelled}", "{unlabelled}"), "mask"),
        (("pretrain", "--config", "{broken}"), "cannot be read"),
    ],
)
def test_what_is_wrong_is_said_without_a_traceback(
    words: tuple[str, ...], expected: str, blobs: Callable[..., Path], tmp_path: Path
) -> None:
    folder = blobs(masks=0)
    (tmp_path / "broken.nii.gz").write_text("this is no scan")
    save_file({"weight": np.zeros(1)}, tmp_path / "headless.safetensors", metadata={"medcl": '{"format": 2}'})
    places = {
        "tmp": tmp_path,
        "unlabelled": folder,
        "scan": folder / "imagesTr" / "case_0.nii.gz",
        "broken": tmp_path / "broken.nii.gz",
        "headless": tmp_path / "headless.safetensors",
    }
    if "cuda" in words:
        torch = pytest.importorskip("torch")
        if torch.cuda.is_available():
            pytest.skip("this machine has what the test wants missing")
    assert expected.format(**places) in medcl(*(word.format(**places) for word in words), fails=True)
