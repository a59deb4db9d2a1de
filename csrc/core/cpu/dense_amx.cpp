// Matrix products in float32 by the tile registers of newer Intel CPUs (AMX, Advanced Matrix
// Extensions). These multiply bfloat16, which have 8 significant bits, and add in float32. The
// file exports one symbol and no other (see dense_isa.cpp).
//
// How float32 is reached with them. Every float32 is the sum of three bfloat16 of descending size,
// a = a0 + a1 + a2, the "parts". Of the nine products of parts the six largest are added:
//
//              b0   b1   b2
//         a0    x    x    x         the three left out are below 2^-24 of |a b|
//         a1    x    x    .
//         a2    x    .    .
//
// The file is compiled a second time with a single part (SCSCHNET_PARTS), which is the product of
// bfloat16 itself: a sixth of the work, with 8 significant bits. The optimizer Muon needs no more.
//
// Tiles are summed pairwise, so the results are more accurate than those of a loop in float32; they
// come nearly twice as fast as from vector registers. A value that is not finite makes the result
// NaN, and products below 1e-38 become zero.
//
// How operands lie in memory. A tile register has 16 rows of 64 bytes. A tile of A holds 16 rows
// and 32 values of k; a tile of B holds 32 values of k and 16 columns, as 16 rows of pairs. The
// instruction multiplies pairs of k that lie side by side in both. Which values of k form a pair is
// free as long as A and B agree: here k = j and j + 16, because two vectors of 16 float32 then
// become one row of pairs without any shuffle. Three tiles, the parts of one tile of float32,
// follow each other and are called a triple.
//
//     C (32 x 32 per block)      registers 0 to 3: 2 x 2 tiles, which stay while k runs
//     A (32 rows)                registers 4 and 5
//     B (32 columns)             registers 6 and 7
//
// Splitting float32 into parts is work for the vector registers. A Splitter does a little of it
// between any two products of parts, so that vector registers split the operands of the next block
// while tile registers work on this one. The buffers for parts are on the stack of the call; they
// hold two blocks, which take turns.
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "dense_tables.hpp"

