// satin cache-teacher: the teacher's next-token distributions on disk, for training without it.
#include <memory>

#include "cli/commands.h"
#include "config/config.h"
#include "core/interrupt.h"
#include "train/stored_teacher.h"

namespace satin::cli {

void add_cache_teacher(CLI::App& app) {
  struct Options {
    std::string config;
    std::vector<std::string> overrides;
  };
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand(
      "cache-teacher", "fill teacher.cache: the teacher's best next tokens at every position of data.train");
  command->add_option("config", options->config, "YAML file, as for satin train")->required();
  command->add_option("overrides", options->overrides, "key.sub=value, over what the file says");
  command->footer("Example: satin cache-teacher configs/quickstart/qat.yaml teacher.cache=runs/teacher-cache");
  command->callback([options] {
    install_interrupt_handlers();
    train::cache_teacher(config::load(options->config, options->overrides, config::Job::train));
  });
}

}  // namespace satin::cli
