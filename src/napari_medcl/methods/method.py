"""What every method says of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from torch import nn

    from napari_medcl.data.batch import Needs
    from napari_medcl.models import Network, NetworkSpec


class Method(BaseModel, ABC):
    """The settings of a method, with what it needs and what it trains.

    A method is one final subclass. Its `name` is what tells methods apart in a configuration.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

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

        Its parameters are those of the stages that are handed on, shared with `net`, and of the heads.

        Raises:
            UserError: The settings do not fit the network.
        """