namespace scschnet::cpu {
namespace {

using Index = std::int64_t;
using Part = std::uint16_t;  // the bits of a bfloat16

constexpr Index side = 16, depth = 32;  // of a tile; values of k
constexpr Index tile = side * depth;    // parts
constexpr Index n_parts = SCSCHNET_PARTS, triple = n_parts * tile;
static_assert(n_parts == 1 || n_parts == 3);
constexpr Index line = 64;  // bytes of a row of a tile

inline Index least(Index a, Index b) {
  return a < b ? a : b;
}
constexpr Index n_tiles(Index n, Index size) {
  return (n + size - 1) / size;
}
inline __mmask16 first_lanes(Index n) {
  return static_cast<__mmask16>(n >= side ? 0xffff : (1 << (n < 0 ? 0 : n)) - 1);
}

/// The compiler does not know that tile instructions read and write memory; this tells it.
inline void memory_barrier() {
  asm volatile("" ::: "memory");
}

/// Configures eight full tile registers for this thread, until _tile_release.
inline void configure_tiles() {
  struct alignas(64) {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t row_bytes[16] = {line, line, line, line, line, line, line, line};
    std::uint8_t rows[16] = {side, side, side, side, side, side, side, side};
  } configuration;
  memory_barrier();
  _tile_loadconfig(&configuration);
}

// ---- float32 to triples

/// Cuts the lower bits off: a bfloat16, in the bits of a float32.
inline __m512i cut(__m512i v) {
  return _mm512_and_si512(v, _mm512_set1_epi32(static_cast<int>(0xffff0000)));
}
/// Rounds to the nearest bfloat16, in the bits of a float32.
inline __m512i rounded(__m512 v) {
  return cut(_mm512_add_epi32(_mm512_castps_si512(v), _mm512_set1_epi32(0x8000)));
}

inline __m512 rest(__m512 v, __m512i part) {
  return _mm512_sub_ps(v, _mm512_castsi512_ps(part));
}

/// Pairs of bfloat16: the upper half of each value of `low` in the lower half of the result, that
/// of `high` in its upper half.
inline __m512i side_by_side(__m512i low, __m512i high) {
  return _mm512_or_si512(_mm512_srli_epi32(low, 16), high);
}

/// Row `row` of a triple from two vectors of float32. What the first two parts leave fits into a
/// bfloat16 exactly, unless it is below 1e-38.
inline void split_row(__m512 a, __m512 b, Index row, Part* to) {
  to += row * depth;
  if constexpr (n_parts == 1) {
    _mm512_storeu_si512(to, side_by_side(rounded(a), rounded(b)));
    return;
  }
#pragma GCC unroll 2
  for (int part = 0; part < n_parts - 1; ++part, to += tile) {
    const __m512i a_part = rounded(a), b_part = rounded(b);
    _mm512_storeu_si512(to, side_by_side(a_part, b_part));
    a = rest(a, a_part);
    b = rest(b, b_part);
  }
  _mm512_storeu_si512(to, side_by_side(_mm512_castps_si512(a), cut(_mm512_castps_si512(b))));
}

/// Transposes a tile, as a matrix of 16 x 16 pairs.
inline void transpose(const Part* from, Part* to) {
  const auto lane = [from](Index row, Index q) {
    return _mm_load_si128(reinterpret_cast<const __m128i*>(from + row * depth) + q);
  };
#pragma GCC unroll 4
  for (Index q = 0; q < 4; ++q, to += 4 * depth) {
    __m512i row[4];
#pragma GCC unroll 4
    for (Index r = 0; r < 4; ++r) {
      row[r] = _mm512_castsi128_si512(lane(r, q));
      row[r] = _mm512_inserti32x4(row[r], lane(r + 4, q), 1);
      row[r] = _mm512_inserti32x4(row[r], lane(r + 8, q), 2);
      row[r] = _mm512_inserti32x4(row[r], lane(r + 12, q), 3);
    }
    const __m512i low01 = _mm512_unpacklo_epi32(row[0], row[1]),
                  high01 = _mm512_unpackhi_epi32(row[0], row[1]),
                  low23 = _mm512_unpacklo_epi32(row[2], row[3]),
                  high23 = _mm512_unpackhi_epi32(row[2], row[3]);
    _mm512_storeu_si512(to, _mm512_unpacklo_epi64(low01, low23));
    _mm512_storeu_si512(to + depth, _mm512_unpackhi_epi64(low01, low23));
    _mm512_storeu_si512(to + 2 * depth, _mm512_unpacklo_epi64(high01, high23));
    _mm512_storeu_si512(to + 3 * depth, _mm512_unpackhi_epi64(high01, high23));
  }
}

/// 16 rows of A or 16 columns of B as float32, which are to become triples, one after another along
/// k.
struct Strip {
  const float* p;
  Index ld;
  Index length;     // of k
  Index width;      // how many of the 16 rows or columns there are
  bool transposed;  // the triples are transposed after splitting
  Part* to;
};

enum class Order { along, across };  // k runs along the rows in memory, or from row to row

/// Splits strips 0, 1, 2, ... into parts, `strip(i)` being strip i. It can do so a few vectors at a
/// time, between products of tiles, so that vector and tile registers work at the same time. It
/// owns the place where it stands, and a buffer of one triple.
template <Order order, class MakeStrip>
class Splitter {
 public:
  explicit Splitter(MakeStrip strip) : make_(strip), now_(strip(0)) {}

  /// Finishes all strips before strip `end`.
  void finish(Index end) {
    while (strip_ < end) work();
  }
  /// Does a little of the strips before strip `end`, if something is left to do.
  void advance(Index end) {
    if (strip_ < end) work();
  }

 private:
  static constexpr Index rows_at_once = 4, split_steps = side / rows_at_once;

