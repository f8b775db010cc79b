"""How it learns: one file per method."""

from __future__ import annotations

from napari_medcl.methods.method import Method
from napari_medcl.methods.supercl import SuperCL

AnyMethod = SuperCL
"""Any method, told apart by its `name`; with a second one a union with that discriminator."""

__all__ = ["AnyMethod", "Method", "SuperCL"]
