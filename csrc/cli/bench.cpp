// satin bench: kernels and steps beside their floors.
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "bench/benchmarks.h"
#include "cli/commands.h"
#include "cli/json_file.h"
#include "cli/version.h"
#include "core/error.h"
#include "core/file.h"
#include "core/nearest.h"
#include "ops/device.h"

namespace satin::cli {

void add_bench(CLI::App& app) {
  struct Options {
    std::vector<std::string> names;
    std::string device = "auto", only, json, tune;
  };
  auto options = std::make_shared<Options>();
  std::string known;
  for (const auto& benchmark : bench::benchmarks()) known += "\n" + benchmark.name + ": " + benchmark.help;
  auto* command = app.add_subcommand("bench", "time kernels and training steps beside their floors");
  command->add_option("names", options->names, "which; all when left out:" + known);
  command->add_option("--only", options->only, "only measurements whose name contains this text");
  command->add_option("--device", options->device, "auto, cpu or cuda");
  command->add_option("--json", options->json, "write the results to this file");
  command->add_option("--tune", options->tune,
                      "instead: time every tile of the decode kernels on this GPU and write the fastest to this file; "
                      "SATIN_DECODE_TILES=FILE uses it");
  command->footer("Example: satin bench fake_quant --only \"group 64\" --json bench.json");
  command->callback([options] {
    std::vector<std::string> all;
    for (const auto& benchmark : bench::benchmarks()) all.push_back(benchmark.name);
    for (const auto& name : options->names)
      if (std::find(all.begin(), all.end(), name) == all.end())
        throw UserError(cat("bench: unknown benchmark '", name, "'", did_you_mean(name, all)));
    if (!options->tune.empty() && !options->names.empty())
      throw UserError("bench --tune: expected no benchmarks beside it, found " + options->names[0]);
    if (!options->tune.empty() && !options->only.empty() && std::filesystem::exists(options->tune))
      throw UserError(cat("bench --tune: ", options->tune,
                          " is there already, and with --only its other lines would be lost: "
                          "give another file, or all measurements"));
    check_json_file(options->json);
    check_json_file(options->tune, "--tune");
    ops::configure_numerics(false);
    bench::Options run;
    run.device = ops::resolve_device(options->device);
    run.only = options->only;
    std::vector<bench::Measurement> found;
    run.report = [&](const bench::Measurement& measurement) {
      found.push_back(measurement);
      std::printf("%s", bench::table({measurement}).c_str());
      std::fflush(stdout);
    };
    std::printf("%s on %s\n", version_text().c_str(), ops::device_name(run.device).c_str());
    if (!options->tune.empty()) {
      const ops::DecodeTiles table = bench::tune_decode(run, version_text());
      write_file_atomically(options->tune, table.json());
      std::printf("wrote %s: %zu lines, where a tile is faster than the rule's\n", options->tune.c_str(),
                  table.tiles.size());
    } else {
      for (const auto& benchmark : bench::benchmarks()) {
        const auto& names = options->names;
        if (!names.empty() && std::find(names.begin(), names.end(), benchmark.name) == names.end()) continue;
        std::printf("== %s: %s\n", benchmark.name.c_str(), benchmark.help.c_str());
        benchmark.run(run);
      }
    }
    write_json_file(options->json, {{"version", version_text()},
                                    {"device", ops::device_name(run.device)},
                                    {"measurements", bench::to_json(found)}});
  });
}

}  // namespace satin::cli
