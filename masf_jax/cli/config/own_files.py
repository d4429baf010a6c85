"""Python files of the user's own: `dynamics=FILE.py:NAME`. Only what is named that way is ever run."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import inspect
import linecache
import re
import sys
import traceback
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError

__all__ = ["Own", "beside", "digest", "file_label", "is_own", "label", "load_own", "own_fault"]

_FORM = re.compile(r"(?P<file>.+\.py):(?P<name>[^\W\d]\w*(?:\.[^\W\d]\w*)*)")
_LARGEST = 10_000_000
_modules: dict[Path, None] = {}
"""Files that were run, for `own_fault`."""


@dataclasses.dataclass(frozen=True)
class Own:
    """An object of a user's file, and the SHA-256 of the file that it is from."""

    given: str
    sha256: str
    found: Any


def is_own(choice: Any) -> bool:
    """Whether a choice of a group is an object in a Python file rather than a name.

    Raises:
        InputError: a Python file without the name of an object in it.
    """
    if isinstance(choice, str) and choice.endswith((".py", ".py:")):
        raise InputError(f"{choice} needs the name of an object in it: {choice.rstrip(':')}:NAME.")
    return isinstance(choice, str) and _FORM.fullmatch(choice) is not None


def label(choice: str) -> str:
    """A choice in names of files and titles: of FILE.py:NAME the NAME."""
    found = _FORM.fullmatch(choice)
    return choice if found is None else found["name"]


def file_label(choice: str) -> str:
    """A choice in titles: FILE.py:NAME without the folders, any other as it is."""
    found = _FORM.fullmatch(choice)
    return choice if found is None else f"{Path(found['file']).name}:{found['name']}"


def digest(given: str) -> str:
    """SHA-256 of the file as it is now."""
    return hashlib.sha256(_source(_path(given))).hexdigest()


def load_own(given: str, sha256: str | None = None) -> Own:
    """The object of FILE.py:NAME, the path relative to the current folder.

    A file is run once for each content and precision: arrays that it makes have the precision that holds.

    Args:
        sha256: of the content it must have; None: any.

    Raises:
        InputError: no such file or name, another content, or an error in the file, with its line.
    """
    import jax

    path, name = _path(given), _parts(given)[1]
    source = _source(path)
    found = hashlib.sha256(source).hexdigest()
    if sha256 is not None and found != sha256:
        raise InputError(
            f"{given}: the file has changed since (SHA-256 {sha256[:12]}… then, {found[:12]}… now): put it "
            "back, or take it as it is by leaving its sha256 out (sha256=null)."
        )
    module: Any = _module(path, source, jax.config.read("jax_enable_x64"))
    for part in name.split("."):
        names = [each for each in vars(module) if not each.startswith("_")]
        if part not in vars(module) and not hasattr(module, part):
            near = difflib.get_close_matches(part, names, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            own = [each for each in names if _is_of(getattr(module, each), path)]
            shown = ", ".join(own or names) or "none"
            raise InputError(f"{given}: the file has no {part!r}.{hint}\nNames in it: {shown}.")
        module = getattr(module, part)
    return Own(given, found, module)


def beside(given: str, name: str) -> Own:
    """Another object of the file of FILE.py:NAME."""
    return load_own(f"{_parts(given)[0]}:{name}")


def _is_of(value: Any, path: Path) -> bool:
    """Whether the file made it, as far as that can be seen, rather than imported it."""
    named = isinstance(value, type) or inspect.isroutine(value)
    return not isinstance(value, types.ModuleType) and (
        not named or getattr(value, "__module__", None) == _module_name(path)
    )


def _parts(given: str) -> tuple[str, str]:
    found = _FORM.fullmatch(given)
    if found is None:
        raise InputError(f"an object in a Python file is written FILE.py:NAME; got {given!r}.")
    return found["file"], found["name"]


def _path(given: str) -> Path:
    return Path(_parts(given)[0]).expanduser().absolute()


def _source(path: Path) -> bytes:
    try:
        if not path.is_file():
            near = difflib.get_close_matches(path.name, [each.name for each in path.parent.glob("*.py")], n=1)
            hint = f" Did you mean {near[0]}?" if near else " Paths are relative to the current folder."
            raise InputError(f"{path}: there is no such file.{hint}")
        if path.stat().st_size > _LARGEST:
            raise InputError(f"{path} has {path.stat().st_size} bytes: that is no Python file to run.")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error


def _module_name(path: Path) -> str:
    return f"masf_own_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}_{path.stem}"


@functools.lru_cache(maxsize=64)
def _module(path: Path, source: bytes, double: bool) -> types.ModuleType:
    """The module of the file's text. Files beside it may be imported by it: their folder is searched last."""
    del double  # of the cache's key: arrays of a module have the precision that held when it was run
    name = _module_name(path)
    module = types.ModuleType(name)
    module.__file__ = str(path)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    before = sys.modules.get(name)
    sys.modules[name] = module  # dataclasses look their module up
    _modules[path] = None
    linecache.checkcache(str(path))
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), vars(module))
    except SyntaxError as error:
        where = error.filename or path
        raise InputError(
            f"{where}, line {error.lineno}: SyntaxError: {error.msg}{_code(error.text)}"
        ) from None
    except (Exception, SystemExit) as error:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
        raise InputError(own_fault(error) or f"{path}: {_words(error)}") from error
    return module


def own_fault(error: BaseException) -> str | None:
    """File, line, code and words of an error that came from a user's file; None: it came from elsewhere.

    An error in a function that JAX calls on the host tells of its place in its text only.
    """
    for each in _chain(error):
        frames = [f for f in traceback.extract_tb(each.__traceback__) if Path(f.filename) in _modules]
        if frames:
            last = frames[-1]
            return f"{last.filename}, line {last.lineno}: {_words(each)}{_code(last.line)}"
        for path in _modules:
            lines = re.findall(rf'File "{re.escape(str(path))}", line (\d+)', str(each))
            if lines:
                said = [text for text in str(each).strip().splitlines() if re.match(r"\w[\w.]*(:|$)", text)]
                code = linecache.getline(str(path), int(lines[-1]))
                return f"{path}, line {lines[-1]}: {said[-1] if said else _words(each)}{_code(code)}"
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and those behind it, the first cause first."""
    if error is not None:
        yield from _chain(error.__cause__ or (None if error.__suppress_context__ else error.__context__))
        yield error


def _words(error: BaseException) -> str:
    said = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _code(line: str | None) -> str:
    return f"\n    {line.strip()}" if line and line.strip() else ""
