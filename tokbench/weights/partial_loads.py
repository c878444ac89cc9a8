"""Detects partially loaded weights: tensors that `load_state_dict(strict=False)` ignores without an error.

Findings refer to slots of tensors (a module and a name), not to the network that was loaded. They therefore remain
valid when only a part of the network is kept, and for copies, scripted networks and traced networks.
"""

from __future__ import annotations

import copy
import functools
import gc
import importlib
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any
from weakref import ReferenceType, ref

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.weak import TensorWeakRef

_NUM_EXAMPLES = 3
"""Number of tensor names that are reported as examples."""

_COUNTER = "num_batches_tracked"
"""Name of the step counters of batch norm, which are ignored: only some files contain them, and evaluation does not use
them."""

_READERS = {"diffusers": "ModelMixin", "transformers": "PreTrainedModel"}
"""Libraries with their own code for reading weight files, and the class whose `from_pretrained` does it."""

_NUM_SAMPLES = 16
"""Number of elements of a tensor that are compared to identify it."""

_Memory = tuple[StorageWeakRef | int, int]
"""The memory of a tensor: a weak reference to its storage and its offset there, or its `id` if it has no storage."""


@dataclass(frozen=True)
class _Input:
    """A tensor that was passed to a load call, described so that it can be recognised in other calls."""

    name: str
    source: str
    memory: _Memory | None = None
    dtype: torch.dtype | None = None
    sample: tuple[float, ...] = ()

    @classmethod
    def describe(cls, name: str, source: str, tensor: Any) -> _Input:
        """Return the description of `tensor`. source: the file that it was read from, or ""."""
        if not isinstance(tensor, Tensor):
            return cls(name, source)
        return cls(name, source, _memory(tensor), tensor.dtype, _sample(tensor))

    def shares_memory(self, tensor: Tensor) -> bool:
        """Return whether the input has the memory of `tensor`."""
        return self.memory is not None and self.memory == _memory(tensor)

    def resembles(self, other: _Input) -> bool:
        """Return whether the sampled elements are equal, up to the precision of a conversion."""
        if not self.sample or len(self.sample) != len(other.sample):
            return False
        tolerance = 0.0 if self.dtype == other.dtype else 0.01
        return all(math.isclose(*pair, rel_tol=tolerance) for pair in zip(self.sample, other.sample, strict=True))


@dataclass(frozen=True)
class _Slot:
    """The slot of a tensor: `attribute` of the module `holder`. name: its name in the network that was loaded.

    origin: the memory at the time of loading, which is also that of the slots of copies.
    """

    holder: ReferenceType[nn.Module]
    attribute: str
    name: str
    tensor: TensorWeakRef
    memory: _Memory
    origin: _Memory

    def current_memory(self) -> _Memory | None:
        """Return the tensor's current memory, which `.to(device)` changes; None if the tensor no longer exists."""
        holder = self.holder()
        for tensors in () if holder is None else (holder._parameters, holder._buffers):
            if self.attribute in tensors and (current := tensors[self.attribute]) is not None:
                return _memory(current)
        if (tensor := self.tensor()) is not None:  # it belongs to another module, or to a compiled network
            return _memory(tensor)
        storage = self.memory[0]  # `.data` or another view may keep the storage alive
        return self.memory if isinstance(storage, StorageWeakRef) and not storage.expired() else None


@dataclass(frozen=True)
class _Call:
    """One call that loaded a network."""

    network: ReferenceType[nn.Module]
    filled: list[_Slot]
    missing: list[_Slot]
    unexpected: list[_Input]

    def is_alive(self) -> bool:
        """Return whether the network or any of its tensors still exists."""
        slots = (*self.filled, *self.missing)
        return self.network() is not None or any(slot.current_memory() is not None for slot in slots)


