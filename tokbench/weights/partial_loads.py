"""Weights that fit a network only in part: what `load_state_dict(strict=False)` leaves out without a word.

What is found belongs to the places of tensors, not to the network that was loaded: of a network that is dropped but for
one part, that part's places are still there, and so are those of a copy, or of a scripted or traced network.
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

_FIRST = 3
"""So many names are given as examples."""

_COUNTER = "num_batches_tracked"
"""Batch norm's step counters: some files have them, some not, and nothing reads them."""


_READERS = {"diffusers": "ModelMixin", "transformers": "PreTrainedModel"}
"""Libraries that read weight files in their own way, and the class whose `from_pretrained` does so."""


_SAMPLES = 16
"""So many numbers of a tensor tell it from others of its name."""

_Memory = tuple[StorageWeakRef | int, int]
"""A tensor's storage, which is not kept by this, and where in it the tensor begins; of a tensor without, its `id`."""


@dataclass(frozen=True)
class _Given:
    """A tensor that a call was given: enough to recognise it where another call is given it, too."""

    name: str
    source: str
    memory: _Memory | None = None
    dtype: torch.dtype | None = None
    sample: tuple[float, ...] = ()

    @classmethod
    def of(cls, name: str, source: str, tensor: Any) -> _Given:
        if not isinstance(tensor, Tensor):
            return cls(name, source)
        return cls(name, source, _memory(tensor), tensor.dtype, _sample(tensor))

    def is_in(self, tensor: Tensor) -> bool:
        """Whether it is this tensor's memory."""
        return self.memory is not None and self.memory == _memory(tensor)

    def resembles(self, other: _Given) -> bool:
        """Whether the other has the same numbers, perhaps converted."""
        if not self.sample or len(self.sample) != len(other.sample):
            return False
        apart = 0.0 if self.dtype == other.dtype else 0.01
        return all(math.isclose(*pair, rel_tol=apart) for pair in zip(self.sample, other.sample, strict=True))


@dataclass(frozen=True)
class _Place:
    """Where a network has a tensor: `last` is the name in `holder`, `name` that in the network that was loaded."""

    holder: ReferenceType[nn.Module]
    last: str
    name: str
    tensor: TensorWeakRef
    memory: _Memory
    origin: _Memory
    """The same for the places of copies of one network."""

    def now(self) -> _Memory | None:
        """Where the tensor is by now, as after `.to(device)`; None where nobody holds it any more."""
        holder = self.holder()
        for tensors in () if holder is None else (holder._parameters, holder._buffers):
            if self.last in tensors and (found := tensors[self.last]) is not None:
                return _memory(found)
        if (tensor := self.tensor()) is not None:  # in another module, or in a compiled network
            return _memory(tensor)
        storage = self.memory[0]  # which `.data`, or another view, may hold
        return self.memory if isinstance(storage, StorageWeakRef) and not storage.expired() else None


@dataclass(frozen=True)
class _Call:
    """One call that loaded a network."""

    network: ReferenceType[nn.Module]
    filled: list[_Place]
    missing: list[_Place]
    unexpected: list[_Given]

    def is_held(self) -> bool:
        """Whether any part of the network is."""
        places = (*self.filled, *self.missing)
        return self.network() is not None or any(place.now() is not None for place in places)


