"""Archives that are damaged, cut or made to do harm: each is refused in a sentence, and none loses an image."""

import gzip
import hashlib
import io
import os
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from draws import numpy_rng
from image_files import equal, listing, picture, read, small, write_folder, write_tar, write_zip
from PIL import Image

from netinv.core import InputError


def write_raw(path: Path, tar: bytes) -> Path:
    """A tar archive of these bytes, in a gzip that is whole."""
    path.write_bytes(gzip.compress(tar, mtime=0))
    return path


@pytest.fixture
def whole(tmp_path: Path) -> tuple[bytes, int]:
    """A tar archive, and where the header of its last image begins."""
    content = gzip.decompress(write_tar(tmp_path / "whole.tar.gz", small()).read_bytes())
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return content, tar.getmembers()[-1].offset


def flipped(content: bytes, at: int) -> bytes:
    altered = bytearray(content)
    altered[at] ^= 1
    return bytes(altered)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content, last: content[:last],
        lambda content, last: content[: last + 100],
        lambda content, last: content[: last + 512],
        lambda content, last: flipped(content, last + 5),
        lambda content, last: flipped(content, last + 150),
    ],
    ids=["cut before a header", "cut in a header", "cut after a header", "another name", "another sum"],
)
def test_no_image_is_lost_where_a_header_is_broken_in_a_whole_gzip(
    tmp_path: Path, whole: tuple[bytes, int], damage: Callable[[bytes, int], bytes]
) -> None:
    assert len(read(write_raw(tmp_path / "pets.tar.gz", whole[0])).test.labels) == 6
    with pytest.raises(InputError, match=r"pets.tar.gz cannot be read, it is damaged or cut short"):
        read(write_raw(tmp_path / "pets.tar.gz", damage(*whole)))


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_vast_name_costs_no_memory(tmp_path: Path, kind: bytes) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = kind, 2**26
    tar = header.tobuf(tarfile.GNU_FORMAT) + bytes(header.size)
    path = write_raw(tmp_path / "pets.tar.gz", tar)
    del tar
    tracemalloc.start()
    with pytest.raises(InputError, match=r"a name of 67,108,864 bytes, at most 1,048,576 are read"):
        read(path)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_are_read(tmp_path: Path, form: int) -> None:
    above = "a folder of a long name/" * 20
    with tarfile.open(tmp_path / "pets.tar.gz", "w:gz", format=form) as tar:
        for name, content in small().items():
            member = tarfile.TarInfo(above + name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    assert len(read(tmp_path / "pets.tar.gz").train.labels) == 6


def test_a_zip_whose_names_are_not_the_utf8_that_it_declares_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "pets.zip", small(**{"train/cat/é.png": picture()}))
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xe9x"))
    with pytest.raises(InputError, match=r"pets.zip cannot be read, it is damaged or cut short"):
        read(path)


def test_a_zip_that_does_not_say_how_its_names_are_written_has_those_of_its_folder(tmp_path: Path) -> None:
    """As zip of Linux writes it. Of other letters the alphabetic order is another one, and labels change places."""
    files, path = small(), write_zip(tmp_path / "pets.zip", small())
    plain = path.read_bytes()
    path.write_bytes(plain.replace(b"cat", "貓".encode()).replace(b"dog", "狗".encode()))
    named = {name.replace("cat", "貓").replace("dog", "狗"): content for name, content in files.items()}
    data = read(path)
    assert data.classes == ("狗", "貓")
    assert equal(data, read(write_folder(tmp_path / "pets", named)))
    path.write_bytes(plain.replace(b"cat", "cät".encode("latin-1")))
    with pytest.raises(InputError, match=r"pets.zip holds .*udce4.*, a name that is not UTF-8: rename it"):
        read(path)


def test_damaged_lzma_in_a_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pets.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for name, content in small().items():
            archive.writestr(name, content)
    content = path.read_bytes()
    name = b"train/cat/0.png"
    at = content.index(name) + len(name) + 4  # after the version and the size of the settings
    path.write_bytes(content[:at] + b"\xff" * 5 + content[at + 5 :])
    with pytest.raises(InputError, match=r"pets.zip cannot be read, it is damaged or cut short"):
        read(path)


def test_a_name_that_is_not_utf8_is_refused_in_a_class_and_passed_over_elsewhere(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "pets.tar.gz", small(**{"notes\udcff.txt": b"Pets."}))
    assert len(read(path).train.labels) == 6
    for place in ("train/c\udcfft/0.png", "train/cat/\udcff.png"):
        path = write_tar(tmp_path / "pets.tar.gz", small(**{place: picture()}))
        with pytest.raises(
            InputError, match=r"pets.tar.gz holds .*udcff.*, a name that is not UTF-8: rename it"
        ) as raised:
            read(path)
        str(raised.value).encode()
    path = write_tar(tmp_path / "pets.tar.gz", small(**{"train/cat/\udcff/0.png": picture()}))
    with pytest.raises(InputError, match="lies too deep") as raised:
        read(path)
    str(raised.value).encode()


