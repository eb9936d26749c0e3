"""Rules that read text only. Each takes a Tree and returns findings; RULES lists them."""

import fnmatch
import os
import re

from tidy_tree import CODE

FILE_LINES_MAX = 500
LINE_COLUMNS_MAX = 100
FUNCTION_LINES_MAX = 70

# Who may include whom: first folder of the including file -> prefixes it may include.
# Generated protobuf headers are part of client/proto.
WIRE = ("client/wire/", "client/proto/", "corpusd/v1/")
ARROWS = {
    "kernels": ("kernels/",),
    "store": ("store/",),
    "client": ("client/", "corpusd/v1/"),
    "engine": ("engine/", "kernels/", "store/"),
    "daemon": ("daemon/", "engine/", "store/") + WIRE,
}
OWN_FOLDERS = ("kernels/", "store/", "engine/", "client/", "daemon/", "tests/", "corpusd/v1/")

# Heavy headers stay behind one door each.
CONFINED_HEADERS = (
    ("boost/asio", ("daemon/net/*.cc",), "keep Asio behind a header of daemon/net"),
    ("boost/beast", ("daemon/net/*.cc",), "keep Beast behind a header of daemon/net"),
    ("prometheus/", ("daemon/metrics/*",), "go through daemon/metrics/exposition.h"),
    ("rocksdb/", ("store/rocks_*.cc", "tests/support/*",
                 "tests/bench/rocks_*"), "go through store/rocks_database.h"),
)

# Words that need a reason. A file is allowed by name, with the reason beside it.
GUARDED_WORDS = (
    ("throw", r"\bthrow\b", "return a Status", ()),
    ("new", r"\bnew\b(?!_)", "use std::make_unique, or hand it to its owner at once: "
     "std::unique_ptr<T>(new T(...))", (
         "tests/*",  # gtest takes ownership of environments
     )),
    ("malloc", r"\b(?:std::)?(?:malloc|calloc|realloc|aligned_alloc|posix_memalign)\s*\(",
     "use a container, or the arena that owns such memory", ()),
    ("thread", r"\bstd::(?:thread|jthread)\b(?!::hardware_concurrency|::id)",
     "submit a job, or use the thread pool", (
         "kernels/cpu/thread_pool.*",  # the static parallel-for
         "daemon/jobs/*",              # the job queue's workers
         "daemon/net/*",               # the I/O threads
         "daemon/worker_pool.*",       # the threads that answer questions
         "daemon/timer_queue.*",       # one thread that waits for the next deadline
         "daemon/shutdown.*",          # one thread that waits for signals
         "engine/ranks/call_queue.*",     # the thread of a device that follows another
         "engine/ranks/tcp_transport.*",  # one thread that moves a rank's messages
         "engine/ranks/thread_crew.*",    # ranks that are threads
         "engine/ranks/shared_weights.*",  # serves and looks after a rank with weights
        "engine/ranks/nccl_transport.*",  # one that joins a job, left behind if that never returns
         "engine/ranks/rank_group.*",     # one thread that musters them
         "store/transfer_queue.*",     # moves between tiers
         "store/payload_store.*",      # several writes in flight, which a disk needs
         "tests/*",
     )),
)
OWNED_NEW = re.compile(r"(?:(?:unique|shared)_ptr<[^;]*>\s*\w*|\.reset)\(\s*new\b")

# Written so that this file does not match its own patterns.
MACHINE_PATHS = re.compile(r"(?<![\w.}\-])/(?:wor[k]|tmp/peer[s]|tmp/ex[p]|tmp/pla[n]|home/\w+)/")
SCOPE = re.compile(r"(?:inline )?(?:namespace|class|struct|enum|union|extern|template)\b")
UNFINISHED = re.compile(r"\b(?:FIX[M]E|TO[D]O|XX[X]|HAC[K])\b")


def finding(path, line, rule, text):
    return f"{path}:{line}: [{rule}] {text}"


def matches(path, patterns):
    return any(fnmatch.fnmatch(path, pattern) for pattern in patterns)


