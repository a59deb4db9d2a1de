// Which of LAMMPS' swaps of ghosts stay on this rank. Knows neither LAMMPS nor torch.
#pragma once

#include <algorithm>
#include <vector>

namespace scschnet::lammps {

/// Swaps whose sender and receiver are this rank: they only make images of atoms that are here
/// already, which share their rows. In a large box cut in two these are most of the ghosts.
///
/// LAMMPS does not say which swaps these are, but it unpacks them from the buffer that was packed
/// last. Lists and indices by which they are known stay until ghosts are set up anew.
class OwnSwaps {
 public:
  void clear() {
    lists_.clear();
    firsts_.clear();
    list_ = nullptr;
    buffer_ = nullptr;
  }

  void packed(const int* list, const double* buffer) {
    list_ = list;
    buffer_ = buffer;
  }

  void unpacked(int first, const double* buffer) {
    if (buffer != buffer_) return;
    lists_.push_back(list_);
    firsts_.push_back(first);
    buffer_ = nullptr;
  }

  bool sent(const int* list) const { return has(lists_, list); }  ///< by the list of atoms
  bool received(int first) const { return has(firsts_, first); }  ///< by the first ghost

 private:
  template <class Value>
  static bool has(const std::vector<Value>& values, Value value) {
    return std::find(values.begin(), values.end(), value) != values.end();
  }

  std::vector<const int*> lists_;
  std::vector<int> firsts_;
  const int* list_ = nullptr;
  const double* buffer_ = nullptr;
};

}  // namespace scschnet::lammps
