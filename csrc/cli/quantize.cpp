// satin quantize: post-training quantization.
#include "train/quantize.h"

#include <memory>

#include "cli/commands.h"
#include "cli/config_arguments.h"
#include "core/interrupt.h"
#include "train/dry_run.h"

namespace satin::cli {

void add_quantize(CLI::App& app) {
  struct Options {
    ConfigArguments arguments;
    std::string resume = "never";
    bool dry_run = false;
  };
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand(
      "quantize",
      "post-training quantization: rounding to nearest, GPTQ, AWQ, learned clipping, Block-AP, LGP (ptq.method)");
  add_config_arguments(*command, options->arguments)->required();
  command->add_flag("--dry-run", options->dry_run,
                    "validate everything, print the quantization table and memory per part; write nothing");
  add_resume_option(*command, options->resume, "auto: go on after the last finished block; or never");
  command->footer(
      "Example: satin quantize configs/quickstart/qat.yaml ptq.method=gptq train.output_dir=runs/gptq\n"
      "then:    satin train configs/quickstart/qat.yaml model.quantized=runs/gptq/checkpoints/step-0");
  command->callback([options] {
    const config::Config config = options->arguments.load(config::Job::quantize);
    const auto resume = train::Resume::parse(options->resume);
    if (options->dry_run) return train::dry_run_quantize(config, resume);
    install_interrupt_handlers();
    train::quantize(config, resume);
  });
}

}  // namespace satin::cli
