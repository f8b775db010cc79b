"""The processes that train one run together, on all devices of all hosts, as `torchrun` starts them."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import distributed

from napari_medcl.data.views import Part
from napari_medcl.device import resolve_device
from napari_medcl.errors import Elsewhere, Stopped, UserError
from napari_medcl.training.launch import several

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from napari_medcl.device import Device

T = TypeVar("T")

_PATIENCE = timedelta(days=1)
"""So long a process waits for the others: one may read scans while they have nothing to do."""
_LAST_WORD_S = 3.0
"""So long it may take one that ends to say why."""
_ENDED = "medcl-ended"


class Processes:
    """A process that trains alone: it leads, and what there is to agree on is what it says.

    The first of several leads: it decides what is decided by the clock or by somebody who asks, it alone writes the run
    folder, and it alone speaks.

    Attributes:
        rank: Which one this is, from 0.
        count: How many there are.
    """

    rank = 0
    count = 1

    @property
    def leads(self) -> bool:
        """Whether this is the first one."""
        return self.rank == 0

    @property
    def part(self) -> Part:
        """The part of the batch that is this one's."""
        return Part(self.rank, self.count)

    @property
    def in_words(self) -> str:
        """How many train together; nothing where it is one."""
        return f", in {self.count} processes" if self.count > 1 else ""

    def same(self, value: T) -> T:
        """What the first one says."""
        return value

    def gather(self, value: T) -> list[T]:
        """What each of them says."""
        return [value]

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Sets tensors to their mean over the processes."""

    def align(self, tensors: Sequence[Tensor]) -> None:
        """Sets tensors to those of the first one."""

    def own(self, things: Sequence[T]) -> Sequence[T]:
        """The share of this one among those of its host."""
        return things

    def tell(self, message: str) -> None:
        """Says why this one ends, while the others do not wait for it."""

    def cause(self, error: Exception) -> UserError | None:
        """Why another one has ended, if that is what an error here comes from."""

    @contextlib.contextmanager
    def agreeing(self) -> Iterator[None]:
        """What goes wrong inside on one of them goes wrong on all, and the first one says it.

        Raises:
            UserError: One had a problem; on the others than the first it is `Elsewhere`.
            Stopped: One was asked to stop.
        """
        problem: Exception | None = None
        try:
            yield
        except (UserError, Stopped) as error:
            problem = error
        problems = [one for one in self.gather(problem) if one is not None]
        if not problems:
            return
        first = problem or problems[0]
        raise first if self.leads or isinstance(first, Stopped) else Elsewhere(str(first))

    def lead(self, action: Callable[[], T]) -> T:
        """What an action of the first one gives.

        Raises:
            UserError: As `agreeing`.
        """
        found: Any = None
        with self.agreeing():
            if self.leads:
                found = action()
        return cast("T", self.same(found))

    def first(self, action: Callable[[], T]) -> T:
        """What an action gives here, after the first one has done it.

        Raises:
            UserError: As `agreeing`.
        """
        found: Any = None
        for turn in (self.leads, not self.leads):
            with self.agreeing():
                if turn:
                    found = action()
        return cast("T", found)


ALONE = Processes()


def join(wanted: Device) -> Processes:
    """The processes that train with this one, as the environment tells.

    Raises:
        UserError: They do not find a device each.
    """
    return _Several(wanted) if several() else ALONE


class _Several(Processes):
    """Processes that `torchrun` has started; what they say goes over the network."""

    def __init__(self, wanted: Device) -> None:
        from accelerate.state import PartialState

        # Its functions keep the group that is there when it is loaded as their default. Torch loads it while it
        # trains, and then the group outlives its end, with threads that may abort the ending interpreter.
        importlib.import_module("torch.distributed.nn.functional")
        device = _device(wanted)
        # Words go over gloo also where tensors go over nccl: they are no business of the GPU.
        backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
        state = PartialState(cpu=device.type == "cpu", backend=backend, timeout=_PATIENCE)
        atexit.register(state.destroy_process_group)
        self.rank, self.count = state.process_index, state.num_processes
        self._store = distributed.distributed_c10d._get_default_store()
        kinds = {*self.gather(device.type), *self.gather(state.device.type)}
        if len(kinds) > 1:
            raise UserError(f"The processes found devices of several kinds, {', '.join(sorted(kinds))}. Set device.")

    def same(self, value: T) -> T:
        said = [value]
        distributed.broadcast_object_list(said, device=torch.device("cpu"))
        return said[0]

    def gather(self, value: T) -> list[T]:
        said: list[Any] = [None] * self.count
        distributed.all_gather_object(said, value)
        return said

    def average(self, tensors: Sequence[Tensor]) -> None:
        self._through(tensors, distributed.all_reduce)
        torch._foreach_div_(list(tensors), self.count)

    def align(self, tensors: Sequence[Tensor]) -> None:
        self._through(tensors, lambda flat: distributed.broadcast(flat, 0))

    def own(self, things: Sequence[T]) -> Sequence[T]:
        return things[int(os.environ["LOCAL_RANK"]) :: int(os.environ["LOCAL_WORLD_SIZE"])]

    def tell(self, message: str) -> None:
        with contextlib.suppress(RuntimeError):
            self._store.set(_ENDED, message)

    def cause(self, error: Exception) -> UserError | None:
        if not isinstance(error, distributed.DistError) and "gloo" not in str(error):
            return None
        last = time.monotonic() + _LAST_WORD_S
        with contextlib.suppress(RuntimeError):
            while time.monotonic() < last:
                if self._store.check([_ENDED]):
                    return Elsewhere(bytes(self._store.get(_ENDED)).decode())
                time.sleep(0.1)
        return UserError(
            "Another process of the run has ended without a word, as one does that the system kills for lack of "
            "memory. What torchrun prints tells which; the run can be resumed."
        )

    def _through(self, tensors: Sequence[Tensor], send: Callable[[Tensor], object]) -> None:
        """Sends tensors as one, and takes what comes of it."""
        with torch.no_grad():
            flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
            send(flat)
            begin = 0
            for tensor in tensors:
                tensor.copy_(flat[begin : begin + tensor.numel()].view_as(tensor))
                begin += tensor.numel()


def _device(wanted: Device) -> torch.device:
    """The kind of device; every process has one of its own."""
    device, here = resolve_device(wanted), int(os.environ["LOCAL_WORLD_SIZE"])
    if device.type == "mps":
        raise UserError("Several processes train on CPUs or CUDA devices. Set device to cpu, or start one process.")
    if device.type == "cuda" and here > (have := torch.cuda.device_count()):
        raise UserError(f"{here} processes were started on a machine with {have} GPUs. Set --nproc-per-node {have}.")
    return device
