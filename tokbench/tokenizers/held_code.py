"""The code and the networks that objects in memory hold: found by walking a model's attributes and the globals of its
code, since only the objects made from a file that was loaded by its path say that it was."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from enum import IntEnum
from functools import partial
from itertools import islice
from pathlib import Path
from types import CellType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, NamedTuple

OBJECTS = 100_000
"""At most so many objects are looked at for one model, the nearest ones first."""

ELEMENTS = 10_000
"""At most so many elements of one list, tuple, set or dictionary."""

_PLAIN = frozenset({str, bytes, bytearray, int, float, complex, bool, type(None), range, slice})
_FUNCTIONS = (FunctionType, staticmethod, classmethod, property)


class Place(IntEnum):
    """Where code lies: a version says what it holds; it may change; it may change and is of this adapter alone."""

    FIXED, SHARED, OWN = 0, 1, 2


class _Step(NamedTuple):
    """An object to look at. packages: whether its class counts where it is installed, too. deep: whether what it holds
    is looked at: registries in modules that adapters share hold what others put there."""

    held: Any
    packages: bool = False
    deep: bool = True


class Walk:
    """Walks from objects to the code that they are made of. `place` tells where a module of that name and file lies."""

    def __init__(self, place: Callable[[str, str], Place]) -> None:
        self._place = place
        self._waiting: deque[_Step] = deque()
        self._seen: dict[int, Any] = {}  # by id, and kept alive so that no id is given twice
        self._namespaces: dict[tuple[int, str], Place] = {}
        self.names: set[str] = set()
        """Modules by the names under which they are imported."""
        self.by_path: dict[str, str] = {}
        """File -> name of code whose name does not lead to it: it is not among the imported modules, or another is."""
        self.networks: list[Any] = []

    def add_model(self, model: Any) -> None:
        """What a model holds. Installed packages count where its class, its attributes or its networks are of them."""
        self._waiting.append(_Step(model, packages=True))
        self._waiting.extend(_Step(value, packages=True) for value in _attributes(model))
        self._run()

    def add_module(self, module: ModuleType, place: Place) -> None:
        """What the globals of an imported module hold."""
        self._queue(vars(module).values(), deep=place is Place.OWN)
        self._run()

    def _run(self) -> None:
        while self._waiting:
            step = self._waiting.popleft()
            if type(step.held) in _PLAIN or id(step.held) in self._seen or len(self._seen) >= OBJECTS:
                continue
            if not _is(step.held, type):
                self._seen[id(step.held)] = step.held
            self._look(step)

    def _look(self, step: _Step) -> None:
        held, inside = step.held, list[Any]()
        if _is(held, ModuleType):
            self._note(vars(held), None, step.packages)
        elif _is(held, type):
            self._class(held, step)
        elif _is(held, *_FUNCTIONS):
            for function in _functions(held):
                self._note(function.__globals__, function, step.packages)
                inside += _inside(function)
        elif _is(held, MethodType):
            inside = [held.__func__, held.__self__]
        else:
            network = _is_network(held)
            self._class(type(held), step._replace(packages=step.packages or network))
            inside = [*_attributes(held), *_elements(held)]
            if network and step.deep:
                self.networks.append(held)
                inside = [*_parts(held), *inside]
        if step.deep:
            self._queue(inside)

    def _class(self, kind: type, step: _Step) -> None:
        """Where its own functions are, a class is: another module may have the name that it gives."""
        for base in kind.__mro__:
            name, known = vars(base).get("__module__"), id(base) in self._seen
            if known and not step.packages:
                continue
            self._seen[id(base)] = base
            methods = [part for part in vars(base).values() if isinstance(part, _FUNCTIONS)]
            functions = [function for method in methods for function in _functions(method)]
            written = [function for function in functions if _file_of(function.__globals__, function)]
            places = {
                self._note(f.__globals__, f, step.packages and f.__globals__.get("__name__") == name) for f in written
            }
            if isinstance(name, str) and not any(function.__module__ == name for function in written):
                loaded = sys.modules.get(name)
                told = vars(loaded) if isinstance(loaded, ModuleType) else {"__name__": name}
                places.add(self._note(told, None, step.packages))
            if not known and (place := max(places, default=Place.FIXED)) is not Place.FIXED:
                self._queue(vars(base).values(), deep=step.deep and place is Place.OWN)

    def _note(self, names: dict[str, Any], function: FunctionType | None, packages: bool) -> Place:
        """Take in the module whose globals are `names`, and the file that a function of it was written in."""
        name, file = names.get("__name__"), _file_of(names, None)
        places = [self._take(name if isinstance(name, str) else "", file, names, packages)]
        if function is not None and (other := _file_of({}, function)) and other != file:
            # A program compiled the text of a file itself, or a module does not say what its file is.
            places.append(self._take(name if isinstance(name, str) else Path(other).stem, other, names, False))
        return max(places)

    def _take(self, name: str, file: str, names: dict[str, Any], packages: bool) -> Place:
        if packages and name:
            self.names.add(name)
        if not file or not name:
            return Place.FIXED
        key = id(names), file
        if key not in self._namespaces:
            self._namespaces[key] = place = self._place(name, file)
            loaded = sys.modules.get(name)
            if place is Place.FIXED:
                pass
            elif isinstance(loaded, ModuleType) and _file_of(vars(loaded), None) == file:
                self.names.add(name)
            else:
                self.by_path[file], self._namespaces[key] = name, Place.OWN
                self._queue(names.values())
        return self._namespaces[key]

    def _queue(self, held: Iterable[Any], deep: bool = True) -> None:
        self._waiting.extend(_Step(one, deep=deep) for one in list(held))


def networks_of(model: Any) -> list[Any]:
    """The outermost networks that a model holds outside its `module`: nothing else hashes their parameters."""
    walk = Walk(lambda name, file: Place.FIXED)
    walk.add_model(model)
    inside = {id(part) for part in _parts(model.module)} if model.module is not None else set()
    below = {id(part) for one in walk.networks for part in _parts(one)[1:]}
    return [one for one in walk.networks if id(one) not in inside | below]


def _is(held: Any, *kinds: type) -> bool:
    """`isinstance` that asks the object nothing: proxies answer with code of their own."""
    return issubclass(type(held), kinds)


def _is_network(held: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and _is(held, torch.nn.Module)


def _parts(network: Any) -> list[Any]:
    try:
        return list(network.modules())
    except Exception:  # other people's classes
        return [network]


def _functions(held: Any) -> Iterator[FunctionType]:
    """The functions behind a function, method or property, those inside decorators included."""
    if isinstance(held, property):
        waiting = [held.fget, held.fset, held.fdel]
    else:
        waiting = [held.__func__ if isinstance(held, staticmethod | classmethod) else held]
    seen = set[int]()
    while waiting:
        function = waiting.pop()
        if isinstance(function, FunctionType) and id(function) not in seen:
            seen.add(id(function))
            yield function
            waiting.append(vars(function).get("__wrapped__"))


def _inside(function: FunctionType) -> list[Any]:
    """What a function holds: default values, the variables around it, attributes."""
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    return [*defaults, *(function.__closure__ or ()), *vars(function).values()]


def _file_of(names: dict[str, Any], function: FunctionType | None) -> str:
    """The file that the globals of a module name, else the one that a function was compiled from; empty where there is
    no such file."""
    told = names.get("__file__")
    if not isinstance(told, str):
        told = function.__code__.co_filename if function is not None else ""
    return _there(os.path.abspath(told)) if told else ""


def _there(file: str) -> str:
    """The file where it exists, or an archive that it lies in; else nothing."""
    return file if os.path.isfile(file) or any(place.is_file() for place in Path(file).parents) else ""


def _attributes(held: Any) -> list[Any]:
    """The values of an object's attributes. No code of the object runs for it."""
    found = list[Any]()
    with suppress(AttributeError, TypeError, RuntimeError):
        found += object.__getattribute__(held, "__dict__").values()
    for kind in type(held).__mro__:
        for slot in vars(kind).values() if "__slots__" in vars(kind) else ():
            if isinstance(slot, MemberDescriptorType):
                with suppress(AttributeError):
                    found.append(slot.__get__(held, kind))
    return found


def _elements(held: Any) -> list[Any]:
    """What a container, a partial function or a variable of an enclosing function holds."""
    if _is(held, dict):
        return [*islice(dict.keys(held), ELEMENTS), *islice(dict.values(held), ELEMENTS)]
    kinds: tuple[Any, ...] = (list, tuple, set, frozenset, deque)
    for kind in kinds:
        if _is(held, kind):
            return list(islice(kind.__iter__(held), ELEMENTS))
    if _is(held, partial):
        return [held.func, *held.args, *held.keywords.values()]
    if _is(held, CellType):
        with suppress(ValueError):  # not filled yet
            return [held.cell_contents]
    return []
