"""The files of the checkout as the rules see them, and their C++ text without comments."""

import functools
import os
import re

SKIPPED_FOLDERS = {".git", "build", ".cache", "__pycache__", "carry", "results"}
CODE = (".h", ".cc", ".cu", ".cuh", ".inc")

# Raw strings first: inside one, quotes and slashes mean nothing.
_NON_CODE = re.compile(
    r'R"(?P<mark>[^\s()\\]{0,16})\(.*?\)(?P=mark)"'
    r'|//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|(?<![0-9a-fA-F])\'(?:\\.|[^\'\\\n])+\'',
    re.DOTALL)


def strip_comments_and_strings(text):
    """The same number of lines, with comments gone and every literal emptied."""
    def blank(match):
        newlines = "\n" * match.group(0).count("\n")
        return newlines if match.group(0).startswith("/") else '""' + newlines
    return _NON_CODE.sub(blank, text)


class Tree:
    def __init__(self, root):
        self.root = os.path.realpath(root)
        self.files = sorted(self._walk())

    def _walk(self):
        for folder, folders, names in os.walk(self.root):
            folders[:] = [f for f in folders if f not in SKIPPED_FOLDERS]
            for name in names:
                path = os.path.join(folder, name)
                if os.path.isfile(path) and not os.path.islink(path) and name != ".git":
                    yield os.path.relpath(path, self.root)

    @functools.lru_cache(maxsize=None)
    def text(self, path):
        """The file's text, or None when it is not UTF-8 text (models, fuzz inputs)."""
        try:
            with open(os.path.join(self.root, path), encoding="utf-8", newline="") as file:
                text = file.read()
        except UnicodeDecodeError:
            return None
        return None if "\0" in text else text

    @functools.lru_cache(maxsize=None)
    def code(self, path):
        return strip_comments_and_strings(self.text(path) or "")

    def with_suffix(self, *suffixes):
        return [f for f in self.files if f.endswith(suffixes)]

    def is_data(self, path):
        return "/golden/" in path or path.startswith("tests/fuzz/corpus/") or \
            path == "engine/calibration/text.txt"
