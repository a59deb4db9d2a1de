// Who sends what to whom, and the sending.
#include "row_exchange.hpp"

#include <cstdint>
#include <cstring>

namespace scschnet::lammps {
namespace {

constexpr int tag = 5121;

int scalar_bytes(bool is_double) {
  return is_double ? sizeof(double) : sizeof(float);
}

MPI_Datatype scalar_type(bool is_double) {
  return is_double ? MPI_DOUBLE : MPI_FLOAT;
}

int count(const std::vector<int>& rows) {
  return static_cast<int>(rows.size());
}

template <class Scalar>
void add(int width, const char* from, char* to) {
  auto* sum = reinterpret_cast<Scalar*>(to);
  const auto* part = reinterpret_cast<const Scalar*>(from);
  for (int k = 0; k < width; ++k) sum[k] += part[k];
}

}  // namespace

void RowExchange::start(MPI_Comm world, const Rows& rows) {
  world_ = world;
  int n_ranks = 1;
  MPI_Comm_size(world, &n_ranks);
  std::vector<int> wanted(n_ranks), asked(n_ranks), atoms;
  for (int row = rows.n_local(); row < rows.n_rows(); ++row) {
    ++wanted[owning_rank(rows.owner_of(row))];
    atoms.push_back(owned_index(rows.owner_of(row)));
  }
  MPI_Alltoall(wanted.data(), 1, MPI_INT, asked.data(), 1, MPI_INT, world);
  peers_.clear();
  for (int rank = 0, first = rows.n_local(); rank < n_ranks; first += wanted[rank++]) {
    if (wanted[rank] == 0 && asked[rank] == 0) continue;
    peers_.push_back({rank, first, wanted[rank], std::vector<int>(asked[rank])});
  }
  for (Peer& peer : peers_) {
    MPI_Irecv(peer.rows.data(), count(peer.rows), MPI_INT, peer.rank, tag, world,
              &requests_.emplace_back());
    MPI_Isend(atoms.data() + (peer.first - rows.n_local()), peer.n_ghosts, MPI_INT, peer.rank, tag,
              world, &requests_.emplace_back());
  }
  wait();
  for (Peer& peer : peers_) {
    for (int& row : peer.rows) row = rows.row(row);  // it knows the atom alone
  }
}

void RowExchange::forward(void* rows, int width, bool is_double) {
  const int row_bytes = width * scalar_bytes(is_double);
  const MPI_Datatype type = scalar_type(is_double);
  auto* data = static_cast<char*>(rows);
  for (const Peer& peer : peers_) {
    MPI_Irecv(data + std::int64_t{peer.first} * row_bytes, peer.n_ghosts * width, type, peer.rank,
              tag, world_, &requests_.emplace_back());
  }
  char* part = buffer(row_bytes);
  for (const Peer& peer : peers_) {
    char* to = part;
    for (const int row : peer.rows) {
      std::memcpy(to, data + std::int64_t{row} * row_bytes, row_bytes);
      to += row_bytes;
    }
    MPI_Isend(part, count(peer.rows) * width, type, peer.rank, tag, world_,
              &requests_.emplace_back());
    part = to;
  }
  wait();
}

void RowExchange::reverse(void* rows, int width, bool is_double) {
  const int row_bytes = width * scalar_bytes(is_double);
  const MPI_Datatype type = scalar_type(is_double);
  auto* data = static_cast<char*>(rows);
  char* part = buffer(row_bytes);
  for (const Peer& peer : peers_) {
    MPI_Irecv(part, count(peer.rows) * width, type, peer.rank, tag, world_,
              &requests_.emplace_back());
    part += std::int64_t{row_bytes} * count(peer.rows);
    MPI_Isend(data + std::int64_t{peer.first} * row_bytes, peer.n_ghosts * width, type, peer.rank,
              tag, world_, &requests_.emplace_back());
  }
  wait();
  const char* from = buffer_.data();
  for (const Peer& peer : peers_) {
    for (const int row : peer.rows) {
      char* to = data + std::int64_t{row} * row_bytes;
      is_double ? add<double>(width, from, to) : add<float>(width, from, to);
      from += row_bytes;
    }
  }
}

char* RowExchange::buffer(int row_bytes) {
  std::size_t n_rows = 0;
  for (const Peer& peer : peers_) n_rows += peer.rows.size();
  if (buffer_.size() < n_rows * row_bytes) buffer_.resize(n_rows * row_bytes);
  return buffer_.data();
}

void RowExchange::wait() {
  MPI_Waitall(static_cast<int>(requests_.size()), requests_.data(), MPI_STATUSES_IGNORE);
  requests_.clear();
}

double RowExchange::memory() const {
  std::size_t bytes = buffer_.capacity() + sizeof(MPI_Request) * requests_.capacity();
  for (const Peer& peer : peers_) bytes += sizeof(peer) + sizeof(int) * peer.rows.capacity();
  return static_cast<double>(bytes);
}

}  // namespace scschnet::lammps
