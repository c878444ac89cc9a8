"""Adapters around Python objects: models with `encode` and `decode`, and functions from images to images."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tokbench.api.encodings import describe_output, read_encoded, read_images
from tokbench.api.state import AsBefore, modules_in
from tokbench.errors import AdapterError, TokbenchError
from tokbench.metric_names import Anchor
from tokbench.tokenizers.base import ImageModel, PrecomputedImages, Tokenizer
from tokbench.tokenizers.captioned import CaptionedTokenizer, Captioner, TextAligned
from tokbench.tokenizers.perturb import Perturber
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tiling import fit
from tokbench.tokenizers.tokens import Tokens

_LOG = logging.getLogger("tokbench")

_SAME = 1e-3
"""Relative difference below which two vectors are the same codebook entry: straight-through estimators add and subtract
the encoder's output, which causes rounding errors."""


@dataclass(frozen=True)
class Settings:
    """Properties of models without a spec, as in `tokbench.evaluate`, and the seed of the noise that they sample."""

    value_range: tuple[float, float] = (-1.0, 1.0)
    multiple: int | None = None
    input_size: int | None = None
    codebook_size: int | None = None
    seed: int = 0


class Caller:
    """Calls functions of a model in the user's environment: outside inference mode, with the user's default dtype and
    device. fault: the exception that a call raised, or None.
    """

    def __init__(self, model: object, name: str, seed: int, as_before: AsBefore) -> None:
        found = modules_in(model)
        # Parameters are moved, hashed and counted through one module; a list only adds a prefix to their names.
        self.module = found[0] if len(found) == 1 else nn.ModuleList(found) if found else None
        self.name, self.fault = name, None
        self._seed, self._calls, self._as_before = seed, 0, as_before
        tensors = [] if self.module is None else [*self.module.parameters(), *self.module.buffers()]
        self.dtype = next((one.dtype for one in tensors if one.is_floating_point()), torch.float32)

    fault: Exception | None

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Run the model in the user's environment inside the context.

        The global random number generator is seeded, so that sampled noise is the same in every evaluation.
        """
        self._calls += 1
        # The seed is hashed because the CPU generator uses only the lowest 32 bits.
        digest = hashlib.sha256(f"{self._seed}/{self._calls}".encode()).digest()
        torch.manual_seed(int.from_bytes(digest[:4], "big"))
        # Tensors created in inference mode could stay in the model's caches and break later training.
        with torch.inference_mode(False), torch.no_grad(), self._as_before():
            try:
                yield
            except (torch.OutOfMemoryError, MemoryError):
                raise  # the evaluation retries with fewer images
            except Exception as error:
                self.fault = error
                raise

    def __call__(self, function: Callable[[Any], Any], given: Tensor) -> Any:
        """Call a function with a copy of a tensor; floats are converted to the dtype of the model's parameters."""
        with self.outside():
            given = given.clone()
            return function(given.to(self.dtype) if given.is_floating_point() else given)


class UserTokenizer(Tokenizer):
    """A user-defined tokenizer that is called in the user's environment."""

    def __init__(self, model: Tokenizer, call: Caller) -> None:
        self._model, self.call = model, call
        self.spec, self.module, self.dtype, self.identity = model.spec, model.module, model.dtype, model.identity

    def bind_dataset(self, names: Sequence[str], all_names: Sequence[str]) -> None:
        self._model.bind_dataset(names, all_names)

    def encode(self, images: Tensor) -> Tokens:
        with self.call.outside():
            return self._model.encode(images.clone())

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        with self.call.outside():
            streams = {
                name: replace(stream, data=stream.data.clone() if isinstance(stream.data, Tensor) else stream.data)
                for name, stream in tokens.streams.items()
            }
            return self._model.decode(replace(tokens, streams=streams), seeds)

    def vectors(self, tokens: Tokens) -> Tensor:
        with self.call.outside():
            return self._model.vectors(tokens)

    def swap(self, tokens: Tokens, others: Tokens) -> Tokens:
        with self.call.outside():
            return self._model.swap(tokens, others)

    def perturber(self, anchor: Anchor) -> Perturber:
        return self._model.perturber(anchor)


class UserCaptionedTokenizer(CaptionedTokenizer):
    """A user-defined tokenizer that needs captions, called in the user's environment."""

    def __init__(self, model: CaptionedTokenizer, call: Caller) -> None:
        self._model, self.call = model, call
        self.spec, self.module, self.dtype, self.identity = model.spec, model.module, model.dtype, model.identity

    def bind_dataset(self, names: Sequence[str], all_names: Sequence[str]) -> None:
        self._model.bind_dataset(names, all_names)

    def encode(self, images: Tensor, captions: Sequence[str] | None = None) -> Tokens:
        return UserTokenizer(self._model.with_captions(captions), self.call).encode(images)

    def decode(self, tokens: Tokens, seeds: Sequence[int], captions: Sequence[str] | None = None) -> Tensor:
        return UserTokenizer(self._model.with_captions(captions), self.call).decode(tokens, seeds)

    def vectors(self, tokens: Tokens) -> Tensor:
        return UserTokenizer(self._model, self.call).vectors(tokens)


