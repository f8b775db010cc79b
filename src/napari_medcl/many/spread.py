"""Work on many scans, spread over processes of this machine or the workers of a dask scheduler."""

from __future__ import annotations

import os
import time
from collections import Counter
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from napari_medcl.errors import UserError
from napari_medcl.many.done import Done, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari_medcl.data.case import Case
    from napari_medcl.many.work import Work

_TRIES = 3
"""So often a scan is taken up whose process was killed; the next one may have more memory."""
_CONNECT_S = 20.0


_NO_MEMORY = "It does not fit into memory. Use fewer processes, or a machine with more memory."
_KILLED = (
    "The process that worked on it was killed each time, most often for want of memory. Use fewer processes, or a "
    "machine with more memory."
)


def spread(
    work: Work, cases: Sequence[Case], *, processes: int = 1, scheduler: str | None = None, again: bool = False
) -> Iterator[Result]:
    """Does a piece of work for every scan, in any order.

    A scan that cannot be done does not end the others, and neither does a process that is killed. What has been done
    before is checked and left out: a call that ended in the middle is taken up by the same call.

    Args:
        work: What to do.
        cases: With what.
        processes: How many processes of this machine share the cores.
        scheduler: Address of a dask scheduler, such as tcp://host:8786, whose workers do it instead.
        again: Whether to do what is done, too.

    Returns:
        One result for every case, as they come.

    Raises:
        UserError: Two scans have one name, the folder cannot be made, or the scheduler cannot be reached.
    """
    names = [case.id for case in cases]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(
            f"Two scans are called {twice[0]}, and so would be their results. Rename one, or do them apart."
        )
    try:
        work.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The folder {work.out} cannot be made: {error.strerror}. Choose another.") from error
    done = Done(work.out, work.made_by())
    if scheduler:
        return _over_workers(work, done, cases, scheduler, again=again)
    if processes > 1:
        return _over_processes(work, done, cases, min(processes, len(cases)), again=again)
    return (_one(work, done, case, again=again) for case in cases)


def _one(work: Work, done: Done, case: Case, *, again: bool) -> Result:
    """One scan, in whichever process."""
    begin = time.monotonic()
    try:
        if not again and (before := done.look(case)):
            return before
        files = work(case)
        done.note(case, files)
    except UserError as error:
        return Result(case.id, "failed", time.monotonic() - begin, message=str(error))
    except MemoryError:
        return Result(case.id, "failed", time.monotonic() - begin, message=_NO_MEMORY)
    return Result(case.id, "made", time.monotonic() - begin, tuple(files))


def _over_processes(work: Work, done: Done, cases: Sequence[Case], processes: int, *, again: bool) -> Iterator[Result]:
    """A killed process breaks the pool and all that was in it. Another pool takes that up.

    The scans that were being worked on go first then, one at a time, so that the one that breaks it is found out.
    """
    left, tries, suspects = {case.id: case for case in cases}, Counter[str](), 0
    while left:
        width, some = (1, [*left.values()][:suspects]) if suspects else (processes, [*left.values()])
        pool = ProcessPoolExecutor(width, get_context("spawn"), _share_cores, (processes,))
        broken = False
        try:
            begun = [pool.submit(_one, work, done, case, again=again) for case in some]
            for future in as_completed(begun):
                try:
                    result = future.result()
                except BrokenExecutor:
                    broken = True
                else:
                    del left[result.name]
                    yield result
        finally:
            pool.shutdown(cancel_futures=True)
        if broken and suspects:
            guilty = next(iter(left))
            tries[guilty] += 1
            if tries[guilty] == _TRIES:
                del left[guilty]
                yield Result(guilty, "failed", message=_KILLED)
        suspects = processes if broken else 0


def _share_cores(processes: int) -> None:
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))


def _over_workers(work: Work, done: Done, cases: Sequence[Case], scheduler: str, *, again: bool) -> Iterator[Result]:
    try:
        import distributed
    except ModuleNotFoundError as error:
        raise UserError('dask.distributed is not installed: pip install "medcl[cluster]", here and there.') from error
    try:
        client = distributed.Client(scheduler, timeout=_CONNECT_S)
    except (OSError, ValueError) as error:
        raise UserError(
            f"There is no dask scheduler at {scheduler} ({error}). Start it, or check the address."
        ) from error
    return _from_workers(distributed.as_completed, client, partial(_one, work, done, again=again), cases)


def _from_workers(
    as_they_come: Callable[..., Any], client: Any, one: Callable[[Case], Result], cases: Sequence[Case]
) -> Iterator[Result]:
    with client:
        begun = {client.submit(one, case, pure=False): case for case in cases}
        try:
            for future in as_they_come(begun):
                try:
                    yield future.result()
                except Exception as error:  # killed too often, or the worker lacks something
                    message = " ".join(str(error).split()) or type(error).__name__
                    yield Result(begun[future].id, "failed", message=f"The worker could not do it: {message}")
        finally:
            client.cancel([*begun], reason="nobody waits for it")
