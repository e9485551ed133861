// Packing against compressed-tensors' own functions.
#include "export/pack.h"

#include <ATen/ATen.h>

#include "io/safetensors.h"
#include "support/test_support.h"

namespace satin::exporting {
namespace {

TEST(Pack, EqualsTheLibrary) {
  SATIN_NEEDS_PYTHON("compressed_tensors");
  test::TempDir dir;
  const auto made = test::run_python("export/pack_oracle.py " + (dir / "packed.safetensors").string());
  ASSERT_EQ(made.exit_code, 0) << made.output;
  const io::SafetensorsFile file(dir / "packed.safetensors");
  int num_cases = 0;
  for (const auto& [name, info] : file.tensors()) {
    if (!name.starts_with("codes.")) continue;
    const std::string suffix = name.substr(6);  // "<bits>.<columns>"
    const int bits = suffix[0] - '0';
    const at::Tensor codes = file.tensor(name), want = file.tensor("packed." + suffix);
    EXPECT_TRUE(pack_bits(codes, bits).equal(want)) << suffix;
    EXPECT_TRUE(unpack_bits(want, bits, codes.size(1)).equal(codes)) << suffix;
    ++num_cases;
  }
  EXPECT_EQ(num_cases, 28);
}

}  // namespace
}  // namespace satin::exporting
