// How a warp reads its bricks ahead: into registers, or through shared memory.
#pragma once
#include "kernels/cuda/packed_device.cuh"

namespace satin::kernels {

/// Columns of bricks that are one warp's: neighbours. From memory they come sooner so, one row's: 8,192 x 8,192 at 2
/// bits in 6.0 us instead of 6.6 (H200).
template <int kWarps>
struct NextColumns {
  static constexpr int kStep = 1;
  int first, end;

  __device__ __forceinline__ NextColumns(const PackedParams& p, int warp) {
    const int bricks = p.column_bricks(), each = static_cast<int>((bricks + kWarps - 1u) / kWarps);
    first = warp * each;
    end = min(bricks, first + each);
  }
};
/// Or dealt to the warps in turn: better where x is much (sixteen rows, 14,336 x 4,096 at 4 bits, in 15.1 us; 17.4).
template <int kWarps>
struct DealtColumns {
  static constexpr int kStep = kWarps;
  int first, end;

  __device__ __forceinline__ DealtColumns(const PackedParams& p, int warp) : first(warp), end(p.column_bricks()) {}
};

/// `bytes` a row on, in one instruction.
template <class T>
__device__ __forceinline__ const T* of_row(const T* first, unsigned row, int bytes) {
  return reinterpret_cast<const T*>(reinterpret_cast<const char*>(first) +
                                    uint64_t{row} * static_cast<unsigned>(bytes));
}

/// Into registers: kRows bricks one above the other, then those of the warp's next column. kSlots of these are asked
/// for ahead, each into the registers whose last words were just used, so that none are moved. One of kSlots and kRows
/// is a multiple of the other. kEach: a lane has a pair of scales, and of zeros if there are any, for each of a brick's
/// groups; else for that of segment q, and of zeros where kZeros.
template <int kBits, int kSegments, int kRows, class Columns, int kSlots, bool kEach, bool kZeros>
class BricksAhead {
 public:
  static constexpr int kGroups = 4 / kSegments, kPairs = kEach ? kGroups : 1, kSharedWords = 0;
  static constexpr bool kGoesOn = false;  ///< to the next rows, which are started as the first were
  /// Columns of bricks after which a slot has the same row again.
  static constexpr int kDepth = kSlots > kRows ? kSlots / kRows : 1;
  uint32_t words[kSlots][2 * kBits];
  uint32_t scales[kSlots][kPairs];  ///< of rows g and g + 8
  uint32_t zeros[kSlots][kPairs];

  __device__ __forceinline__ BricksAhead(const PackedParams& p, const Columns& columns, uint32_t*, int lane)
      : p_(p),
        columns_(columns),
        lane_(lane),
        column_bricks_(p.column_bricks()),
        on_(p.gated ? p.row_bricks / 2u : 1),
        two_on_(p.gated ? 1 : 2),
        group_shift_(p.group_shift - 2),
        high_words_(4 * kLanes - 2 * lane) {}

