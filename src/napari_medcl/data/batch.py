"""What a method gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """B crops of spatial shape S.

    Attributes:
        fixed: Views (B, C, *S) of the same geometry.
        free: Views (B, C, *S) of different geometry.
        superpixels: Ids (B, *S) that fit the fixed views.
        position: Place (B,) of the crop's middle slice in its volume, in (0, 1].
        labels: Class indices (B, *S) that fit the fixed views; IGNORE where nobody annotated.
        cases: The names of the cases that the crops are from.
    """

    fixed: tuple[Tensor, ...] = ()
    free: tuple[Tensor, ...] = ()
    superpixels: Tensor | None = None
    position: Tensor | None = None
    labels: Tensor | None = None
    cases: tuple[str, ...] = ()

    def parts(self, count: int) -> list[Batch]:
        """The same crops in so many batches, as equal in size as can be."""
        if count == 1:
            return [self]
        crops = torch.arange(len(self.cases)).tensor_split(count)
        return [self._part(slice(int(some[0]), int(some[-1]) + 1)) for some in crops if len(some)]

    def _part(self, some: slice) -> Batch:
        return Batch(
            fixed=tuple(view[some] for view in self.fixed),
            free=tuple(view[some] for view in self.free),
            superpixels=None if self.superpixels is None else self.superpixels[some],
            position=None if self.position is None else self.position[some],
            labels=None if self.labels is None else self.labels[some],
            cases=self.cases[some],
        )
