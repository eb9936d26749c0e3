"""Makes the Python client importable: the staged package, and protobuf if this Python has none."""
import fcntl
import importlib
import importlib.util
import os
import subprocess
import sys

from harness import BUILD

PACKAGES = os.path.join(BUILD, "python-packages")


def _has_protobuf():
    try:
        return importlib.util.find_spec("google.protobuf") is not None
    except ModuleNotFoundError:
        return False


def make_importable():
    """RETURNS the folders that were put in front of sys.path, for PYTHONPATH."""
    folders = [os.path.join(BUILD, "python")]
    if not _has_protobuf():
        os.makedirs(PACKAGES, exist_ok=True)
        folders.append(PACKAGES)
        sys.path.insert(0, PACKAGES)
        with open(os.path.join(PACKAGES, "lock"), "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            importlib.invalidate_caches()
            if not _has_protobuf():
                subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-input",
                                "--disable-pip-version-check", "--target", PACKAGES,
                                "protobuf>=4.21,<8"], check=True)
        importlib.invalidate_caches()
    sys.path.insert(0, folders[0])
    return folders
