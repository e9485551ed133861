// Hopper's asynchronous units as functions: barriers in shared memory, the copy engine, warpgroup products.
#pragma once
#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace satin::kernels {

__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

__device__ __forceinline__ void init_barrier(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}
__device__ __forceinline__ void fence_barrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ __forceinline__ void arrive_expecting(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
__device__ __forceinline__ void wait_for(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n.reg .pred done;\n"
      "again:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@done bra.uni ready;\nbra.uni again;\n"
      "ready:\n}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

/// The box at (column, row) of a 2-D map; what lies outside is zeros.
__device__ __forceinline__ void copy_box(uint32_t to, const CUtensorMap& map, int column, int row, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
          to),
      "l"(reinterpret_cast<uint64_t>(&map)), "r"(column), "r"(row), "r"(barrier)
      : "memory");
}

/// The other way, of what this block's threads wrote before fence_copies() and a barrier; what lies outside is not
/// written. A thread's copies go on until it waits for them.
__device__ __forceinline__ void fence_copies() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
__device__ __forceinline__ void store_box(const CUtensorMap& map, int column, int row, uint32_t from) {
  asm volatile(
      "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];\ncp.async.bulk.commit_group;" ::"l"(
          reinterpret_cast<uint64_t>(&map)),
      "r"(column), "r"(row), "r"(from)
      : "memory");
}
/// This thread's copies have read their memory.
__device__ __forceinline__ void wait_for_stores() { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }

template <int kRegisters>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

/// Which block of its cluster this is, of how many.
__device__ __forceinline__ int block_of_cluster() {
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return static_cast<int>(rank);
}
__device__ __forceinline__ int blocks_of_cluster() {
  uint32_t blocks;
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(blocks));
  return static_cast<int>(blocks);
}
/// Which cluster this is along x.
__device__ __forceinline__ int cluster_along_x() {
  uint32_t cluster;
  asm("mov.u32 %0, %%clusterid.x;" : "=r"(cluster));
  return static_cast<int>(cluster);
}
/// The barrier in two parts, of which the first hands on nothing that was written: that all blocks have begun.
__device__ __forceinline__ void tell_cluster_begun() { asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory"); }
__device__ __forceinline__ void wait_for_cluster() { asm volatile("barrier.cluster.wait.acquire;" ::: "memory"); }
/// All threads of a cluster's blocks that have not ended; what each wrote in its shared memory can be read then.
__device__ __forceinline__ void cluster_barrier() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
/// 16 bytes of another block's shared memory, at this block's address.
__device__ __forceinline__ float4 load_of_block(uint32_t at, int block) {
  uint32_t there;
  float4 v;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(at), "r"(block));
  asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "r"(there)
               : "memory");
  return v;
}
/// Two numbers to another block's shared memory, at this block's address; its barrier there counts the bytes.
__device__ __forceinline__ void send(uint32_t to, uint32_t barrier, int block, float x, float y) {
  asm volatile(
      "{.reg .b32 to, barrier;"
      "mapa.shared::cluster.u32 to, %0, %2; mapa.shared::cluster.u32 barrier, %1, %2;"
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [to], {%3, %4}, [barrier];}" ::"r"(to),
      "r"(barrier), "r"(block), "f"(x), "f"(y)
      : "memory");
}
__device__ __forceinline__ void store_shared(uint32_t at, float v) {
  asm volatile("st.shared.f32 [%0], %1;" ::"r"(at), "f"(v) : "memory");
}

/// 128 threads.
__device__ __forceinline__ void warpgroup_barrier(int id) { asm volatile("bar.sync %0, 128;" ::"r"(id) : "memory"); }

__device__ __forceinline__ void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/// All but the last kPending groups of products are done.
template <int kPending>
__device__ __forceinline__ void wait_for_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

/// Reads of d stay behind the wait before this; of an operand's registers, their next use.
template <int kCount>
__device__ __forceinline__ void keep(int (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+r"(d[i])::"memory");
}
template <int kCount>
__device__ __forceinline__ void keep(uint32_t (&a)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+r"(a[i])::"memory");
}
template <int kCount>
__device__ __forceinline__ void keep(float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

/// Operand B, [columns][128 bytes of k], written by the copy engine with a swizzle of 128 bytes; at a multiple of 1 KB.
/// Add 2 for the next 32 bytes of k, 64 for the next 8 columns.
__device__ __forceinline__ uint64_t operand_b(uint32_t address) {
  return uint64_t{(address & 0x3ffff) >> 4} | uint64_t{1} << 16 | uint64_t{1024 >> 4} << 32 | uint64_t{1} << 62;
}

__device__ __forceinline__ uint4 load_shared4(uint32_t at) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(at));
  return v;
}
__device__ __forceinline__ uint2 load_shared2(uint32_t at) {
  uint2 v;
  asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(at));
  return v;
}
__device__ __forceinline__ uint32_t load_shared(uint32_t at) {
  uint32_t v;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(at));
  return v;
}
__device__ __forceinline__ uint32_t load_shared_half(uint32_t at) {
  uint16_t v;
  asm volatile("ld.shared.u16 %0, [%1];" : "=h"(v) : "r"(at));
  return v;
}

