#include <ATen/ATen.h>

#include "bench/benchmarks.h"
#include "bench/timer.h"
#include "core/error.h"
#include "ops/decode_kernels.h"
#include "ops/decode_tiles.h"
#include "ops/device.h"

namespace satin::bench {
namespace {

struct TunedMatrix {
  int64_t rows, columns;
};
/// Joined layers of Llama models (q + k + v, o, gate + up, down) of 1.2b, 7b and 8b, and squares.
constexpr TunedMatrix kMatrices[] = {{3072, 2048},  {2048, 2048},  {16384, 2048}, {2048, 8192},  {6144, 4096},
                                     {12288, 4096}, {4096, 4096},  {22016, 4096}, {28672, 4096}, {4096, 11008},
                                     {4096, 14336}, {14336, 4096}, {8192, 2048},  {8192, 8192}};
/// What another tile must save to be taken: measurements differ by less, and in a model's row of kernels fewer blocks
/// are worth more, on whose multiprocessors the next kernel begins.
constexpr double kLeastGain = 0.05;

/// Weights of random codes, one after the other in memory beyond the caches.
class Weights {
 public:
  explicit Weights(at::Device device)
      : words_(at::randint(INT32_MIN, INT32_MAX, {int64_t{1} << 26}, at::TensorOptions(at::kInt).device(device))) {}

  /// Copies of a weight with zero points, beyond the caches together.
  std::vector<ops::PackedWeight> copies(const TunedMatrix& matrix, int bits, int64_t group_size) const {
    ops::PackedWeight weight;
    weight.shape = {matrix.rows, matrix.columns, bits, group_size};
    const int64_t num_words = weight.shape.num_words(), num_pairs = weight.shape.num_pairs();
    weight.scales = at::full({2 * num_pairs}, .01, words_.options().dtype(at::kBFloat16));
    weight.zeros = at::full({2 * num_pairs}, 1 << (bits - 1), words_.options().dtype(at::kByte));
    std::vector<ops::PackedWeight> all(copies_beyond_caches(words_.device(), 4 * static_cast<double>(num_words)),
                                       weight);
    for (size_t i = 0; i < all.size(); ++i)
      all[i].words = words_.narrow(0, static_cast<int64_t>(i) * num_words, num_words);
    return all;
  }

 private:
  at::Tensor words_;  ///< 256 MiB: of the largest matrix two
};

}  // namespace

ops::DecodeTiles tune_decode(const Options& options, const std::string& version) {
  if (!options.device.is_cuda() || ops::compute_capability(options.device) != 90)
    throw UserError(cat("bench --tune: expected a GPU that the decode kernels run on (sm_90), found ",
                        ops::device_name(options.device)));
  ops::DecodeTiles table{ops::device_name(options.device), version, {}};
  const int num_processors = ops::num_multiprocessors(options.device);
  const Weights weights(options.device);
  for (const TunedMatrix& matrix : kMatrices)
    for (const int bits : {1, 2, 3, 4, 8})
      for (const int64_t group_size : {64, 128}) {
        const std::vector<ops::PackedWeight> copies = weights.copies(matrix, bits, group_size);
        const kernels::PackedShape& shape = copies[0].shape;
        for (const int64_t num_x_rows : {1, 4, 8, 16}) {
          Measurement m;
          m.name = cat("tile of ", bits, " bits group ", group_size, " [", matrix.rows, ", ", matrix.columns, "] rows ",
                       num_x_rows);
          // Of these the rule chooses for the kernels beside them, which are not here.
          if (kernels::is_left_to_half(shape, num_x_rows, num_processors)) continue;
          if (m.name.find(options.only) == std::string::npos) continue;
          const at::Tensor x =
              at::randn({num_x_rows, matrix.columns}, at::TensorOptions().device(options.device)).to(at::kBFloat16);
          const auto time = [&](kernels::DecodeTile tile) {
            return time_calls(options.device, static_cast<int>(copies.size()), [&](int i) {
              const ops::PackedWeight& weight = copies[static_cast<size_t>(i) % copies.size()];
              return std::vector<at::Tensor>{ops::packed_decode(x, weight, {}, tile)};
            });
          };
          const kernels::DecodeTile by_rule =
              kernels::decode_tile_by_rule(shape, num_x_rows, /*gated=*/false, num_processors);
          ops::TunedTile best{.of = ops::tile_case(shape, num_x_rows), .tile = by_rule, .us = 0, .us_by_rule = 0};
          std::vector<kernels::DecodeTile> tiles{by_rule};
          for (const kernels::DecodeTile& tile : kernels::kDecodeTiles)
            if (tile != by_rule && kernels::has_decode_tile(shape, num_x_rows, /*gated=*/false, tile))
              tiles.push_back(tile);
          for (const kernels::DecodeTile& tile : tiles) {
            const Measurement measured = time(tile);
            m.note += cat(m.note.empty() ? "" : ", ", tile.row_bricks, "x", tile.warps, " ", fixed(measured.us, 1));
            if (tile == by_rule) best.us_by_rule = measured.us;
            if (m.us > 0 && measured.us >= m.us) continue;
            m.us = best.us = measured.us;
            m.least_us = measured.least_us;
            m.most_us = measured.most_us;
            best.tile = tile;
          }
          m.note += "; the first by rule";
          options.report(m);
          if (best.us >= best.us_by_rule * (1 - kLeastGain)) continue;
          best.us = time(best.tile).us;  // again: the best of several is the luckiest too
          best.us_by_rule = time(by_rule).us;
          if (best.us < best.us_by_rule * (1 - kLeastGain)) table.tiles.push_back(best);
        }
      }
  return table;
}

}  // namespace satin::bench