  void work() {
    if (k_ < now_.length) {
      Part* to = now_.to + k_ / depth * triple;
      if (step_ < split_steps) {
        split(now_.transposed ? parts_ : to);
      } else {
        const Index part = (step_ - split_steps) * tile;
        transpose(parts_ + part, to + part);
      }
      if (++step_ < (now_.transposed ? split_steps + n_parts : split_steps)) return;
      step_ = 0;
      k_ += depth;
      if (k_ < now_.length) return;
    }
    k_ = 0;
    now_ = make_(++strip_);
  }

  /// Four rows of a triple, with zeros where the matrix has ended.
  void split(Part* to) {
    const Index length = now_.length - k_, width = now_.width, ld = now_.ld;
    const Index first = step_ * rows_at_once;
    const float* p = order == Order::along ? now_.p + first * ld + k_ : now_.p + (k_ + first) * ld;
    const __mmask16 low = first_lanes(order == Order::along ? length : width),
                    high = first_lanes(order == Order::along ? length - side : width);
#pragma GCC unroll 4
    for (Index row = first; row < first + rows_at_once; ++row, p += ld) {
      if constexpr (order == Order::along) {
        const bool inside = row < width;
        split_row(_mm512_maskz_loadu_ps(inside ? low : 0, p),
                  _mm512_maskz_loadu_ps(inside ? high : 0, p + side), row, to);
      } else {
        split_row(_mm512_maskz_loadu_ps(row < length ? low : 0, p),
                  _mm512_maskz_loadu_ps(row + side < length ? high : 0, p + side * ld), row, to);
      }
    }
  }

  MakeStrip make_;
  Strip now_;
  Index strip_ = 0, k_ = 0, step_ = 0;
  alignas(64) Part parts_[triple];  // before it is transposed
};

// ---- tiles of C are in registers 0 to 3, of A in 4 and 5, of B in 6 and 7

/// Tile (row, column) of a block of 2 x 2 tiles of C, between memory and its register. At the edge
/// of C a tile may have fewer rows and columns; it then passes through a buffer.
template <int row, int column>
class TileOfC {
 public:
  TileOfC(Index rows, Index columns)
      : rows_(least(side, rows - row * side)), columns_(least(side, columns - column * side)) {}

  /// From the block that begins at `init`, or zeros if it is null.
  void load(const float* init, Index ld) {
    if (!init) return zero();
    init += row * side * ld + column * side;
    if (is_full()) return load_register(init, ld);
    std::memset(part_, 0, sizeof part_);
    for (Index i = 0; i < rows_; ++i)
      std::memcpy(part_ + i * side, init + i * ld, columns_ * sizeof(float));
    memory_barrier();
    load_register(part_, side);
  }

  /// Into the block that begins at `c`.
  void store(float* c, Index ld) {
    c += row * side * ld + column * side;
    if (is_full()) return store_register(c, ld);
    store_register(part_, side);
    memory_barrier();
    for (Index i = 0; i < rows_; ++i)
      std::memcpy(c + i * ld, part_ + i * side, columns_ * sizeof(float));
  }

 private:
  static constexpr int number = 2 * row + column;

  bool is_full() const { return rows_ == side && columns_ == side; }
  static void zero() {
    if constexpr (number == 0) _tile_zero(0);
    if constexpr (number == 1) _tile_zero(1);
    if constexpr (number == 2) _tile_zero(2);
    if constexpr (number == 3) _tile_zero(3);
  }
  static void load_register(const float* p, Index ld) {
    const Index bytes = ld * static_cast<Index>(sizeof(float));
    if constexpr (number == 0) _tile_loadd(0, p, bytes);
    if constexpr (number == 1) _tile_loadd(1, p, bytes);
    if constexpr (number == 2) _tile_loadd(2, p, bytes);
    if constexpr (number == 3) _tile_loadd(3, p, bytes);
  }
  static void store_register(float* p, Index ld) {
    const Index bytes = ld * static_cast<Index>(sizeof(float));
    if constexpr (number == 0) _tile_stored(0, p, bytes);
    if constexpr (number == 1) _tile_stored(1, p, bytes);
    if constexpr (number == 2) _tile_stored(2, p, bytes);
    if constexpr (number == 3) _tile_stored(3, p, bytes);
  }

