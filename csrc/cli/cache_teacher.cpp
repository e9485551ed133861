// satin cache-teacher: the teacher's next-token distributions on disk, for training without it.
#include <memory>

#include "cli/commands.h"
#include "cli/config_arguments.h"
#include "cli/rank.h"
#include "core/interrupt.h"
#include "train/stored_teacher.h"

namespace satin::cli {

void add_cache_teacher(CLI::App& app) {
  struct Options {
    ConfigArguments arguments;
    int64_t gpus = 1;
  };
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand(
      "cache-teacher", "fill teacher.cache: the teacher's best next tokens at every position of data.train");
  add_config_arguments(*command, options->arguments, "YAML file, as for satin train")->required();
  add_gpus_option(*command, options->gpus);
  command->footer("Example: satin cache-teacher configs/quickstart/qat.yaml teacher.cache=runs/teacher-cache");
  command->callback([options] {
    const config::Config config = options->arguments.load(config::Job::train);
    start_ranks(config.train.device, options->gpus);
    install_interrupt_handlers();
    RankInputs inputs = inputs_of(config);
    std::erase(inputs.folders, config.teacher.cache);  // what is written
    as_rank(inputs, [&](const std::shared_ptr<dist::Communicator>& world, dist::Watchdog&) {
      train::cache_teacher(config, *world);
    });
  });
}

}  // namespace satin::cli
