from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from napari_medcl.benchmark.cells import plan
from napari_medcl.benchmark.config import BenchmarkConfig
from napari_medcl.errors import UserError
from napari_medcl.methods import JCL, PDCR, SuperCL

if TYPE_CHECKING:
    from pathlib import Path

    from napari_medcl.benchmark.cells import Cell


def cells(folder: Path, **given: Any) -> list[Cell]:
    return plan(BenchmarkConfig(folder=folder, **given), folder / "split.json", folder / "runs", most=5)


def test_every_method_number_and_seed_has_one_run_after_the_pre_trainings_that_they_share(tmp_path: Path) -> None:
    made = cells(
        tmp_path, methods=("scratch", "jcl", "jcl+pdcr", "pcl"), labelled=(2, "all"), seeds=(0, 4), pretrain_steps=7
    )
    first, rest = made[:2], made[2:]
    assert [(cell.stage, cell.folder.name) for cell in first] == [
        ("pretrain", "pretrain_jcl"),
        ("pretrain", "pretrain_pcl"),
    ]
    assert {cell.config.steps for cell in first} == {7}
    assert len(rest) == len({(cell.method, cell.labelled, cell.seed) for cell in rest}) == 4 * 2 * 2
    assert {cell.labelled for cell in rest} == {2, 5}
    assert len({cell.folder for cell in made}) == len(made)


def test_a_method_is_a_start_and_what_is_added_to_the_fine_tuning(tmp_path: Path) -> None:
    methods = ("scratch", "scratch+pdcr+uafs", "supercl+pdcr", "jcl", "simclr")
    made = cells(tmp_path, methods=methods, labelled=(1,), seeds=(3,))
    starts = {cell.folder.name: cell.config.method for cell in made if cell.stage == "pretrain"}
    assert isinstance(starts["pretrain_jcl"], JCL)
    assert starts["pretrain_supercl"] == SuperCL()
    assert starts["pretrain_simclr"] == SuperCL(positives="simclr", intra=0, inter=0)
    tuned = {cell.method: cell for cell in made if cell.stage == "finetune"}
    assert tuned["scratch"].after is None
    assert tuned["scratch"].config.start is None  # type: ignore[union-attr]
    assert tuned["supercl+pdcr"].after == tmp_path / "runs" / "pretrain_supercl" == tuned["supercl+pdcr"].config.start  # type: ignore[union-attr]
    assert isinstance(tuned["scratch+pdcr+uafs"].config.method, PDCR)
    assert [method for method, cell in tuned.items() if cell.config.uafs] == ["scratch+pdcr+uafs"]  # type: ignore[union-attr]
    assert {cell.config.seed for cell in tuned.values()} == {3}


def test_all_runs_have_the_same_budget_data_and_network(tmp_path: Path) -> None:
    made = cells(
        tmp_path, methods=("scratch", "jcl+pdcr"), steps=9, width=4, patch=(8, 8), channel=1, groups="(.).*", dims="2d"
    )
    tuned = [cell.config for cell in made if cell.stage == "finetune"]
    assert {config.steps for config in tuned} == {9}
    same = {
        "split": tmp_path / "split.json",
        "width": 4,
        "patch": (8, 8),
        "channel": 1,
        "groups": "(.).*",
        "dims": "2d",
    }
    for config in [cell.config for cell in made]:
        assert {name: getattr(config, name) for name in same} == same


def test_all_is_every_patient_and_a_number_counts_patients_unless_it_is_told_to_count_cases(tmp_path: Path) -> None:
    made = [cell.config for cell in cells(tmp_path, methods=("scratch",), labelled=(3, "all"), seeds=(0,))]
    assert [(config.labelled, config.labelled_by) for config in made] == [(3, "patient"), (None, "patient")]  # type: ignore[union-attr]
    made = [cell.config for cell in cells(tmp_path, methods=("scratch",), labelled=(3,), seeds=(0,), count="cases")]
    assert [config.labelled_by for config in made] == ["case"]  # type: ignore[union-attr]


def test_settings_of_ones_own_make_a_start_and_an_addition(tmp_path: Path) -> None:
    made = cells(
        tmp_path,
        methods=("quick+gentle",),
        labelled=(1,),
        seeds=(0,),
        pretrain={"batch": 6},
        finetune={"evaluations": 3},
        starts={"quick": {"rate": 0.5, "method": {"name": "jcl", "blocks": 1}}},
        additions={"gentle": {"rate": 1e-4}},
    )
    start, tuned = (cell.config for cell in made)
    assert (start.rate, start.batch, start.method) == (0.5, 6, JCL(blocks=1))
    assert (tuned.rate, tuned.evaluations) == (1e-4, 3)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"methods": ("magic",)}, "no pre-training “magic”.*scratch, jcl, supercl"),
        ({"methods": ("jcl+magic",)}, "no addition “magic” in jcl\\+magic.*pdcr, uafs"),
        ({"labelled": (6,)}, "6 labelled patients were asked for; the training side has 5"),
        ({"finetune": {"rate": -1}}, "fine-tuning of scratch:\nrate: "),
        ({"starts": {"own": {"steps": "many"}}, "methods": ("own",)}, "pre-training own:\nsteps: "),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(given: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told):
        cells(tmp_path, **{"methods": ("scratch",), "labelled": (1,), **given})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"methods": ("jcl", "jcl")}, "twice"),
        ({"seeds": (0, 0)}, "twice"),
        ({"labelled": (0,)}, "labelled"),
        ({"labelled": ()}, "labelled"),
        ({"test": 0}, "test"),
        ({"minutes": 5}, "minutes"),
        ({"finetune": {"split": None}}, "“split” in finetune is for the benchmark to set"),
        ({"additions": {"own": {"labelled": 3}}}, "“labelled” in own is for the benchmark to set"),
        ({"starts": {"../../out": {}}}, "cannot be a name"),
        ({"additions": {"a+b": {}}}, "cannot be a name"),
        ({"starts": {"scratch": {}}}, "cannot be a name"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=told):
        BenchmarkConfig(folder=tmp_path, **given)