  Index rows_, columns_;
  alignas(64) float part_[side * side];  // for a tile with fewer rows or columns
};

/// Loads the operand tiles of a block: one, or two that begin `next` parts apart.
template <int n>
inline void load_a(const Part* p, Index next) {
  _tile_loadd(4, p, line);
  if constexpr (n == 2) _tile_loadd(5, p + next, line);
}
template <int n>
inline void load_b(const Part* p, Index next) {
  _tile_loadd(6, p, line);
  if constexpr (n == 2) _tile_loadd(7, p + next, line);
}
template <int rows, int columns>
inline void multiply_add() {
  _tile_dpbf16ps(0, 4, 6);
  if constexpr (columns == 2) _tile_dpbf16ps(1, 4, 7);
  if constexpr (rows == 2) _tile_dpbf16ps(2, 5, 6);
  if constexpr (rows == 2 && columns == 2) _tile_dpbf16ps(3, 5, 7);
}

/// Adds to the block of C its product over n_k tiles of k, with the six largest products of parts
/// of each. The second row of tiles of A begins next_a parts after the first, the second column of
/// B next_b parts. Calls meanwhile() after each product of parts. The order of the products needs
/// only one new operand before each.
template <int rows, int columns, class Meanwhile>
inline void accumulate(Index n_k, const Part* a, Index next_a, const Part* b, Index next_b,
                       const Meanwhile& meanwhile) {
  const auto add = [&] {
    multiply_add<rows, columns>();
    meanwhile();
  };
  for (Index t = 0; t < n_k; ++t, a += triple, b += triple) {
    if constexpr (n_parts == 1) {
      load_a<rows>(a, next_a);
      load_b<columns>(b, next_b);
      add();
      continue;
    }
    load_a<rows>(a + 2 * tile, next_a);
    load_b<columns>(b, next_b);
    add();
    load_a<rows>(a + tile, next_a);
    add();
    load_b<columns>(b + tile, next_b);
    add();
    load_a<rows>(a, next_a);
    add();
    load_b<columns>(b, next_b);
    add();
    load_b<columns>(b + 2 * tile, next_b);
    add();
  }
}

/// An operand in parts: the triples of one strip, one after another along k; the next strip, of the
/// next 16 rows of A or columns of B, begins `next` parts later.
struct Operand {
  const Part* parts;
  Index next;
};

/// C = init + A B for a block of at most 32 rows and columns.
template <int row_tiles, int column_tiles, class Meanwhile>
void multiply_block(Index rows, Index columns, Index n_k, Operand a, Operand b, const float* init,
                    Index ld_init, float* c, Index ldc, const Meanwhile& meanwhile) {
  TileOfC<0, 0> c00(rows, columns);
  TileOfC<0, 1> c01(rows, columns);
  TileOfC<1, 0> c10(rows, columns);
  TileOfC<1, 1> c11(rows, columns);
  memory_barrier();
  c00.load(init, ld_init);
  if constexpr (column_tiles == 2) c01.load(init, ld_init);
  if constexpr (row_tiles == 2) c10.load(init, ld_init);
  if constexpr (row_tiles == 2 && column_tiles == 2) c11.load(init, ld_init);
  accumulate<row_tiles, column_tiles>(n_k, a.parts, a.next, b.parts, b.next, meanwhile);
  c00.store(c, ldc);
  if constexpr (column_tiles == 2) c01.store(c, ldc);
  if constexpr (row_tiles == 2) c10.store(c, ldc);
  if constexpr (row_tiles == 2 && column_tiles == 2) c11.store(c, ldc);
  memory_barrier();
}

/// Columns first .. first + 31 of up to 32 rows of C.
template <class Meanwhile>
inline void multiply_columns(Index first, Index rows, Index columns, Index n_k, Operand a,
                             Operand b, const float* init, Index ld_init, float* c, Index ldc,
                             const Meanwhile& meanwhile) {
  const Index width = least(2 * side, columns - first);
  b.parts += first / side * b.next;
  if (init) init += first;
  c += first;
  if (rows > side && width > side)
    return multiply_block<2, 2>(rows, width, n_k, a, b, init, ld_init, c, ldc, meanwhile);
  if (rows > side)
    return multiply_block<2, 1>(rows, width, n_k, a, b, init, ld_init, c, ldc, meanwhile);
  if (width > side)
    return multiply_block<1, 2>(rows, width, n_k, a, b, init, ld_init, c, ldc, meanwhile);
  multiply_block<1, 1>(rows, width, n_k, a, b, init, ld_init, c, ldc, meanwhile);
}

// ---- the kernels

template <Order order, class MakeStrip>
void split_strips(Index n, MakeStrip strip) {
  Splitter<order, MakeStrip>(strip).finish(n);
}

/// Packs B: strip after strip of 16 columns, with triples along k in each.
void pack(const float* b, Index k, Index n, float* packed) {
  split_strips<Order::across>(n_tiles(n, side), [=](Index i) {
    return Strip{
        b + i * side, n,     k,
        n - i * side, false, reinterpret_cast<Part*>(packed) + i * n_tiles(k, depth) * triple};
  });
}

void pack_transposed(const float* b, Index k, Index n, float* packed) {
  split_strips<Order::along>(n_tiles(n, side), [=](Index i) {
    return Strip{
        b + i * side * k, k,    k,
        n - i * side,     true, reinterpret_cast<Part*>(packed) + i * n_tiles(k, depth) * triple};
  });
}

constexpr Index stretch = 256;  // of k in `multiply`: two strips of A are 48 KB

/// The strips of A: two for every chunk, which is 32 rows and a stretch of k. Chunks take turns in
/// two buffers.
struct MultiplyStrips {
  Index rows, k, n_stretches;
  const float* a;
  Part* parts;

