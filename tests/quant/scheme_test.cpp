#include "quant/scheme.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace satin::quant {
namespace {

TEST(Scheme, BitsWithScalesAndZeroPoints) {
  // 2 + 16/64 + 2/64
  EXPECT_DOUBLE_EQ((Scheme{Method::kLsqAsymmetric, 2, 64}).effective_bits(8, 512), 2.28125);
  EXPECT_DOUBLE_EQ((Scheme{Method::kLsq, 4, 128}).effective_bits(8, 512), 4.125);
  EXPECT_DOUBLE_EQ((Scheme{Method::kLsq, 4, -1}).effective_bits(8, 512), 4 + 16.0 / 512);
  EXPECT_DOUBLE_EQ((Scheme{Method::kLsqAsymmetric, 2, 0}).effective_bits(8, 512), 2 + 18.0 / 4096) << "one scale";
  EXPECT_DOUBLE_EQ((Scheme{Method::kOneBit, 1, -1}).effective_bits(8, 512), 1 + 16.0 / 512 + 16.0 / 8) << "two vectors";
  EXPECT_NEAR((Scheme{Method::kTernary, 2, 64}).nominal_bits(), 1.585, 1e-3);
  EXPECT_EQ((Scheme{Method::kLsq, 4, -1}).groups(512), 1);
  EXPECT_EQ((Scheme{Method::kLsq, 4, 64}).groups(512), 8);
}

TEST(Scheme, ColumnsCountAsTheyAre) {
  Scheme scheme{Method::kLsqAsymmetric, 4, 64};
  scheme.column_bits = {3, 2, 4, 3, 3, 3};
  EXPECT_DOUBLE_EQ(scheme.nominal_bits(), 3);
  EXPECT_DOUBLE_EQ(scheme.effective_bits(8, 384), 3 + 16.0 / 64 + 3.0 / 64);
  EXPECT_DOUBLE_EQ(scheme.stored().effective_bits(8, 384), 4 + 16.0 / 64 + 4.0 / 64);
  EXPECT_EQ(describe(scheme), "lsq_asymmetric 2, 3 and 4 bits, stored in 4, group 64 bfloat16");
  EXPECT_EQ(describe_columns(scheme), "columns of 2, 3 and 4 bits");
  EXPECT_EQ(describe_columns(scheme.stored()), "");
  EXPECT_FALSE(scheme == scheme.stored());
  EXPECT_EQ(scheme.of_groups(1, 2).column_bits, (std::vector<int>{2, 4}));
  EXPECT_TRUE(scheme.has_narrow_columns());
  scheme.column_bits = {4, 4, 4, 4, 4, 4};
  EXPECT_FALSE(scheme.has_narrow_columns());
}

TEST(Scheme, MethodsByName) {
  for (Method method :
       {Method::kMinMaxSymmetric, Method::kMinMaxAsymmetric, Method::kLsq, Method::kLsqAsymmetric, Method::kSeq,
        Method::kTernary, Method::kBinary, Method::kBitNet, Method::kLwc, Method::kOneBit})
    EXPECT_EQ(method_from_string(to_string(method)), method);
  try {
    method_from_string("lsq_asymetric");
    FAIL() << "accepted";
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("did you mean 'lsq_asymmetric'"), std::string::npos) << error.what();
  }
}

TEST(Scheme, Description) {
  EXPECT_EQ(describe({Method::kLsqAsymmetric, 2, 64}), "lsq_asymmetric 2 bits group 64 bfloat16");
  EXPECT_EQ(describe({Method::kTernary, 2, -1, Storage::kFloat16}), "ternary 1.58 bits per row float16");
  Scheme inputs{Method::kLwc, 4, 0};
  inputs.activations = Activations::kInt8;
  EXPECT_EQ(describe(inputs), "lwc 4 bits per tensor bfloat16, int8 activations");
}

}  // namespace
}  // namespace satin::quant
