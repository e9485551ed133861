#include "export/pack.h"

#include <ATen/Parallel.h>

#include "core/error.h"

namespace satin::exporting {

at::Tensor pack_bits(const at::Tensor& codes, int bits) {
  SATIN_CHECK(bits >= 1 && bits <= 8 && codes.dim() == 2 && codes.scalar_type() == at::kByte, "pack_bits");
  const at::Tensor source = codes.contiguous().cpu();
  const int64_t num_rows = source.size(0), num_columns = source.size(1), num_words = (num_columns * bits + 31) / 32;
  at::Tensor words = at::zeros({num_rows, num_words}, at::kInt);
  const uint8_t* in = source.const_data_ptr<uint8_t>();
  auto* out = reinterpret_cast<uint32_t*>(words.mutable_data_ptr<int32_t>());
  at::parallel_for(0, num_rows, 16, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      uint64_t buffer = 0;
      int filled = 0;
      uint32_t* word = out + r * num_words;
      for (int64_t c = 0; c < num_columns; ++c) {
        buffer |= static_cast<uint64_t>(in[r * num_columns + c]) << filled;
        filled += bits;
        if (filled >= 32) {
          *word++ = static_cast<uint32_t>(buffer);
          buffer >>= 32;
          filled -= 32;
        }
      }
      if (filled) *word = static_cast<uint32_t>(buffer);
    }
  });
  return words;
}

at::Tensor unpack_bits(const at::Tensor& words, int bits, int64_t num_columns) {
  SATIN_CHECK(bits >= 1 && bits <= 8 && words.dim() == 2 && words.scalar_type() == at::kInt, "unpack_bits");
  SATIN_CHECK_EQ(words.size(1), (num_columns * bits + 31) / 32);
  const at::Tensor source = words.contiguous().cpu();
  const int64_t num_rows = source.size(0), num_words = source.size(1);
  at::Tensor codes = at::empty({num_rows, num_columns}, at::kByte);
  const auto* in = reinterpret_cast<const uint32_t*>(source.const_data_ptr<int32_t>());
  uint8_t* out = codes.mutable_data_ptr<uint8_t>();
  const uint64_t mask = (1u << bits) - 1;
  at::parallel_for(0, num_rows, 16, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      uint64_t buffer = 0;
      int filled = 0;
      const uint32_t* word = in + r * num_words;
      for (int64_t c = 0; c < num_columns; ++c) {
        if (filled < bits) {
          buffer |= static_cast<uint64_t>(*word++) << filled;
          filled += 32;
        }
        out[r * num_columns + c] = static_cast<uint8_t>(buffer & mask);
        buffer >>= bits;
        filled -= bits;
      }
    }
  });
  return codes;
}

}  // namespace satin::exporting
