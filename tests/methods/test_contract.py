"""What every method must keep to."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any, get_args

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from napari_medcl.data.batch import Batch
from napari_medcl.methods import JCL, AnyMethod, Method, SuperCL
from napari_medcl.models import Network, NetworkSpec, build

from .batches import batch

ANY = TypeAdapter(AnyMethod)


def members(annotation: Any) -> list[type[Method]]:
    """The classes of a class, a union or an annotated union."""
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, Method) else []
    return [found for inner in get_args(annotation) for found in members(inner)]


KINDS = [kind() for kind in members(AnyMethod)]
METHODS = pytest.mark.parametrize(
    "method",
    [*KINDS, JCL(positives="position", head_norm=False), SuperCL(positives="position", head_norm=False)],
    ids=[*[method.name for method in KINDS], "jcl-paper", "supercl-paper"],
)
BOTH = pytest.mark.parametrize("dims", [2, 3])
NETWORKS = pytest.mark.parametrize("network", ["unet", "attention"])


def spec(dims: int, network: str = "unet") -> NetworkSpec:
    return NetworkSpec(in_channels=1, classes=2, spatial_dims=dims, width=4, depth=2, architecture=network)


def size(dims: int) -> tuple[int, ...]:
    return (24, 16, 20)[:dims]


def built(method: Method, dims: int, network: str = "unet") -> tuple[Network, nn.Module]:
    torch.manual_seed(0)
    net = build(spec(dims, network))
    return net, method.pretraining(net)


def finite(terms: dict[str, Tensor]) -> bool:
    return bool(terms) and all(term.ndim == 0 and bool(term.isfinite()) for term in terms.values())


@METHODS
def test_settings_survive_json(method: Method) -> None:
    read = ANY.validate_json(json.dumps(method.model_dump(mode="json")))
    assert read == method
    assert type(read) is type(method)


@METHODS
def test_settings_that_do_not_exist_are_refused(method: Method) -> None:
    with pytest.raises(ValidationError, match=r"[Ee]xtra"):
        ANY.validate_python({"name": method.name, "temprature": 0.1})
    with pytest.raises(ValidationError):
        ANY.validate_python({"name": "no such method"})
    with pytest.raises(ValidationError, match="frozen"):
        method.name = "other"


@METHODS
def test_settings_say_what_they_do(method: Method) -> None:
    for name, field in type(method).model_fields.items():
        assert name == "name" or field.description, name


@METHODS
@BOTH
def test_needs_are_enough_and_no_more(method: Method, dims: int) -> None:
    _, module = built(method, dims)
    needs = method.needs(dims)
    given = batch(needs, size(dims))
    assert finite(module(given))
    for field in fields(Batch):
        asked = getattr(needs, field.name, None)
        if asked:
            lacking = Batch(**{f.name: getattr(given, f.name) for f in fields(Batch) if f.name != field.name})
            with pytest.raises((ValueError, IndexError, RuntimeError)):
                module(lacking)


@METHODS
@BOTH
def test_hands_on_maps_of_the_network(method: Method, dims: int) -> None:
    names = method.hands_on(spec(dims))
    assert names
    assert set(names) <= set(spec(dims).map_names)
    assert len(set(names)) == len(names)


@METHODS
@BOTH
@NETWORKS
def test_trains_what_it_hands_on(method: Method, dims: int, network: str) -> None:
    net, module = built(method, dims, network)
    sum(module(batch(method.needs(dims), size(dims))).values()).backward()
    trained = {id(value) for value in module.parameters()}
    for name, value in module.named_parameters():
        assert value.grad is not None, name
        assert value.grad.isfinite().all(), name
    for name, value in net.named_parameters():
        handed_on = name.split(".")[0] in method.hands_on(spec(dims))
        assert (id(value) in trained) is handed_on, name
        assert (value.grad is not None) is handed_on, name


@METHODS
@BOTH
@NETWORKS
def test_a_step_lowers_the_loss(method: Method, dims: int, network: str) -> None:
    _, module = built(method, dims, network)
    given = batch(method.needs(dims), size(dims))
    optimiser = torch.optim.SGD(module.parameters(), lr=0.003, momentum=0.9)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = sum(module(given).values())
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.01 * abs(losses[0])


@METHODS
@BOTH
@pytest.mark.parametrize(
    "kind", ["one image", "blank", "some blank", "one superpixel", "odd size", "constant position"]
)
def test_awkward_batches_stay_finite(method: Method, dims: int, kind: str) -> None:
    _, module = built(method, dims)
    needs = method.needs(dims)
    given = batch(
        needs, (15, 9, 10)[:dims] if kind == "odd size" else size(dims), images=1 if kind == "one image" else 4
    )
    for view in (*given.fixed, *given.free):
        if kind == "blank":
            view.zero_()
        if kind == "some blank":
            view[::2] = 0
    if kind == "one superpixel" and given.superpixels is not None:
        given.superpixels.fill_(1)
    if kind == "constant position" and given.position is not None:
        given.position.fill_(0.5)
    terms = module(given)
    assert finite(terms)
    sum(terms.values()).backward()
    assert all(value.grad.isfinite().all() and value.grad.abs().max() < 1e4 for value in module.parameters())


@METHODS
@BOTH
@NETWORKS
def test_mixed_precision_stays_finite(method: Method, dims: int, network: str) -> None:
    _, module = built(method, dims, network)
    given = batch(method.needs(dims), size(dims))
    with torch.autocast("cpu", torch.bfloat16):
        terms = module(given)
    assert finite(terms)
    assert all(term.dtype == torch.float32 for term in terms.values())
    sum(terms.values()).backward()
    assert all(value.grad.isfinite().all() for value in module.parameters())