class UserTextAligned(TextAligned):
    """The embeddings of a user-defined tokenizer, computed in the user's environment."""

    _model: TextAligned
    call: Caller

    def token_embeddings(self, tokens: Tokens) -> Tensor:
        with self.call.outside():
            return self._model.token_embeddings(tokens)

    def caption_embeddings(self, captions: Sequence[str]) -> Tensor:
        with self.call.outside():
            return self._model.caption_embeddings(captions)


class UserCaptioner(Captioner):
    """The captions that a user-defined tokenizer writes, in the user's environment."""

    _model: Captioner
    call: Caller

    def write_captions(self, tokens: Tokens) -> list[str]:
        with self.call.outside():
            return self._model.write_captions(tokens)


class UserImages(PrecomputedImages):
    """A user-defined image source that is called in the user's environment."""

    def __init__(self, model: PrecomputedImages, call: Caller) -> None:
        self._model, self.call = model, call
        self.spec, self.module, self.dtype, self.identity = model.spec, model.module, model.dtype, model.identity

    def bind_dataset(self, names: Sequence[str], all_names: Sequence[str]) -> None:
        self._model.bind_dataset(names, all_names)

    def reconstruct(self, images: Tensor, names: Sequence[str]) -> Tensor:
        with self.call.outside():
            return self._model.reconstruct(images.clone(), names)


class ModelImages(PrecomputedImages):
    """Adapter of a function from images to images; its reconstructions have no tokens."""

    def __init__(self, model: Callable[[Tensor], Any], call: Caller, settings: Settings) -> None:
        self._model, self.call, self.module, self.dtype = model, call, call.module, call.dtype
        self.spec = TokenizerSpec(
            call.name,
            "images",
            range=settings.value_range,
            multiple=settings.multiple or 1,
            size=settings.input_size,
        )

    def reconstruct(self, images: Tensor, names: Sequence[str]) -> Tensor:
        return read_images(self.call(self._model, images), self.call.name, "the model").float()


class ModelTokenizer(Tokenizer):
    """Adapter of an object with `encode` and `decode`; its spec is inferred from the output for the first image.

    Latents are rounded to float16 before decoding, as for every adapter. If the encoder returns quantized vectors with
    their codes, the codes are the tokens, and the decoder receives for each code the vector that the encoder returned.
    """

    def __init__(self, model: Any, call: Caller, settings: Settings, probe: Tensor) -> None:
        self._model, self.call, self.module, self.dtype = model, call, call.module, call.dtype
        self._codebook: _Codebook | None = None
        self.spec = self._probed(settings, probe)

    def _probed(self, settings: Settings, probe: Tensor) -> TokenizerSpec:
        """Return the spec inferred from encoding an image (1, 3, H, W) in [0, 1]. Raises AdapterError."""
        name, (low, high) = self.call.name, settings.value_range
        rules = TokenizerSpec(
            name, "images", range=(low, high), multiple=settings.multiple or 1, size=settings.input_size
        )
        image = fit(rules, probe.shape[2], probe.shape[3]).cut(probe)[:1] * (high - low) + low
        height, width = image.shape[2:]
        output = self.call(self._model.encode, image)
        encoded = read_encoded(output, name, 1)
        if isinstance(output, tuple | list) and len(output) > 1 and encoded.codes is None:
            _LOG.warning(
                "%s: encode returned %s without integer codes, so bits are counted for float16 latents; if the model "
                "quantizes, return the codes too",
                name,
                describe_output(output),
            )
        tensor = encoded.latents if encoded.codes is None else encoded.codes
        assert tensor is not None
        grid = tensor.shape[2:] if encoded.codes is None else tensor.shape[1:]
        factor = _factor(grid, height, width) if len(grid) == 2 else None
        size = settings.codebook_size
        if encoded.codes is not None and size is None:
            raise AdapterError(f"{name}: encode returned integer codes; give the number of codes as codebook_size=K")
        if encoded.codes is None and size is not None:
            raise AdapterError(
                f"{name}: codebook_size={size} was given, but encode returned no integer codes, only floats of shape "
                f"{tuple(tensor.shape)}; remove codebook_size, or return the codes too"
            )
        if encoded.codes is not None and encoded.latents is not None and size is not None:
            self._codebook = _Codebook(name, size)
        return TokenizerSpec(
            name,
            "continuous" if encoded.codes is None else "discrete",
            range=(low, high),
            multiple=settings.multiple or factor or 1,
            size=settings.input_size,
            downsample=factor,
            codebook={} if size is None else {"codes": size},
            bits_per_token=16.0 * tensor[0].numel() / _positions(tensor) if encoded.codes is None else None,
        )

    def encode(self, images: Tensor) -> Tokens:
        encoded = read_encoded(self.call(self._model.encode, images), self.call.name, len(images))
        if encoded.codes is not None:
            if "codes" not in self.spec.codebook or (encoded.latents is None) != (self._codebook is None):
                raise AdapterError(f"{self.call.name}: encode returned codes for some images only")
            tokens = Tokens.from_indices(encoded.codes, self.spec.codebook["codes"])
            if self._codebook is not None and encoded.latents is not None:
                self._codebook.learn(encoded.codes, encoded.latents)
            return tokens
        assert encoded.latents is not None
        return Tokens.from_latents(encoded.latents, _positions(encoded.latents), channels_last=False)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        given = tokens.tensor if self._codebook is None else self._codebook.vectors(tokens.tensor)
        return read_images(self.call(self._model.decode, given), self.call.name, "decode").float()


