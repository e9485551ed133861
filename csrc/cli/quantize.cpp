// satin quantize: post-training quantization.
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
    std::string resume = "never";
  };
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand(
      "quantize",
      "post-training quantization: rounding to nearest, GPTQ, AWQ, learned clipping, Block-AP, LGP (ptq.method)");
  command->add_option("config", options->config, "YAML file")->required();
  command->add_option("overrides", options->overrides, "key.sub=value, over what the file says");
  command->add_option("--resume", options->resume, "auto: go on after the last finished block; or never")
      ->check(CLI::IsMember({"never", "auto"}))
      ->capture_default_str();
  command->footer(
      "Example: satin quantize configs/quickstart/qat.yaml ptq.method=gptq train.output_dir=runs/gptq\n"
      "then:    satin train configs/quickstart/qat.yaml model.quantized=runs/gptq/checkpoints/step-0");
  command->callback([options] {
    install_interrupt_handlers();
    train::quantize(config::load(options->config, options->overrides, config::Job::quantize),
                    train::Resume::parse(options->resume));
  });
}

}  // namespace satin::cli
