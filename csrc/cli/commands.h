// One function a command; each adds its subcommand with options, help and an example. main.cpp maps errors to exit
// codes.
#pragma once
#include <CLI/CLI.hpp>

namespace satin::cli {

void add_train(CLI::App& app);
void add_quantize(CLI::App& app);
void add_allocate(CLI::App& app);
void add_cache_teacher(CLI::App& app);
void add_eval(CLI::App& app);
void add_export(CLI::App& app);
void add_generate(CLI::App& app);
void add_inspect(CLI::App& app);
void add_tokenize(CLI::App& app);
void add_report(CLI::App& app);
void add_bench(CLI::App& app);
void add_doctor(CLI::App& app);

}  // namespace satin::cli
