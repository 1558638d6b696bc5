"""Functions and classes of a user's Python file: ``FILE.py:CALLABLE`` in a sweep file.

The file is identified by its content. It runs as a module of a private name, without a place on
``sys.path``, so it imports installed packages but not its neighbours, and its name cannot hide
a module of another package.
"""

import ctypes
import hashlib
import inspect
import keyword
import linecache
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote

from models.errors import CodeError
from models.files import given_path, open_regular
from models.messages import did_you_mean, first_line, plain, several

LARGEST = 1_000_000  # bytes of a file of code; a larger one is something else
FORM = re.compile(r"(?P<file>[^\0]*[^/\0]\.py):(?P<name>\w+)(#(?P<checksum>[0-9a-f]{12}))?", re.S)
SENT = "GEOSWEEP_SENT"  # variable: the folder that ``geosweep submit`` sent files in


@dataclass(frozen=True)
class Code:
    """A callable of a Python file, with the content of the file.

    Attributes:
        file: its path, for messages.
        name: of the callable.
        content: of the file.
    """

    file: str
    name: str
    content: bytes

    @property
    def checksum(self) -> str:
        """12 hexadecimal digits that depend on the content only."""
        return hashlib.sha256(self.content).hexdigest()[:12]

    @property
    def identity(self) -> str:
        """What stands for the callable in a trial; it does not depend on the file's folder.

        >>> Code("/home/me/net.py", "build", b"def build(): ...").identity
        'net.py:build#a2edfd6177cf'
        """
        return f"{Path(self.file).name}:{self.name}#{self.checksum}"


def is_code(text: str) -> bool:
    """Whether a text has the form ``FILE.py:CALLABLE``, perhaps with a checksum.

    >>> is_code("nets/mine.py:build"), is_code("mine.py"), is_code("torchvision:resnet18")
    (True, False, False)
    """
    found = FORM.fullmatch(text)
    return found is not None and found["name"].isidentifier() and not keyword.iskeyword(found[2])


def find(text: str, folder: str | os.PathLike[str] = ".") -> Code:
    """Read the file that a text names.

    Args:
        text: ``FILE.py:CALLABLE``, or the :attr:`Code.identity` that an earlier call gave.
        folder: where relative paths start: the sweep file's folder. On the head of a cluster,
            the files that ``geosweep submit`` has sent are read instead.

    Raises:
        CodeError: the text has another form, there is no such file, or it has changed. Like all
            messages here it names the file; the caller says which field of which sweep file.
    """
    found = FORM.fullmatch(text)
    if found is None or not is_code(text):
        raise CodeError(f"{plain(text)}: should be like FILE.py:CALLABLE")
    path = Path(folder) / given_path(found["file"])
    if sent := os.environ.get(SENT):
        path = Path(sent) / sent_name(found["file"])
    shown = plain(path)
    try:
        with open_regular(path) as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        reason = plain(error.strerror or error)
        raise CodeError(f"{shown}: cannot be read: {reason}") from error
    if len(content) > LARGEST:
        raise CodeError(f"{shown}: is larger than {LARGEST:,} bytes; import data and weights")
    code = Code(found["file"] if sent else str(path), found["name"], content)
    if found["checksum"] not in (None, code.checksum):
        raise CodeError(
            f"{shown}: has changed: its checksum is {code.checksum}, not {found['checksum']}"
        )
    return code


def sent_name(file: str) -> str:
    """The name under which ``geosweep submit`` sends a file, from its path in the sweep file."""
    name = quote(file, safe="")
    return name if len(name) < 200 else hashlib.sha256(file.encode()).hexdigest() + ".py"


def load(code: Code, anew: bool = False) -> Callable[..., Any]:
    """The callable, after running its file; a process runs a file once until its text changes.

    A file of the same text in another folder is another file, as it may read what lies beside it.

    Args:
        code: from :func:`find`.
        anew: run the file again, so that the callable does not see what earlier calls left.

    Raises:
        CodeError: the file fails, or has no such callable.
    """
    module = _module(code, anew)
    found = getattr(module, code.name, None)
    if not callable(found):
        what = "is not callable" if hasattr(module, code.name) else "does not exist"
        there = [n for n, value in vars(module).items() if _is_own(value, module)]
        hint = did_you_mean(code.name, there)
        have = f"it defines {several(there)}" if there else "it defines no function or class"
        raise CodeError(f"{plain(code.file)}: {plain(code.name)} {what}{hint} ({have})")
    return found


