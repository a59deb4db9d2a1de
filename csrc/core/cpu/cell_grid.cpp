// Sorts points into bins by counting, and finds the bins that a block of centers can reach.
#include "cell_grid.hpp"

#include <algorithm>
#include <cmath>

#include "range.hpp"

namespace scschnet::cpu {
namespace {

// Tuned on liquid water. With narrower columns or shorter blocks there are fewer candidates, but
// vectors are emptier and more of them, which is slower.
constexpr double points_per_column_piece = 26;  // in two cutoffs of height
constexpr int bins_per_cutoff = 6;
constexpr int block_bins = 3;
constexpr int block_centers = 8;  // a block ends when it has so many

int bins_for(float extent, double width) {
  return static_cast<int>(std::clamp(std::ceil(extent / width), 1.0, 1e6));
}

/// The bin of a coordinate, which is measured from the low end of the grid. What lies below or
/// above the grid belongs to the first or last bin.
int bin_of(float offset, float inverse_width, int n_bins) {
  const float bin = offset * inverse_width;
  return bin < static_cast<float>(n_bins) ? std::max(0, static_cast<int>(bin)) : n_bins - 1;
}

}  // namespace

void CellGrid::build(const Points& points, float reach, std::int32_t first_slot, ImageAtom* sorted,
                     std::int32_t* atom_slot) {
  reach_ = reach;
  first_slot_ = first_slot;
  choose_bins(points);
  sort(points, sorted, atom_slot);
}

void CellGrid::choose_bins(const Points& points) {
  float extent[3];
  double volume = 1;
  const Scratch<float>* coordinates[3] = {&points.x, &points.y, &points.z};
  for (int k = 0; k < 3; ++k) {
    const auto [low, high] = range_of(coordinates[k]->data(), points.count);
    low_[k] = low;
    extent[k] = high - low;
    volume *= std::max(extent[k], 0.3f * reach_);
  }
  const double density = static_cast<double>(points.count) / volume;
  const double column = std::sqrt(points_per_column_piece / (density * 2 * reach_));
  double width[3];
  width[0] = width[1] = std::clamp<double>(column, reach_ / 3, reach_);
  width[2] = static_cast<double>(reach_) / bins_per_cutoff;
  int* n_bins[3] = {&nx_, &ny_, &nz_};
  for (int k = 0; k < 3; ++k) *n_bins[k] = bins_for(extent[k], width[k]);
  // A thinly filled space must not have many more bins than points: halve the number of bins in the
  // finest direction until it has not.
  const double most_bins = 4.0 * static_cast<double>(points.count) + 64;
  while (static_cast<double>(nx_) * ny_ * nz_ > most_bins) {
    int* largest =
        *std::max_element(n_bins, n_bins + 3, [](const int* a, const int* b) { return *a < *b; });
    *largest = (*largest + 1) / 2;
  }
  for (int k = 0; k < 3; ++k) {
    width_[k] = std::max(extent[k] / static_cast<float>(*n_bins[k]), 1e-6f * reach_) * 1.0000005f;
  }
}

void CellGrid::sort(const Points& points, ImageAtom* sorted, std::int32_t* atom_slot) {
  const std::int64_t n = points.count;
  const std::size_t padded = static_cast<std::size_t>(n) + copy_overrun;
  const std::int64_t n_bins = static_cast<std::int64_t>(nx_) * ny_ * nz_;
  std::int32_t* start = start_.reserve(n_bins + 2);
  std::fill_n(start, n_bins + 2, 0);
  std::int32_t* bin_of_point = bin_of_point_.reserve(n);
  float* x = x_.reserve(padded);
  float* y = y_.reserve(padded);
  float* z = z_.reserve(padded);
  std::uint8_t* is_atom = is_atom_.reserve(n);

  const float inverse[3] = {1 / width_[0], 1 / width_[1], 1 / width_[2]};
  for (std::int64_t k = 0; k < n; ++k) {
    const int ix = bin_of(points.x[k] - low_[0], inverse[0], nx_);
    const int iy = bin_of(points.y[k] - low_[1], inverse[1], ny_);
    const int iz = bin_of(points.z[k] - low_[2], inverse[2], nz_);
    bin_of_point[k] = (ix * ny_ + iy) * nz_ + iz;
    ++start[bin_of_point[k] + 2];
  }
  // Now start[b + 1] is where bin b begins. Placing its points moves it to where bin b ends, which
  // is where bin b + 1 begins; so in the end start[b] is where bin b begins.
  for (std::int64_t b = 2; b < n_bins + 2; ++b) start[b] += start[b - 1];
  for (std::int64_t k = 0; k < n; ++k) {
    const std::int32_t place = start[bin_of_point[k] + 1]++;
    x[place] = points.x[k];
    y[place] = points.y[k];
    z[place] = points.z[k];
    sorted[place] = points.source[k];
    is_atom[place] = k < points.n_atoms;
    if (k < points.n_atoms) atom_slot[k] = first_slot_ + place;
  }
  for (std::size_t k = n; k < padded; ++k) x[k] = y[k] = z[k] = 0;
}

std::int64_t CellGrid::atoms_in_column(int column) const {
  const std::int32_t* start = start_.data() + static_cast<std::int64_t>(column) * nz_;
  std::int64_t count = 0;
  for (std::int32_t place = start[0]; place < start[nz_]; ++place) count += is_atom_[place];
  return count;
}

/// Collects the atoms of consecutive bins of a column until there are enough centers or the block
/// is high enough. Returns the bin after the last one.
int BlockWalker::collect_centers(const CellGrid& grid, int column, int first_bin) {
  const std::int32_t* start = grid.start_.data() + static_cast<std::int64_t>(column) * grid.nz_;
  int n = 0, bin = first_bin, lowest_bin = first_bin;
  while (bin < grid.nz_ && bin - lowest_bin < block_bins && n < block_centers) {
    const std::int32_t begin = start[bin], end = start[bin + 1];
    std::int32_t* places = places_.grow(n + end - begin + 1, n);
    for (std::int32_t place = begin; place < end; ++place) {
      places[n] = place;
      n += grid.is_atom_[place];
    }
    ++bin;
    if (n == 0) lowest_bin = bin;
  }
  block_.n_centers = n;
  return bin;
}

void BlockWalker::add_run(const CellGrid& grid, int column, float low_z, float high_z) {
  const float inverse = 1 / grid.width_[2];
  const std::int32_t* start = grid.start_.data() + static_cast<std::int64_t>(column) * grid.nz_;
  const std::int32_t begin = start[bin_of(low_z, inverse, grid.nz_)];
  const std::int32_t end = start[bin_of(high_z, inverse, grid.nz_) + 1];
  if (end <= begin) return;
  runs_.grow(n_runs_ + 1, n_runs_)[n_runs_] = {begin, end - begin};
  ++n_runs_;
  n_candidates_ += end - begin;
}

/// Finds the candidates: in each column that comes within reach of the bounding box of the centers,
/// one run of consecutive points.
void BlockWalker::find_runs(const CellGrid& grid) {
  const std::int32_t* places = places_.data();
  float low[3] = {far_away, far_away, far_away}, high[3] = {-far_away, -far_away, -far_away};
  for (int c = 0; c < block_.n_centers; ++c) {
    const float r[3] = {grid.x_[places[c]], grid.y_[places[c]], grid.z_[places[c]]};
    for (int k = 0; k < 3; ++k) {
      low[k] = std::min(low[k], r[k] - grid.low_[k]);
      high[k] = std::max(high[k], r[k] - grid.low_[k]);
    }
  }
  n_runs_ = n_candidates_ = 0;
  const float reach2 = grid.reach_ * grid.reach_;
  const float wx = grid.width_[0], wy = grid.width_[1];
  const int first_x = bin_of(low[0] - grid.reach_, 1 / wx, grid.nx_);
  const int last_x = bin_of(high[0] + grid.reach_, 1 / wx, grid.nx_);
  for (int ix = first_x; ix <= last_x; ++ix) {
    const float left = static_cast<float>(ix) * wx;
    const float gap_x = std::max({0.0f, left - high[0], low[0] - (left + wx)});
    const float left_over = reach2 - gap_x * gap_x;
    if (left_over < 0) continue;
    const float half_y = std::sqrt(left_over);
    const int first_y = bin_of(low[1] - half_y, 1 / wy, grid.ny_);
    const int last_y = bin_of(high[1] + half_y, 1 / wy, grid.ny_);
    for (int iy = first_y; iy <= last_y; ++iy) {
      const float front = static_cast<float>(iy) * wy;
      const float gap_y = std::max({0.0f, front - high[1], low[1] - (front + wy)});
      const float half_z = std::sqrt(std::max(0.0f, left_over - gap_y * gap_y));
      add_run(grid, ix * grid.ny_ + iy, low[2] - half_z, high[2] + half_z);
    }
  }
}

void BlockWalker::collect_candidates(const CellGrid& grid, const Kernels& kernels) {
  find_runs(grid);
  const std::size_t room = static_cast<std::size_t>(n_candidates_) + copy_overrun;
  const CandidateArrays to{x_.reserve(room), y_.reserve(room), z_.reserve(room),
                           candidate_slots_.reserve(room)};
  kernels.copy_runs(grid.x_.data(), grid.y_.data(), grid.z_.data(), grid.first_slot_, runs_.data(),
                    static_cast<int>(n_runs_), to);
  block_.candidates = {to.x, to.y, to.z, to.slot, n_candidates_};

  const int n = block_.n_centers;
  std::int32_t* centers = centers_.reserve(n);
  // All centers are in one column, so in one run: find that run, then each center's index in the
  // copy.
  std::int32_t offset = 0;
  const Run* run = runs_.data();
  while (places_[0] < run->begin || places_[0] >= run->begin + run->count) offset += (run++)->count;
  for (int c = 0; c < n; ++c) centers[c] = places_[c] - run->begin + offset;
  block_.centers = centers;
}

}  // namespace scschnet::cpu
