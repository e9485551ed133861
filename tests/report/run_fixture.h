// Run directories as training and evaluation leave them, with numbers that a test can foresee.
#pragma once
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

namespace satin::report {

/// config.yaml and metrics.jsonl: every tenth step to 200, loss = offset + 5 * 10 / step, half of it "kd"; evaluations
/// of books-valid at 100 and 200 with perplexity 30 + offset; quantizers' means; the last line is cut short.
void write_training(const std::filesystem::path& dir, double rate, double offset);

/// quantizers.jsonl with two entries of `num_layers` layers; at step 200 layer i has (i + 1) % of its weights clipped.
void write_quantizers(const std::filesystem::path& dir, int num_layers);

/// eval/valid.json with smoothness and robustness of the text "books". D_k of the student is
/// (1 + excess) * ln(k + 2), of the teacher ln(k + 2); perplexities of the student are (1 + excess) times the teacher's
/// 20, 22, 30, 50 (wrong tokens) and 20, 21, 24, 33 (noise), all -+ 5 %.
void write_eval(const std::filesystem::path& dir, double excess);

/// quantization.json (three tensors) and summary.json (two rows).
void write_tables(const std::filesystem::path& dir);

/// The JSON that a page's script draws, and the charts in it by their title.
nlohmann::json data_of(const std::string& page);
std::map<std::string, nlohmann::json> charts_by_title(const nlohmann::json& data);

}  // namespace satin::report
