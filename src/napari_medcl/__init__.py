"""MedCL: contrastive pre-training and few-label segmentation of medical images.

The names below are imported when they are first used, so that importing the package loads neither
torch nor the viewer.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_medcl.benchmark.config import BenchmarkConfig
    from napari_medcl.benchmark.work import Benchmark
    from napari_medcl.checkpoint import Checkpoint
    from napari_medcl.data.cases import find_cases
    from napari_medcl.data.formats import read_labels, read_volume
    from napari_medcl.data.splits import read_split
    from napari_medcl.data.superpixels import superpixels
    from napari_medcl.data.writing import write_labels
    from napari_medcl.errors import UserError
    from napari_medcl.foreign import import_authors
    from napari_medcl.inference.evaluate import evaluate
    from napari_medcl.inference.predict import Predictor
    from napari_medcl.methods.jcl import JCL
    from napari_medcl.methods.pdcr import PDCR
    from napari_medcl.methods.supercl import SuperCL
    from napari_medcl.training.config import FinetuneConfig, PretrainConfig
    from napari_medcl.training.finetune import finetune
    from napari_medcl.training.pretrain import pretrain
    from napari_medcl.training.resume import extend, repeat, resume
    from napari_medcl.training.run import find_checkpoint

__version__ = "0.1.0"

__all__ = [
    "JCL",
    "PDCR",
    "Benchmark",
    "BenchmarkConfig",
    "Checkpoint",
    "FinetuneConfig",
    "Predictor",
    "PretrainConfig",
    "SuperCL",
    "UserError",
    "evaluate",
    "extend",
    "find_cases",
    "find_checkpoint",
    "finetune",
    "import_authors",
    "pretrain",
    "read_labels",
    "read_split",
    "read_volume",
    "repeat",
    "resume",
    "superpixels",
    "write_labels",
]

_HOME = {
    "Benchmark": "benchmark.work",
    "BenchmarkConfig": "benchmark.config",
    "Checkpoint": "checkpoint",
    "FinetuneConfig": "training.config",
    "JCL": "methods.jcl",
    "PDCR": "methods.pdcr",
    "Predictor": "inference.predict",
    "PretrainConfig": "training.config",
    "SuperCL": "methods.supercl",
    "UserError": "errors",
    "evaluate": "inference.evaluate",
    "extend": "training.resume",
    "find_cases": "data.cases",
    "find_checkpoint": "training.run",
    "finetune": "training.finetune",
    "import_authors": "foreign",
    "pretrain": "training.pretrain",
    "read_labels": "data.formats",
    "read_split": "data.splits",
    "read_volume": "data.formats",
    "repeat": "training.resume",
    "resume": "training.resume",
    "superpixels": "data.superpixels",
    "write_labels": "data.writing",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