def _positions(latents: Tensor) -> int:
    """Return the number of tokens per image of latents (B, C, h, w), (B, N, D) or (B, D)."""
    return {4: latents[0, :1].numel(), 3: latents.shape[1], 2: 1}[latents.dim()]


def _factor(grid: Sequence[int], height: int, width: int) -> int | None:
    """Return the pixels per token side; None if the grid does not divide the image evenly."""
    if 0 in grid or height % grid[0] or width % grid[1] or height // grid[0] != width // grid[1]:
        return None
    return height // grid[0]


class _Codebook:
    """The vector of each code, collected from encoder outputs, so that the decoder depends only on the codes."""

    def __init__(self, name: str, size: int) -> None:
        self._name, self._size = name, size
        self._table: Tensor | None = None
        self._known: Tensor | None = None

    def learn(self, codes: Tensor, vectors: Tensor) -> None:
        """Store the vectors (B, C, h, w) or (B, N, C) of codes (B, h, w) or (B, N).

        Raises AdapterError if a code has two different vectors.
        """
        rows = (vectors.movedim(1, -1) if vectors.dim() == 4 else vectors).flatten(0, -2).float()
        flat = codes.flatten().to(rows.device)
        if self._table is None or self._known is None:
            self._table = rows.new_zeros(self._size, rows.shape[1])
            self._known = torch.zeros(self._size, dtype=torch.bool, device=rows.device)
        new = (~self._known[flat]).nonzero().flatten()
        found, at = flat[new].unique(return_inverse=True)
        first = torch.full_like(found, len(flat)).scatter_reduce(0, at, new, "amin")
        self._table[found] = rows[first]
        self._known[found] = True
        far = (self._table[flat] - rows).abs().amax(1) > _SAME * float(self._table.abs().max()) + 1e-6
        if far.any():
            raise AdapterError(
                f"{self._name}: encode returned different vectors for code {int(flat[far.nonzero()[0]])}, so the codes "
                "do not determine what is decoded; write a subclass of tokbench.Tokenizer that decodes from the codes"
            )
        self._grid = vectors.dim() == 4

    def vectors(self, codes: Tensor) -> Tensor:
        """Return the vectors of codes, in the layout of the encoder's output."""
        assert self._table is not None
        found = self._table[codes.to(self._table.device)]
        return found.movedim(-1, 1).contiguous() if self._grid else found


def wrap_user_model(model: ImageModel, settings: Settings, as_before: AsBefore) -> ImageModel:
    """Return the adapter of a model with a spec. Generators are returned unchanged."""
    call = Caller(model, model.spec.name, settings.seed, as_before)
    if isinstance(model, Tokenizer):
        kind = UserCaptionedTokenizer if isinstance(model, CaptionedTokenizer) else UserTokenizer
        text = {TextAligned: UserTextAligned, Captioner: UserCaptioner}  # metrics ask for these classes
        parts = [part for of, part in text.items() if isinstance(model, of)]
        adapter: ImageModel = type(kind.__name__, (*parts, kind), {})(model, call)
        return adapter
    return UserImages(model, call) if isinstance(model, PrecomputedImages) else model


def wrap(model: Any, name: str, settings: Settings, probe: Tensor, as_before: AsBefore) -> ModelTokenizer | ModelImages:
    """Return the adapter of an object with `encode` and `decode`, or of a function from images to images.

    probe: one image (1, 3, H, W) in [0, 1] on the device. Raises AdapterError if the model is neither, or if its output
    has none of the accepted forms.
    """
    methods = [method for method in ("encode", "decode") if callable(getattr(model, method, None))]
    if len(methods) == 1:
        raise AdapterError(f"{name}: the model must have both `encode` and `decode`, but has only `{methods[0]}`")
    if not methods and not callable(model):
        raise AdapterError(
            f"{name}: an object of type {type(model).__name__} is not a model; expected an adapter's name or path, a "
            "tokbench.Tokenizer, an object with encode and decode, or a function from images to images"
        )
    call = Caller(model, name, settings.seed, as_before)
    if call.module is not None:
        call.module.eval().to(probe.device)
    if not methods:
        return ModelImages(model, call, settings)
    try:
        return ModelTokenizer(model, call, settings, probe)
    except TokbenchError:
        raise
    except Exception as error:
        raise AdapterError(
            f"{name}: encode failed on an image of {probe.shape[3]}x{probe.shape[2]} ({type(error).__name__}: "
            f"{str(error)[:300]}); if the model supports only some sizes, give multiple=M or input_size=S"
        ) from error
