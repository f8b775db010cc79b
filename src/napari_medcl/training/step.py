"""One step of a run: the gradient of a batch, in parts where the memory does not suffice, and what it changes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from napari_medcl.device import autocast
from napari_medcl.errors import UserError
from napari_medcl.training.events import Noted
from napari_medcl.training.memory import ran_out

if TYPE_CHECKING:
    from collections.abc import Generator

    from torch import Tensor

    from napari_medcl.data.batch import Batch
    from napari_medcl.training.loop import Task
    from napari_medcl.training.processes import Processes

_LARGEST_GRADIENT = 12.0


class Stepper:
    """Makes the steps of a task.

    Args:
        task: What is trained.
        processes: Those that train together; they begin with the weights of the first one.
    """

    def __init__(self, task: Task, processes: Processes) -> None:
        self._task, self._processes = task, processes
        self._scaler = torch.amp.GradScaler(task.device.type, enabled=task.autocast == torch.float16)
        self._parts = 1

    def step(self, step: int, rate: float) -> Generator[Noted, None, dict[str, Tensor]]:
        """Makes a step.

        Args:
            step: How many were made before.
            rate: The learning rate.

        Returns:
            The terms of the loss.

        Raises:
            UserError: A loss or a gradient is not finite, or not one crop fits into the device's memory.
        """
        for group in self._task.optimiser.param_groups:
            group["lr"] = rate
        batch = self._task.draw()
        while True:
            try:
                terms = self._gradient(batch, step)
                break
            except (RuntimeError, MemoryError) as error:
                if not ran_out(error):
                    raise
            yield self._halve(batch, step)
        with self._task.timed("update"):
            self._scaler.step(self._task.optimiser)
            self._scaler.update()
            self._task.stepped()
        return terms

    def align(self) -> None:
        """Gives all processes the weights of the first one."""
        self._processes.align(self._parameters)

    def state(self) -> dict[str, Any]:
        """What the next steps depend on, beside the task."""
        return {
            "scaler": self._scaler.state_dict(),
            "optimiser": self._task.optimiser.state_dict(),
            "parts": self._parts,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a state."""
        self._task.optimiser.load_state_dict(state["optimiser"])
        if state["scaler"]:  # it is empty where the number format needed none
            self._scaler.load_state_dict(state["scaler"])
        self._parts = state["parts"]

    @property
    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self._task.optimiser.param_groups for parameter in group["params"]]

    def _gradient(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Adds up the gradients of the batch's parts; the mean of each term over them and over the processes."""
        task = self._task
        means: dict[str, Tensor] = {}
        task.optimiser.zero_grad(set_to_none=True)
        for part in batch.parts(self._parts):
            share = len(part.cases) / len(batch.cases)
            with task.timed("loss"), autocast(task.device, task.autocast):
                terms = {name: value.float() * share for name, value in task.losses(part).items()}
            with task.timed("backward"):
                self._scaler.scale(torch.stack([*terms.values()]).sum()).backward()  # type: ignore[no-untyped-call]
            means = {name: means.get(name, 0) + value.detach() for name, value in terms.items()}
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        self._processes.average([*gradients, *means.values()])
        self._scaler.unscale_(task.optimiser)
        length = torch.nn.utils.clip_grad_norm_(self._parameters, _LARGEST_GRADIENT)
        self._refuse_nonsense(means, length, batch.cases, step)
        return means

    def _refuse_nonsense(self, terms: dict[str, Tensor], length: Tensor, cases: tuple[str, ...], step: int) -> None:
        """A scaled gradient may overflow: then the scaler leaves the step out, and lowers the scale."""
        total = torch.stack([*terms.values()]).sum()
        if torch.isfinite(total if self._scaler.is_enabled() else total + length):
            return
        values = ", ".join(f"{name} {value.item():g}" for name, value in terms.items())
        what = "loss" if not torch.isfinite(total) else "gradient"
        named = dict.fromkeys(case for part in self._processes.gather(cases) for case in part)
        with self._processes.agreeing():
            raise UserError(
                f"The {what} is not finite at step {step + 1} ({values}), on {', '.join(named)}. Lower the learning "
                "rate, use float32, or look at these scans; the last checkpoint is usable."
            )

    def _halve(self, batch: Batch, step: int) -> Noted:
        """Takes the batch in twice as many parts."""
        size, parts, device = len(batch.cases), 2 * self._parts, self._task.device
        if self._processes.count > 1:  # the others do not know, and wait for this one in the middle of a step
            raise UserError(
                f"{size} crops do not fit into the memory of {device} in one of the processes. Set a smaller batch "
                f"than {size}, or a smaller patch or width."
            )
        self._task.optimiser.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if size // parts < self._task.smallest:
            raise UserError(
                f"{math.ceil(size / self._parts)} crops at a time do not fit into the memory of {device}, and fewer "
                "make no batch. Set a smaller patch or width, or close other programs."
            )
        self._parts = parts
        return Noted(
            step=step,
            message=f"A batch of {size} crops does not fit into the memory of {device}: it goes on in {parts} parts "
            f"of {size // parts}, whose gradients are added up. Crops are compared inside their part.",
        )
