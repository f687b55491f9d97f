"""Taking files out of a downloaded archive that may be damaged or hostile."""

import gzip
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PureWindowsPath
from typing import IO

from fairseq_scl.errors import UserError

MOST = 100  # times an archive's size; text and weights unpack to ten times at most
BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    RuntimeError,  # encrypted, or a compression that zipfile does not know
)


def unpack(archive: Path, wanted: dict[str, Path]) -> None:
    """Copy members of a `.zip` or `.tar.gz` to files, after a look at all members.

    Args:
        wanted: a file to write for each name in the archive.

    Raises:
        UserError: if a checksum in the archive is wrong, a wanted member is missing, any member is
            a link, a device, or named so that it would be written outside of the folder, or all
            members are more than `MOST` times as large as the archive.
    """
    copy = _copy_from_zip if archive.suffix == ".zip" else _copy_from_tar
    try:
        copy(archive, wanted)
    except KeyError as error:
        raise UserError(f"{archive}: {error.args[0]}") from None
    except BROKEN as error:
        raise UserError(f"{archive} is damaged ({error})") from None


def _check_member(archive: Path, name: str, ordinary: bool) -> None:
    path = PureWindowsPath(name)  # takes / and \ for separators, and knows drives
    if path.anchor or ".." in path.parts:
        raise UserError(f"{archive}: member {name!r} would be written outside of the folder")
    if not ordinary:
        raise UserError(f"{archive}: member {name!r} is a link or a device")


def _check_size(archive: Path, unpacked: int) -> None:
    if unpacked > MOST * archive.stat().st_size + 2**20:  # a tar of little is mostly zeros
        raise UserError(f"{archive} would unpack to more than {MOST} times its size")


def _copy_from_zip(archive: Path, wanted: dict[str, Path]) -> None:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)  # 0 if made on Windows
            _check_member(archive, member.filename, kind in (0, stat.S_IFREG, stat.S_IFDIR))
        _check_size(archive, sum(member.file_size for member in file.infolist()))
        if damaged := file.testzip():
            raise UserError(f"{archive}: member {damaged!r} is damaged")
        for name, path in wanted.items():
            with file.open(name) as source:
                _write(source, path)


def _copy_from_tar(archive: Path, wanted: dict[str, Path]) -> None:
    with gzip.open(archive) as stream:  # gzip's checksum comes last
        while stream.read(1 << 20):
            _check_size(archive, stream.tell())
    with tarfile.open(archive, "r:gz") as file:
        for member in file.getmembers():
            _check_member(archive, member.name, member.isfile() or member.isdir())
        for name, path in wanted.items():
            source = file.extractfile(name)
            if source is None:
                raise UserError(f"{archive}: member {name!r} is a folder")
            _write(source, path)


def _write(source: IO[bytes], path: Path) -> None:
    with open(path, "wb") as target:
        shutil.copyfileobj(source, target)
