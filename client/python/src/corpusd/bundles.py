"""Bundles, a corpus as one file, on this side: written so that a path never names half of one, and
read in pieces. No sockets."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import IO, Callable, Union

from .errors import CorpusdError, UsageError, error_of
from .protocol import PIECE_BYTES

#: a path, or an open binary file
BundleFile = Union[str, "os.PathLike[str]", IO[bytes]]


@contextlib.contextmanager
def writing(target: BundleFile, overwrite: bool) -> Iterator[Callable[[bytes], object]]:
    """Yields what takes the bytes. A path appears at the end, whole and on disk, or not at all: up
    to then there is PATH.partial. An open file is written to and stays open.

    Raises UsageError for a path that is there, unless `overwrite`."""
    if not isinstance(target, (str, os.PathLike)):
        yield target.write
        return
    path = os.fspath(target)
    if not overwrite and os.path.lexists(path):
        raise UsageError(f"'{path}' exists; say overwrite=True to replace it", "invalid_argument")
    partial = path + ".partial"
    try:
        with open(partial, "wb") as file:
            yield file.write
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        if isinstance(error, OSError) and not isinstance(error, CorpusdError):
            raise _file_error("write", path, error) from error
        raise


@contextlib.contextmanager
def reading(source: BundleFile) -> Iterator[Iterator[bytes]]:
    """Yields the file's pieces. Raises NotFoundError for a path that is not there."""
    if not isinstance(source, (str, os.PathLike)):
        yield _pieces(source)
        return
    path = os.fspath(source)
    try:
        file = open(path, "rb")
    except OSError as error:
        raise _file_error("read", path, error) from error
    with file:
        yield _pieces(file)


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(PIECE_BYTES):
        yield piece


def _file_error(what: str, path: str, error: OSError) -> CorpusdError:
    code = "not_found" if isinstance(error, FileNotFoundError) else "io_error"
    return error_of(code, f"cannot {what} '{path}': {error.strerror or error}")
