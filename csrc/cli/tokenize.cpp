// satin tokenize: text to a memory-mapped token file.
#include <cstdio>
#include <memory>

#include "cli/commands.h"
#include "cli/token_output.h"
#include "core/interrupt.h"
#include "data/tokenise.h"
#include "eval/corpus.h"
#include "export/gguf.h"

namespace satin::cli {

void add_tokenize(CLI::App& app) {
  struct Options {
    std::string tokenizer, input, record_template, format = "text", output;
    bool force = false;
  };
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand("tokenize", "text to a memory-mapped token file that data.train reads");
  command->add_option("--tokenizer", options->tokenizer, "directory with tokenizer.json, or a GGUF file")->required();
  command->add_option("--input", options->input, "FILE[:FIELD], .jsonl, .txt or .bin (16-bit ids)")->required();
  command->add_option("--template", options->record_template,
                      "text of a record instead of a field: \"Question: {question}\\nAnswer: {answer}\"");
  command->add_option("--format", options->format, "text, or messages (chats: loss on the answers only)");
  command->add_option("--output", options->output, "token file to write (.tokens)")->required();
  command->add_flag("--force", options->force, "replace an existing output");
  command->footer("Example: satin tokenize --tokenizer model/ --input text.jsonl:text --output text.tokens");
  command->callback([options] {
    install_interrupt_handlers();
    config::DataSource source = eval::parse_data_argument("--input", options->input, options->record_template, "");
    source.format = options->format;
    check_new_token_file("--output", options->output, options->force);
    const auto tokenizer = exporting::open_tokenizer(options->tokenizer);
    const data::TokeniseSummary summary = data::tokenise_to_file(source, tokenizer, options->output);
    std::printf("%s: %lu documents, %lu tokens", options->output.c_str(), summary.num_documents, summary.num_tokens);
    if (summary.num_empty_documents) std::printf(", %lu empty documents left out", summary.num_empty_documents);
    if (summary.num_replaced_characters)
      std::printf(", %lu times invalid UTF-8 replaced", summary.num_replaced_characters);
    std::printf("\n");
  });
}

}  // namespace satin::cli
