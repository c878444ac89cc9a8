"""Weights that fit a network only in part: what `load_state_dict(strict=False)` leaves out without a word."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import ReferenceType, ref

from torch import Tensor, nn

_FIRST = 3
"""So many names are given as examples."""

_COUNTER = "num_batches_tracked"
"""Batch norm's step counters: some files have them, some not, and nothing reads them."""


_READERS = {"diffusers": "ModelMixin", "transformers": "PreTrainedModel"}
"""Libraries that read weight files in their own way, and the class whose `from_pretrained` does so."""


class PartialLoads:
    """What calls of `load_state_dict` left out while they were observed.

    A tensor that one call left out and another one filled is not missing, nor is one that shares its memory with a
    tensor that was filled. A name of the file that any call had a place for is not unexpected.
    """

    def __init__(self) -> None:
        self._missing: list[tuple[ReferenceType[nn.Module], str, str]] = []
        self._filled: list[tuple[ReferenceType[nn.Module], str]] = []
        self._unexpected: list[tuple[ReferenceType[nn.Module], str]] = []
        self._placed: set[str] = set()

    def note(self, module: nn.Module, missing: list[str], unexpected: list[str]) -> None:
        """Take in what a call of a module's `load_state_dict` returned."""
        absent = set(missing)
        for place, holder in module.named_modules(remove_duplicate=False):
            for last in (*holder._parameters, *holder._buffers):
                name = f"{place}.{last}" if place else last
                if name in absent:
                    self._missing.append((ref(holder), last, name))
                else:
                    self._filled.append((ref(holder), last))
                    self._placed.add(name)
        self._unexpected += [(ref(module), name) for name in unexpected]

    def left_out(self, model: Any) -> dict[str, Any]:
        """Of a model's networks: {missing, unexpected: how many, first: some names}, empty where all fitted.

        `model.module` and the networks among the model's attributes count; of a model without any, all networks do.
        """
        held = [part for part in (getattr(model, "module", None), *_attributes(model)) if isinstance(part, nn.Module)]
        inside = {id(module) for part in held for module in part.modules()}

        def counts(module: nn.Module | None) -> bool:
            return module is not None and (not held or any(id(part) in inside for part in module.modules()))

        filled = {id(_tensor(holder(), name)) for holder, name in self._filled}
        missing = {
            name
            for holder, last, name in self._missing
            if counts(holder())
            and not name.endswith(_COUNTER)
            and (tensor := _tensor(holder(), last)) is not None
            and id(tensor) not in filled
        }
        unexpected = {
            name
            for module, name in self._unexpected
            if counts(module()) and not name.endswith(_COUNTER) and name not in self._placed
        }
        if not missing and not unexpected:
            return {}
        first = [*sorted(missing)[:_FIRST], *sorted(unexpected)[:_FIRST]]
        return {"missing": len(missing), "unexpected": len(unexpected), "first": first}


@contextmanager
def observed(libraries: Iterable[str] = ()) -> Iterator[PartialLoads]:
    """Around code that loads networks: what its calls of `nn.Module.load_state_dict` leave out, and those of the
    `from_pretrained` of the libraries among `libraries` that have one.

    Copies that are made tensor by tensor are not seen, nor are networks for which nothing is loaded at all.
    """
    seen = PartialLoads()
    with ExitStack() as stack:
        stack.enter_context(_wrapped(nn.Module, "load_state_dict", functools.partial(_loading, seen)))
        for library in sorted(_READERS.keys() & set(libraries)):
            kind = getattr(importlib.import_module(library), _READERS[library])
            stack.enter_context(_wrapped(kind, "from_pretrained", functools.partial(_reading, seen)))
        yield seen


@contextmanager
def _wrapped(kind: type, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    before = vars(kind)[name]
    setattr(kind, name, make(before))
    try:
        yield
    finally:
        setattr(kind, name, before)


def _loading(seen: PartialLoads, before: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(before)
    def load_state_dict(self: nn.Module, *arguments: Any, **options: Any) -> Any:
        found = before(self, *arguments, **options)
        seen.note(self, list(found.missing_keys), list(found.unexpected_keys))
        return found

    return load_state_dict


def _reading(seen: PartialLoads, before: Any) -> Any:
    @functools.wraps(before.__func__)
    def from_pretrained(kind: type, *arguments: Any, **options: Any) -> Any:
        wanted = options.pop("output_loading_info", False)
        made, told = before.__func__(kind, *arguments, output_loading_info=True, **options)
        seen.note(made, list(told["missing_keys"]), list(told["unexpected_keys"]))
        return (made, told) if wanted else made

    return classmethod(from_pretrained)


def described(told: dict[str, Any]) -> str:
    """What `left_out` found, in words."""
    parts = []
    if told["missing"]:
        parts.append(f"{told['missing']} tensors of the network are not in the file and keep their initial values")
    if told["unexpected"]:
        parts.append(f"{told['unexpected']} tensors of the file have no place in the network")
    return f"{'; '.join(parts)} ({', '.join(told['first'])})"


def _attributes(model: Any) -> list[Any]:
    return list(vars(model).values()) if hasattr(model, "__dict__") else []


def _tensor(module: nn.Module | None, name: str) -> Tensor | None:
    if module is None:
        return None
    own = module._parameters.get(name)
    return own if own is not None else module._buffers.get(name)
