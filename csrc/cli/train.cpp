// satin train: the main job.
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/commands.h"
#include "cli/config_arguments.h"
#include "cli/json_file.h"
#include "cli/rank.h"
#include "core/error.h"
#include "core/interrupt.h"
#include "ops/device.h"
#include "train/dry_run.h"
#include "train/trainer.h"

namespace satin::cli {

void add_train(CLI::App& app) {
  struct Options {
    ConfigArguments arguments;
    bool dry_run = false, profile = false, help_config = false, print_config = false;
    std::string resume = "never", json;
    train::DryRunOptions plan;
    int64_t gpus = 1;
  };
  auto options = std::make_shared<Options>();
  auto* command =
      app.add_subcommand("train", "quantization-aware training (dense training when quantization is absent)");
  add_config_arguments(*command, options->arguments);
  command->add_flag("--dry-run", options->dry_run,
                    "validate everything, print the quantization table and memory per part; write nothing");
  auto* many =
      command->add_option("--world-size", options->plan.world_size,
                          "with --dry-run: of a job of so many processes, one a GPU, memory and time a step by "
                          "strategy (a model, see csrc/train/scaling_model.h)");
  many->check(CLI::PositiveNumber)->needs("--dry-run");
  const auto of_many = [&](const char* name, auto& value, const char* help) {
    command->add_option(name, value, help)->check(CLI::PositiveNumber)->needs(many);
  };
  of_many("--hosts-gpus", options->plan.gpus_per_host, "with --world-size: GPUs a host (8)");
  of_many("--device-memory-gib", options->plan.device_memory_gib,
          "with --world-size: memory of a GPU (this machine's; 80 without one)");
  of_many("--host-bus", options->plan.host_bus_gb_s,
          "with --world-size: GB/s of collectives inside a host, as nccl-tests prints busbw (360)");
  of_many("--network", options->plan.network_gbit_s, "with --world-size: Gb/s of each GPU to other hosts (400)");
  command->add_option("--json", options->json, "with --world-size: write the numbers to this file")->needs(many);
  command->add_option("--resume", options->resume,
                      "never, auto (the newest checkpoint of train.output_dir) or a checkpoint directory");
  add_gpus_option(*command, options->gpus);
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
    if (options->arguments.config.empty())
      throw UserError("satin train: expected a config file, e.g. configs/quickstart/qat-smoothness.yaml");
    check_json_file(options->json);
    const config::Config config = options->arguments.load(config::Job::train);
    if (options->print_config)
      std::printf("%s", config::dump(config).c_str());
    else if (options->dry_run) {
      if (options->gpus > 1 && options->plan.world_size == 0)
        options->plan.world_size = options->plan.gpus_per_host = options->gpus;
      write_json_file(options->json, train::dry_run(config, train::Resume::parse(options->resume), options->plan));
    } else {
      start_ranks(config.train.device, options->gpus);
      install_interrupt_handlers();
      // Outlives what it throws: taking it down may wait for other ranks, which must be told first.
      std::optional<train::Trainer> trainer;
      as_rank(inputs_of(config), [&](std::shared_ptr<dist::Communicator> world, dist::Watchdog& watchdog) {
        std::optional<ops::ComputesFirst> first;
        if (world->yields()) first.emplace(ops::resolve_device(config.train.device));
        trainer.emplace(config, train::Resume::parse(options->resume), std::move(world), &watchdog);
        if (options->profile) trainer->profile_steps();
        trainer->run();
      });
    }
  });
}

}  // namespace satin::cli