def check_file_length(tree):
    out = []
    for path in tree.files:
        text = tree.text(path)
        if text is None or tree.is_data(path) or path.endswith((".md", ".json", ".svg")):
            continue
        lines = text.count("\n")
        if lines > FILE_LINES_MAX and path != "LICENSE":
            out.append(finding(path, lines, "file-length", f"{lines} lines, at most "
                               f"{FILE_LINES_MAX}; split it so that each file says one thing"))
    return out


def check_line_length(tree):
    out = []
    for path in tree.files:
        text = tree.text(path)
        if text is None or tree.is_data(path) or path.endswith((".md", ".json", ".svg")):
            continue
        for number, line in enumerate(text.split("\n"), 1):
            if len(line) > LINE_COLUMNS_MAX:
                out.append(finding(path, number, "line-length", f"{len(line)} columns, at most "
                                   f"{LINE_COLUMNS_MAX}; run clang-format or break the line"))
    return out


def includes(tree, path):
    # Read from the raw text, since a quoted path is a string; commented lines do not match.
    for number, line in enumerate((tree.text(path) or "").split("\n"), 1):
        match = re.match(r'\s*#\s*include\s*["<]([^">]+)[">]', line)
        if match:
            yield number, match.group(1)


def check_arrows(tree):
    out = []
    for path in tree.with_suffix(*CODE):
        allowed = ARROWS.get(path.split("/")[0])
        if allowed is None:
            continue
        for number, target in includes(tree, path):
            if target.startswith(OWN_FOLDERS) and not target.startswith(allowed):
                out.append(finding(path, number, "arrow", f"{path.split('/')[0]} may not include "
                                   f"{target}; it may include {', '.join(allowed)}: pass the value "
                                   "in, or move the type to the lower folder"))
            elif "/" not in target and target.endswith(".h") and \
                    os.path.join(os.path.dirname(path), target) in tree.files:
                out.append(finding(path, number, "arrow", f"'{target}' is included by its bare "
                                   "name; write its path from the root of the tree"))
    return out


def check_confined_headers(tree):
    out = []
    for path in tree.with_suffix(*CODE):
        for number, target in includes(tree, path):
            for prefix, allowed, fix in CONFINED_HEADERS:
                if target.startswith(prefix) and not matches(path, allowed):
                    out.append(finding(path, number, "confined-header",
                                       f"{target} belongs to {', '.join(allowed)} only; {fix}"))
    return out


def check_asm(tree):
    out = []
    for path in tree.with_suffix(*CODE):
        if "/ptx/" in path:
            continue
        for number, line in enumerate(tree.code(path).split("\n"), 1):
            if re.search(r"\b(?:asm|__asm__|__asm)\b", line):
                out.append(finding(path, number, "asm", "inline assembly outside a ptx/ folder; "
                                   "use an intrinsic or move the instruction to kernels/cuda/ptx/"))
    return out


def check_guarded_words(tree):
    out = []
    for path in tree.with_suffix(*CODE):
        before = ""
        for number, line in enumerate(tree.code(path).split("\n"), 1):
            before, joined = line.rstrip(), before + line.lstrip()
            if line.lstrip().startswith("#"):
                continue
            for name, pattern, fix, allowed in GUARDED_WORDS:
                if not re.search(pattern, line) or matches(path, allowed):
                    continue
                if name == "new" and OWNED_NEW.search(joined):
                    continue
                out.append(finding(path, number, "guarded-word", f"'{name}' is not used here; "
                                   f"{fix}, or add the file with its reason in .ci/tidy_rules.py"))
    return out


def check_test_mirror(tree):
    """tests/unit/<folder>/ mirrors <folder>/, so that one finds a file's test without looking."""
    folders = {os.path.dirname(f) for f in tree.files}
    parents = {"/".join(f.split("/")[:n]) for f in folders for n in range(1, f.count("/") + 2)}
    out = []
    for folder in sorted(folders):
        if folder.startswith("tests/unit/"):
            mirror = folder[len("tests/unit/"):]
            if mirror not in parents and "." + mirror not in parents:
                out.append(finding(folder, 1, "test-mirror", f"there is no folder {mirror}/; name "
                                   "the test folder after the folder it tests"))
    return out


