// One row's arithmetic of logit_losses.h, for the CPU and the CUDA kernels.
#pragma once
#include <cmath>
#include <limits>

#include "kernels/fake_quant_math.h"
#include "kernels/logit_losses.h"

namespace satin::kernels {

template <class T>
constexpr T kNegativeInfinity = -std::numeric_limits<T>::infinity();

/// x ln y with 0 ln 0 = 0.
template <class T>
SATIN_INLINE T times_log(T x, T log_y) {
  return x == T(0) ? T(0) : x * log_y;
}

/// Mass inside and outside of K, with logarithms that stay exact when either is tiny.
template <class T>
struct Masses {
  T log_inside, log_outside, inside, outside;

  Masses() = default;
  /// Logarithms of the sums of exp(logit) in K and in the rest, from any common origin.
  SATIN_INLINE Masses(T log_sum_inside, T log_sum_outside) {
    const T odds = log_sum_inside - log_sum_outside;
    const T tail = std::log1p(std::exp(-std::fabs(odds)));
    log_inside = (odds < T(0) ? odds : T(0)) - tail;
    log_outside = (odds > T(0) ? -odds : T(0)) - tail;
    inside = std::exp(log_inside);
    outside = std::exp(log_outside);
  }
  SATIN_INLINE static Masses of_logarithms(T log_inside, T log_outside) {
    Masses masses;
    masses.log_inside = log_inside;
    masses.log_outside = log_outside;
    masses.inside = std::exp(log_inside);
    masses.outside = std::exp(log_outside);
    return masses;
  }
};

/// What the smoothness loss says of two distributions over {K, rest}.
template <class T>
struct BucketLoss {
  Masses<T> teacher, student;
  SATIN_INLINE BucketLoss(const Masses<T>& teacher, const Masses<T>& student) : teacher(teacher), student(student) {}

  SATIN_INLINE T value() const {
    return times_log(teacher.inside, teacher.log_inside - student.log_inside) +
           times_log(teacher.outside, teacher.log_outside - student.log_outside);
  }
  /// Q - P, by the pair that does not cancel.
  SATIN_INLINE T excess() const {
    return student.inside > T(0.5) && teacher.inside > T(0.5) ? teacher.outside - student.outside
                                                              : student.inside - teacher.inside;
  }
};

/// The divergence of one id from its log-probabilities under teacher and student, in units of T^2.
template <class T>
struct DivergenceTerm {
  T share, log_share, log_rest;
  bool jensen_shannon, forward, reverse;  ///< which parts of it are there

  SATIN_INLINE explicit DivergenceTerm(const LogitLosses& losses)
      : share(static_cast<T>(losses.share)),
        log_share(static_cast<T>(std::log(losses.share))),
        log_rest(static_cast<T>(std::log(1 - losses.share))),
        jensen_shannon(losses.divergence == Divergence::kJensenShannon),
        forward(share != T(0)),
        reverse(jensen_shannon || share != T(1)) {}

  /// ln(q / p), or ln(q / m).
  SATIN_INLINE T log_ratio(T log_p, T log_q) const { return log_q - (jensen_shannon ? log_mean(log_p, log_q) : log_p); }
  /// The teacher's side: p ln(p / q), or p ln(p / m).
  SATIN_INLINE T forward_value(T p, T log_p, T log_q) const {
    return times_log(p, log_p - (jensen_shannon ? log_mean(log_p, log_q) : log_q));
  }
  /// The gradient without T; `reverse_sum`: sum of q log_ratio over the row.
  SATIN_INLINE T slope(T p, T q, T log_p, T log_q, T reverse_sum) const {
    T slope = jensen_shannon ? T(0) : share * (q - p);
    if (reverse) slope += (T(1) - share) * times_log(q, log_ratio(log_p, log_q) - reverse_sum);
    return slope;
  }

 private:
  SATIN_INLINE T log_mean(T log_p, T log_q) const {
    const T a = log_share + log_p, b = log_rest + log_q, top = a > b ? a : b;
    return top == kNegativeInfinity<T> ? top : top + std::log(std::exp(a - top) + std::exp(b - top));
  }
};

}  // namespace satin::kernels
