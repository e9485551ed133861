// satin allocate: bits of each decoder layer by what rounding it costs.
#include "train/allocate.h"

#include <memory>

#include "cli/commands.h"
#include "cli/config_arguments.h"
#include "core/interrupt.h"

namespace satin::cli {

void add_allocate(CLI::App& app) {
  struct Options {
    ConfigArguments arguments;
    std::string resume = "never";
  };
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand(
      "allocate", "mixed precision: bits of each decoder layer by what rounding it costs, as a list of overrides");
  add_config_arguments(*command, options->arguments)->required();
  add_resume_option(*command, options->resume, "auto: go on from what an interrupted run measured; or never");
  command->footer(
      "Example: satin allocate configs/quickstart/qat.yaml allocate.average_bits=3 train.output_dir=runs/bits\n"
      "then:    satin train configs/quickstart/qat.yaml quantization.overrides_from=runs/bits/allocation.yaml\n"
      "allocate.columns=true gives columns of a layer other bits as well, in runs/bits/columns.yaml.");
  command->callback([options] {
    install_interrupt_handlers();
    train::allocate(options->arguments.load(config::Job::allocate), train::Resume::parse(options->resume));
  });
}

}  // namespace satin::cli