class PartialLoads:
    """What calls of `load_state_dict` left out while they were observed, of networks that somebody still holds.

    A tensor that one call left out and another one filled is not missing, nor is one that shares its memory with a
    tensor that was filled. A tensor of the file that any call had a place for is not unexpected; one that has the name
    of another tensor, and no more, is. What a network is given of its own, as in a state dict that was updated and is
    loaded again, fills nothing.
    """

    def __init__(self) -> None:
        self._thread = threading.current_thread()
        self._others = frozenset(threading.enumerate())
        self._calls: list[_Call] = []
        self._placed: list[_Given] = []
        self._lacking: set[_Memory | None] = set()
        self._held_by: dict[int, list[tuple[list[_Place], _Place]]] = {}

    def begun_by(self, thread: threading.Thread) -> bool:
        """Whether it observes what this thread does itself."""
        return thread is self._thread

    def may_be_part(self, thread: threading.Thread) -> bool:
        """Whether the thread was started since, perhaps by the code that is observed."""
        return thread not in self._others

    def note(self, network: nn.Module, given: dict[str, _Given], missing: set[str], unexpected: set[str]) -> None:
        """Take in a call that loaded a network: what it was given, and the names that it left out."""
        absent = missing | self._initial(given)
        call = _Call(ref(network), [], [], [given.get(name, _Given(name, "")) for name in unexpected])
        for name, last, holder, tensor in _places(network):
            memory = _memory(tensor)
            place = _Place(ref(holder), last, name, TensorWeakRef(tensor), memory, memory)
            self._put(call.missing if name in absent else call.filled, place, holder)
            if name in absent:
                self._lacking.add(memory)
        self._placed += [told for name, told in given.items() if name not in unexpected]
        self._calls.append(call)

    def copied(self, before: nn.Module, made: nn.Module) -> None:
        """Take in that a module was copied with its tensors: what is in the copy is what was in the module."""
        for places, place in list(self._held_by.get(id(before), ())):
            tensor = _tensors(made).get(place.last)
            if place.holder() is before and tensor is not None:
                there = replace(place, holder=ref(made), tensor=TensorWeakRef(tensor), memory=_memory(tensor))
                self._put(places, there, made)
                self._lacking |= {there.memory} if place.memory in self._lacking else set()

    def _put(self, places: list[_Place], place: _Place, holder: nn.Module) -> None:
        places.append(place)
        self._held_by.setdefault(id(holder), []).append((places, place))

    def _initial(self, given: dict[str, _Given]) -> set[str]:
        """The names of what was taken out of networks where nothing had filled it."""
        if not any(told.memory in self._lacking for told in given.values()):  # quick, and nearly always so
            return set()
        unfilled = {memory for memory, _ in self._unfilled()}
        return {name for name, told in given.items() if told.memory in unfilled}

    def _unfilled(self) -> list[tuple[_Memory, _Place]]:
        """Places that calls left out and none filled, and where their tensors are."""
        missing = [(memory, place) for call in self._calls for place in call.missing if (memory := place.now())]
        if not missing:
            return []
        filled = {place.now() for call in self._calls for place in call.filled}
        return [(memory, place) for memory, place in missing if memory not in filled]

    def _unplaced(self) -> set[str]:
        """The names of tensors that no call had a place for."""
        memories = {told.memory for told in self._placed if told.memory is not None}
        sources = {(told.source, told.name) for told in self._placed if told.source}
        named: dict[str, list[_Given]] = {}
        ending: dict[str, list[_Given]] = {}
        for told in self._placed:
            named.setdefault(told.name, []).append(told)
            for end in _ends(told.name):
                ending.setdefault(end, []).append(told)

        def is_placed(told: _Given) -> bool:
            """Itself, or with its numbers and its name, of which a beginning may be cut off."""
            if told.memory in memories or (told.source, told.name) in sources:
                return True
            same = chain(ending.get(told.name, ()), *(named.get(end, ()) for end in _ends(told.name)))
            return any(map(told.resembles, same))

        held = (call for call in self._calls if call.unexpected and call.is_held())
        return {told.name for call in held for told in call.unexpected if not is_placed(told)}

    def left_out(self) -> dict[str, Any]:
        """{missing, unexpected: how many, first: some names}, empty where all fitted."""
        if not any(call.missing or call.unexpected for call in self._calls):
            return {}
        gc.collect()  # networks with circles of references that nobody holds any more
        missing = {place.origin: place.name for _, place in self._unfilled()}
        unexpected = {name for name in self._unplaced() if not name.endswith(_COUNTER)}
        if not missing and not unexpected:
            return {}
        first = [*sorted(set(missing.values()))[:_FIRST], *sorted(unexpected)[:_FIRST]]
        return {"missing": len(missing), "unexpected": len(unexpected), "first": first}


