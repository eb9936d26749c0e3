#!/usr/bin/env python3
"""Every rule of .ci/tidy.py finds its sample, and says nothing about the clean tree beside it."""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "../../.."))
sys.path.insert(0, os.path.join(ROOT, ".ci"))
sys.dont_write_bytecode = True
import tidy_build  # noqa: E402
import tidy_rules  # noqa: E402
from tidy_tree import Tree, strip_comments_and_strings  # noqa: E402

HEADER = "// store/thing.h -- a thing.\n// It owns nothing.\n#pragma once\n\n"
CLEAN = {
    "CMakeLists.txt": "add_subdirectory(store)\n",
    "store/CMakeLists.txt": "corpusd_library(corpusd_store FILES thing.cc rocks_database.cc)\n",
    "store/thing.h": HEADER + "int Thing();\n",
    "store/thing.cc": '#include "store/thing.h"\n\nint Thing() { return 1; }\n',
    "store/rocks_database.cc": "#include <rocksdb/db.h>\n",
    "tests/unit/store/CMakeLists.txt": "corpusd_test(store_test FILES thing_test.cc)\n",
    "tests/unit/store/thing_test.cc": '#include "store/thing.h"\n',
}


class Rules(unittest.TestCase):
    def setUp(self):
        self.root = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.root)
        for path, text in CLEAN.items():
            self.write(path, text)

    def write(self, path, text):
        full = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as file:
            file.write(text)

    def found(self):
        tree = Tree(self.root)
        return [line for rule in tidy_rules.RULES for line in rule(tree)]

    def expect(self, rule, path, text, keep=""):
        """The sample gives exactly one finding, of this rule, in this file."""
        self.write(path, keep + text)
        found = self.found()
        self.assertEqual(len(found), 1, found)
        self.assertIn(f"[{rule}]", found[0])
        self.assertTrue(found[0].startswith(os.path.dirname(path)), found[0])
        self.assertIn(";", found[0], "a finding names its fix")

    def test_clean_tree_has_no_findings(self):
        self.assertEqual(self.found(), [])

    def test_file_length(self):
        self.expect("file-length", "store/thing.cc", "int a;\n" * 501)

    def test_line_length(self):
        self.expect("line-length", "store/thing.cc", "// " + "x" * 98 + "\n")

    def test_markdown_and_golden_files_may_be_long(self):
        self.write("README.md", "x" * 300 + "\n" * 600)
        self.write("tests/golden/frame.txt", "x" * 300 + "\n" * 600)
        self.assertEqual(self.found(), [])

    def test_arrow_up(self):
        self.expect("arrow", "store/thing.cc", '#include "engine/engine.h"\n')

    def test_arrow_sideways(self):
        self.expect("arrow", "store/thing.cc", '#include "kernels/shapes.h"\n')

    def test_bare_include(self):
        self.expect("arrow", "store/thing.cc", '#include "thing.h"\n')

    def test_daemon_sees_only_the_wire_of_the_client(self):
        self.write("daemon/CMakeLists.txt", "corpusd_library(d FILES main.cc)\n")
        self.write("daemon/main.cc", '#include "client/wire/frame_codec.h"\n')
        self.assertEqual(self.found(), [])
        self.expect("arrow", "daemon/main.cc", '#include "client/corpus_client.h"\n')

    def test_rocksdb_outside_its_file(self):
        self.expect("confined-header", "store/thing.cc", "#include <rocksdb/db.h>\n")

    def test_asio_outside_its_folder(self):
        self.expect("confined-header", "store/thing.cc", "#include <boost/asio.hpp>\n")

    def test_asm(self):
        self.expect("asm", "store/thing.cc", 'void F() { asm("nop"); }\n')

    def test_throw(self):
        self.expect("guarded-word", "store/thing.cc", "void F() { throw 1; }\n")

    def test_new(self):
        self.expect("guarded-word", "store/thing.cc", "int* F() { return new int; }\n")

    def test_new_with_an_owner(self):
        self.write("store/thing.cc", "auto F() { return std::unique_ptr<T>(new T(1)); }\n"
                                     "auto G() {\n  return std::unique_ptr<T>(\n      "
                                     "new T(1));\n}\n")
        self.assertEqual(self.found(), [])

    def test_malloc(self):
        self.expect("guarded-word", "store/thing.cc", "void* F() { return malloc(1); }\n")

    def test_thread(self):
        self.expect("guarded-word", "store/thing.cc", "void F() { std::thread t; }\n")

    def test_thread_where_it_belongs(self):
        self.write("kernels/CMakeLists.txt", "corpusd_library(k FILES cpu/thread_pool.cc)\n")
        self.write("kernels/cpu/thread_pool.cc", "std::thread* t;\n")
        self.assertEqual(self.found(), [])

    def test_words_in_comments_and_strings_are_free(self):
        self.write("store/thing.cc", '// throw new asm\nauto s = "throw new asm";\n'
                                     'auto r = R"x(throw " new)x";\n/* malloc( */ '
                                     "int n = 1'000;\n")
        self.assertEqual(self.found(), [])

    def test_mirror(self):
        self.write("tests/unit/nothing/CMakeLists.txt", "corpusd_test(t FILES a_test.cc)\n")
        self.expect("test-mirror", "tests/unit/nothing/a_test.cc", "int a;\n")

    def test_target(self):
        self.expect("no-target", "store/orphan.cc", "int a;\n")

    def test_target_named_by_a_cmake_file_of_its_own(self):
        self.write("store/more.cmake", "set(MORE ${CMAKE_CURRENT_LIST_DIR}/orphan.cc)\n")
        self.write("store/orphan.cc", "int a;\n")
        self.assertEqual(self.found(), [])

    def test_target_named_from_another_folder(self):
        self.write("tests/unit/store/CMakeLists.txt",
                   "corpusd_test(s FILES thing_test.cc ../../support/fake.cc)\n")
        self.write("tests/support/fake.cc", "int a;\n")
        self.assertEqual(self.found(), [])

    def test_target_name_in_a_comment_does_not_count(self):
        self.write("store/CMakeLists.txt", CLEAN["store/CMakeLists.txt"] + "# orphan.cc\n")
        self.expect("no-target", "store/orphan.cc", "int a;\n")

    def test_unfinished(self):
        self.expect("unfinished", "store/thing.cc", "// TO" "DO: more\n")

    def test_machine_path(self):
        self.expect("machine-path", "store/thing.cc", '// see /home/' 'someone/notes\n')

    def test_function_length(self):
        self.expect("function-length", "store/thing.cc", "void F() {\n" + "  G();\n" * 71 + "}\n")

    def test_function_of_seventy_lines(self):
        self.write("store/thing.cc", "void F() {\n" + "  G();\n" * 70 + "}\n")
        self.assertEqual(self.found(), [])

    def test_method_length(self):
        self.expect("function-length", "store/thing.cc",
                    "class C {\n  void F() {\n" + "    G();\n" * 71 + "  }\n};\n")

    def test_header_without_opening(self):
        self.expect("header-opening", "store/thing.h", "#pragma once\nint Thing();\n")

    def test_header_without_pragma(self):
        self.expect("header-opening", "store/thing.h", "// a\n// b\nint Thing();\n")

    def test_weak_symbols(self):
        symbols = "0000000000000000 W std::vector<int>::size()\n0000000000000010 T Table()\n"
        found = tidy_build.weak_symbol_findings("kernels/cpu/isa/avx2.cc", symbols)
        self.assertEqual(len(found), 1)
        self.assertIn("exports 1 weak symbols (std::vector<int>::size()", found[0])
        self.assertEqual(tidy_build.weak_symbol_findings("a.cc", "0000 T Table()\n"), [])

    def build(self):
        command = f"c++ -std=c++20 -O2 -I{self.root} -o thing.o -c {self.root}/store/thing.cc"
        self.write("build/compile_commands.json",
                   f'[{{"directory": "{self.root}", "command": "{command}", '
                   f'"file": "{self.root}/store/thing.cc"}}]')
        tree = Tree(self.root)
        return tree, tidy_build.Build.open(tree, os.path.join(self.root, "build"))

    def test_header_alone(self):
        tree, build = self.build()
        self.assertIsNone(tidy_build.compile_header_alone(tree, build, "store/thing.h"))
        self.write("store/thing.h", HEADER + "std::string Thing();\n")
        found, notes = [], []
        for _ in range(2):  # a failure is not cached
            found.clear()
            tidy_build.check_headers_alone(Tree(self.root), build, 1, found, notes)
            self.assertEqual(len(found), 1)
            self.assertIn("[header-alone]", found[0])
        self.assertEqual(notes, [])

    def test_a_run_that_is_cut_off_goes_on_where_it_was(self):
        paths = ["store/rocks_database.cc", "store/thing.cc"]
        tree = Tree(self.root)
        looked = []

        def one(path):
            looked.append(path)
            if path == cut_off_at:
                raise KeyboardInterrupt
            return []

        cut_off_at = paths[1]
        with self.assertRaises(KeyboardInterrupt):
            tidy_build.run_cached(tree, tidy_build.Build(self.root, {}), 1, paths, "x", one, [])
        cut_off_at = None
        looked.clear()
        tidy_build.run_cached(tree, tidy_build.Build(self.root, {}), 1, paths, "x", one, [])
        self.assertEqual(looked, paths[1:])

    def test_format(self):
        if tidy_build.find_tool("clang-format") is None:
            self.skipTest("no clang-format 14")
        shutil.copy(os.path.join(ROOT, ".clang-format"), self.root)
        self.write("store/thing.cc", "int  Thing( ){return 1;}\n")
        found, notes = [], []
        tidy_build.check_format(Tree(self.root), found, notes)
        self.assertEqual([line.split(":")[0] for line in found], ["store/thing.cc"])

    def test_stripping_keeps_line_numbers(self):
        text = 'a /* 1\n2 */ b\n"x\\"y" // z\nR"(\n)" c\n'
        self.assertEqual(strip_comments_and_strings(text).count("\n"), text.count("\n"))

    def test_the_program_fails_on_a_finding_and_passes_without(self):
        shutil.copy(os.path.join(ROOT, ".clang-format"), self.root)
        command = [sys.executable, os.path.join(ROOT, ".ci/tidy.py"), "--root", self.root]
        clean = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual(clean.returncode, 0, clean.stdout)
        self.write("store/orphan.cc", "int a;\n")
        dirty = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual(dirty.returncode, 1, dirty.stdout)
        self.assertIn("store/orphan.cc:1: [no-target]", dirty.stdout)


if __name__ == "__main__":
    unittest.main()
