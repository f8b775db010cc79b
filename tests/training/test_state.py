"""The state of a run: what was written comes back exactly, or the one before does."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_medcl.errors import UserError
from napari_medcl.training import state as states
from napari_medcl.training.state import random_state, read_state, restore_random_state, write_state

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    random = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    values = torch.randn(shape, generator=random) * 3
    if values.numel():
        values.view(-1)[0] = draw(st.sampled_from([0.5, math.nan, math.inf, -0.0]))
    made = values.to(draw(st.sampled_from(DTYPES)))
    return made.mT if made.ndim > 1 and draw(st.booleans()) else made


PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(2**100, 2**130), st.floats(allow_nan=True), st.text()
)
NESTED = st.recursive(
    PLAIN | tensors(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | st.integers(), inner, max_size=3),
    max_leaves=12,
)


def same(one: Any, other: Any) -> bool:
    """Equal in type, value and order, with NaN equal to itself."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(bits(one), bits(other))
    if isinstance(one, dict):
        return [*one] == [*other] and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other or (isinstance(one, float) and math.isnan(one) and math.isnan(other))


def bits(tensor: torch.Tensor) -> torch.Tensor:
    flat = tensor.contiguous().reshape(-1)
    return flat if flat.dtype == torch.bool else flat.view(torch.uint8)


def read(folder: Path) -> Any:
    found, notes = read_state(folder)
    assert notes == []
    return found


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    match how:
        case "empty":
            data.clear()
        case "cut":
            del data[len(data) // 2 :]
        case "flipped header":
            data[20] ^= 1
        case "flipped tensor":
            data[-1] ^= 1
        case "longer":
            data += b"x"
    path.write_bytes(data)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=NESTED)
def test_what_was_written_comes_back(value: Any, tmp_path: Path) -> None:
    for path in tmp_path.iterdir():
        path.unlink()
    write_state(tmp_path, 1, {"value": value})
    assert same(read(tmp_path), {"value": value})


def test_a_tuple_comes_back_as_a_list(tmp_path: Path) -> None:
    write_state(tmp_path, 1, {"betas": (0.9, 0.999)})
    assert read(tmp_path) == {"betas": [0.9, 0.999]}


def test_a_tensor_that_stands_in_two_places_is_written_once(tmp_path: Path) -> None:
    weight = torch.randn(1000)
    write_state(tmp_path, 1, [weight, {"again": weight.detach()}, weight[:10], weight.view(10, 100)])
    one, two, piece, other = read(tmp_path)
    assert one is two["again"]
    assert torch.equal(one, weight)
    assert torch.equal(piece, weight[:10])
    assert torch.equal(other, weight.view(10, 100))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 9500


def test_what_changes_later_is_not_what_was_written(tmp_path: Path) -> None:
    weight = torch.zeros(3)
    write_state(tmp_path, 1, weight)
    weight += 1
    assert torch.equal(read(tmp_path), torch.zeros(3))


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_an_optimiser_goes_on_from_it(kind: Callable[..., torch.optim.Optimizer], tmp_path: Path) -> None:
    def steps(weight: torch.nn.Parameter, optimiser: torch.optim.Optimizer) -> None:
        for number in range(3):
            optimiser.zero_grad()
            (weight * (number + 1)).sum().backward()
            optimiser.step()

    weight = torch.nn.Parameter(torch.ones(4))
    optimiser = kind([weight], lr=0.1)
    steps(weight, optimiser)
    write_state(tmp_path, 3, {"weight": weight, "optimiser": optimiser.state_dict()})
    steps(weight, optimiser)
    found = read(tmp_path)
    again = torch.nn.Parameter(found["weight"])
    other = kind([again], lr=9)
    other.load_state_dict(found["optimiser"])
    steps(again, other)
    assert torch.equal(again, weight)


def test_random_numbers_go_on(tmp_path: Path) -> None:
    device = torch.device("cpu")
    write_state(tmp_path, 1, random_state(device))
    expected = torch.rand(5)
    restore_random_state(read(tmp_path), device)
    assert torch.equal(torch.rand(5), expected)


def test_nothing_written_is_no_state(tmp_path: Path) -> None:
    assert read_state(tmp_path) == (None, [])
    assert read_state(tmp_path / "nowhere") == (None, [])
    (tmp_path / "state-00000001.safetensors").touch()
    assert read_state(tmp_path) == (None, [])


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 30, 100_000_000):
        write_state(tmp_path, step, {"step": step})
    assert [name.split("-")[1] for name in files(tmp_path)] == ["00000030", "100000000"]
    assert read(tmp_path) == {"step": 100_000_000}


def test_of_two_at_one_step_the_later_counts(tmp_path: Path) -> None:
    for value in ("first", "second", "third"):
        write_state(tmp_path, 5, value)
    assert len(files(tmp_path)) == 2
    assert read(tmp_path) == "third"


@pytest.mark.parametrize("how", ["empty", "cut", "flipped header", "flipped tensor", "longer"])
def test_a_damaged_state_gives_way_to_the_one_before(how: str, tmp_path: Path) -> None:
    for step in (1, 2):
        write_state(tmp_path, step, {"step": step, "weight": torch.randn(50)})
    last = max(tmp_path.iterdir())
    damage(last, how)
    found, notes = read_state(tmp_path)
    assert found["step"] == 1
    assert notes == [f"The saved state {last} is damaged; the run goes on from the one before."]
    assert last.with_suffix(".damaged").is_file()
    assert read_state(tmp_path)[1] == [], "it is told once"
    write_state(tmp_path, 2, {"step": 2})
    assert read(tmp_path) == {"step": 2}


def test_where_all_are_damaged_that_is_said(tmp_path: Path) -> None:
    for step in (1, 2):
        write_state(tmp_path, step, {"step": step})
    for path in tmp_path.iterdir():
        damage(path, "cut")
    told = rf"The saved states in {tmp_path} are damaged.*medcl runs repeat {tmp_path.parent}"
    with pytest.raises(UserError, match=told):
        read_state(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".damaged"}


def test_a_state_that_cannot_be_written_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2):
        write_state(tmp_path, step, {"step": step})
    before = files(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("napari_medcl.files.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_state(tmp_path, 3, {"step": 3})
    assert files(tmp_path) == before
    assert read(tmp_path) == {"step": 2}


def test_a_value_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_state(tmp_path, 1, {"value": object()})
    assert files(tmp_path) == []


def test_a_name_tells_the_checksum(tmp_path: Path) -> None:
    write_state(tmp_path, 7, {"step": 7})
    (path,) = tmp_path.iterdir()
    assert states._NAME.fullmatch(path.name)
    assert path.name == f"state-00000007-{states.zlib.crc32(path.read_bytes()):08x}.safetensors"