  /// Asks for the first of kRows from `row_brick` on, or of the rows that there are; of others all is zeros.
  __device__ __forceinline__ void start(int row_brick, int rows) {
    first_row_ = p_.gated ? row_brick / 2u : row_brick;
    num_here_ = min(kRows, rows);
    brick_ = columns_.first;
    bricks_left_ = columns_.end - brick_;
    groups_left_ = min(p_.groups, columns_.end * kGroups) - brick_ * kGroups - (kEach ? 0 : lane_ % 4u / kSegments);
    words_ = settled(p_.words + (brick_ * kBrickWords + lane_ * kLaneWords));
    pairs_at_ = (kSegments < 4 ? brick_ * kGroups + (kEach ? 0 : lane_ % 4u / kSegments) : 0) * 8 + lane_ / 4u;
#pragma unroll
    for (int i = 0; i < kSlots; ++i) {
#pragma unroll
      for (uint32_t& word : words[i]) word = 0;
#pragma unroll
      for (int j = 0; j < kPairs; ++j) scales[i][j] = zeros[i][j] = 0;
    }
    for_each<kSlots>([&](auto item) { load<decltype(item)::value>(); });
  }
  /// Whether item kItem, counted from the present column of bricks on, is in the warp's columns.
  template <int kItem>
  __device__ __forceinline__ bool has() const {
    return bricks_left_ > kItem / kRows * Columns::kStep;
  }
  /// Asks for item kItem into slot kItem % kSlots. What lies outside the warp's columns stays what it is: none takes
  /// it.
  template <int kItem>
  __device__ __forceinline__ void load() {
    constexpr int r = kItem % kRows, kOn = kItem / kRows * Columns::kStep, kSlot = kItem % kSlots;
    const bool is_here = has<kItem>() && r < num_here_;
    const auto row = static_cast<unsigned>(first_row_ + r / 2 * two_on_ + r % 2 * on_);
    const uint32_t* const from = of_row(words_, row, column_bricks_ * kBrickWords * 4) + kOn * kBrickWords;
    uint32_t(&to)[2 * kBits] = words[kSlot];
    if constexpr (kBits == 1) {
      load_once_if(is_here, to[0], to[1], from);
    } else {
#pragma unroll
      for (int i = 0; i < 2 * kBits / 4; ++i)
        load_once_if(is_here, to[4 * i], to[4 * i + 1], to[4 * i + 2], to[4 * i + 3], from + 4 * kLanes * i);
      if constexpr (kBits == 3) load_once_if(is_here, to[4], to[5], from + high_words_);
    }
    const int pairs_at = kSegments == 4 ? pairs_at_ + 8 * ((brick_ + kOn) >> group_shift_) : pairs_at_;
    constexpr int kPairsOn = kSegments == 4 ? 0 : 8 * kOn * kGroups;
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const bool has_group = kSegments == 4 ? is_here : groups_left_ > kOn * kGroups + i && r < num_here_;
      load_if(has_group, scales[kSlot][i],
              of_row(settled(p_.scales + pairs_at), row, p_.groups * 32) + kPairsOn + 8 * i);
      if constexpr (kZeros)
        load_if(has_group && (!kEach || p_.zeros), zeros[kSlot][i],
                of_row(settled(p_.zeros + pairs_at), row, p_.groups * 16) + kPairsOn + 8 * i);
    }
  }
  __device__ __forceinline__ void start_others() {}  ///< all are asked for
  /// Gives f(r, words, scales, zeros) each brick of column kAt of the present kDepth, and asks for others in their
  /// place.
  template <int kAt, class Function>
  __device__ __forceinline__ void take(int, const Function& f) {
    for_each<kRows>([&](auto index) {
      constexpr int r = decltype(index)::value, kItem = kAt * kRows + r, kSlot = kItem % kSlots, kNext = kItem + kSlots;
      f(index, words[kSlot], scales[kSlot], zeros[kSlot]);
      // Two at a time, for the branch. Those of this column are there whatever the columns.
      if constexpr (kRows == 1 || kNext / kRows == kAt) {
        if (kNext / kRows == kAt || has<kNext>()) load<kNext>();
      } else if constexpr (r % 2 == 1) {
        if (has<kNext>()) load<kNext - 1>(), load<kNext>();
      }
    });
  }
  /// kDepth columns of bricks are done.
  __device__ __forceinline__ void advance() {
    constexpr int kBricks = kDepth * Columns::kStep;
    brick_ += kBricks;
    bricks_left_ -= kBricks;
    groups_left_ -= kBricks * kGroups;
    words_ += kBricks * kBrickWords;
    if constexpr (kSegments < 4) pairs_at_ += 8 * kBricks * kGroups;
  }

 private:
  static constexpr int kBrickWords = 2 * kBits * kLanes, kLaneWords = kBits == 1 ? 2 : 4;
  const PackedParams& p_;
  const Columns columns_;
  const int lane_, column_bricks_;
  const int on_, two_on_;  ///< row bricks from an even one to the next, and to the next even one
  const int group_shift_;
  const int high_words_;  ///< from a lane's words to those of the high bit
  int first_row_, num_here_, brick_, bricks_left_, groups_left_;
  const uint32_t* words_;  ///< a lane's of row brick 0
  int pairs_at_;
};

/// Through shared memory, for one row in groups of 128 and more: the same bricks, then those of the next rows. Up to
/// four of a column are a stage; two stages are on their way, and a warp waits for the older alone. (Of loads into
/// registers it has six counters, so that waiting for x is waiting for bricks.) The second is asked for after x, which
/// else comes later than both: 8,192 x 8,192 at 2 bits takes 5.3 us, not 5.9.
template <int kBits, int kRows, class Columns, bool kZeros>
class BricksThroughShared {
  static constexpr int kStageRows = std::min(kRows, 4), kBrickWords = 2 * kBits * kLanes,
                       kScalesAt = kStageRows * kBrickWords, kZerosAt = kScalesAt + kStageRows * 8,
                       kStageWords = kZerosAt + (kZeros ? kStageRows * 4 : 0);
  static_assert(kBits <= 3 && Columns::kStep == 1 && kRows % kStageRows == 0);

 public:
  static constexpr int kSharedWords = 2 * kStageWords;  ///< of a warp
  static constexpr bool kGoesOn = true;
  static constexpr int kDepth = kRows < 8 ? 4 : 2;  ///< columns whose x is asked for ahead

  /// shared: the warp's.
  __device__ __forceinline__ BricksThroughShared(const PackedParams& p, const Columns& columns, uint32_t* shared,
                                                 int lane)
      : p_(p),
        columns_(columns),
        lane_(lane),
        on_(p.gated ? p.row_bricks / 2u : 1),
        two_on_(p.gated ? 1 : 2),
        older_(SharedAt(shared)),
        newer_(older_.plus(kStageWords)) {}

