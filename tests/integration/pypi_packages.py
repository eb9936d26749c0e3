"""Packages from PyPI for tests: installed once, into a folder of the user's cache, never into the
system. Without a network a test that needs them is skipped, unless they are there from before.
"""
import os
import shutil
import subprocess
import sys
import tempfile

INSTALL_SECONDS = 300


def cache_folder():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "corpusd", "python")


def require(name, *requirements, seconds=INSTALL_SECONDS):
    """Makes the requirements importable. RETURNS "", or why that cannot be."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    target = os.path.join(cache_folder(), f"{name}-{version}")
    if not os.path.exists(target):
        os.makedirs(cache_folder(), exist_ok=True)
        making = tempfile.mkdtemp(dir=cache_folder())
        try:
            subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--retries", "1",
                            "--timeout", "10", "--disable-pip-version-check", "--target", making,
                            *requirements], check=True, capture_output=True, text=True,
                           timeout=seconds)
            os.rename(making, target)
        except (OSError, subprocess.SubprocessError) as error:
            shutil.rmtree(making, ignore_errors=True)
            if not os.path.exists(target):  # else another process was quicker
                why = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
                return f"cannot install {' '.join(requirements)}: {why[-1] if why else error}"
    sys.path.insert(0, target)
    return ""
