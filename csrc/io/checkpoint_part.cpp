#include "io/checkpoint_part.h"

#include <ATen/Functions.h>

#include <algorithm>

#include "core/crc32c.h"
#include "core/error.h"
#include "core/portion.h"
#include "dist/together.h"

namespace satin::io {
namespace {

/// Smaller ones are written by one rank.
constexpr int64_t kSharedBytes = int64_t{1} << 20;

struct Rows {
  int64_t first, count;
  auto operator<=>(const Rows&) const = default;
};

std::vector<int64_t> shape_of(const CheckpointTensor& tensor) {
  return tensor.full_shape.empty() ? tensor.tensor.sizes().vec() : tensor.full_shape;
}

int64_t num_rows(const std::vector<int64_t>& shape) { return shape.empty() ? 1 : shape[0]; }

Rows rows_of(const CheckpointTensor& tensor) {
  const std::vector<int64_t> shape = shape_of(tensor);
  const at::IntArrayRef own = tensor.tensor.sizes();
  SATIN_CHECK(own.size() == shape.size() && (shape.empty() || own.slice(1) == at::IntArrayRef(shape).slice(1)),
              tensor.name, ": rows of shape ", own, " of a tensor of shape ", at::IntArrayRef(shape));
  return {tensor.first_row, num_rows(own.vec())};
}

/// Every rank's rows of every tensor: [tensor][rank].
std::vector<std::vector<Rows>> gather_rows(const std::vector<CheckpointTensor>& tensors,
                                           const SafetensorsLayout& layout, dist::Communicator& ranks) {
  const auto texts = dist::gather_of(ranks, [&] {
    std::string text = cat(crc32c(std::as_bytes(std::span(layout.header()))));
    for (const auto& tensor : tensors) {
      const Rows rows = rows_of(tensor);
      text += cat(' ', rows.first, ' ', rows.count);
    }
    return text;
  });
  std::vector<std::vector<Rows>> rows(tensors.size());
  for (size_t rank = 0; rank < texts.size(); ++rank) {
    std::istringstream text(texts[rank]);
    uint32_t header = 0;
    text >> header;
    SATIN_CHECK_EQ(header, crc32c(std::as_bytes(std::span(layout.header()))), "other tensors on rank ", rank);
    for (auto& of_tensor : rows) {
      Rows& of_rank = of_tensor.emplace_back();
      text >> of_rank.first >> of_rank.count;
    }
  }
  return rows;
}

/// Distinct rows, whoever holds them, must follow each other from the first to the last.
void check_cover(const std::string& name, std::vector<Rows> rows, int64_t expected) {
  std::erase_if(rows, [](const Rows& some) { return some.count == 0; });
  std::ranges::sort(rows);
  rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
  int64_t end = 0;
  for (const Rows& some : rows) {
    SATIN_CHECK_EQ(some.first, end, name, ": rows that ranks hold, where the ones before them end");
    end += some.count;
  }
  SATIN_CHECK_EQ(end, expected, name, ": rows that ranks hold");
}

TensorFilePart file_part(const std::string& name, const std::vector<CheckpointTensor>& tensors,
                         dist::Communicator& ranks) {
  std::vector<TensorSpec> specs;
  for (const auto& tensor : tensors) specs.push_back({tensor.name, tensor.tensor.scalar_type(), shape_of(tensor)});
  TensorFilePart part{name, SafetensorsLayout(specs), {}};
  const auto rows = gather_rows(tensors, part.layout, ranks);
  for (size_t i = 0; i < tensors.size(); ++i) {
    check_cover(tensors[i].name, rows[i], num_rows(specs[i].shape));
    const Rows own = rows[i][static_cast<size_t>(ranks.rank())];
    const int64_t num_own = tensors[i].tensor.numel();
    if (num_own == 0) continue;
    // Ranks that hold the same rows, and which of them this is.
    const int64_t num_holders = std::ranges::count(rows[i], own);
    const int64_t holder = std::count(rows[i].begin(), rows[i].begin() + ranks.rank(), own);
    const auto element_bytes = static_cast<int64_t>(at::elementSize(specs[i].dtype));
    int64_t first = portion_begin(num_own, num_holders, holder);
    int64_t last = portion_begin(num_own, num_holders, holder + 1);
    if (num_own * element_bytes < kSharedBytes) {
      first = 0;
      last = static_cast<int64_t>(i) % num_holders == holder ? num_own : 0;
    }
    if (first == last) continue;
    const int64_t row_elements = num_own / own.count;
    part.runs.push_back(
        {tensors[i].tensor.detach().contiguous().view(-1).narrow(0, first, last - first),
         part.layout.places().at(tensors[i].name).begin + (own.first * row_elements + first) * element_bytes});
  }
  return part;
}

}  // namespace

CheckpointPart part_of(const CheckpointContents& contents, dist::Communicator& ranks) {
  CheckpointPart part{contents.manifest, contents.config_yaml, contents.model_files, {}};
  part.manifest.files.clear();
  part.files.push_back(file_part("model.safetensors", contents.model, ranks));
  part.files.push_back(file_part("optimizer.safetensors", contents.optimizer, ranks));
  return part;
}

}  // namespace satin::io
