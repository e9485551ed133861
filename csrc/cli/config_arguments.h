// What commands that run a configuration take: the file, what stands over it, and whether to go on.
#pragma once
#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "config/config.h"

namespace satin::cli {

struct ConfigArguments {
  std::string config;
  std::vector<std::string> overrides;

  config::Config load(config::Job job) const { return config::load(config, overrides, job); }
};

/// The file's option, which may be made required.
inline CLI::Option* add_config_arguments(CLI::App& command, ConfigArguments& arguments,
                                         const std::string& help = "YAML file") {
  CLI::Option* file = command.add_option("config", arguments.config, help);
  command.add_option("overrides", arguments.overrides, "key.sub=value, over what the file says");
  return file;
}

/// --resume never|auto; `help` says what auto does.
inline void add_resume_option(CLI::App& command, std::string& resume, const std::string& help) {
  command.add_option("--resume", resume, help)->check(CLI::IsMember({"never", "auto"}))->capture_default_str();
}

}  // namespace satin::cli
