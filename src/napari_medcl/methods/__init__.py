"""How it learns: of every method a file with its settings, and one in `losses` with what it computes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from napari_medcl.methods.jcl import JCL
from napari_medcl.methods.method import Method
from napari_medcl.methods.pdcr import PDCR
from napari_medcl.methods.supercl import SuperCL

AnyMethod = Annotated[JCL | SuperCL | PDCR, Field(discriminator="name")]
"""Any method, told apart by its `name`."""

__all__ = ["JCL", "PDCR", "AnyMethod", "Method", "SuperCL"]
