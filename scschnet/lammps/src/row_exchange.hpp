// Rows of ghosts from and to the ranks that own them. Knows MPI, but neither LAMMPS nor torch.
#pragma once

#include <mpi.h>

#include <vector>

#include "rows.hpp"

namespace scschnet::lammps {

/// Sends rows straight from rank to rank: each once, however many images its atom has, and in one
/// message per pair of ranks. All calls are to be made on all ranks.
class RowExchange {
 public:
  /// Tells the owners which of their atoms are ghosts here, and hears it from other ranks; needed
  /// whenever `rows` are new.
  void start(MPI_Comm world, const Rows& rows);

  /// Copies the owners' rows into the ghosts'. `rows` (n_rows, width), double or float.
  void forward(void* rows, int width, bool is_double);

  /// Adds the ghosts' rows to their owners', and leaves the ghosts' as they are.
  void reverse(void* rows, int width, bool is_double);

  double memory() const;  ///< bytes

 private:
  /// A rank that owns ghosts of this one, or has ghosts of this one's atoms.
  struct Peer {
    int rank;
    int first, n_ghosts;    ///< rows here of its atoms
    std::vector<int> rows;  ///< rows here of which it has ghosts
  };

  char* buffer(int row_bytes);
  void wait();

  MPI_Comm world_ = MPI_COMM_NULL;
  std::vector<Peer> peers_;
  std::vector<MPI_Request> requests_;
  std::vector<char> buffer_;  ///< rows of all peers, one after the other
};

}  // namespace scschnet::lammps
