"""Rules that need tools or a build folder: clang-format, nm, headers compiled alone, clang-tidy."""

import concurrent.futures
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess

from tidy_rules import finding

CACHE_FILE = "tidy_cache.json"


def find_tool(name):
    """Version 14 exactly: another clang-format lays lines out differently."""
    for candidate in (name + "-14", name):
        path = shutil.which(candidate)
        if path:
            version = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
            if re.search(r"version 14\.", version):
                return path
    return None


class Build:
    """What compile_commands.json says, and what was found clean before (by hash)."""

    def __init__(self, folder, commands):
        self.folder = folder
        self.commands = commands  # path in the tree -> (directory, argument list)
        self._cache_path = os.path.join(folder, CACHE_FILE)
        try:
            with open(self._cache_path, encoding="utf-8") as file:
                self._clean = set(json.load(file))
        except (OSError, ValueError):
            self._clean = set()

    @staticmethod
    def open(tree, folder):
        if not folder or not os.path.exists(os.path.join(folder, "compile_commands.json")):
            return None
        commands = {}
        with open(os.path.join(folder, "compile_commands.json"), encoding="utf-8") as file:
            for entry in json.load(file):
                path = os.path.relpath(os.path.realpath(entry["file"]), tree.root)
                if path in tree.files:
                    commands[path] = (entry["directory"], shlex.split(entry["command"]))
        return Build(folder, commands)

    def release(self):
        return any("-O3" in arguments or "-O2" in arguments
                   for _, arguments in self.commands.values()) and not any(
                       a.startswith("-fsanitize") for _, c in self.commands.values() for a in c)

    def clean(self, key):
        return key in self._clean

    def remember(self, keys):
        self._clean |= set(keys)
        with open(self._cache_path, "w", encoding="utf-8") as file:
            json.dump(sorted(self._clean), file)


def check_format(tree, findings, notes):
    tool = find_tool("clang-format")
    if tool is None:
        notes.append("formatting (no clang-format 14; deploy/install_packages tools installs it)")
        return
    files = tree.with_suffix(".h", ".cc", ".cu", ".cuh")
    for start in range(0, len(files), 40):
        run = subprocess.run([tool, "--dry-run", "--style=file", *files[start:start + 40]],
                             cwd=tree.root, capture_output=True, text=True)
        unformatted = re.findall(r"^(\S+?):\d+:\d+: (?:warning|error): code should be",
                                 run.stderr, re.MULTILINE)
        for path in sorted(set(unformatted)):
            findings.append(finding(path, 1, "format", f"not formatted; run {tool} -i {path}"))


def check_weak_symbols(tree, build, findings, notes):
    """An inline function compiled for AVX-512 in one object may be the one the linker keeps for
    all: then baseline code dies of an illegal instruction on an older CPU."""
    if build is None or not build.release():
        notes.append("weak symbols of kernels/cpu/isa (needs --build with an optimised build)")
        return
    for path, (directory, arguments) in sorted(build.commands.items()):
        if not path.startswith("kernels/cpu/isa/") or "-o" not in arguments:
            continue
        found = os.path.join(directory, arguments[arguments.index("-o") + 1])
        if not os.path.exists(found):
            notes.append(f"weak symbols of {path} (not built)")
            continue
        symbols = subprocess.run(["nm", "-C", "--defined-only", found], capture_output=True,
                                 text=True).stdout
        findings += weak_symbol_findings(path, symbols)


def weak_symbol_findings(path, symbols):
    weak = [line.split(None, 2)[2] for line in symbols.split("\n")
            if re.match(r"[0-9a-f]+ [WVu] ", line)]
    if not weak:
        return []
    return [finding(path, 1, "weak-symbol", f"exports {len(weak)} weak symbols ({weak[0]}, ...); "
                    "use no std templates or inline functions of headers in this file, or put the "
                    "code in the anonymous namespace")]


def header_arguments(path, build):
    """The flags of a source file beside the header, without its input, output and launcher."""
    def shared(other):
        return len(os.path.commonprefix([os.path.dirname(path) + "/", other]))
    nearest = max(sorted(build.commands), key=shared)
    directory, arguments = build.commands[nearest]
    kept, skip = [], False
    for argument in arguments:
        if skip:
            skip = False
        elif argument in ("-o", "-MF", "-MT"):
            skip = True
        elif argument in ("-c", "-MD") or argument.endswith((".cc", "ccache")):
            continue
        else:
            kept.append(argument)
    return directory, kept


def compile_header_alone(tree, build, path):
    directory, arguments = header_arguments(path, build)
    run = subprocess.run(arguments + ["-fsyntax-only", "-x", "c++", "-"], cwd=directory,
                         input=f'#include "{path}"\n#include "{path}"\n', capture_output=True,
                         text=True)
    if run.returncode == 0:
        return None
    error = next((line for line in run.stderr.split("\n") if " error: " in line), run.stderr[:200])
    return finding(path, 1, "header-alone", f"does not compile alone: {error.strip()}; include "
                   "what it uses")


def digest_of(tree, paths, salt):
    digest = hashlib.sha256(salt.encode())
    for path in paths:
        digest.update((path + "\0" + (tree.text(path) or "") + "\0").encode())
    return digest.hexdigest()


def run_cached(tree, build, jobs, paths, salt, one, findings):
    """Runs one(path) for every path that was not clean at its present content before, also by a
    run that was cut off. Any header may reach any file, so a changed header renews all."""
    headers = digest_of(tree, tree.with_suffix(".h", ".inc", ".proto"), salt)
    keys = {path: digest_of(tree, [path], headers) for path in paths}
    todo = [path for path in paths if not build.clean(keys[path])]
    with concurrent.futures.ThreadPoolExecutor(max_workers=max(jobs, 1)) as pool:
        for path, result in zip(todo, pool.map(one, todo)):
            if not result:
                build.remember([keys[path]])  # at once: what is cut off goes on from here
            else:
                findings += result if isinstance(result, list) else [result]


def check_headers_alone(tree, build, jobs, findings, notes):
    if build is None or not build.commands:
        notes.append("headers compiled alone (needs --build)")
        return
    run_cached(tree, build, jobs, tree.with_suffix(".h"), "header-alone",
               lambda path: compile_header_alone(tree, build, path), findings)


def check_clang_tidy(tree, build, jobs, findings, notes):
    tool = find_tool("clang-tidy")
    if tool is None or build is None:
        notes.append("clang-tidy (needs clang-tidy 14 and --build)")
        return
    sources = [path for path in sorted(build.commands) if path.endswith(".cc")]

    def one(path):
        # The commands are g++'s; clang need not know every warning named in them.
        run = subprocess.run([tool, "--quiet", "--extra-arg=-Wno-unknown-warning-option", "-p",
                              build.folder, path], cwd=tree.root, capture_output=True, text=True)
        found = []
        for match in re.finditer(r"^(\S+?):(\d+):\d+: (?:warning|error): (.*) \[([^\]]+)\]$",
                                 run.stdout, re.MULTILINE):
            where = os.path.relpath(os.path.realpath(match.group(1)), tree.root)
            found.append(finding(where, match.group(2), "clang-tidy",
                                 f"{match.group(3)} ({match.group(4).split(',')[0]})"))
        if run.returncode != 0 and not found:
            found.append(finding(path, 1, "clang-tidy", "failed: " + run.stderr.strip()[-300:]))
        return found
    run_cached(tree, build, jobs, sources, "clang-tidy" + (tree.text(".clang-tidy") or ""), one,
               findings)
