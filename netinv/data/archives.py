"""Archives of images, member by member in memory, whole or refused."""

import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Self

from netinv.core import InputError

ARCHIVES = (".tar.gz", ".tgz", ".zip")
GZIP = b"\x1f\x8b"
"""How a file begins that gzip has compressed."""
ENCRYPTED, UTF8 = 0x1, 0x800
"""Flags of a member of a zip archive: it has a password, its name says that it is UTF-8."""
MAX_NAME_BYTES = 2**20
"""Largest extended header of a tar archive, which holds a long name and is read at once."""
DAMAGES = (
    OSError,
    EOFError,
    RuntimeError,  # a zip file with a compression that Python lacks
    ValueError,  # names and numbers that are none
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
)
"""What reading a damaged archive raises."""

Member = tuple[str, int, bool, Callable[[], bytes]]
"""Path, size in bytes, whether it is a link or a device, and a function that reads it. That of a folder ends in /."""


def is_archive(path: Path) -> bool:
    """Whether a path is named as an archive."""
    return path.name.lower().endswith(ARCHIVES)


def archive_members(archive: Path) -> Iterator[Member]:
    """The members of an archive. Names may have surrogates, for bytes that are no UTF-8.

    Raises:
        InputError: It has a password, or is a .tar.gz by name alone.
        Exception: One of ``DAMAGES``; reading a member does so as well.
    """
    return _zip_members(archive) if archive.name.lower().endswith(".zip") else _tar_members(archive)


class _Header(tarfile.TarInfo):
    """A header of a tar archive. tarfile itself takes a broken one for the end, and loses what follows in silence."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        extended = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE)
        if header.type in (*extended, tarfile.SOLARIS_XHDTYPE) and not 0 <= header.size <= MAX_NAME_BYTES:
            raise tarfile.ReadError(f"a name of {header.size:,} bytes, at most {MAX_NAME_BYTES:,} are read")
        return header

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tar)
        except tarfile.HeaderError as error:
            # The zeros that end an archive are told by an error, too, of a class that tarfile does not document.
            if type(error).__name__ == "EOFHeaderError":
                raise
            raise tarfile.ReadError(f"a header is broken: {error}") from None


def _tar_members(archive: Path) -> Iterator[Member]:
    with archive.open("rb") as file:
        if not GZIP.startswith(file.read(len(GZIP))):  # a browser may have unpacked it, and kept the name
            raise InputError(f"{archive} is not compressed by gzip: pack it as {' or '.join(ARCHIVES)}.")
    with gzip.open(archive) as stream:
        # tarfile's own decompression of a stream does not check the sum at its end; gzip's does, when it is read.
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header, encoding="utf-8") as tar:
            for member in tar:
                if member.isdir():
                    yield f"{member.name}/", 0, False, bytes
                else:
                    yield member.name, member.size, not member.isfile(), partial(_read_member, tar, member)
        while stream.read(2**20):
            pass


def _read_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None  # it is a regular file
    return file.read()


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            if member.flag_bits & ENCRYPTED:
                raise InputError(f"{archive} is encrypted: make it again without a password.")
            name = member.filename
            # zipfile takes for cp437 what says nothing of its letters, but zip of Linux says nothing, and writes UTF-8.
            if not member.flag_bits & UTF8:
                name = member.orig_filename.partition("\0")[0].encode("cp437").decode("utf-8", "surrogateescape")
            name = name if "/" in name else name.replace("\\", "/")  # some programs of Windows write backslashes
            is_link = stat.S_ISLNK(member.external_attr >> 16)
            yield name, member.file_size, is_link and not name.endswith("/"), partial(file.read, member)
