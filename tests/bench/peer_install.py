"""Installs the two CPU peers, built for this machine, outside the repository."""

import os
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


def install_llama(folder, jobs):
    """RETURNS (python, environment) that can import llama_cpp."""
    venv = os.path.join(folder, "llama")
    python = os.path.join(venv, "bin", "python")
    if not os.path.exists(os.path.join(venv, "installed")):
        log = os.path.join(folder, "llama.log")
        print(f"compare_peers: building {LLAMA}, some minutes (log: {log})", file=sys.stderr)
        make_venv(venv, log, [])
        environment = dict(os.environ, CMAKE_BUILD_PARALLEL_LEVEL=str(jobs))
        run([python, "-m", "pip", "install", "--quiet", "--no-binary", "llama-cpp-python", LLAMA,
             "-C", "cmake.args=-DGGML_NATIVE=ON;-DLLAVA_BUILD=OFF"], log, env=environment)
        open(os.path.join(venv, "installed"), "w", encoding="utf-8").close()
    return python, dict(os.environ)


def install_ik(folder, jobs, all_cache_types):
    """RETURNS (python, environment) that can import ik_llama_cpp.

    The sdist cannot be installed by pip: its "common" library wants a generated build-info.cpp, and
    the generator, common/cmake/build-info-gen-cpp.cmake, is not in the archive. Only the two
    libraries that the Python layer loads are needed, and they do not use it: they are built by
    themselves.
    """
    venv = os.path.join(folder, "ik")
    python = os.path.join(venv, "bin", "python")
    build = os.path.join(venv, "build-all" if all_cache_types else "build")
    source = os.path.join(venv, IK.replace("-", "_").replace("==", "-"))
    log = os.path.join(folder, "ik.log")
    library = find(build, "libllama.so")
    if library is None:
        print(f"compare_peers: building {IK}, some minutes (log: {log})", file=sys.stderr)
        make_venv(venv, log, ["numpy"])
        if not os.path.isdir(source):
            run([python, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:",
                 "--dest", venv, IK], log)
            with tarfile.open(source + ".tar.gz") as archive:
                archive.extractall(venv)
        run(["cmake", "-G", "Ninja", "-S", source, "-B", build, "-DCMAKE_BUILD_TYPE=Release",
             "-DBUILD_SHARED_LIBS=ON", "-DGGML_NATIVE=ON",
             f"-DGGML_IQK_FA_ALL_QUANTS={'ON' if all_cache_types else 'OFF'}"], log)
        run(["cmake", "--build", build, "-j", str(jobs), "--target", "llama", "ggml"], log)
        library = find(build, "libllama.so")
    return python, dict(os.environ, PYTHONPATH=source, IK_LLAMA_CPP_LIB_PATH=library)


def find(folder, name):
    for path, _, names in os.walk(folder):
        if name in names:
            return os.path.join(path, name)
    return None
