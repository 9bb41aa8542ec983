"""Files as the container engine packs them: streams of strangers' files, each read once and bounded."""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from offchainvm.errors import BuildCode, BuildError


class NotRegular(Exception):
    """What should be a file is something else."""


class TooBig(Exception):
    """Files are over their limit: (size, limit) in bytes."""


@contextmanager
def unpacked(stream: IO[bytes] | Any) -> Iterator[tarfile.TarFile]:
    """The archive in a stream, to be read from its beginning to its end.

    Raises:
        BuildError: ``sandbox_error``, where it is none, also of those who read on.
    """
    try:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            yield tar
    except tarfile.TarError as error:
        raise BuildError(BuildCode.SANDBOX_ERROR, f"The container engine gave no file: {error}.") from error


def only_file(untrusted_tar: tarfile.TarFile, limit_bytes: int) -> bytes:
    """The content of the first file.

    Raises:
        TooBig: it is not read. tarfile.ReadError: there is none.
    """
    entry = untrusted_tar.next()
    file = untrusted_tar.extractfile(entry) if entry is not None and entry.isreg() else None
    if entry is None or file is None:
        raise tarfile.ReadError("no file in it")
    if entry.size > limit_bytes:
        raise TooBig(entry.size, limit_bytes)
    return file.read()


def files(untrusted_tar: tarfile.TarFile, limit_bytes: int) -> dict[str, bytes]:
    """The content of the files in a folder, which comes first, by their names.

    Raises:
        NotRegular: there is something else in it. TooBig: what is over the limit is not read.
        tarfile.ReadError: there is no folder.
    """
    folder = untrusted_tar.next()
    if folder is None or not folder.isdir():
        raise tarfile.ReadError("no folder in it")
    found, size = dict[str, bytes](), 0
    while (entry := untrusted_tar.next()) is not None:
        file = untrusted_tar.extractfile(entry) if entry.isreg() else None
        if file is None:
            raise NotRegular(entry.name)
        size += entry.size
        if size > limit_bytes:
            raise TooBig(size, limit_bytes)
        found[posixpath.basename(entry.name)] = file.read()
    return found
