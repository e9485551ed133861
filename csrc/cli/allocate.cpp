// satin allocate: bits of each decoder layer by what rounding it costs.
#include "train/allocate.h"

#include <memory>

#include "cli/commands.h"
#include "config/config.h"
#include "core/interrupt.h"

namespace satin::cli {

void add_allocate(CLI::App& app) {
  struct Options {
    std::string config;
    std::vector<std::string> overrides;
    std::string resume = "never";
  };
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand(
      "allocate", "mixed precision: bits of each decoder layer by what rounding it costs, as a list of overrides");
  command->add_option("config", options->config, "YAML file")->required();
  command->add_option("overrides", options->overrides, "key.sub=value, over what the file says");
  command->add_option("--resume", options->resume, "auto: go on from what an interrupted run measured; or never")
      ->check(CLI::IsMember({"never", "auto"}))
      ->capture_default_str();
  command->footer(
      "Example: satin allocate configs/quickstart/qat.yaml allocate.average_bits=3 train.output_dir=runs/bits\n"
      "then:    satin train configs/quickstart/qat.yaml quantization.overrides_from=runs/bits/allocation.yaml");
  command->callback([options] {
    install_interrupt_handlers();
    train::allocate(config::load(options->config, options->overrides, config::Job::allocate),
                    train::Resume::parse(options->resume));
  });
}

}  // namespace satin::cli
