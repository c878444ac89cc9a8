"""`tokbench.load_adapter`, and the forms of models that `tokbench.evaluate` accepts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tokbench.api.state import AsBefore, modules_in
from tokbench.api.wrappers import ModelImages, ModelTokenizer, Settings, wrap, wrap_user_model
from tokbench.errors import UsageError
from tokbench.paths import slug
from tokbench.tokenizers.base import ImageModel
from tokbench.tokenizers.code_identity import identify
from tokbench.tokenizers.registry import LoadedAdapter
from tokbench.tokenizers.registry import load_adapter as load


def load_adapter(
    name: str | Path, *, device: str = "cpu", root: str | Path | None = None, allow_download: bool = False
) -> ImageModel:
    """Load the model of an adapter, ready to encode and decode.

    name: a name printed by `tokbench list adapters`, the path of an adapter folder or of its .toml file, or
    `images:DIR`, `diffusers:DIR_OR_ID`, `torchscript:DIR`. device: the device of its networks. root: the folder with
    adapters/ and datasets/. allow_download: download missing weights.

    `encode` takes float images (B, 3, H, W) in `spec.range` and returns Tokens. `decode(tokens, seeds)` takes tokens
    and one integer per image, and returns images in the same range.

    Raises UsageError if there is no such adapter, AdapterError or MissingWeights if it cannot be loaded.

    >>> import torch, tokbench
    >>> tokenizer = tokbench.load_adapter("jpeg.q50")
    >>> images = torch.rand(2, 3, 64, 64)
    >>> tokens = tokenizer.encode(images)
    >>> tokenizer.decode(tokens, seeds=[0, 1]).shape
    torch.Size([2, 3, 64, 64])
    """
    return load(str(name), device, None if root is None else Path(root), allow_download).model


def named(model: object, name: str | None) -> dict[str, object]:
    """Return the models of one call by name, from a mapping, a list or tuple, or a single model.

    Raises UsageError for duplicate and invalid names.
    """
    if isinstance(model, Mapping | list | tuple) and name is not None:
        raise UsageError("name applies only to a single model; give several models as a dict by name")
    if isinstance(model, Mapping):
        if invalid := [key for key in model if not isinstance(key, str) or not key or slug(key) != key]:
            raise UsageError(
                f"invalid model name {invalid[0]!r}; names consist of letters, digits, dots, dashes and underscores"
            )
        found = dict(model)
    elif isinstance(model, list | tuple):
        names = [_name_of(one) for one in model]
        if duplicates := {one for one in names if names.count(one) > 1}:
            raise UsageError(
                f"two models have the name {', '.join(sorted(duplicates))}; give the models as a dict by name"
            )
        found = dict(zip(names, model, strict=True))
    else:
        if name is not None and (slug(name) != name or isinstance(model, str | Path)):
            why = "an adapter has its own name" if isinstance(model, str | Path) else f"use '{slug(name)}'"
            raise UsageError(f"name={name!r} cannot be the name of a result; {why}")
        found = {name or _name_of(model): model}
    if not found:
        raise UsageError("no models were given; expected a model, a list of models, or a dict by name")
    return found


def _name_of(model: object) -> str:
    if isinstance(model, str | Path):
        return str(model)
    if isinstance(model, ImageModel):
        return slug(model.spec.name)
    model = _unwrapped(model)
    owner = getattr(model, "__self__", None)
    named_after = owner if owner is not None else model
    return slug(getattr(named_after, "__name__", "") or type(named_after).__name__)


def own_device(models: Sequence[object]) -> str | None:
    """Return the device of the first network found in the models; None if there is none."""
    for model in models:
        for module in modules_in(_unwrapped(model)):
            for tensor in (*module.parameters(), *module.buffers()):
                if tensor.device.type != "meta":
                    return str(tensor.device)
    return None


def as_adapters(
    models: Mapping[str, object],
    settings: Settings,
    first_image: Callable[[], Tensor],
    as_before: AsBefore,
    *,
    device: str,
    root: Path | None,
    allow_download: bool,
) -> list[LoadedAdapter]:
    """Return the models of one call as adapters; adapters given by name are loaded.

    first_image: returns one image (1, 3, H, W) in [0, 1], used to infer the spec of models without one. Raises
    UsageError, AdapterError or MissingWeights for the first model that cannot be used.
    """
    adapters = []
    for name, model in models.items():
        if isinstance(model, str | Path):
            adapters.append(load(str(model), device, root, allow_download))
            continue
        if isinstance(model, type):
            raise UsageError(f"{name}: {model.__name__} is a class; pass an instance of it")
        model = _unwrapped(model)
        source = f"python:{type(model).__module__}.{type(model).__qualname__}"
        used = identify(model=model)
        with_spec = model if isinstance(model, ImageModel) else _of_diffusers(model)
        if with_spec is not None:
            adapter = wrap_user_model(with_spec, settings, as_before)
        else:
            adapter = wrap(model, name, settings, first_image().to(device), as_before)
        adapters.append(LoadedAdapter(name, source, adapter, {}, used=used, resumable=False))
    names = [one.name for one in adapters]
    if duplicates := {name for name in names if names.count(name) > 1}:
        raise UsageError(
            f"two models have the name {', '.join(sorted(duplicates))} and would share a result; rename one"
        )
    if settings != Settings(seed=settings.seed) and not any(
        isinstance(one.model, ModelTokenizer | ModelImages) for one in adapters
    ):
        raise UsageError(
            "value_range, multiple, input_size and codebook_size apply only to models without a spec; these have one: "
            f"{', '.join(names)}"
        )
    return adapters


def _unwrapped(model: Any) -> Any:
    """Return the network inside PyTorch's data-parallel wrappers, which hide `encode` and `decode`."""
    while isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        model = model.module
    return model


def _of_diffusers(model: object) -> ImageModel | None:
    """Return the adapter of a supported diffusers autoencoder; None for other models."""
    if not type(model).__module__.startswith("diffusers.") or not isinstance(model, nn.Module):
        return None
    from tokbench.tokenizers.builtin.diffusers import SUPPORTED, adapter_of

    if type(model).__name__ not in SUPPORTED:
        return None
    floats = (tensor.dtype for tensor in model.parameters() if tensor.is_floating_point())
    if next(floats, torch.float32) != torch.float32:
        return None  # the diffusers adapters compute in float32
    return adapter_of(f"diffusers:{type(model).__name__}", model, type(model).__name__)
