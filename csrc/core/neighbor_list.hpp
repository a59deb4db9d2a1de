// Contract of the neighbor list: all pairs of atoms closer than a cutoff, periodic images included.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace scschnet {

/// Structures one after the other in flat arrays of the caller, which are read and not owned.
template <class Scalar>
struct Structures {
  const Scalar* positions;  ///< (n_atoms, 3) Å; n_atoms = atom_ptr[n_structures]
  /// (n_structures + 1,) structure m has the atoms atom_ptr[m] .. atom_ptr[m+1] - 1
  const std::int64_t* atom_ptr;
  /// (n_structures, 3, 3) Å, rows are lattice vectors; null if no structure is periodic
  const double* cells = nullptr;
  /// (n_structures, 3) whether it is periodic along each vector; null if no structure is
  const bool* pbc = nullptr;
  std::int64_t n_structures = 1;
};

/// Where to write the pairs found. The caller owns the arrays, and leaves null what is not wanted.
struct PairArrays {
  std::int64_t* idx_i = nullptr;   ///< (n_pairs,) center
  std::int64_t* idx_j = nullptr;   ///< (n_pairs,) neighbor
  std::int32_t* shifts = nullptr;  ///< (n_pairs, 3) S
  /// (n_atoms + 1,) pairs row_ptr[i] .. row_ptr[i+1] - 1 have center i
  std::int64_t* row_ptr = nullptr;
  double* d_ij = nullptr;  ///< (n_pairs,) Å, |r_ij|
  double* r_ij = nullptr;  ///< (n_pairs, 3) Å, r_j - r_i + S·cell
};

/// Of the pairs (i, j, S) and (j, i, -S) one stands in a half list: the one with i < j, and of an
/// atom with its own image the one whose shift S is positive in its first entry that is not zero.
inline bool is_in_half_list(std::int64_t i, std::int64_t j, const std::int32_t (&shift)[3]) {
  if (i != j) return i < j;
  for (const std::int32_t s : shift) {
    if (s != 0) return s > 0;
  }
  return false;
}

namespace cpu {

/// Instruction sets for which the library holds code. amx is AVX-512 with matrix products in the
/// tile registers of Intel's Advanced Matrix Extensions.
enum class InstructionSet { generic, avx2, avx512, amx };

/// The instruction sets that this CPU can run, slowest first; never empty.
std::vector<InstructionSet> available_instruction_sets();

/// "generic", "avx2", "avx512" or "amx".
const char* name(InstructionSet set);

/// An atom, or a periodic image of one. The list refers to it by its slot, an index into a table of
/// these.
struct alignas(16) ImageAtom {
  std::int32_t shift[3];  ///< S of a pair = shift of the neighbor - shift of the center
  std::int32_t atom;      ///< index in the whole batch
};

/// One row of the list in its compact form, with 4 bytes per pair: neighbor k is images[slots[k]].
/// Images that are close in space have slots that are close to each other. All pointers are into
/// memory of the NeighborList.
struct CompactRow {
  const std::int32_t* slots;
  std::int64_t count;
  const ImageAtom* images;
  const ImageAtom* center;
};

/// Which pairs are wanted, and how the work is done; `threads` and the instruction set change no
/// result.
struct NeighborOptions {
  int threads = 1;                               ///< at most this many; small inputs use fewer
  InstructionSet isa = InstructionSet::generic;  ///< read only if `choose_isa` is false
  bool choose_isa = true;                        ///< take the best one available
  bool half = false;                             ///< every pair once: see is_in_half_list
};

/// Neighbor list of one structure or of a batch; full unless NeighborOptions::half is set.
///
/// A pair (i, j, S) is in the list when both atoms belong to the same structure and
///     d2 = |((r_j - r_i) + S_0 a_0) + (S_1 a_1 + S_2 a_2)|^2,  sqrt(d2) < cutoff,
/// evaluated in double precision from the positions as given. So an atom exactly at the cutoff is
/// no neighbor. An atom is not its own neighbor (i = j, S = 0), but its periodic images are, and so
/// is another atom at the same position. S is zero along open axes. With (i, j, S) the list also
/// holds (j, i, -S). The list is never truncated. A half list is the full one, in the same order,
/// without one of every two such pairs (is_in_half_list).
///
/// Any cell is allowed: skewed, left-handed, or thinner than the cutoff. Vectors along open axes
/// are ignored and may be zero. Atoms may lie outside the cell; S refers to the positions as given.
///
/// Pairs are sorted by i. Their order within a row depends on the input alone, not on the number of
/// threads, the instruction set or the rest of the batch. A structure without periodic axes and
/// with at most 256 atoms has its rows sorted by j.
///
/// The object owns its scratch memory and the pairs of the last call, and keeps both for the next
/// one; the memory of a large list is given back after 64 small ones. It serves one thread at a
/// time.
class [[gnu::visibility("default")]] NeighborList {
 public:
  NeighborList();
  ~NeighborList();
  NeighborList(NeighborList&&) noexcept;
  NeighborList& operator=(NeighborList&&) noexcept;

  /// Finds the pairs, keeps them in the object, and returns their number. The arrays of `input`
  /// must live until the last `write` that follows. Time is linear in the number of atoms if the
  /// density is bounded.
  ///
  /// Throws std::invalid_argument, naming the argument in backticks, when `cutoff` is not a
  /// positive finite number; `positions` hold a NaN or an infinity, or lie more than 1e8 cells
  /// outside or 1e12 Å apart; `cell` is singular along its periodic axes; `atom_ptr` does not begin
  /// at 0 or decreases; or when atoms and images together exceed 2^31 - 1, or they and the pairs
  /// the memory of the machine (which is estimated before any is taken).
  template <class Scalar>
  std::int64_t find(const Structures<Scalar>& input, double cutoff,
                    const NeighborOptions& options = {});

  /// Writes the pairs of the last `find`, with as many threads.
  void write(const PairArrays& output) const;

  /// Row i of the last `find`, valid until the next one.
  CompactRow row(std::int64_t i) const;
  /// (n_atoms,) the centers in the order in which their rows lie in memory: atoms that are close in
  /// space follow each other.
  const std::int32_t* spatial_order() const;

  std::int64_t n_atoms() const;
  std::int64_t n_pairs() const;

 private:
  struct [[gnu::visibility("hidden")]] State;
  std::unique_ptr<State> state_;
  std::int64_t largest_ = 0;  ///< atoms and pairs of a list, since the memory was new
  std::int64_t n_small_ = 0;  ///< lists since then, the last ones, that were much smaller
};

}  // namespace cpu
}  // namespace scschnet
