"""Writing files so that nothing is ever half-written."""

import errno
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, Field, ValidationError

from fairseq_scl.errors import UserError

Schema = TypeVar("Schema", bound=BaseModel)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]  # as `sha256` writes it


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Fill a temporary folder beside `path`, then rename it to `path`; on an error leave nothing.

    Others may read it as the umask has it.

    Raises:
        FileExistsError: if `path` exists.
    """
    if path.exists():
        raise FileExistsError(f"{path} exists already")
    path.parent.mkdir(parents=True, exist_ok=True)
    with private_place(path) as temporary:
        temporary.mkdir()
        yield temporary
        temporary.rename(path)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Write a temporary file, then rename it to `path`; on an error leave nothing.

    Of a link its target is replaced. Into a device or a FIFO (`/dev/null`) is written: it must
    not become a file. Others may read the file as the umask has it.

    Raises:
        UserError: if `path` is something else that no text can be written to.
    """
    if path.is_char_device() or path.is_fifo():
        yield path
        return
    if path.is_symlink():
        path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is not a regular file")
    with private_place(path) as temporary:
        yield temporary
        temporary.replace(path)


@contextmanager
def private_place(path: Path) -> Iterator[Path]:
    """A place beside `path` in a folder of our own: nobody else can guess or plant what lies in it.

    Raises:
        OSError: naming `path` where the disk is full; by itself it would name what is copied, or
            nothing.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as private:
            yield Path(private) / path.name
    except shutil.Error as error:  # of many files that were copied
        raise OSError(None, error.args[0][0][2], str(path)) from None
    except OSError as error:
        if error.errno in FULL:
            error.filename = str(path)
        raise


def obstacle(folder: Path) -> str:
    """What keeps a folder from being made and written, as far as can be seen; else nothing."""
    at = next(path for path in (folder, *folder.parents) if path.exists())
    if not at.is_dir():
        return f"{at} is no folder"
    return "" if os.access(at, os.W_OK | os.X_OK) else f"{at} cannot be written"


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text to a temporary file, then rename it to `path`."""
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_model(path: Path, schema: type[Schema]) -> Schema:
    """Read a JSON file through its pydantic schema.

    Raises:
        UserError: in one line, with the file, the key and what is allowed there.
    """
    return parse_model(read_bytes(path), schema, path)


def parse_model(text: bytes | str, schema: type[Schema], where: object) -> Schema:
    """Validate JSON text; see `read_model`."""
    with told(where):
        return schema.model_validate_json(text)


def validated(values: object, schema: type[Schema], where: object) -> Schema:
    """The same of values of Python."""
    with told(where):
        return schema.model_validate(values)


@contextmanager
def told(where: object) -> Iterator[None]:
    """What does not fit a schema in one line: where, which key, what is allowed."""
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"])) or "the whole"
        raise UserError(f"{where}: {key}: {first['msg']}") from None


def read_bytes(path: Path) -> bytes:
    """The content of a regular file.

    Raises:
        UserError: if there is none, or it is a FIFO, a device or a folder.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"{path}: not a regular file")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; the system lets go of it when the process ends, however it ends.

    Raises:
        UserError: if another process holds it.
    """
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{path.parent} is in use by another process") from None
        yield


_held: dict[Path, AbstractContextManager] = {}


def lock_for_life(path: Path) -> None:
    """Hold the lock file `path` until this process ends.

    Raises:
        UserError: if another process holds it.
    """
    path = path.absolute()
    if path not in _held:
        lock = locked(path)
        lock.__enter__()
        _held[path] = lock  # only what is held: another attempt is refused again


def sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