__device__ __forceinline__ void store_transposed(uint32_t to, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(a), "r"(b),
               "r"(c), "r"(d)
               : "memory");
}

// d [64, N] (+)= A [64, 32 bytes] B [32 bytes, N], bytes with signs or bfloat16: A of this thread's four registers; add
// 0 forgets d, which has N / 2 numbers.
#define SATIN_D8(c, i) \
  c(d[i]), c(d[i + 1]), c(d[i + 2]), c(d[i + 3]), c(d[i + 4]), c(d[i + 5]), c(d[i + 6]), c(d[i + 7])
#define SATIN_D16(c, i) SATIN_D8(c, i), SATIN_D8(c, i + 8)
#define SATIN_D32(c, i) SATIN_D16(c, i), SATIN_D16(c, i + 16)
#define SATIN_D64(c, i) SATIN_D32(c, i), SATIN_D32(c, i + 32)
#define SATIN_D128(c, i) SATIN_D64(c, i), SATIN_D64(c, i + 64)
#define SATIN_R16 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define SATIN_R32 SATIN_R16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define SATIN_R64                                                                                          \
  SATIN_R32                                                                                                \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, " \
  "%52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define SATIN_R128                                                                                             \
  SATIN_R64                                                                                                    \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, "     \
  "%84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, "   \
  "%104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121" \
  ", %122, %123, %124, %125, %126, %127"
#define SATIN_PRODUCT(n, types, signs, list, at_a, at_b, at_add, ...)                                                 \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " at_add ", 0;\nwgmma.mma_async.sync.aligned.m64n" n types " {" list \
               "}, {" at_a "}, " at_b ", p" signs ";\n}"                                                              \
               : __VA_ARGS__                                                                                          \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add))
// Numbers: no signs turned, B as [N][k].
#define SATIN_INTEGERS(n, ...) SATIN_PRODUCT(n, "k32.s32.s8.s8", "", __VA_ARGS__)
#define SATIN_NUMBERS(n, ...) SATIN_PRODUCT(n, "k16.f32.bf16.bf16", ", 1, 1, 0", __VA_ARGS__)
__device__ __forceinline__ void add_product(int (&d)[16], const uint32_t* a, uint64_t b, int add) {
  SATIN_INTEGERS("32", SATIN_R16, "%16, %17, %18, %19", "%20", "%21", SATIN_D16("+r", 0));
}
__device__ __forceinline__ void add_product(int (&d)[32], const uint32_t* a, uint64_t b, int add) {
  SATIN_INTEGERS("64", SATIN_R32, "%32, %33, %34, %35", "%36", "%37", SATIN_D32("+r", 0));
}
__device__ __forceinline__ void add_product(int (&d)[64], const uint32_t* a, uint64_t b, int add) {
  SATIN_INTEGERS("128", SATIN_R64, "%64, %65, %66, %67", "%68", "%69", SATIN_D64("+r", 0));
}
__device__ __forceinline__ void add_product(float (&d)[32], const uint32_t* a, uint64_t b, int add) {
  SATIN_NUMBERS("64", SATIN_R32, "%32, %33, %34, %35", "%36", "%37", SATIN_D32("+f", 0));
}
__device__ __forceinline__ void add_product(float (&d)[64], const uint32_t* a, uint64_t b, int add) {
  SATIN_NUMBERS("128", SATIN_R64, "%64, %65, %66, %67", "%68", "%69", SATIN_D64("+f", 0));
}
__device__ __forceinline__ void add_product(float (&d)[128], const uint32_t* a, uint64_t b, int add) {
  SATIN_NUMBERS("256", SATIN_R128, "%128, %129, %130, %131", "%132", "%133", SATIN_D128("+f", 0));
}
#undef SATIN_NUMBERS
#undef SATIN_INTEGERS
#undef SATIN_PRODUCT
#undef SATIN_R128
#undef SATIN_R64
#undef SATIN_R32
#undef SATIN_R16
#undef SATIN_D128
#undef SATIN_D64
#undef SATIN_D32
#undef SATIN_D16
#undef SATIN_D8

}  // namespace satin::kernels
