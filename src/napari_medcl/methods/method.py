"""What every method says of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict

from napari_medcl.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from napari_medcl.data.needs import Needs
    from napari_medcl.models import Network, NetworkSpec


class Method(BaseModel, ABC):
    """The settings of a method, with what it needs and what it trains.

    A method is one final subclass. Its `name` is what tells methods apart in a configuration.

    Attributes:
        finetunes: Whether it also adds to the loss where masks are there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    finetunes: ClassVar[bool] = False

    name: str

    @abstractmethod
    def needs(self, spatial_dims: int) -> Needs:
        """What a batch must hold for images of so many dimensions."""

    @abstractmethod
    def hands_on(self, spec: NetworkSpec) -> tuple[str, ...]:
        """The maps whose stages are trained and go on to fine-tuning."""

    @abstractmethod
    def pretraining(self, net: Network) -> nn.Module:
        """What is trained: from a `Batch` to the weighted terms of the loss by name, which sum to the loss.

        Its parameters are those of the stages that are handed on, shared with `net`, and of the heads. What it compares
        between images it gathers from all processes that train together (see `models.together`).

        Raises:
            UserError: The settings do not fit the network.
        """

    def maps_read(self, spec: NetworkSpec) -> tuple[str, ...]:
        """The maps that `finetuning` looks at, in the order they are computed.

        Raises:
            UserError: The method has no part in fine-tuning, or its settings do not fit the network.
        """
        raise UserError(self.learns_without_masks)

    def finetuning(self, net: Network) -> nn.Module:
        """What fine-tuning adds to its loss: from maps and labels to weighted terms by name.

        The module takes the maps by name, of `encode` and `decode`, and the class indices (B, *S) with IGNORE. It owns
        its parameters, and none of the network's.

        Raises:
            UserError: The method has no part in fine-tuning, or its settings do not fit the network.
        """
        raise UserError(self.learns_without_masks)

    @property
    def learns_without_masks(self) -> str:
        """Why a method has no part in fine-tuning, and what to do."""
        return (
            f"{type(self).__name__} learns without masks only. Pre-train with it, and start fine-tuning from its run."
        )