class PartialLoads:
    """Records which tensors the observed load calls left out, for networks that still exist.

    A tensor is not missing if another call filled it, or if it shares its memory with a tensor that was filled. A
    tensor of a file is not unexpected if any call had a slot for that same tensor; a slot of the same name is not
    enough. Loading a network's own tensors, for example from an updated copy of its state dict, fills no slot.
    """

    def __init__(self) -> None:
        self._thread = threading.current_thread()
        self._other_threads = frozenset(threading.enumerate())
        self._calls: list[_Call] = []
        self._used: list[_Input] = []
        self._unfilled_memory: set[_Memory | None] = set()
        self._slots_of: dict[int, list[tuple[list[_Slot], _Slot]]] = {}

    def is_started_by(self, thread: threading.Thread) -> bool:
        """Return whether `thread` started the observation."""
        return thread is self._thread

    def may_include(self, thread: threading.Thread) -> bool:
        """Return whether `thread` was started after the observation began, perhaps by the observed code."""
        return thread not in self._other_threads

    def record_load(
        self, network: nn.Module, inputs: dict[str, _Input], missing: set[str], unexpected: set[str]
    ) -> None:
        """Record a call that loaded a network: its inputs, and the names of the tensors that it left out."""
        absent = missing | self._initial(inputs)
        call = _Call(ref(network), [], [], [inputs.get(name, _Input(name, "")) for name in unexpected])
        for name, attribute, holder, tensor in _slots(network):
            memory = _memory(tensor)
            slot = _Slot(ref(holder), attribute, name, TensorWeakRef(tensor), memory, memory)
            self._add_slot(call.missing if name in absent else call.filled, slot, holder)
            if name in absent:
                self._unfilled_memory.add(memory)
        self._used += [tensor for name, tensor in inputs.items() if name not in unexpected]
        self._calls.append(call)

    def record_copy(self, module: nn.Module, duplicate: nn.Module) -> None:
        """Record that a module was copied with its tensors: the slots of the copy have the state of the module's."""
        for slots, slot in list(self._slots_of.get(id(module), ())):
            tensor = _tensors(duplicate).get(slot.attribute)
            if slot.holder() is module and tensor is not None:
                memory = _memory(tensor)
                self._add_slot(
                    slots, replace(slot, holder=ref(duplicate), tensor=TensorWeakRef(tensor), memory=memory), duplicate
                )
                self._unfilled_memory |= {memory} if slot.memory in self._unfilled_memory else set()

    def _add_slot(self, slots: list[_Slot], slot: _Slot, holder: nn.Module) -> None:
        slots.append(slot)
        self._slots_of.setdefault(id(holder), []).append((slots, slot))

    def _initial(self, inputs: dict[str, _Input]) -> set[str]:
        """Return the names of inputs that were read from networks whose slots had not been filled."""
        if not any(tensor.memory in self._unfilled_memory for tensor in inputs.values()):  # the fast, common case
            return set()
        unfilled = {memory for memory, _ in self._unfilled()}
        return {name for name, tensor in inputs.items() if tensor.memory in unfilled}

    def _unfilled(self) -> list[tuple[_Memory, _Slot]]:
        """Return the slots that some call left out and no call filled, with their current memory."""
        missing = [(memory, slot) for call in self._calls for slot in call.missing if (memory := slot.current_memory())]
        if not missing:
            return []
        filled = {slot.current_memory() for call in self._calls for slot in call.filled}
        return [(memory, slot) for memory, slot in missing if memory not in filled]

    def _unused(self) -> set[str]:
        """Return the names of the input tensors for which no call had a slot."""
        memories = {tensor.memory for tensor in self._used if tensor.memory is not None}
        sources = {(tensor.source, tensor.name) for tensor in self._used if tensor.source}
        by_name: dict[str, list[_Input]] = {}
        by_suffix: dict[str, list[_Input]] = {}
        for tensor in self._used:
            by_name.setdefault(tensor.name, []).append(tensor)
            for suffix in _name_suffixes(tensor.name):
                by_suffix.setdefault(suffix, []).append(tensor)

        def is_used(tensor: _Input) -> bool:
            """Return whether a call used the tensor, or one with equal elements and the same name up to a prefix."""
            if tensor.memory in memories or (tensor.source, tensor.name) in sources:
                return True
            suffixes = _name_suffixes(tensor.name)
            candidates = chain(by_suffix.get(tensor.name, ()), *(by_name.get(suffix, ()) for suffix in suffixes))
            return any(map(tensor.resembles, candidates))

        calls = (call for call in self._calls if call.unexpected and call.is_alive())
        return {tensor.name for call in calls for tensor in call.unexpected if not is_used(tensor)}

    def left_out(self) -> dict[str, Any]:
        """Return {missing: count, unexpected: count, first: example names}, or {} if all tensors fitted."""
        if not any(call.missing or call.unexpected for call in self._calls):
            return {}
        gc.collect()  # this removes dropped networks that contain reference cycles
        missing = {slot.origin: slot.name for _, slot in self._unfilled()}
        unexpected = {name for name in self._unused() if not name.endswith(_COUNTER)}
        if not missing and not unexpected:
            return {}
        first = [*sorted(set(missing.values()))[:_NUM_EXAMPLES], *sorted(unexpected)[:_NUM_EXAMPLES]]
        return {"missing": len(missing), "unexpected": len(unexpected), "first": first}


