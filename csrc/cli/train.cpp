// satin train: the main job.
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/rank.h"
#include "config/config.h"
#include "core/error.h"
#include "core/interrupt.h"
#include "dist/spawn.h"
#include "train/dry_run.h"
#include "train/trainer.h"

namespace satin::cli {

void add_train(CLI::App& app) {
  struct Options {
    std::string config;
    std::vector<std::string> overrides;
    bool dry_run = false, profile = false, help_config = false, print_config = false;
    std::string resume = "never";
    int64_t gpus = 1;
  };
  auto options = std::make_shared<Options>();
  auto* command =
      app.add_subcommand("train", "quantization-aware training (dense training when quantization is absent)");
  command->add_option("config", options->config, "YAML file");
  command->add_option("overrides", options->overrides, "key.sub=value, over what the file says");
  command->add_flag("--dry-run", options->dry_run,
                    "validate everything, print the quantization table and memory per part; write nothing");
  command->add_option("--resume", options->resume,
                      "never, auto (the newest checkpoint of train.output_dir) or a checkpoint directory");
  command
      ->add_option("--gpus", options->gpus,
                   "processes on this host, one a GPU (with train.device=cpu: that many on the CPU); across hosts "
                   "use torchrun, srun or mpirun")
      ->check(CLI::Range(1, 1024));
  command->add_flag("--profile", options->profile,
                    "record where the time of a few steps goes: profile.txt and trace.json in train.output_dir");
  command->add_flag("--help-config", options->help_config, "print every key with its default, unit and meaning");
  command->add_flag("--print-config", options->print_config, "print the resolved config");
  command->footer(
      "Example: satin train configs/quickstart/qat-smoothness.yaml train.max_steps=20 train.output_dir=runs/try");
  command->callback([options] {
    if (options->help_config) {
      std::printf("%s", config::help().c_str());
      return;
    }
    if (options->config.empty())
      throw UserError("satin train: expected a config file, e.g. configs/quickstart/qat-smoothness.yaml");
    const config::Config config = config::load(options->config, options->overrides);
    if (options->print_config)
      std::printf("%s", config::dump(config).c_str());
    else if (options->dry_run)
      train::dry_run(config, train::Resume::parse(options->resume));
    else {
      if (options->gpus > 1 && !dist::is_spawned()) {
        check_gpus(config, options->gpus);
        std::exit(dist::spawn(options->gpus));
      }
      install_interrupt_handlers();
      as_rank(config, [&](std::shared_ptr<dist::Communicator> world, dist::Watchdog&) {
        train::Trainer trainer(config, train::Resume::parse(options->resume), std::move(world));
        if (options->profile) trainer.profile_steps();
        trainer.run();
      });
    }
  });
}

}  // namespace satin::cli
