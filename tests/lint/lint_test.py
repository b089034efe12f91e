#!/usr/bin/env python3
"""The checks of this directory find what they are for: each gets a small tree
with one thing wrong."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

import layering_test
import style_test

GOOD = {
    "pos/base/CMakeLists.txt": "pos_library(pos_base SRCS a.cc)",
    "pos/base/a.h": "#ifndef POS_BASE_A_H_\n#define POS_BASE_A_H_\n#endif\n",
    "pos/base/a.cc": '#include "pos/base/a.h"\n',
    "pos/queue/CMakeLists.txt": "pos_library(pos_queue DEPS pos_base)",
    "pos/queue/q.h": "#ifndef POS_QUEUE_Q_H_\n#define POS_QUEUE_Q_H_\n"
                     '#include "pos/base/a.h"\n#endif\n',
    "pos/device/CMakeLists.txt": "pos_library(pos_device SRCS d.cc)",
    "pos/device/d.h": "#ifndef POS_DEVICE_D_H_\n#define POS_DEVICE_D_H_\n"
                      "#endif\n",
    "pos/device/d.cc": '#include "pos/device/d.h"\n',
    "pos/cuda_impl/api/CMakeLists.txt":
        "pos_library(pos_cuda_api SRCS c.cc DEPS pos_device)",
    "pos/cuda_impl/api/c.h": "#ifndef POS_CUDA_IMPL_API_C_H_\n"
                             "#define POS_CUDA_IMPL_API_C_H_\n#endif\n",
    "pos/cuda_impl/api/c.cc": '#include <cuda.h>\n#include "pos/device/d.h"\n',
}


class Lint(unittest.TestCase):
    def run_on(self, check, changes):
        with tempfile.TemporaryDirectory() as directory:
            for name, text in {**GOOD, **changes}.items():
                path = pathlib.Path(directory, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            return "\n".join(check(pathlib.Path(directory)))

    def expect(self, check, changes, problem):
        self.assertIn(problem, self.run_on(check, changes))

    def test_good_tree_passes(self):
        self.assertEqual(self.run_on(layering_test.check, {}), "")
        self.assertEqual(self.run_on(style_test.check, {}), "")

    def test_include_without_link(self):
        self.expect(layering_test.check,
                    {"pos/device/d.cc": '#include "pos/base/a.h"\n'},
                    "pos_device does not link pos_base")

    def test_link_upwards(self):
        self.expect(layering_test.check,
                    {"pos/base/CMakeLists.txt":
                     "pos_library(pos_base SRCS a.cc DEPS pos_queue)"},
                    "pos/base lies below pos/queue")

    def test_core_that_knows_cuda(self):
        self.expect(layering_test.check,
                    {"pos/queue/q.h": "#include <cuda.h>\n"},
                    "pos/queue/q.h: includes <cuda.h>")
        self.expect(layering_test.check,
                    {"pos/queue/q.h": "#include <driver_types.h>\n"},
                    "includes <driver_types.h>")
        self.expect(layering_test.check,
                    {"pos/queue/q.h": '#include "pos/cuda_impl/api/c.h"\n'},
                    "core includes pos/cuda_impl/api/c.h")
        self.expect(layering_test.check,
                    {"pos/device/CMakeLists.txt":
                     "pos_library(pos_device SRCS d.cc DEPS pos_cuda_api)"},
                    "the core knows nothing of CUDA")

    def test_parts_that_must_not_meet(self):
        self.expect(layering_test.check,
                    {"remoting/shim/CMakeLists.txt":
                     "add_library(pos_shim SHARED x.cc)\n"
                     "target_link_libraries(pos_shim PRIVATE PkgConfig::ZSTD)"},
                    "the client library links no third party")
        self.expect(layering_test.check,
                    {"remoting/shim/CMakeLists.txt":
                     "add_library(pos_shim SHARED x.cc)\n"
                     "target_link_libraries(pos_shim PRIVATE pos_device)"},
                    "the client library is a client")
        self.expect(layering_test.check,
                    {"pos/daemon/CMakeLists.txt":
                     "pos_executable(posd SRCS m.cc DEPS pos_cuda_api)"},
                    "posd never reads a frame")

    def test_directory_without_a_place(self):
        self.expect(layering_test.check,
                    {"pos/new/CMakeLists.txt": "pos_library(pos_new SRCS n.cc)"},
                    "pos/new: not in the order")

    def test_product_that_leans_on_tests(self):
        self.expect(layering_test.check,
                    {"pos/base/a.cc": '#include "tests/support/random.h"\n'},
                    "includes tests/support/random.h")

    def test_style(self):
        self.expect(style_test.check, {"pos/base/a.cc": "\n" * 401},
                    "401 lines, more than 400")
        self.expect(style_test.check, {"pos/base/a.h": "#pragma once\n"},
                    "include guard is not POS_BASE_A_H_")
        self.expect(style_test.check,
                    {"pos/base/a.cc": "// TO" "DO: the rest\n"}, "unfinished")
        self.expect(style_test.check,
                    {"pos/base/a.cc": "int volatile* p;\n"}, "use atomics")
        self.assertEqual(
            self.run_on(style_test.check,
                        {"pos/base/a.cc": "// volatile\nconst char* s = "
                                          '"volatile";\n'}), "")
        self.expect(style_test.check,
                    {"tests/pos/base/a_test.cc": "SleepNs(1);\n"}, "no test")
        self.expect(style_test.check,
                    {"pos/base/a.cc": 'auto p = "/a/b/bui' 'ld/bin";\n'},
                    "a build tree of one machine")
        self.expect(style_test.check,
                    {"pos/cuda_impl/ptx/isa/cvt.cc": "\n"},
                    "no longer an exception")

    def coverage(self, root, *options):
        script = pathlib.Path(__file__).resolve().parents[2]
        done = subprocess.run(
            [sys.executable, "-B", script / "scripts/gen-coverage", *options,
             root], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    def test_coverage(self):
        row = "POS_CU_SYMBOL(cuMemFree_v2, cuMemFree, 3020, kLegacy, kServed)\n"
        with tempfile.TemporaryDirectory() as directory:
            api = pathlib.Path(directory, "pos/cuda_impl/api")
            api.mkdir(parents=True)
            pathlib.Path(directory, "docs").mkdir()
            self.write_ptx(directory, "add  u32\n")
            (api / "symbols.def").write_text("// head\n" + row)
            (api / "calls.def").write_text(
                "// head\nPOS_CALL(6,  MemFree, kWorker,   kNone,\n")
            status, text = self.coverage(directory, "--check")
            self.assertEqual(status, 1)
            self.assertIn("is stale", text)
            self.assertEqual(self.coverage(directory), (0, ""))
            self.assertEqual(self.coverage(directory, "--check"), (0, ""))
            with open(api / "symbols.def", "a") as table:
                table.write(row.replace("_v2", "").replace("kS", "kRef")
                            .replace("erved", "used"))
            status, text = self.coverage(directory, "--check")
            self.assertEqual(status, 1)
            self.assertIn("Refused versions of these", text)
            with open(api / "symbols.def", "a") as table:
                table.write(row.replace("kServed", "kMaybe"))
            status, text = self.coverage(directory, "--check")
            self.assertEqual(status, 1)
            self.assertIn("3 rows, understood 2", text)

    def write_ptx(self, directory, isa):
        ptx = pathlib.Path(directory, "pos/cuda_impl/ptx")
        ptx.mkdir(parents=True, exist_ok=True)
        (ptx / "opcodes.def").write_text(
            '#define TYPES "u32|s32"\n'
            'POS_PTX_OP(add, "sat? " TYPES, kAlu, "t:tt", Add)\n')
        (ptx / "isa.txt").write_text("[Group]\n" + isa)
        return ptx / "isa.txt"

    def test_ptx_coverage(self):
        with tempfile.TemporaryDirectory() as directory:
            api = pathlib.Path(directory, "pos/cuda_impl/api")
            api.mkdir(parents=True)
            docs = pathlib.Path(directory, "docs")
            docs.mkdir()
            (api / "symbols.def").write_text(
                "\nPOS_CU_SYMBOL(cuInit, cuInit, 2000, kLegacy, kServed)\n")
            (api / "calls.def").write_text(
                "\nPOS_CALL(6,  MemFree, kWorker,   kNone,\n")
            for isa, message in (
                    ("add  u32|u64\n", "refused with u64, and no reason why"),
                    ("sub  u32\nadd  u32\n", "refused, and no reason why"),
                    ("sub  u32 -- not there\n", "has no add"),
                    ("add  sat? u32 -- not there\n",
                     "is supported, remove ` -- not there`")):
                self.write_ptx(directory, isa)
                status, text = self.coverage(directory)
                self.assertEqual(status, 1)
                self.assertIn(message, text)
            status, text = self.coverage(directory, "--fix")
            self.assertEqual(status, 0, text)
            self.assertEqual(
                pathlib.Path(directory, "pos/cuda_impl/ptx/isa.txt")
                .read_text(), "[Group]\nadd  sat? u32\n")
            self.assertIn("| Group | 1 of 1 | 0 | 0 |",
                          (docs / "coverage.md").read_text())
            self.write_ptx(directory, "add  u32|u64 -- no u64\n")
            self.assertEqual(self.coverage(directory)[0], 0)
            self.assertIn("without `.u64`: no u64",
                          (docs / "coverage.md").read_text())


if __name__ == "__main__":
    unittest.main()