def loaded(identity: str) -> Callable[..., Any]:
    """The callable of an :attr:`Code.identity` whose file this process has run with :func:`load`.

    Of several files with this text, it is the one of the last :func:`load`.

    Raises:
        CodeError: this process has not run it.
    """
    found = FORM.fullmatch(identity)
    module = sys.modules.get(f"_geosweep_{found['checksum']}") if found else None
    if found is None or module is None:
        raise CodeError(f"{plain(identity)}: this process has not loaded it")
    return getattr(module, found["name"])


def call(
    function: Callable[..., Any], what: str, offered: Mapping[str, Any], /, **given: Any
) -> Any:
    """What a callable returns.

    Args:
        function: of a user or a library.
        what: names it in messages.
        offered: arguments that are passed only if the function takes some of these names.
        given: arguments that the user gave; the function has to take all of them.

    Raises:
        CodeError: the function does not take the arguments, needs others, or fails.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some callables written in C have no signature
        signature = None
    if signature and not any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values()):
        offered = {name: value for name, value in offered.items() if name in signature.parameters}
    arguments = {**offered, **given}
    if signature:
        try:
            signature.bind(**arguments)
        except TypeError as error:
            takes = several(signature.parameters) or "no arguments"
            raise CodeError(f"{what}: {first_line(error)}; it takes {takes}") from error
    try:
        return function(**arguments)
    except (Exception, SystemExit) as error:  # whatever the code of the user raises
        raise CodeError(f"{what}: {type(error).__name__}: {first_line(error)}") from error


@contextmanager
def output_as_errors() -> Iterator[None]:
    """Let standard output go to standard error, also that of libraries and of other processes.

    In a notebook ``sys.stdout`` is no file, so the stream and the descriptor are changed apart.
    """
    kept = None
    _flush()
    with suppress(OSError):  # one of the two is closed
        kept = os.dup(1)
        os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _flush()
        if kept is not None:
            os.dup2(kept, 1)
            os.close(kept)


def _flush() -> None:
    """Write out what Python and the C library hold back of standard output."""
    for stream in (sys.stdout, sys.__stdout__):
        with suppress(AttributeError, OSError, ValueError):  # there is none, or it is closed
            stream.flush()  # type: ignore[union-attr]
    ctypes.CDLL(None).fflush(None)


def _module(code: Code, anew: bool) -> ModuleType:
    """The module of a file.

    Its name depends on text and path. The copy in a sweep's folder is named by its text alone:
    wherever it is, it is the same.
    """
    by_text = f"_geosweep_{code.checksum}"
    path = hashlib.sha256(os.fsencode(os.path.abspath(code.file))).hexdigest()[:12]
    name = by_text if Path(code.file).stem == code.checksum else f"{by_text}_{path}"
    if anew or name not in sys.modules:
        _run(code, name)
    sys.modules[by_text] = sys.modules[name]  # for loaded()
    return sys.modules[name]


def _run(code: Code, name: str) -> None:
    module = ModuleType(name)
    module.__file__ = code.file
    sys.modules[name] = module  # dataclasses and pickle look for it there
    try:
        exec(compile(code.content, code.file, "exec"), vars(module))
    except BaseException as error:
        del sys.modules[name]
        if not isinstance(error, Exception | SystemExit):
            raise
        raise CodeError(
            f"{plain(code.file)}{line(error, code.file)}: {type(error).__name__}: "
            f"{first_line(error)}{_neighbour(error, code.file)}"
        ) from error
    lines = code.content.decode(errors="replace").splitlines(keepends=True)
    linecache.cache[code.file] = (len(code.content), None, lines, code.file)  # for tracebacks


def line(error: BaseException, file: str) -> str:
    """The line of the file where an error arose, as part of a message."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return f", line {error.lineno}"
    place, found = error.__traceback__, ""
    while place is not None:
        if place.tb_frame.f_code.co_filename == file:
            found = f", line {place.tb_lineno}"
        place = place.tb_next
    return found


def _neighbour(error: BaseException, file: str) -> str:
    """A hint if a file could not import one that lies next to it."""
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    there = name and (Path(file).parent / f"{name.partition('.')[0]}.py").exists()
    return "; a file cannot import its neighbours, so put all into one" if there else ""


def _is_own(value: Any, module: ModuleType) -> bool:
    return callable(value) and getattr(value, "__module__", None) == module.__name__
