// Products of int8 codes with packed weights on CUDA: bit for bit those of the CPU's contract.
#include <ATen/Context.h>
#include <gtest/gtest.h>

#include "kernels/packed_a8.h"
#include "ops/a8_kernels.h"
#include "ops/a8_linear_cases.h"
#include "ops/act_quant.h"
#include "ops/needs_hopper.h"

namespace satin::ops {
namespace {

TEST(A8LinearGpu, HasTheCpusBits) {
  SATIN_NEEDS_HOPPER();
  std::vector<A8Case> cases = a8_cases();
  for (const int bits : {1, 2, 3, 4})
    for (const int64_t groups : {8, 4, 2, 1})
      for (const int64_t num_tokens : {5, 64, 300})
        cases.push_back({bits, 200, 512, groups, bits > 1 && groups != 2, 1, 1, num_tokens});
  for (const A8Case& c : cases) {
    SCOPED_TRACE(testing::Message() << c.bits << " bits [" << c.rows << ", " << c.columns << "] " << c.groups
                                    << " groups, " << c.num_tokens << " tokens");
    const PackedWeight packed = random_weight(c), moved = packed.to(at::kCUDA);
    const at::Tensor x = at::randn({c.num_tokens, c.columns}).to(at::kBFloat16);
    const at::Tensor bias = at::randn({c.rows}).to(at::kBFloat16);
    const at::Tensor weight = at::zeros({c.rows, c.columns}, at::kBFloat16);
    const at::Tensor found = a8_linear(x.cuda(), moved, weight.cuda(), bias.cuda());
    for (int i = 0; i < 3; ++i)
      EXPECT_TRUE(a8_linear(x.cuda(), moved, weight.cuda(), bias.cuda()).equal(found)) << "the same every time";
    // All tokens of small cases; of large ones the first and the last.
    const int64_t some = std::min<int64_t>(c.num_tokens, 300);
    for (const int64_t first : {int64_t{0}, c.num_tokens - some})
      EXPECT_TRUE(found.cpu().narrow(0, first, some).equal(a8_linear(x.narrow(0, first, some), packed, weight, bias)));
  }
}

TEST(A8LinearGpu, QuantizesAsActQuant) {
  SATIN_NEEDS_HOPPER();
  for (const int64_t columns : {8, 104, 1000, 4096, 8200}) {
    at::Tensor x = at::randn({37, columns}).to(at::kBFloat16);
    x.select(0, 3).zero_();
    const A8Codes found = a8_codes(x.cuda(), true);
    EXPECT_TRUE(found.values.equal(act_quant(x.cuda(), ActivationFormat::kInt8)));
    const ActCodes expected = act_quant_codes(x.cuda(), ActivationFormat::kInt8);
    EXPECT_TRUE(found.scales.equal(expected.scale.reshape(-1)));
    const at::Tensor codes = found.codes.cpu(), plain = expected.codes.cpu().view(at::kByte);
    EXPECT_EQ(codes.to(at::kLong).sum().item<int64_t>(), plain.to(at::kLong).sum().item<int64_t>()) << "fill is 0";
    for (int64_t k = 0; k < columns; ++k)
      ASSERT_TRUE(codes.select(1, kernels::a8_place(k)).equal(plain.select(1, k))) << k;
  }
}

TEST(A8LinearGpu, PacksAsTheCpu) {
  SATIN_NEEDS_HOPPER();
  for (const A8Case& c : a8_cases()) {
    const at::Tensor codes = at::randint(1 << c.bits, {c.rows, c.columns}, at::kByte);
    const at::Tensor scale = at::rand({c.rows, c.groups}) * .1;
    const at::Tensor zero = c.zeros ? at::randint(1 << c.bits, {c.rows, c.groups}, at::kInt) : at::Tensor();
    const auto pack = [&](at::Device device) {
      return pack_codes(codes.to(device), scale.to(device), c.zeros ? zero.to(device) : zero, c.zero, c.bits, c.step,
                        at::kBFloat16, at::kFloat);
    };
    const PackedWeight here = pack(at::kCPU), there = pack(at::kCUDA);
    EXPECT_TRUE(there.words.cpu().equal(here.words)) << c.bits << " bits of " << c.columns;
    EXPECT_TRUE(there.scales.cpu().equal(here.scales));
    EXPECT_EQ(there.zeros.defined(), here.zeros.defined());
    EXPECT_TRUE(!c.zeros || there.zeros.cpu().equal(here.zeros));
  }
}

TEST(A8LinearGpu, HasGradients) {
  SATIN_NEEDS_HOPPER();
  const A8Case c = a8_cases()[2];
  const PackedWeight packed = random_weight(c).to(at::kCUDA);
  const at::Tensor weight = dequantize_rows(packed, 0, c.rows, at::kBFloat16).requires_grad_();
  const at::Tensor x = at::randn({c.num_tokens, c.columns}).to(at::kBFloat16).cuda().requires_grad_();
  const at::Tensor up = at::randn({c.num_tokens, c.rows}).to(at::kBFloat16).cuda();
  a8_linear(x, packed, weight).backward(up);
  EXPECT_TRUE(x.grad().equal(up.matmul(weight.detach())));
  EXPECT_TRUE(weight.grad().equal(up.t().matmul(act_quant(x.detach(), ActivationFormat::kInt8))));
}

}  // namespace
}  // namespace satin::ops