  /// Asks for the first stage of `rows` row bricks from `row_brick` on.
  __device__ __forceinline__ void start(int row_brick, int rows) {
    first_row_ = p_.gated ? row_brick / 2u : row_brick;
    at_ = 0;
    rows_ = columns_.first < columns_.end ? rows : 0;
    begin_rows();
    ask(older_);
  }
  /// The second, after loads before this: the assembler would ask for it before them.
  __device__ __forceinline__ void start_others() {
    __syncwarp();
    ask(newer_);
  }
  /// As BricksAhead's: of the next column, whatever kAt is, `here` of the kRows.
  template <int, class Function>
  __device__ __forceinline__ void take(int here, const Function& f) {
    for_each<kRows / kStageRows>([&](auto part) {
      constexpr int kFirst = decltype(part)::value * kStageRows;
      if (kFirst > 0 && kFirst >= here) return;
      wait_for_copies<1>();
      __syncwarp();
      for_each<kStageRows>([&](auto index) {
        constexpr int r = decltype(index)::value;
        const SharedAt brick = older_.plus(r * kBrickWords);
        uint32_t words[2 * kBits], scales[1], zeros[1] = {};
        if constexpr (kBits == 1)
          brick.plus(2 * lane_).load(words[0], words[1]);
        else
          brick.plus(4 * lane_).load(words[0], words[1], words[2], words[3]);
        if constexpr (kBits == 3) brick.plus(4 * kLanes + 2 * lane_).load(words[4], words[5]);
        older_.plus(kScalesAt + r * 8 + static_cast<int>(lane_ / 4u)).load(scales[0]);
        if constexpr (kZeros) older_.plus(kZerosAt + r * 4).load_half(static_cast<int>(lane_ / 4u), zeros[0]);
        f(std::integral_constant<int, kFirst + r>{}, words, scales, zeros);
      });
      __syncwarp();
      ask(older_);
      const SharedAt used = older_;
      older_ = newer_, newer_ = used;
    });
  }
  __device__ __forceinline__ void advance() {}

 private:
  __device__ __forceinline__ void begin_rows() {
    brick_ = columns_.first;
    words_ = settled(p_.words + (brick_ * kBrickWords + lane_ * (kBits == 1 ? 2 : 4)));
    in_rows_ = 0;
  }
  /// The next stage, or, of none, a group of no copies: they are counted.
  __device__ __forceinline__ void ask(const SharedAt& to) {
    if (at_ < rows_) {
      const int here = min(kRows, rows_ - at_) - in_rows_;
      const auto row = [&](int r) {
        const int at = at_ + in_rows_ + r;
        return static_cast<unsigned>(first_row_ + at / 2u * two_on_ + at % 2u * on_);
      };
#pragma unroll
      for (int r = 0; r < kStageRows; ++r) {
        const bool is_here = r == 0 || r < here;
        const uint32_t* const from = of_row(words_, row(r), p_.column_bricks() * (kBrickWords * 4));
        const SharedAt brick = to.plus(r * kBrickWords);
        if constexpr (kBits == 1)
          brick.plus(2 * lane_).template copy_if<8>(is_here, from);
        else
          brick.plus(4 * lane_).template copy_if<16>(is_here, from);
        if constexpr (kBits == 3)
          brick.plus(4 * kLanes + 2 * lane_).template copy_if<8>(is_here, from + (4 * kLanes - 2 * lane_));
      }
      // 16 bytes a lane: four pairs of scales, eight of zeros.
      const int pair = 8 * (brick_ >> (p_.group_shift - 2)), half = lane_ / 2;
      to.plus(kScalesAt + 4 * lane_)
          .template copy_if<16>(half < kStageRows && half < here,
                                of_row(settled(p_.scales + (pair + lane_ % 2 * 4)), row(half), p_.groups * 32));
      if constexpr (kZeros)
        to.plus(kZerosAt + 4 * lane_)
            .template copy_if<16>(lane_ < kStageRows && lane_ < here,
                                  of_row(settled(p_.zeros + pair), row(lane_), p_.groups * 16));
      if constexpr (kRows > kStageRows) in_rows_ += kStageRows;
      if (kRows == kStageRows || in_rows_ >= min(kRows, rows_ - at_)) {
        in_rows_ = 0;
        words_ += kBrickWords;
        if (++brick_ >= columns_.end) {
          at_ += kRows;
          begin_rows();
        }
      }
    }
    end_copies();
  }
  const PackedParams& p_;
  const Columns columns_;
  const int lane_;
  const int on_, two_on_;  ///< row bricks from an even one to the next, and to the next even one
  SharedAt older_, newer_;
  // What is asked for next: a stage from in_rows_ on of the kRows from at_ on, of column brick_.
  int first_row_, rows_, at_, in_rows_, brick_;
  const uint32_t* words_;  ///< a lane's of row brick 0
};

}  // namespace satin::kernels
