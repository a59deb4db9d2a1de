// The sweep over candidates. The file is compiled once per instruction set, with SCSCHNET_KERNELS
// naming the table that it exports. It exports no other symbol (see simd.hpp), which
// tests/csrc/test_core_build.py checks.
//
// A sweep compares one center with all candidates, a vector of them at a time, here 8:
//
//     candidates   .  N  .  .  N  N  .  .       d2 < limit?
//     slots       s0 s1 s2 s3 s4 s5 s6 s7
//     written     s1 s4 s5  ?  ?  ?  ?  ?       compressed to the front; then 3 places ahead
//
// A whole vector is stored each time, and the next store overwrites what is not a neighbor, so the
// loop has no branch. It keeps the smallest |d2 - limit| that it met: if that is within the
// tolerance, the row is discarded and made again by double precision (search.cpp).
#include "kernels.hpp"
#include "simd.hpp"

namespace scschnet::cpu {
namespace {

static_assert(sweep_padding % simd::width == 0);

using namespace simd;

/// The center of a row, and the smallest distance of a candidate from the limit so far.
struct Center {
  Floats x, y, z, margin;
};

/// The squared distances minus the limit, which are negative for neighbors.
inline Floats beyond_limit(const Candidates& c, std::int64_t k, Center& center, Floats limit) {
  const Floats dx = subtract(load(c.x + k), center.x);
  const Floats dy = subtract(load(c.y + k), center.y);
  const Floats dz = subtract(load(c.z + k), center.z);
  const Floats d2 = multiply_add(dz, dz, multiply_add(dy, dy, multiply(dx, dx)));
  return subtract(d2, limit);
}

/// A row of few candidates. The center itself is among them and is recognized by its slot.
inline std::int64_t make_short_row(const Candidates& c, std::int32_t self, Center& center,
                                   Floats limit, std::int32_t* __restrict out) {
  std::int64_t n = 0;
  for (std::int64_t k = 0; k < c.count; k += width) {
    const Floats others = replace_where_equal(beyond_limit(c, k, center, limit), c.slot + k,
                                              c.slot[self], broadcast(far_away));
    center.margin = smaller_magnitude(center.margin, others);
    n += store_where_negative(others, c.slot + k, out + n);
  }
  return n;
}

/// A row of many candidates. The center itself is among them and is moved far away meanwhile. The
/// CPU stalls once where the loop reads what was just written, but the loop has less to do.
inline std::int64_t make_long_row(const Candidates& c, std::int32_t self, Center& center,
                                  Floats limit, std::int32_t* __restrict out) {
  const float own_x = c.x[self];
  c.x[self] = far_away;
  std::int64_t n = 0;
  for (std::int64_t k = 0; k < c.count; k += width) {
    const Floats others = beyond_limit(c, k, center, limit);
    center.margin = smaller_magnitude(center.margin, others);
    n += store_where_negative(others, c.slot + k, out + n);
  }
  c.x[self] = own_x;
  return n;
}

int sweep(const Candidates& candidates, const std::int32_t* centers, int n_centers,
          const Limits& limits, RowOutput& output) {
  const Candidates c = candidates;
  const Floats limit = broadcast(limits.limit), tolerance = broadcast(limits.tolerance);
  const bool is_short = c.count <= 4 * width;
  std::int32_t* out = output.slots;
  int done = 0;
  for (; done < n_centers; ++done) {
    const std::int32_t self = centers[done];
    Center center{broadcast(c.x[self]), broadcast(c.y[self]), broadcast(c.z[self]),
                  broadcast(far_away)};
    const std::int64_t n = is_short ? make_short_row(c, self, center, limit, out)
                                    : make_long_row(c, self, center, limit, out);
    if (any_less(center.margin, tolerance)) break;
    output.counts[done] = static_cast<std::int32_t>(n);
    out += n;
  }
  output.slots = out;
  output.counts += done;
  return done;
}

constexpr int chunk = 16;
static_assert(copy_overrun >= 2 * chunk + sweep_padding);

template <class T>
inline void copy_chunk(const T* from, T* to) {
  __builtin_memcpy(to, from, chunk * sizeof(T));
}

void copy_runs(const float* x, const float* y, const float* z, std::int32_t first_slot,
               const Run* runs, int n_runs, const CandidateArrays& to) {
  std::int64_t n = 0;
  for (int r = 0; r < n_runs; ++r) {
    const std::int32_t begin = runs[r].begin, count = runs[r].count;
    for (std::int32_t k = 0; k < count; k += chunk) {
      copy_chunk(x + begin + k, to.x + n + k);
      copy_chunk(y + begin + k, to.y + n + k);
      copy_chunk(z + begin + k, to.z + n + k);
      for (int lane = 0; lane < chunk; ++lane)
        to.slot[n + k + lane] = first_slot + begin + k + lane;
    }
    n += count;
  }
  for (int k = 0; k < sweep_padding; ++k) {
    to.x[n + k] = far_away;
    to.y[n + k] = to.z[n + k] = 0;
  }
}

using FourInts = std::int32_t __attribute__((vector_size(16)));

/// Works on whole chunks, because the CPU would mispredict the end of a loop that stops at each
/// row's own length once per row.
void expand_row(const std::int32_t* slots, std::int64_t count, const std::int32_t* images,
                const std::int32_t* center, std::int64_t center_index, const RowTarget& to) {
  static_assert(expand_overrun >= chunk);
  FourInts origin;
  __builtin_memcpy(&origin, center, sizeof origin);
  for (std::int64_t k = 0; k < count; k += chunk) {
    if (to.idx_i) {
      for (int lane = 0; lane < chunk; ++lane) to.idx_i[k + lane] = center_index;
    }
    if (to.idx_j) {
      for (int lane = 0; lane < chunk; ++lane) {
        to.idx_j[k + lane] = images[4 * static_cast<std::int64_t>(slots[k + lane]) + 3];
      }
    }
    if (!to.shifts) continue;
    for (int lane = 0; lane < chunk; ++lane) {  // of the 16 bytes the next pair overwrites four
      FourInts image;
      __builtin_memcpy(&image, images + 4 * static_cast<std::int64_t>(slots[k + lane]),
                       sizeof image);
      image -= origin;
      __builtin_memcpy(to.shifts + 3 * (k + lane), &image, sizeof image);
    }
  }
}

}  // namespace

extern const Kernels SCSCHNET_KERNELS{sweep, copy_runs, expand_row};

}  // namespace scschnet::cpu
