// satin report: one self-contained page about one run, or several side by side.
#include <cstdio>
#include <memory>

#include "cli/commands.h"
#include "report/html.h"

namespace satin::cli {

void add_report(CLI::App& app) {
  struct Options {
    std::vector<std::string> runs;
    std::string output;
  };
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand(
      "report", "one self-contained HTML page about runs: curves, results, quantization, config differences");
  command->add_option("runs", options->runs, "run directories")->required();
  command->add_option("--output", options->output, "HTML file to write")->required();
  command->footer(
      "What satin eval --json wrote to RUN/eval/*.json (smoothness and robustness, too) is shown with the run.\n"
      "Example: satin report runs/qat runs/qat-smoothness --output report.html");
  command->callback([options] {
    report::write_report({options->runs.begin(), options->runs.end()}, options->output);
    std::printf("%s\n", options->output.c_str());
  });
}

}  // namespace satin::cli