@contextmanager
def observed(libraries: Iterable[str] = ()) -> Iterator[PartialLoads]:
    """Around code that loads networks: what its calls of `nn.Module.load_state_dict` leave out, and those of the
    `from_pretrained` of the libraries among `libraries` that have one. The code may start threads; other threads may
    observe loads of their own meanwhile.

    Copies that are made tensor by tensor are not seen, nor are networks for which nothing is loaded at all.
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
"""How many observers need a hook, and what was in its place."""


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
    """Those of this thread; where it has none, those whose code may have started it."""
    thread = threading.current_thread()
    with _LOCK:
        active = list(_ACTIVE)
    return [seen for seen in active if seen.begun_by(thread)] or [seen for seen in active if seen.may_be_part(thread)]


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
        own = {name: tensor for name, _, _, tensor in _places(self)}
        given = {name: _Given.of(name, "", value) for name, value in state.items()}
        itself = {name for name in own.keys() & given.keys() if given[name].is_in(own[name])}
        try:
            found = before(self, *arguments, **options)
        except RuntimeError:  # it has put in what fits; the code may go on with that, or convert the others
            fit = {name: given[name] for name in own.keys() & given.keys() if _shape(state[name]) == own[name].shape}
            for seen in observers:
                seen.note(self, fit, (own.keys() - fit) | itself, set())
            raise
        for seen in observers:
            seen.note(self, given, {*found.missing_keys} | itself, {*found.unexpected_keys})
        return found

    return load_state_dict


def _reading(before: Any) -> Any:
    @functools.wraps(before.__func__)
    def from_pretrained(kind: type, *arguments: Any, **options: Any) -> Any:
        observers, wanted = _observers(), options.pop("output_loading_info", False)
        made, told = before.__func__(kind, *arguments, output_loading_info=True, **options)
        missing, unexpected = ({str(name) for name in told[key]} for key in ("missing_keys", "unexpected_keys"))
        source = f"{(*arguments, options.get('pretrained_model_name_or_path'))[0]} {options.get('subfolder')}"
        given = {
            name: _Given.of(name, source, value) for name, value in made.state_dict().items() if name not in missing
        }
        given |= {name: _Given(name, source) for name in unexpected}  # of these the library says no more
        for seen in observers:
            seen.note(made, given, missing, unexpected)
        return (made, told) if wanted else made

    return classmethod(from_pretrained)


def _copying(_: None) -> Callable[..., Any]:
    def __deepcopy__(self: nn.Module, memo: dict[int, Any]) -> Any:
        made = copy._reconstruct(self, memo, *self.__reduce_ex__(4))  # type: ignore[attr-defined]  # as without it
        for seen in _observers():
            seen.copied(self, made)
        return made

    return __deepcopy__


def described(told: dict[str, Any]) -> str:
    """What `left_out` found, in words."""
    parts = []
    if told["missing"]:
        parts.append(f"{told['missing']} tensors of the network are not in the file and keep the values that they had")
    if told["unexpected"]:
        parts.append(f"{told['unexpected']} tensors of the file have no place in the network")
    return f"{'; '.join(parts)} ({', '.join(told['first'])})"


def _places(network: nn.Module) -> Iterator[tuple[str, str, nn.Module, Tensor]]:
    """What a state dict of a network holds: name, its last part, the module that has it, the tensor."""
    for prefix, holder in network.named_modules(remove_duplicate=False):
        aside = getattr(holder, "_non_persistent_buffers_set", ())
        for last, tensor in _tensors(holder).items():
            if last not in aside and not last.endswith(_COUNTER):
                yield f"{prefix}.{last}" if prefix else last, last, holder, tensor


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """A module's own parameters and buffers by name, those of its children left out."""
    named = (*module._parameters.items(), *module._buffers.items())
    return {name: tensor for name, tensor in named if tensor is not None}


def _ends(name: str) -> list[str]:
    """A name, and what is left of it without its first part, its first two, and so on."""
    parts = name.split(".")
    return [".".join(parts[count:]) for count in range(len(parts))]


def _shape(value: Any) -> torch.Size | None:
    return value.shape if isinstance(value, Tensor) else None


def _memory(tensor: Tensor) -> _Memory:
    try:
        return StorageWeakRef(tensor.untyped_storage()), int(tensor.storage_offset())
    except (NotImplementedError, RuntimeError):  # tensors of other layouts have no storage
        return id(tensor), 0


def _sample(tensor: Tensor) -> tuple[float, ...]:
    """A tensor's number of elements, and some of these; empty where it has none that can be read."""
    count = tensor.numel()
    if not count or tensor.is_meta or tensor.is_complex():
        return ()
    places = torch.linspace(0, count - 1, min(count, _SAMPLES), dtype=torch.float64, device=tensor.device).long()
    try:
        return float(count), *tensor.detach().take(places).double().tolist()
    except (NotImplementedError, RuntimeError):  # such as numbers of 8 bits, which few operations take
        return ()
