// satin: the command line. Exit codes: 0 done, 1 internal error, 2 the user can fix it, 3 stopped by a signal after
// saving, 4 training diverged.
#include <c10/util/Exception.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <new>

#include "cli/commands.h"
#include "cli/version.h"
#include "core/error.h"
#include "core/log.h"

namespace {

int fail(int code, const std::string& message) {
  satin::end_progress();
  std::fprintf(stderr, "satin: %s%s\n", satin::background_name().c_str(), message.c_str());
  return code;
}

int run(int argc, char** argv) {
  CLI::App app{
      "Quantization-aware training for extremely low-bit language models: YAML in, verified quantized checkpoint out."};
  app.set_version_flag("--version", satin::cli::version_text());
  app.require_subcommand(1);
  app.footer("Example: satin train configs/quickstart/qat-smoothness.yaml");
  satin::cli::add_train(app);
  satin::cli::add_quantize(app);
  satin::cli::add_allocate(app);
  satin::cli::add_cache_teacher(app);
  satin::cli::add_eval(app);
  satin::cli::add_export(app);
  satin::cli::add_generate(app);
  satin::cli::add_inspect(app);
  satin::cli::add_tokenize(app);
  satin::cli::add_report(app);
  satin::cli::add_bench(app);
  satin::cli::add_doctor(app);
  try {
    app.parse(argc, argv);  // runs the subcommand's callback
    return 0;
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  } catch (const satin::UserError& error) {
    return fail(2, error.what());
  } catch (const std::filesystem::filesystem_error& error) {
    return fail(2, error.what());
  } catch (const satin::InterruptedError& error) {
    return fail(3, error.what());
  } catch (const satin::DivergedError& error) {
    return fail(4, error.what());
  } catch (const satin::PeerError& error) {
    return fail(1, error.what());
  } catch (const c10::OutOfMemoryError& error) {
    return fail(
        2, satin::cat(
               "out of memory on the device: lower train.micro_batch_size or loss.chunk_tokens, or see the table of "
               "`satin train CONFIG --dry-run`\n",
               error.what_without_backtrace()));
  } catch (const std::bad_alloc&) {
    return fail(
        2,
        "out of memory on the host: lower train.micro_batch_size, or see the table of `satin train CONFIG --dry-run`");
  } catch (const c10::Error& error) {
    return fail(1, satin::cat("internal error: ", error.what()));
  } catch (const std::exception& error) {
    return fail(1, satin::cat("internal error: ", error.what()));
  }
}

}  // namespace

int main(int argc, char** argv) {
  // Read by cuBLAS when it is first used: without it matrix products may differ between runs (train.deterministic).
  setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", 0);
  std::signal(SIGXFSZ, SIG_IGN);  // a file that may not grow is an error of the write, not the process's end
  return run(argc, argv);
}
