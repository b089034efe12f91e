// main for programs of Google Benchmark: --smoke runs everything for an
// instant.
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "eval/support/report.h"

int main(int argc, char** argv) {
  std::vector<char*> arguments(argv, argv + argc);
  std::string instant = "--benchmark_min_time=0.001";
  if (pos::eval::IsSmoke(argc, argv)) arguments = {argv[0], instant.data()};
  int count = static_cast<int>(arguments.size());
  benchmark::Initialize(&count, arguments.data());
  if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 1;
  return benchmark::RunSpecifiedBenchmarks() == 0 ? 1 : 0;
}
