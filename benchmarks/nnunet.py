"""nnU-Net's own planner and trainer on the labelled cases of a MedCL run, for as many minutes, on the same cores.

Runs in an environment of its own, with nnunetv2 and without MedCL:

    python benchmarks/nnunet.py DATA RUN --work FOLDER [--minutes 10] [--threads 1]
    medcl evaluate FOLDER/test DATA --split RUN/split.json --side test

DATA is a folder in the Decathlon's layout, RUN a MedCL fine-tuning of it, whose split.json tells what it learned from
and who is on which side. Planning and preprocessing are not counted. The trainer is nnU-Net's, with its network, loss,
augmentation and optimiser. Its 1000 epochs of 250 steps are replaced by epochs of 5 steps, with one batch of validation
each, until the time is over, and the learning rate's fall is fitted to that; masks are predicted with mirroring, as
usual there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

_NAME = "Dataset001_benchmark"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--configuration", default="3d_fullres")
    asked = parser.parse_args()
    for kind in ("raw", "preprocessed", "results"):  # read when nnU-Net is imported
        os.environ[f"nnUNet_{kind}"] = str(asked.work / kind)
    os.environ.update(nnUNet_n_proc_DA="1", nnUNet_compile="f")
    sides = json.loads((asked.run / "split.json").read_text("utf-8"))
    sides["train"] = sides["learned"]
    write_raw(asked.data, sides["train"] + sides["val"], asked.work / "raw" / _NAME)
    network = train(asked.work, sides, asked)
    predict(network, [asked.data / "imagesTr" / f"{case}.nii.gz" for case in sides["test"]], asked.work / "test")


def write_raw(data: Path, cases: list[str], folder: Path) -> None:
    """Scans and masks as nnU-Net wants them."""
    shutil.rmtree(folder, ignore_errors=True)
    for kind, suffix in (("imagesTr", "_0000"), ("labelsTr", "")):
        (folder / kind).mkdir(parents=True)
        for case in cases:
            (folder / kind / f"{case}{suffix}.nii.gz").symlink_to((data / kind / f"{case}.nii.gz").resolve())
    labels = json.loads((data / "dataset.json").read_text("utf-8"))["labels"]
    said = {
        "channel_names": {"0": "MRI"},
        "labels": {name: int(value) for value, name in labels.items()},
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(said), "utf-8")


def train(work: Path, sides: dict[str, list[str]], asked: argparse.Namespace) -> Any:
    """Plans, preprocesses and trains; the trainer at its end."""
    import torch
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprints,
        plan_experiments,
        preprocess,
    )
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    class Timed(nnUNetTrainer):  # type: ignore[misc]
        def plot_network_architecture(self) -> None:
            pass

        def run_training(self) -> None:
            self.on_train_start()
            self.logger.plot_progress_png = lambda folder: None
            began, steps = time.monotonic(), 0
            while (progress := (time.monotonic() - began) / (60 * asked.minutes)) < 1:
                self.on_epoch_start()
                self.on_train_epoch_start()
                self.optimizer.param_groups[0]["lr"] = self.initial_lr * (1 - progress) ** 0.9
                done = [self.train_step(next(self.dataloader_train)) for _ in range(self.num_iterations_per_epoch)]
                steps += len(done)
                self.on_train_epoch_end(done)
                with torch.no_grad():
                    self.on_validation_epoch_start()
                    self.on_validation_epoch_end([self.validation_step(next(self.dataloader_val))])
                self.on_epoch_end()
            self.print_to_log_file(f"{steps} steps of {self.batch_size} in {(time.monotonic() - began) / 60:.1f} min")

    torch.set_num_threads(asked.threads)
    extract_fingerprints([1], num_processes=1)
    plan_experiments([1])
    preprocess([1], configurations=(asked.configuration,), num_processes=(1,))
    prepared = work / "preprocessed" / _NAME
    (prepared / "splits_final.json").write_text(json.dumps([{"train": sides["train"], "val": sides["val"]}]), "utf-8")
    plans = json.loads((prepared / "nnUNetPlans.json").read_text("utf-8")) | {"continue_training": False}
    said = json.loads((prepared / "dataset.json").read_text("utf-8"))
    trainer = Timed(plans, asked.configuration, 0, said, torch.device("cpu"))
    trainer.num_iterations_per_epoch, trainer.disable_checkpointing = 5, True
    trainer.run_training()
    return trainer


def predict(trainer: Any, scans: list[Path], folder: Path) -> None:
    """Masks of scans, with the network as it is at the end."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False)
    trainer.set_deep_supervision_enabled(False)
    predictor.manual_initialization(
        trainer.network,
        trainer.plans_manager,
        trainer.configuration_manager,
        [trainer.network.state_dict()],
        trainer.dataset_json,
        "Timed",
        trainer.inference_allowed_mirroring_axes,
    )
    folder.mkdir(parents=True, exist_ok=True)
    names = [str(folder / scan.name.removesuffix(".nii.gz")) for scan in scans]
    predictor.predict_from_files_sequential([[str(scan)] for scan in scans], names)


if __name__ == "__main__":
    main()
