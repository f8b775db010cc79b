from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from napari_medcl.device import autocast, precision, resolve_device
from napari_medcl.errors import UserError

CPU = torch.device("cpu")


def test_auto_takes_cuda_only_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("cuda")


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match=f"no {name.upper()} device.*device=cpu"):
        resolve_device(name)


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(UserError, match="no device named 'tpu'"):
        resolve_device("tpu")


@pytest.mark.parametrize(
    ("probes", "expected"),
    [
        ({"_is_avx512_bf16_supported": True, "_is_amx_tile_supported": False}, torch.bfloat16),
        ({"_is_avx512_bf16_supported": False, "_is_amx_tile_supported": True}, torch.bfloat16),
        ({"_is_avx512_bf16_supported": False, "_is_amx_tile_supported": False}, None),
        ({}, None),
    ],
)
def test_the_cpu_uses_bfloat16_only_in_hardware(
    probes: dict[str, bool], expected: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    for name, value in probes.items():
        monkeypatch.setattr(torch.cpu, name, lambda value=value: value, raising=False)
    assert precision(CPU) == expected


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_cuda_uses_the_half_format_it_computes_in(
    native: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert precision(torch.device("cuda")) == expected


def test_a_wish_is_granted_or_refused() -> None:
    assert precision(CPU, "float32") is None
    assert precision(CPU, "bfloat16") == torch.bfloat16
    assert precision(torch.device("mps")) is None
    with pytest.raises(UserError, match="float16"):
        precision(CPU, "float16")


def test_autocast_computes_products_in_the_format() -> None:
    a = torch.ones(2, 2)
    with autocast(CPU, torch.bfloat16):
        assert (a @ a).dtype == torch.bfloat16
    with autocast(CPU, None):
        assert (a @ a).dtype == torch.float32


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone keeps memory so")
def test_memory_is_kept_for_the_next_tensors_and_given_back() -> None:
    """In a process of its own: what malloc does is the same for all of it."""
    code = """
import resource, torch
from napari_medcl.device import release_memory, reuse_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def held():
    return int(open("/proc/self/statm").read().split()[1])

def pages(count):
    before = faults()
    for _ in range(count):
        torch.ones(2**24)
    return faults() - before

torch.set_num_threads(1)
fresh = pages(20)
reuse_memory(torch.device("cuda"))
assert pages(20) > 0.5 * fresh
reuse_memory(torch.device("cpu"))
pages(20)
assert pages(20) < 0.1 * fresh, "pages are new"
keeping = held()
release_memory()
assert keeping - held() > 0.9 * 2**26 / resource.getpagesize(), "nothing was given back"
"""
    subprocess.run([sys.executable, "-c", code], check=True)
