"""Errors in the code of an adapter: the last line of that code that ran, and what `load` must return."""

from __future__ import annotations

import inspect
import logging
import os
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from tokbench.errors import AdapterError, TokbenchError
from tokbench.tokenizers.installed import is_installed, is_standard, is_tokbench

if TYPE_CHECKING:
    from tokbench.tokenizers.base import ImageModel

_LOG = logging.getLogger("tokbench")

T = TypeVar("T")


def place_of(error: BaseException, folders: Sequence[Path] = ()) -> str:
    """Return "FILE:LINE in FUNCTION" of the last frame of an exception inside the folders of an adapter, or "".

    Without folders, the last frame counts whose file belongs neither to tokbench nor to an installed package.
    """
    roots = [os.path.realpath(folder) + os.sep for folder in folders]
    if isinstance(error, SyntaxError) and error.filename and _is_inside(error.filename, roots):
        return f"{_shown(error.filename)}:{error.lineno}"
    found = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if _is_inside(frame.f_code.co_filename, roots):
            found = f"{_shown(frame.f_code.co_filename)}:{line} in {frame.f_code.co_qualname}"
    return found or (place_of(error.__cause__, folders) if error.__cause__ is not None else "")


def _is_inside(file: str, roots: Sequence[str]) -> bool:
    if roots:
        return os.path.realpath(file).startswith(tuple(roots))
    return os.path.isfile(file) and not (is_tokbench(file) or is_installed(file) or is_standard(file))


def _shown(file: str) -> str:
    """Return a path as a user reads it: relative where it lies in the current folder."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file


def with_place(text: str, error: BaseException, folders: Sequence[Path] = ()) -> str:
    """Return the text of an error, and where in the code of an adapter it arose. The whole traceback is logged at level
    DEBUG."""
    _LOG.debug("%s", text, exc_info=error)
    if isinstance(error, AdapterError) and error.place:
        return text
    place = place_of(error, folders)
    return f"{text} at {place}" if place else text


def wrap_load_errors(name: str, load: Callable[[], T], folders: Sequence[Path] = (), fallback: str = "") -> T:
    """Return the result of `load`. Any exception of third-party code becomes an AdapterError that names its last line
    inside `folders`. fallback: the line that is named where none of them was reached."""
    try:
        return load()
    except TokbenchError as error:
        place = place_of(error, folders) if folders and type(error) is AdapterError and not error.place else ""
        if not place:
            raise
        raise AdapterError(with_place(str(error), error, folders), place) from error
    except (Exception, SystemExit) as error:
        text = f"{name} failed to load ({type(error).__name__}: {str(error)[:300]})"
        place = place_of(error, folders) or fallback
        _LOG.debug("%s", text, exc_info=error)
        raise AdapterError(f"{text} at {place}" if place else text, place) from error


def check_model(model: Any, module: ModuleType, name: str) -> ImageModel:
    """Return the model that an adapter's `load` returned. Raises AdapterError, with file and line, where it is none or
    where its spec is missing, has another name or contradicts the class."""
    from tokbench.tokenizers.base import ImageModel
    from tokbench.tokenizers.contract import check_kind
    from tokbench.tokenizers.spec import TokenizerSpec

    if model is None:
        raise _refusal(f"{name}: load(variant, device) returned None; return the tokenizer", module.load)
    kind = type(model)
    spec = getattr(model, "spec", None)
    if spec is None:
        raise _refusal(f"{name}: {kind.__name__} has no spec; set self.spec = TokenizerSpec(...) in __init__", kind)
    if getattr(spec, "name", None) != name:
        given = getattr(spec, "name", None)
        raise _refusal(f"{module.__file__}: the spec has the name '{given}', not '{name}'", kind)
    if not isinstance(spec, TokenizerSpec):
        raise _refusal(f"{name}: its spec is a {type(spec).__name__}, not a TokenizerSpec", kind)
    if not isinstance(model, ImageModel):
        raise _refusal(f"{name}: load returned a {kind.__name__}, which is no subclass of Tokenizer", kind)
    try:
        check_kind(model)
    except AdapterError as error:
        raise _refusal(str(error), kind) from error
    return model


def _refusal(text: str, subject: Any) -> AdapterError:
    place = line_of_definition(subject)
    return AdapterError(f"{text} at {place}" if place else text, place)


def line_of_definition(subject: Any) -> str:
    """Return "FILE:LINE" of a function or class, or "" where its source cannot be found."""
    with suppress(OSError, TypeError):
        return f"{_shown(inspect.getsourcefile(subject) or '')}:{inspect.getsourcelines(subject)[1]}"
    return ""
