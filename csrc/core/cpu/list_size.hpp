// Whether a neighbor list can be made at all, before its memory is taken: a cell in the wrong unit
// or a huge cutoff would ask for more than there is.
#pragma once

#include <cstdint>

namespace scschnet::cpu {

/// What the size of a list follows from.
struct Packing {
  std::int64_t n_atoms;
  double cutoff;    ///< Å
  double room;      ///< Å^3 that the atoms share; along open axes what they occupy and a cutoff
  bool filled;      ///< periodic along all axes
  double diameter;  ///< Å, of the cell; read only if `filled`
};

/// A number of pairs that the list has at least. With K a ball of diameter cutoff, thrown at random
/// into the room, all atoms in it pair: the mean square of their number is at least the square of
/// their mean number, n_atoms |K| / room. A large ball in a crystal holds at least as many whole
/// cells as fit into it.
double fewest_pairs(const Packing& packing);

/// Throws std::invalid_argument naming `cutoff`, with the numbers, if so many pairs and points
/// (atoms and images) need more memory than the machine has or the process may use.
void check_memory(double n_pairs, double n_points, double cutoff);

}  // namespace scschnet::cpu
