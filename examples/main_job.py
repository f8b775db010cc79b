"""From scans and a few masks to segmented scans: python examples/main_job.py DATA_FOLDER OUTPUT_FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

import napari_medcl as medcl


def main(data: Path, out: Path, minutes: float = 10) -> None:
    """Learns from all scans, then from the masks; segments the others and measures the test patients."""
    learning = medcl.PretrainConfig(folder=data, method=medcl.JCL(), test=0.25, minutes=minutes)
    for event in medcl.pretrain(learning, out / "pretrain"):
        print(event)

    teaching = medcl.FinetuneConfig(folder=data, start=out / "pretrain", test=0.25, minutes=minutes)
    for event in medcl.finetune(teaching, out / "finetune"):
        print(event)

    predictor = medcl.Predictor(medcl.find_checkpoint(out / "finetune"))
    cases = medcl.find_cases(data)
    for case in cases.unlabelled:
        prediction = predictor(case.volume())
        medcl.write_labels(prediction.labels, out / f"{case.id}.nii.gz")
    split = medcl.read_split(out / "finetune" / "split.json", cases)
    medcl.evaluate(predictor, cases, split.test).to_csv(out / "scores.csv")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