  Strip operator()(Index s) const {
    const Index chunk = s / 2, row = (chunk / n_stretches * 2 + s % 2) * side,
                begin = chunk % n_stretches * stretch;
    return {a + row * k + begin,
            k,
            row < rows ? least(stretch, k - begin) : 0,
            rows - row,
            false,
            parts + (chunk % 2 * 2 + s % 2) * n_tiles(stretch, depth) * triple};
  }
};

/// Goes through C in blocks of 32 rows, and in each through stretches of k. While one chunk is
/// multiplied, A of the next one is split.
void multiply(Index rows, Index k, Index n, const float* a, const float* packed, const float* init,
              Index ld_init, float* c) {
  constexpr Index strip_size = n_tiles(stretch, depth) * triple;
  alignas(64) Part a_parts[4 * strip_size];
  const Index n_stretches = k > stretch ? n_tiles(k, stretch) : 1;
  Splitter<Order::along, MultiplyStrips> splitter({rows, k, n_stretches, a, a_parts});
  configure_tiles();
  Index chunk = 0;
  for (Index row = 0; row < rows; row += 2 * side) {
    const Index height = least(2 * side, rows - row);
    const float* from = init ? init + row * ld_init : nullptr;
    Index ld_from = ld_init;
    for (Index begin = 0; begin == 0 || begin < k; begin += stretch, ++chunk) {
      const Index n_k = n_tiles(least(stretch, k - begin), depth);
      const bool is_last = row + height == rows && begin + stretch >= k;
      const Index end = 2 * chunk + (is_last ? 2 : 4);
      splitter.finish(2 * chunk + 2);
      const Operand a_now{a_parts + chunk % 2 * 2 * strip_size, strip_size};
      const Operand b_now{reinterpret_cast<const Part*>(packed) + begin / depth * triple,
                          n_tiles(k, depth) * triple};
      for (Index first = 0; first < n; first += 2 * side) {
        multiply_columns(first, height, n, n_k, a_now, b_now, from, ld_from, c + row * n, n,
                         [&] { splitter.advance(end); });
      }
      from = c + row * n;
      ld_from = n;
    }
  }
  _tile_release();
}

constexpr Index outer_rows = 96, outer_columns = 128;  // of X: 72 KB in parts
constexpr Index outer_strip = outer_rows / depth * triple;

/// The strips of a product G^T X in the order in which it needs them: two of G^T, all of X, then
/// two of G^T at a time, which take turns in two buffers.
struct OuterStrips {
  Index rows, m, n;  // sizes of G (rows, m) and X (rows, n)
  const float *g, *x;
  Index ld_g, ld_x;
  Part *g_parts, *x_parts;  // (2, 2 strips), (n strips)

