"""Archives that are damaged, cut or made to do harm: each is refused in a sentence, and none loses an image."""

import gzip
import io
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from image_files import equal, picture, read, small, write_folder, write_tar, write_zip

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
