// GGUF files, both ways: one file that holds a model, its configuration and its tokenizer (writing is behind format.h).
//
// gguf_blocks.h      the block types                 gguf_header.h      the container
// gguf_grids.h       which grid each holds exactly   gguf_keys.h        architecture and names
// gguf_tokenizer.h   the tokenizer
//
// Beside the keys that every client reads, our files hold what makes reading exact:
//   satin.config          config.json
//   satin.dequant_dtype   of dequantised weights and dense tensors: "bfloat16", "float16" or "float32"
//   satin.schemes         the quantization schemes, as JSON
//   satin.tensor_schemes  int32 for each tensor: its scheme, -1 for dense ones
//   satin.zero_points.X   of tensor X, where its blocks do not say them: uint8, packed as in pack.h
// Other programs' files are opened as dense models with values by the format's own rules.
#pragma once
#include <filesystem>
#include <memory>
#include <string>

#include "export/format.h"
#include "tokenizer/tokenizer.h"

namespace satin::exporting {

/// `type`: of every quantized weight ("Q4_0"; "BF16", "F16", "F32": of all matrices, dense); empty: for each the
/// smallest that holds it. Throws UserError for an unknown name.
std::unique_ptr<Format> make_gguf_format(const std::string& type = "");

/// The file that a path means: itself where its name ends in .gguf, the only such file of a directory without
/// config.json; empty otherwise. Throws UserError for a directory with several.
fs::path gguf_file(const fs::path& path);

/// Throws UserError naming the file: truncated or damaged, of an architecture, type or tokenizer that is not supported.
ShippedModel open_gguf(const fs::path& file);

/// The tokenizer of a model directory or of a GGUF file.
tokenizer::Tokenizer open_tokenizer(const fs::path& path);

/// config.json and the tokenizer's files of a GGUF file, into an existing directory.
void write_model_files(const fs::path& gguf, const fs::path& directory);

}  // namespace satin::exporting