  Index n_x() const { return n_tiles(n, side); }
  Index n_g() const { return n_tiles(m, side); }
  /// Number of strips that must be ready for row i of tiles of C, up to column j of tiles.
  Index needed(Index i, Index j) const { return i == 0 ? 2 + least(j, n_x()) : 2 + n_x() + i; }
  Index total() const { return 2 + n_x() + n_tiles(m, 2 * side) * 2 - 2; }

  Strip operator()(Index s) const {
    if (s >= 2 && s < 2 + n_x()) {
      const Index j = s - 2;
      return {x + j * side, ld_x, rows, n - j * side, false, x_parts + j * outer_strip};
    }
    const Index i = s < 2 ? s : s - n_x();
    return {g + i * side, ld_g, i < n_g() ? rows : 0,
            m - i * side, true, g_parts + i % 4 * outer_strip};
  }
};

/// Adds to C (m, n), with n <= outer_columns, what at most outer_rows rows of G and X contribute.
void add_outer_part(const OuterStrips& strips, float* c, Index ldc) {
  Splitter<Order::across, OuterStrips> splitter(strips);
  const Index n_k = n_tiles(strips.rows, depth);
  for (Index i = 0; i < strips.n_g(); i += 2) {
    const Index height = least(2 * side, strips.m - i * side);
    const Index end = least(strips.needed(i + 2, 0), strips.total());
    float* to = c + i * side * ldc;
    for (Index j = 0; j < strips.n_x(); j += 2) {
      splitter.finish(i == 0 ? strips.needed(0, j + 2) : strips.needed(i, 0));
      multiply_columns(
          j * side, height, strips.n, n_k, {strips.g_parts + i % 4 * outer_strip, outer_strip},
          {strips.x_parts, outer_strip}, to, ldc, to, ldc, [&] { splitter.advance(end); });
    }
  }
}

void add_outer(Index rows, Index m, Index n, const float* g, const float* x, Index first,
               Index last, float* c) {
  alignas(64) Part x_parts[outer_columns / side * outer_strip];
  alignas(64) Part g_parts[4 * outer_strip];
  configure_tiles();
  for (Index begin = 0; begin < rows; begin += outer_rows) {
    for (Index column = 0; column < n; column += outer_columns) {
      add_outer_part(
          {least(outer_rows, rows - begin), last - first, least(outer_columns, n - column),
           g + begin * m + first, x + begin * n + column, m, n, g_parts, x_parts},
          c + first * n + column, n);
    }
  }
  _tile_release();
}

}  // namespace

#define SCSCHNET_JOIN_(a, b) a##b
#define SCSCHNET_JOIN(a, b) SCSCHNET_JOIN_(a, b)
extern const DenseProducts SCSCHNET_JOIN(dense_products_amx_, SCSCHNET_PARTS){
    .pack = pack, .pack_transposed = pack_transposed, .multiply = multiply, .add_outer = add_outer};

}  // namespace scschnet::cpu
