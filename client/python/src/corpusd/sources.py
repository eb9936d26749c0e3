"""Documents out of texts, files and folders: what an ingest sends.

Simpler than corpusctl, which also opens archives, mail, JSON lines and logs: here a file is one
document, binaries are left out and counted, links inside folders are not followed, and .gitignore
is not read (see `exclude`).
"""

from __future__ import annotations

import codecs
import fnmatch
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Union

from .errors import NothingToDoError, UsageError, error_of

Paths = Union[str, "os.PathLike[str]", Iterable[Union[str, "os.PathLike[str]"]]]
Texts = Union[Mapping[str, str], Iterable[tuple[str, str]]]

#: names of files and folders that a walk leaves out, unless told otherwise
DEFAULT_EXCLUDE = (".git", "__pycache__", "node_modules")

_SAMPLE_BYTES = 8192
_READ_BYTES = 256 << 10
#: in the roots of a corpus, a part that is no path; as corpusctl marks stdin
_NO_PATH = "-"


def _windows_1252(error: UnicodeError) -> tuple[str, int]:
    """One byte that is no part of a well-formed character; the five holes are Latin-1."""
    assert isinstance(error, UnicodeDecodeError)
    byte = error.object[error.start:error.start + 1]
    try:
        return byte.decode("cp1252"), error.start + 1
    except UnicodeDecodeError:
        return byte.decode("latin-1"), error.start + 1


codecs.register_error("corpusd-windows-1252", _windows_1252)


@dataclass(frozen=True)
class Document:
    """A label and pieces of UTF-8, made anew at each call."""

    label: str
    pieces: Callable[[], Iterator[bytes]]


@dataclass
class Documents:
    """What was found, in the order of sending."""

    documents: list[Document] = field(default_factory=list)
    roots: list[str] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=dict)
    """paths left out by reason: binary, empty, excluded, link, special, unreadable"""

    def skip(self, reason: str, path: str) -> None:
        self.skipped.setdefault(reason, []).append(path)

    @property
    def skipped_files(self) -> int:
        """Binaries and unreadable files, which the corpus remembers the number of."""
        return sum(len(self.skipped.get(reason, ())) for reason in ("binary", "unreadable"))


def _decoder_of(sample: bytes) -> codecs.IncrementalDecoder:
    for mark, encoding in ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"),
                           (codecs.BOM_UTF16_BE, "utf-16")):
        if sample.startswith(mark):
            errors = "replace" if encoding == "utf-16" else "corpusd-windows-1252"
            return codecs.getincrementaldecoder(encoding)(errors)
    return codecs.getincrementaldecoder("utf-8")("corpusd-windows-1252")


def looks_binary(sample: bytes) -> bool:
    """A NUL without a UTF-16 mark, or more than a tenth that is not UTF-8."""
    if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return False
    if b"\0" in sample:
        return True
    decoder = codecs.getincrementaldecoder("utf-8")("ignore")
    good = len(decoder.decode(sample).encode("utf-8"))
    cut_off = len(decoder.getstate()[0])  # a character that goes on after the sample
    return len(sample) - good - cut_off > len(sample) / 10


def _file_pieces(path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        data = file.read(_READ_BYTES)
        decoder = _decoder_of(data)
        while data:
            # A lone surrogate of UTF-16 cannot be sent.
            yield decoder.decode(data).encode("utf-8", "replace")
            data = file.read(_READ_BYTES)
        yield decoder.decode(b"", final=True).encode("utf-8", "replace")


def _label(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "replace")


class _Walk:
    def __init__(self, exclude: Iterable[str], found: Documents) -> None:
        self._exclude = tuple(exclude)
        self._found = found
        self._seen: set[str] = set()

    def add_argument(self, path: str) -> None:
        try:
            mode = os.stat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            raise error_of("not_found", f"'{path}' does not exist; nothing was sent") from None
        if stat.S_ISDIR(mode):
            self._add_folder(path)
        elif stat.S_ISREG(mode):
            self._add_file(path)
        else:
            raise UsageError(f"'{path}' is neither a file nor a directory", "invalid_argument")

    def _add_folder(self, folder: str) -> None:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name))
        except OSError:
            return self._found.skip("unreadable", folder)
        for entry in entries:
            if any(fnmatch.fnmatch(entry.name, pattern) for pattern in self._exclude):
                self._found.skip("excluded", entry.path)
            elif entry.is_symlink():
                self._found.skip("link", entry.path)
            elif entry.is_dir(follow_symlinks=False):
                self._add_folder(entry.path)
            elif entry.is_file(follow_symlinks=False):
                self._add_file(entry.path)
            else:
                self._found.skip("special", entry.path)

    def _add_file(self, path: str) -> None:
        if path in self._seen:
            return
        self._seen.add(path)
        try:
            with open(path, "rb") as file:
                sample = file.read(_SAMPLE_BYTES)
        except OSError:
            return self._found.skip("unreadable", path)
        if not sample:
            self._found.skip("empty", path)
        elif looks_binary(sample):
            self._found.skip("binary", path)
        else:
            self._found.documents.append(Document(_label(path), lambda: _file_pieces(path)))


def _text_pieces(text: str) -> Callable[[], Iterator[bytes]]:
    return lambda: iter((text.encode("utf-8", "replace"),))


def gather(paths: Paths = (), texts: Texts = (),
           exclude: Iterable[str] = DEFAULT_EXCLUDE) -> Documents:
    """Files and folders, walked in byte order of their names, then texts by their labels.

    Raises NotFoundError for a path that is not there, NothingToDoError if there is no text.
    """
    found = Documents()
    walk = _Walk(exclude, found)
    for path in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        absolute = os.path.abspath(os.fspath(path))
        found.roots.append(_label(absolute))
        walk.add_argument(absolute)
    pairs = texts.items() if isinstance(texts, Mapping) else texts
    for label, text in pairs:
        if text:
            found.documents.append(Document(label, _text_pieces(text)))
        else:
            found.skip("empty", label)
        if _NO_PATH not in found.roots:
            found.roots.append(_NO_PATH)
    if not found.documents:
        counts = ", ".join(f"{len(paths)} {reason}" for reason, paths in found.skipped.items())
        raise NothingToDoError("there is no text to read" + (f": {counts}" if counts else ""),
                               "nothing_to_do")
    return found


def roots_to_read(name: str, roots: Iterable[str]) -> list[str]:
    """What an update without paths reads: the roots that the corpus remembers."""
    roots = list(roots)
    if not roots:
        raise UsageError(f"corpus '{name}' does not remember what it was made of; name the paths",
                         "invalid_argument")
    if _NO_PATH in roots:
        raise UsageError(f"a part of corpus '{name}' was no file; give its texts and paths again",
                         "invalid_argument")
    return roots
