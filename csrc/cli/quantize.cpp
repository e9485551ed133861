// satin quantize: post-training quantization. Round-to-nearest is training that stops before its first step.
#include "train/quantize.h"

#include <memory>

#include "cli/commands.h"
#include "config/config.h"
#include "core/interrupt.h"

namespace satin::cli {

void add_quantize(CLI::App& app) {
  struct Options {
    std::string config;
    std::vector<std::string> overrides;
  };
  auto options = std::make_shared<Options>();
  auto* command =
      app.add_subcommand("quantize", "post-training quantization: round-to-nearest with the scheme's initial scales");
  command->add_option("config", options->config, "YAML file")->required();
  command->add_option("overrides", options->overrides, "key.sub=value, over what the file says");
  command->footer(
      "Example: satin quantize configs/quickstart/qat.yaml quantization.default.method=minmax_asymmetric "
      "train.output_dir=runs/rtn");
  command->callback([options] {
    install_interrupt_handlers();
    train::quantize(config::load(options->config, options->overrides, config::Job::quantize));
  });
}

}  // namespace satin::cli