@contextmanager
def observed(libraries: Iterable[str] = ()) -> Iterator[PartialLoads]:
    """Observe which tensors are left out by calls of `nn.Module.load_state_dict` in the block, and by `from_pretrained`
    of those of the `libraries` that have their own.

    The block may start threads, and other threads may observe their own loads at the same time. Tensors that are
    copied one by one are not observed, and networks for which nothing is loaded are not reported.
    """
    seen = PartialLoads()
    with ExitStack() as stack:
        stack.enter_context(_hooked(nn.Module, "load_state_dict", _loading))
        stack.enter_context(_hooked(nn.Module, "__deepcopy__", _copying))
        for library in sorted(_READERS.keys() & set(libraries)):
            kind = getattr(importlib.import_module(library), _READERS[library])
            stack.enter_context(_hooked(kind, "from_pretrained", _reading))
        stack.enter_context(_active(seen))
        yield seen


_LOCK = threading.Lock()
_ACTIVE: list[PartialLoads] = []
_HOOKS: dict[tuple[type, str], tuple[int, Any]] = {}
"""For each hooked method, the number of observers that need the hook, and the original attribute."""


@contextmanager
def _active(seen: PartialLoads) -> Iterator[None]:
    with _LOCK:
        _ACTIVE.append(seen)
    try:
        yield
    finally:
        with _LOCK:
            _ACTIVE.remove(seen)


def _observers() -> list[PartialLoads]:
    """Return the observers started by this thread; if there are none, those whose code may have started this thread."""
    thread = threading.current_thread()
    with _LOCK:
        active = list(_ACTIVE)
    started = [seen for seen in active if seen.is_started_by(thread)]
    return started or [seen for seen in active if seen.may_include(thread)]