def test_archives_are_regular_files_of_bounded_size(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.zip")
    with (tmp_path / "holes.zip").open("wb") as file:
        file.truncate(2**40)
    for path, message in (
        (tmp_path / "pipe.zip", "no regular file"),
        (tmp_path / "holes.zip", "bytes, and at most"),
        (tmp_path, r"holes.zip cannot be read \(it has"),
        (Path("/dev/null"), "no archive that can be read"),
    ):
        with pytest.raises(InputError, match=message):
            read(path)


def test_archive_with_deeper_folders_loses_nothing_silently(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "pets.tar.gz", small(**{"train/cat/old/1.png": picture()}))
    with pytest.raises(InputError, match=r"train/cat/old/1.png in pets.tar.gz lies too deep"):
        read(path)


def test_image_in_two_archives_is_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "pets/a.tar.gz", small())
    write_zip(tmp_path / "pets/b.zip", {"train/cat/0.png": picture()})
    with pytest.raises(InputError, match=r"train/cat/0.png in .*b.zip is there twice"):
        read(tmp_path / "pets")


@pytest.mark.parametrize("name", ["../train/cat/9.png", "/train/cat/9.png", "train/../../cat/9.png", "../notes.txt"])
@pytest.mark.parametrize("write", [write_tar, write_zip])
def test_path_out_of_an_archive_is_refused(tmp_path: Path, name: str, write: Callable[..., Path]) -> None:
    path = write(
        tmp_path / "in/pets.zip" if write is write_zip else tmp_path / "in/pets.tar.gz", small(**{name: picture()})
    )
    before = listing(tmp_path)
    with pytest.raises(InputError, match=r"pets\.\S+ holds the path .* which leads out of it: refused"):
        read(path)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_link_in_a_tar_archive_is_refused(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("train/cat/link.png")
    member.type, member.linkname = kind, "/etc/passwd"
    with pytest.raises(InputError, match=r"link train/cat/link.png"):
        read(write_tar(tmp_path / "pets.tar.gz", small(), member))


def test_link_in_a_zip_archive_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "pets.zip", small())
    with zipfile.ZipFile(path, "a") as archive:
        member = zipfile.ZipInfo("train/cat/link.png")
        member.create_system, member.external_attr = 3, 0o120777 << 16
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(InputError, match=r"link train/cat/link.png"):
        read(path)


@pytest.mark.parametrize("at", [0.02, 0.5, 0.999])
@pytest.mark.parametrize("write", [write_tar, write_zip])
def test_truncated_archive_is_refused(tmp_path: Path, write: Callable[..., Path], at: float) -> None:
    path = write(tmp_path / ("pets.zip" if write is write_zip else "pets.tar.gz"), small())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * at)])
    with pytest.raises(InputError, match=r"pets\.\S+ cannot be read, it is damaged or cut short"):
        read(path)


def test_altered_archive_is_refused_wherever_it_was_altered(tmp_path: Path) -> None:
    noise = numpy_rng(0).integers(0, 256, (2, 16, 16), np.uint8)
    files = small()
    for split in ("train", "test"):
        file = io.BytesIO()
        Image.fromarray(noise[0]).save(file, "bmp")  # no checksum of its own
        files[f"{split}/cat/noise.bmp"] = file.getvalue()
    for path in (write_tar(tmp_path / "pets.tar.gz", files), write_zip(tmp_path / "pets.zip", files)):
        content = path.read_bytes()
        position = content.find(noise[0].tobytes()[:16]) if path.suffix == ".zip" else len(content) - 6
        assert position > 0
        altered = bytearray(content)
        altered[position] ^= 1
        path.write_bytes(altered)
        with pytest.raises(InputError, match=f"{path.name} cannot be read, it is damaged"):
            read(path)


def test_declared_checksum(tmp_path: Path) -> None:
    write_tar(tmp_path / "pets/a.tar.gz", small())
    digest = hashlib.sha256((tmp_path / "pets/a.tar.gz").read_bytes()).hexdigest()
    assert read(tmp_path / "pets", sha256={"a.tar.gz": digest.upper()}).classes == ("cat", "dog")
    with pytest.raises(InputError, match=rf"a.tar.gz is damaged or altered \(SHA-256 {digest}, expected 00\)"):
        read(tmp_path / "pets", sha256={"a.tar.gz": "00"})
    with pytest.raises(InputError, match=r"no archive b.tar.gz, for which a sha256 is declared"):
        read(tmp_path / "pets", sha256={"b.tar.gz": digest})


def test_a_tar_gz_by_name_alone_is_told(tmp_path: Path, whole: tuple[bytes, int]) -> None:
    """A browser unpacks what it downloads, and keeps the name: to get it again would not help."""
    for content in (whole[0], write_zip(tmp_path / "pets.zip", small()).read_bytes()):
        (tmp_path / "pets.tar.gz").write_bytes(content)
        with pytest.raises(InputError, match=r"gz is not compressed by gzip: pack it as \.tar\.gz or \.tgz or"):
            read(tmp_path / "pets.tar.gz")


def test_zip_with_a_password_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "pets.zip", small())
    content = bytearray(path.read_bytes())
    start = content.find(b"PK\x01\x02")
    content[start + 8] |= 1  # the flag of an encrypted member, in the directory
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"pets.zip is encrypted: make it again without a password"):
        read(path)