def check_targets(tree):
    """A source file that no CMake file names is never compiled, so nothing would notice it rot."""
    named = {}
    for path in tree.files:
        if path.endswith((".cmake", "CMakeLists.txt")):
            text = re.sub(r"#[^\n]*|\$\{\w+\}/", "", tree.text(path) or "")
            named[os.path.dirname(path)] = named.get(os.path.dirname(path), "") + " " + text + " "
    everything, out = "".join(named.values()), []
    for path in tree.with_suffix(".cc", ".cu"):
        folder, found = os.path.dirname(path), False
        # A folder elsewhere may name it as ../../folder/file.cc.
        tail = os.path.splitext("/".join(path.split("/")[-2:]))[0]
        if re.search(r"(?<![\w.])" + re.escape(tail) + r"(?![\w/])", everything):
            continue
        while not found:
            relative = os.path.relpath(path, folder or ".")
            stem = os.path.splitext(relative)[0]
            pattern = r"(?<![\w/.])" + re.escape(stem) + r"(?![\w/])"
            found = re.search(pattern, named.get(folder, "")) is not None
            if not folder:
                break
            folder = os.path.dirname(folder)
        if not found:
            out.append(finding(path, 1, "no-target", "no CMakeLists.txt names this file; add it to "
                               "a target or delete it"))
    return out


def check_unfinished(tree):
    out = []
    for path in tree.files:
        if tree.is_data(path) or path.startswith(".ci/tidy"):
            continue
        for number, line in enumerate((tree.text(path) or "").split("\n"), 1):
            if UNFINISHED.search(line):
                out.append(finding(path, number, "unfinished", "an open end in the code; finish it "
                                   "or file an issue and delete the note"))
    return out


def check_machine_paths(tree):
    out = []
    for path in tree.files:
        if tree.is_data(path):
            continue
        for number, line in enumerate((tree.text(path) or "").split("\n"), 1):
            if MACHINE_PATHS.search(line):
                out.append(finding(path, number, "machine-path", "a path of one machine; use an "
                                   "option, an environment variable or a path in the tree"))
    return out


def check_function_length(tree):
    """In formatted code a function's body opens and closes at the same indentation (0 or 2)."""
    out = []
    for path in tree.with_suffix(".h", ".cc", ".cu", ".cuh"):
        opened = None
        for number, line in enumerate(tree.code(path).split("\n"), 1):
            indent = len(line) - len(line.lstrip())
            if opened is None and indent in (0, 2, 4) and line.rstrip().endswith("{"):
                head = line.strip()
                if not SCOPE.match(head) and re.search(r"\)[^=;]*\{$|\bdo \{$", head):
                    # A signature broken over lines ends at indent 4; its brace closes at 0 or 2.
                    opened = (number, None if indent == 4 else indent)
            elif opened is not None and re.match(r" {0,2}\}", line):
                if opened[1] is None or indent == opened[1]:
                    lines = number - opened[0] - 1
                    if lines > FUNCTION_LINES_MAX:
                        out.append(finding(path, opened[0], "function-length", f"{lines} lines, at "
                                           f"most {FUNCTION_LINES_MAX}; name its steps"))
                    opened = None
    return out


def check_header_opening(tree):
    out = []
    for path in tree.with_suffix(".h", ".cuh"):
        lines = (tree.text(path) or "").split("\n")
        comment = 0
        while comment < len(lines) and lines[comment].startswith("//"):
            comment += 1
        if not 2 <= comment <= 8:
            out.append(finding(path, 1, "header-opening", f"opens with {comment} comment lines; "
                               "say in 2 to 8 what it is, what it is not, who calls it, who owns "
                               "what"))
        if "#pragma once" not in lines[comment:comment + 3]:
            out.append(finding(path, comment + 1, "header-opening",
                               "no '#pragma once' right after the opening comment; add it"))
    return out


RULES = (check_file_length, check_line_length, check_arrows, check_confined_headers, check_asm,
         check_guarded_words, check_test_mirror, check_targets, check_unfinished,
         check_machine_paths, check_function_length, check_header_opening)