@contextmanager
def _hooked(kind: type, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    key = (kind, name)
    with _LOCK:
        count, before = _HOOKS.get(key, (0, vars(kind).get(name)))
        if not count:
            setattr(kind, name, make(before))
        _HOOKS[key] = (count + 1, before)
    try:
        yield
    finally:
        with _LOCK:
            count, before = _HOOKS.pop(key)
            if count > 1:
                _HOOKS[key] = (count - 1, before)
            elif before is None:
                delattr(kind, name)
            else:
                setattr(kind, name, before)


def _loading(before: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(before)
    def load_state_dict(self: nn.Module, *arguments: Any, **options: Any) -> Any:
        observers = _observers()
        state = arguments[0] if arguments else options.get("state_dict")
        if not observers or not isinstance(state, Mapping):
            return before(self, *arguments, **options)
        tensors = {name: tensor for name, _, _, tensor in _slots(self)}
        inputs = {name: _Input.describe(name, "", value) for name, value in state.items()}
        common = tensors.keys() & inputs.keys()
        unchanged = {name for name in common if inputs[name].shares_memory(tensors[name])}
        try:
            keys = before(self, *arguments, **options)
        except RuntimeError:  # the matching tensors are loaded; the caller may continue, or convert the others
            loaded = {name: inputs[name] for name in common if _shape(state[name]) == tensors[name].shape}
            for seen in observers:
                seen.record_load(self, loaded, (tensors.keys() - loaded) | unchanged, set())
            raise
        for seen in observers:
            seen.record_load(self, inputs, {*keys.missing_keys} | unchanged, {*keys.unexpected_keys})
        return keys

    return load_state_dict


def _reading(before: Any) -> Any:
    @functools.wraps(before.__func__)
    def from_pretrained(kind: type, *arguments: Any, **options: Any) -> Any:
        observers, wanted = _observers(), options.pop("output_loading_info", False)
        model, info = before.__func__(kind, *arguments, output_loading_info=True, **options)
        missing, unexpected = ({str(name) for name in info[key]} for key in ("missing_keys", "unexpected_keys"))
        source = f"{(*arguments, options.get('pretrained_model_name_or_path'))[0]} {options.get('subfolder')}"
        state = model.state_dict()
        inputs = {name: _Input.describe(name, source, value) for name, value in state.items() if name not in missing}
        inputs |= {name: _Input(name, source) for name in unexpected}  # the library reports only their names
        for seen in observers:
            seen.record_load(model, inputs, missing, unexpected)
        return (model, info) if wanted else model

    return classmethod(from_pretrained)


def _copying(_: None) -> Callable[..., Any]:
    def __deepcopy__(self: nn.Module, memo: dict[int, Any]) -> Any:
        duplicate = copy._reconstruct(self, memo, *self.__reduce_ex__(4))  # type: ignore[attr-defined]  # the default
        for seen in _observers():
            seen.record_copy(self, duplicate)
        return duplicate

    return __deepcopy__


def describe_left_out(counts: dict[str, Any]) -> str:
    """Return a description of the result of `PartialLoads.left_out`, which must not be empty."""
    parts = []
    if counts["missing"]:
        parts.append(f"{counts['missing']} tensors of the network are not in the file and keep their initial values")
    if counts["unexpected"]:
        parts.append(f"{counts['unexpected']} tensors of the file are not in the network")
    return f"{'; '.join(parts)} ({', '.join(counts['first'])})"


def _slots(network: nn.Module) -> Iterator[tuple[str, str, nn.Module, Tensor]]:
    """Yield the entries of a network's state dict: full name, attribute, module that has it, and tensor."""
    for prefix, holder in network.named_modules(remove_duplicate=False):
        not_persistent = getattr(holder, "_non_persistent_buffers_set", ())
        for attribute, tensor in _tensors(holder).items():
            if attribute not in not_persistent and not attribute.endswith(_COUNTER):
                yield f"{prefix}.{attribute}" if prefix else attribute, attribute, holder, tensor


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers of a module by name, without those of its children."""
    named = (*module._parameters.items(), *module._buffers.items())
    return {name: tensor for name, tensor in named if tensor is not None}


def _name_suffixes(name: str) -> list[str]:
    """Return a dotted name, and the name without its first part, its first two parts, and so on."""
    parts = name.split(".")
    return [".".join(parts[count:]) for count in range(len(parts))]


def _shape(value: Any) -> torch.Size | None:
    return value.shape if isinstance(value, Tensor) else None


def _memory(tensor: Tensor) -> _Memory:
    try:
        return StorageWeakRef(tensor.untyped_storage()), int(tensor.storage_offset())
    except (NotImplementedError, RuntimeError):  # sparse tensors and other layouts have no storage
        return id(tensor), 0


def _sample(tensor: Tensor) -> tuple[float, ...]:
    """Return the number of elements of a tensor and some of its elements; () if it has no readable elements."""
    count = tensor.numel()
    if not count or tensor.is_meta or tensor.is_complex():
        return ()
    indices = torch.linspace(0, count - 1, min(count, _NUM_SAMPLES), dtype=torch.float64, device=tensor.device).long()
    try:
        return float(count), *tensor.detach().take(indices).double().tolist()
    except (NotImplementedError, RuntimeError):  # few operations support 8-bit floating-point types
        return ()
