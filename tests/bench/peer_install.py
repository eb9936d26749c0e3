"""Installs the two CPU peers, built for this machine, outside the repository."""

import os
import platform
import subprocess
import sys
import tarfile

LLAMA = "llama-cpp-python==0.3.36"
IK = "ik-llama-cpp-python==0.1.5"


def cache_folder():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "corpusd", "peers")


def run(command, log, **options):
    with open(log, "a", encoding="utf-8") as file:
        file.write("$ " + " ".join(command) + "\n")
        file.flush()
        status = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT,
                                **options).returncode
    if status != 0:
        with open(log, encoding="utf-8") as file:
            sys.stderr.write("".join(file.readlines()[-15:]))
        raise RuntimeError(f"{command[0]} failed with {status}; see {log}")


def make_venv(folder, log, packages):
    if not os.path.exists(os.path.join(folder, "bin", "pip")):
        run([sys.executable, "-m", "venv", folder], log)
    python = os.path.join(folder, "bin", "python")
    if packages:
        run([python, "-m", "pip", "install", "--quiet", *packages], log)
    return python


def build_library(venv, requirement, packages, options, jobs, build_name="build"):
    """Builds libllama.so out of a source archive of PyPI, unless it is there.

    Only the libraries that the Python layer loads are built: what else is in the archives is most
    of the work, and ik_llama.cpp's "common" library lacks a file that it is generated from.
    RETURNS (python, folder of the Python layer, path of the library).
    """
    python = os.path.join(venv, "bin", "python")
    build = os.path.join(venv, build_name)
    source = os.path.join(venv, requirement.replace("-", "_").replace("==", "-"))
    log = venv + ".log"
    library = find(build, "libllama.so")
    if library is None:
        print(f"compare_peers: building {requirement}, some minutes (log: {log})", file=sys.stderr)
        make_venv(venv, log, packages)
        if not os.path.isdir(source):
            run([python, "-m", "pip", "download", "--quiet", "--no-deps",
                 "--no-binary", ":all:", "--dest", venv, requirement], log)
            with tarfile.open(source + ".tar.gz") as archive:
                archive.extractall(venv)
        run(["cmake", "-G", "Ninja", "-S", source, "-B", build, "-DCMAKE_BUILD_TYPE=Release",
             "-DBUILD_SHARED_LIBS=ON", "-DGGML_NATIVE=ON", *options], log)
        run(["cmake", "--build", build, "-j", str(jobs), "--target", "llama", "ggml"], log)
        library = find(build, "libllama.so")
    return python, source, library


def install_llama(folder, jobs):
    """RETURNS (python, environment) that can import llama_cpp."""
    options = ["-DLLAMA_BUILD=ON", "-DLLAVA_BUILD=OFF"]
    if has_amx():
        # Its AMX code fills a tile configuration on the stack, and g++ 12's _tile_loadconfig names
        # only 8 of the 64 bytes that it reads: dead store elimination drops the others, tiles have
        # no rows, and the first tile load dies of SIGILL.
        options.append("-DCMAKE_CXX_FLAGS=-fno-tree-dse -fno-dse")
    python, source, library = build_library(
        os.path.join(folder, "llama"), LLAMA,
        ["numpy", "diskcache", "jinja2", "typing_extensions"], options, jobs)
    libraries = os.path.dirname(library)
    return python, dict(os.environ, PYTHONPATH=source, LLAMA_CPP_LIB_PATH=libraries,
                        LD_LIBRARY_PATH=libraries)


def install_ik(folder, jobs, all_cache_types):
    """RETURNS (python, environment) that can import ik_llama_cpp."""
    python, source, library = build_library(
        os.path.join(folder, "ik"), IK, ["numpy"],
        [f"-DGGML_IQK_FA_ALL_QUANTS={'ON' if all_cache_types else 'OFF'}"], jobs,
        "build-all" if all_cache_types else "build")
    return python, dict(os.environ, PYTHONPATH=source, IK_LLAMA_CPP_LIB_PATH=library)


def has_amx():
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        return " amx_tile " in file.read()


def processor_name():
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        return next((line.split(":", 1)[1].strip() for line in file
                     if line.startswith("model name")), platform.machine())


def find(folder, name):
    for path, _, names in os.walk(folder):
        if name in names:
            return os.path.join(path, name)
    return None
