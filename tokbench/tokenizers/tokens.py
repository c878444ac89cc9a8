"""Tokens: what an encoder passes to its decoder, with length and bits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from tokbench.errors import AdapterError, NotApplicable

Kind = Literal["index", "latent", "bytes"]


@dataclass(frozen=True)
class TokenStream:
    """One named sequence of tokens for B images.

    - kind `index`: int64 (B, ...) with values in [0, codebook_size). Every axis after the first counts positions,
      except that with `groups` above 1 the last axis holds that many indices, each into its own codebook, which form
      one token.
    - kind `latent`: float16 (B, ...), continuous values in the layout that the decoder expects. channels_last: whether
      a grid is (B, h, w, C) and not (B, C, h, w); None if only its shape shows it, which a cube does not.
    - kind `bytes`: B byte strings, the files that a codec writes, or raw samples as uint8 (B, ...).
    """

    kind: Kind
    data: Tensor | tuple[bytes, ...]
    codebook_size: int | None = None
    groups: int = 1
    channels_last: bool | None = None

    def __len__(self) -> int:
        return len(self.data)


@dataclass(frozen=True)
class Tokens:
    """The tokens of B images: streams by name, tokens per image `length` (B,) and bits per image `bits` (B,).

    A codec's bytes are not tokens: their `length` is 0 and only their bits count.
    """

    streams: dict[str, TokenStream]
    length: Tensor = field(repr=False)
    bits: Tensor = field(repr=False)

    @staticmethod
    def from_indices(
        indices: Tensor | dict[str, Tensor],
        codebook_size: int | dict[str, int],
        groups: int = 1,
        length: Tensor | None = None,
    ) -> Tokens:
        """Return discrete tokens from integer indices (B, ...) per stream. Each index costs log2(codebook_size) bits.

        groups: how many indices along the last axis form one token. length (B,): how many of its first tokens each
        image uses, if that varies; transmitting it costs log2 of the largest number of tokens. Raises AdapterError
        if an index lies outside its codebook or the data is not integer.
        """
        named = indices if isinstance(indices, dict) else {"codes": indices}
        sizes = codebook_size if isinstance(codebook_size, dict) else dict.fromkeys(named, codebook_size)
        streams, batch = {}, len(next(iter(named.values())))
        count, bits = 0, 0.0
        for name, data in named.items():
            if data.is_floating_point() or data.dtype == torch.bool:
                raise AdapterError(f"token stream '{name}' must hold integer indices, got {data.dtype}")
            size = sizes[name]
            if data.numel() and (int(data.min()) < 0 or int(data.max()) >= size):
                raise AdapterError(
                    f"token stream '{name}' holds indices {int(data.min())} to {int(data.max())}, "
                    f"outside its codebook of {size}"
                )
            positions = data[0].numel() if batch else 0
            streams[name] = TokenStream("index", data.to(torch.int64), size, groups)
            count += positions // groups
            bits += positions * math.log2(size)
        full_bits = torch.full((batch,), bits, dtype=torch.float64)
        if length is None:
            return Tokens(streams, torch.full((batch,), count), full_bits)
        return Tokens(streams, length.cpu(), full_bits * length.cpu() / count + math.log2(count))

    @staticmethod
    def from_latents(latents: Tensor, tokens: int, channels_last: bool | None = None) -> Tokens:
        """Return continuous tokens from float (B, ...), which holds `tokens` vectors per image.

        channels_last: whether a grid of them is (B, h, w, C), or (B, C, h, w); needed if both fit its shape.

        Values are stored as float16 and decoded from float16, so they cost 16 bits each. Raises AdapterError if
        float16 cannot represent them (NaN, infinite, beyond 65504).
        """
        stored = latents.detach().to(torch.float16)
        if not torch.isfinite(stored).all():
            raise AdapterError("latents are not finite in float16, the precision in which they are stored")
        batch = len(latents)
        bits = 16.0 * (stored[0].numel() if batch else 0)
        return Tokens(
            {"latents": TokenStream("latent", stored, channels_last=channels_last)},
            torch.full((batch,), tokens),
            torch.full((batch,), bits, dtype=torch.float64),
        )

    @staticmethod
    def from_bytes(files: list[bytes]) -> Tokens:
        """Return the tokens of a codec from its files, one per image. They cost 8 bits per byte, headers included."""
        return Tokens(
            {"file": TokenStream("bytes", tuple(files))},
            torch.zeros(len(files), dtype=torch.int64),
            torch.tensor([8.0 * len(f) for f in files], dtype=torch.float64),
        )

    @staticmethod
    def from_samples(samples: Tensor) -> Tokens:
        """Return raw 8-bit samples, uint8 (B, ...), as tokens. They cost 8 bits each."""
        bits = 8.0 * samples[0].numel()
        return Tokens(
            {"samples": TokenStream("bytes", samples)},
            torch.zeros(len(samples), dtype=torch.int64),
            torch.full((len(samples),), bits, dtype=torch.float64),
        )

    @staticmethod
    def cat(parts: Sequence[Tokens]) -> Tokens:
        """Concatenate the tokens of several batches of one tokenizer into one batch."""
        if len(parts) == 1:
            return parts[0]
        streams = {}
        for name, first in parts[0].streams.items():
            pieces = [part.streams[name].data for part in parts]
            tensors = [piece for piece in pieces if isinstance(piece, Tensor)]
            files = [piece for piece in pieces if isinstance(piece, tuple)]
            joined = torch.cat(tensors) if tensors else tuple(itertools.chain.from_iterable(files))
            streams[name] = replace(first, data=joined)
        return Tokens(streams, torch.cat([p.length for p in parts]), torch.cat([p.bits for p in parts]))

    def __len__(self) -> int:
        return len(self.length)

    def select(self, positions: Sequence[int]) -> Tokens:
        """Return the tokens of the images at these positions, in that order."""
        streams = {}
        for name, stream in self.streams.items():
            data = stream.data
            selected = tuple(data[p] for p in positions) if isinstance(data, tuple) else data[list(positions)]
            streams[name] = replace(stream, data=selected)
        return Tokens(streams, self.length[list(positions)], self.bits[list(positions)])

    def with_data(self, data: Tensor) -> Tokens:
        """Return a copy in which the only stream has other data. Raises ValueError if there are several streams."""
        ((name, stream),) = self.streams.items()
        return replace(self, streams={name: replace(stream, data=data)})

    def crop(self, grid: tuple[int, int], rows: slice, columns: slice, name: str = "these tokens") -> Tokens:
        """Return the tokens in a rectangle of the grid of each image. Arguments and errors are those of `map_grid`."""
        return self.map_grid(grid, lambda data: data[..., rows, columns], name)

    def map_grid(
        self, grid: tuple[int, int], transform: Callable[[Tensor], Tensor], name: str = "these tokens"
    ) -> Tokens:
        """Return tokens whose grids were transformed, for example cropped or flipped.

        grid: (rows, columns) of the grid of each image. transform: maps data (..., rows, columns) to the data of
        another grid; lengths and bits change in proportion to the number of its places. name: the name of the
        tokenizer, for messages. Raises NotApplicable if a stream does not hold one token per place of the grid: indices
        (B, h, w, ...), latents (B, C, h, w) or (B, h, w, C); or if both fit latents that do not state their layout
        (`Tokenizer.with_layout`).
        """
        streams, share = {}, 1.0
        for key, stream in self.streams.items():
            data = stream.data
            shape = tuple(data.shape) if isinstance(data, Tensor) else ()
            first = (
                stream.kind == "latent" and len(shape) == 4 and shape[2:] == grid and stream.channels_last is not True
            )
            last = stream.kind != "bytes" and shape[1:3] == grid and stream.channels_last is not False
            if not isinstance(data, Tensor) or not (first or last):
                raise NotApplicable(f"{name}: its stream '{key}' of shape {shape} is not a grid of {grid[0]}x{grid[1]}")
            if first and last:
                raise NotApplicable(f"{name}: {unknown_layout(shape[1:])}")
            axes = (2, 3) if first else (1, 2)
            changed = transform(data.movedim(axes, (-2, -1)))
            share = changed.shape[-2] * changed.shape[-1] / (grid[0] * grid[1])
            streams[key] = replace(stream, data=changed.movedim((-2, -1), axes).contiguous())
        return Tokens(streams, (self.length * share).round().to(self.length.dtype), self.bits * share)

    def truncate(self, count: int, variable: bool = False) -> Tokens:
        """Return the first `count` tokens of every image, or all tokens of an image that has fewer.

        An image's bits shrink in proportion to its tokens. `variable` tokens include log2 of the row's length, the cost
        of transmitting the number of tokens; after truncation this is log2 of `count`. Raises AdapterError if the
        tokens are not a single row, or if their number varies although `variable` is not set.
        """
        stream, data = self.single_stream(), self.tensor
        num_positions = data.shape[1]
        num_tokens = data[0].numel() // stream.groups if stream.kind == "index" else int(self.length.max())
        if stream.kind == "bytes" or num_tokens != num_positions:
            raise AdapterError(f"tokens of shape {tuple(data.shape[1:])} are not a row, so they have no first tokens")
        if not variable and (self.length != num_positions).any():
            raise AdapterError(
                f"images have {int(self.length.min())} to {num_positions} tokens, but the spec does not declare "
                "`variable`"
            )
        if count >= num_positions:
            return self
        length = self.length.clamp(max=count)
        old_cost, new_cost = (math.log2(num_positions), math.log2(count)) if variable else (0.0, 0.0)
        bits = (self.bits - old_cost) * (length.double() / self.length.clamp(min=1)) + new_cost
        return replace(self.with_data(data[:, :count]), length=length, bits=bits)

    def single_stream(self) -> TokenStream:
        """Return the only stream. Raises AdapterError if there are several."""
        if len(self.streams) != 1:
            raise AdapterError(
                f"tokens have several streams ({', '.join(sorted(self.streams))}); choose one by its name"
            )
        return next(iter(self.streams.values()))

    @property
    def tensor(self) -> Tensor:
        """The data of the only stream as a tensor (B, ...). Raises AdapterError if it is not one tensor."""
        data = self.single_stream().data
        if isinstance(data, tuple):
            raise AdapterError("these tokens are a codec's files, not a tensor")
        return data

    @property
    def files(self) -> tuple[bytes, ...]:
        """The data of the only stream as B files. Raises AdapterError if it is not one list of files."""
        data = self.single_stream().data
        if not isinstance(data, tuple):
            raise AdapterError("these tokens are a tensor, not a codec's files")
        return data

    def merge_tiles(self, per_image: int) -> Tokens:
        """Merge the tokens of B x per_image tiles into the tokens of B images. The tiles of an image must be
        consecutive.

        Positions are concatenated; lengths and bits are added. Where the tiles differ in length, the tokens that count
        come first, tile by tile.
        """
        if per_image == 1:
            return self
        streams = {}
        for name, stream in self.streams.items():
            if isinstance(stream.data, tuple):
                groups = zip(*[iter(stream.data)] * per_image, strict=True)
                joined: Tensor | tuple[bytes, ...] = tuple(b"".join(group) for group in groups)
            else:
                last = (stream.groups,) if stream.groups > 1 else ()
                rows = stream.data.reshape(len(stream.data), -1, *last)
                joined = rows.reshape(len(rows) // per_image, -1, *last)
                if stream.kind == "index" and len(self.streams) == 1 and int(self.length.min()) < rows.shape[1]:
                    counts = torch.arange(rows.shape[1]) < self.length[:, None]
                    order = (~counts).reshape(len(joined), -1).int().argsort(dim=1, stable=True).to(joined.device)
                    joined = joined.take_along_dim(order.reshape(order.shape + (1,) * len(last)), 1)
            streams[name] = replace(stream, data=joined)
        return Tokens(streams, self.length.reshape(-1, per_image).sum(1), self.bits.reshape(-1, per_image).sum(1))


def unknown_layout(shape: Sequence[int]) -> str:
    """Return the message for latents of an image whose shape fits (C, h, w) and (h, w, C)."""
    return (
        f"latents of shape {tuple(shape)} can have their channels first or last; give another --size, or state "
        "`channels_last` in `Tokens.from_latents`"
    )
