// scschnet._C: facts about the build, and the core on NumPy arrays. Thin: it is called for single
// molecules too, where a microsecond counts.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <array>
#include <optional>
#include <string>

#include "../core/cpu/buffer.hpp"
#include "../core/neighbor_list.hpp"

namespace py = pybind11;
namespace core = scschnet;
using core::cpu::Buffer;
using core::cpu::BufferPool;

namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;

// ---- results

/// Buffers that come back when Python drops the array. Never destroyed: arrays may outlive the
/// module.
BufferPool& pool() {
  static auto* const instance = new BufferPool;
  return *instance;
}

constexpr std::size_t pool_from_bytes = 1 << 16;  // below, the allocator is as good

/// An uninitialized array of shape (n,), or (n, columns) if columns > 1.
template <class T>
py::array new_array(std::int64_t n, int columns) {
  const std::array<py::ssize_t, 2> shape{n, columns};
  const auto& api = py::detail::npy_api::get();
  const std::size_t bytes = sizeof(T) * static_cast<std::size_t>(n * columns);
  std::optional<py::capsule> owner;
  pool().free_unused();
  if (bytes >= pool_from_bytes) {
    auto buffer = std::make_unique<Buffer>(pool().take(bytes));
    owner.emplace(buffer.get(), [](void* memory) {
      const std::unique_ptr<Buffer> returned(static_cast<Buffer*>(memory));
      pool().give_back(std::move(*returned));
    });
    buffer.release();
  }
  void* data = owner ? owner->get_pointer<Buffer>()->data() : nullptr;
  constexpr int writeable = py::detail::npy_api::NPY_ARRAY_WRITEABLE_ |
                            py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ |
                            py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  auto result = py::reinterpret_steal<py::array>(api.PyArray_NewFromDescr_(
      api.PyArray_Type_, py::dtype::of<T>().release().ptr(), columns > 1 ? 2 : 1, shape.data(),
      nullptr, data, data ? writeable : 0, nullptr));
  if (!result) throw py::error_already_set();
  if (owner) api.PyArray_SetBaseObject_(result.ptr(), owner->release().ptr());
  return result;
}

template <class T>
T* data_of(const py::array& array) {
  return static_cast<T*>(const_cast<void*>(array.data()));
}

// ---- arguments

std::string shape_of(const py::array& array) {
  return py::str(array.attr("shape")).cast<std::string>();
}

[[noreturn]] void refuse(const char* what, const py::handle& got) {
  throw py::value_error(std::string(what) + ", got " + py::repr(got).cast<std::string>());
}

template <class T>
bool is_plain(const py::object& value) {
  return py::isinstance<py::array_t<T, py::array::c_style>>(value);
}

template <class T>
Array<T> converted(const py::object& value, const char* name) {
  auto array = Array<T>::ensure(value);
  if (!array) throw py::type_error("`" + std::string(name) + "` must be an array of numbers");
  return array;
}

/// float32 or float64, contiguous, (n_atoms, 3).
py::array checked_positions(const py::object& value) {
  py::array array;
  if (is_plain<double>(value) || is_plain<float>(value)) {
    array = py::reinterpret_borrow<py::array>(value);
  } else {
    const auto given = py::array::ensure(value);
    if (!given) throw py::type_error("`positions` must be an array of numbers");
    const char kind = given.dtype().kind();
    if (given.size() > 0 && kind != 'f' && kind != 'i' && kind != 'u') {
      throw py::type_error("`positions` must be real numbers, got dtype " +
                           py::str(given.dtype()).cast<std::string>());
    }
    array = kind == 'f' && given.itemsize() == 4 ? py::array(Array<float>::ensure(given))
                                                 : py::array(Array<double>::ensure(given));
  }
  if (array.ndim() != 2 || array.shape(1) != 3) {
    throw py::value_error("`positions` must have shape (n_atoms, 3), got " + shape_of(array));
  }
  return array;
}

double checked_cutoff(const py::object& value) {
  const double cutoff = PyFloat_AsDouble(value.ptr());
  if (cutoff == -1.0 && PyErr_Occurred()) {
    PyErr_Clear();
    throw py::type_error("`cutoff` must be a number, got " + py::repr(value).cast<std::string>());
  }
  return cutoff;
}

core::cpu::NeighborOptions checked_options(int threads, const py::object& isa) {
  core::cpu::NeighborOptions options{.threads = threads};
  if (threads < 1)
    throw py::value_error("`threads` must be at least 1, got " + std::to_string(threads));
  if (isa.is_none()) return options;
  const auto wanted = isa.cast<std::string>();
  for (auto set : core::cpu::available_instruction_sets()) {
    if (wanted == core::cpu::name(set)) {
      options.isa = set;
      options.choose_isa = false;
      return options;
    }
  }
  refuse("`isa` must be an instruction set of this machine", isa);
}

/// The box of one structure.
struct Box {
  double cell[9] = {};
  bool pbc[3] = {};
  bool has_cell = false;
};

void read_cell(const py::object& value, Box& box) {
  if (value.is_none()) return;
  const auto cell = converted<double>(value, "cell");
  box.has_cell = true;
  if (cell.ndim() == 2 && cell.shape(0) == 3 && cell.shape(1) == 3) {
    std::copy_n(cell.data(), 9, box.cell);
  } else if (cell.ndim() == 1 && cell.shape(0) == 3) {
    for (int k = 0; k < 3; ++k) box.cell[4 * k] = cell.data()[k];
  } else {
    throw py::value_error("`cell` must have shape (3, 3) or (3,), got " + shape_of(cell));
  }
}

bool truth(const py::handle& flag) {
  const int value = PyObject_IsTrue(flag.ptr());
  if (value < 0) throw py::error_already_set();
  return value != 0;
}

void read_pbc(const py::object& value, Box& box) {
  if (value.is_none()) return;
  if (PyBool_Check(value.ptr())) {
    std::fill_n(box.pbc, 3, value.ptr() == Py_True);
  } else if (is_plain<bool>(value) && py::reinterpret_borrow<py::array>(value).size() == 3) {
    std::copy_n(data_of<bool>(py::reinterpret_borrow<py::array>(value)), 3, box.pbc);
  } else if (PySequence_Check(value.ptr()) && !py::isinstance<py::str>(value) &&
             py::len(value) == 3) {
    for (int k = 0; k < 3; ++k) box.pbc[k] = truth(value[py::int_(k)]);
  } else if (PyNumber_Check(value.ptr()) && !PySequence_Check(value.ptr())) {
    std::fill_n(box.pbc, 3, truth(value));
  } else {
    refuse("`pbc` must be one flag or three", value);
  }
}

// ---- the work

/// The scratch memory of this thread. Lives as long as the thread.
core::cpu::NeighborList& neighbor_list_of_this_thread() {
  static thread_local core::cpu::NeighborList list;
  return list;
}

constexpr std::int64_t release_gil_from = 256;  // atoms

template <class Function>
void without_gil(std::int64_t n_atoms, const Function& function) {
  if (n_atoms < release_gil_from) return function();
  const py::gil_scoped_release release;
  function();
}

/// Finds the pairs, whatever the type of the positions.
std::int64_t find(core::cpu::NeighborList& list, const py::array& positions,
                  const std::int64_t* atom_ptr, std::int64_t n_structures, const double* cells,
                  const bool* pbc, double cutoff, const core::cpu::NeighborOptions& options) {
  const bool is_float = positions.itemsize() == sizeof(float);
  const void* data = positions.data();
  without_gil(positions.shape(0), [&] {
    if (is_float) {
      list.find(core::Structures<float>{static_cast<const float*>(data), atom_ptr, cells, pbc,
                                        n_structures},
                cutoff, options);
    } else {
      list.find(core::Structures<double>{static_cast<const double*>(data), atom_ptr, cells, pbc,
                                         n_structures},
                cutoff, options);
    }
  });
  return list.n_pairs();
}

/// A new array for one letter, and the place in `output` from which it will be filled.
py::array array_for(char letter, std::int64_t n_pairs, core::PairArrays& output) {
  const auto make = [&]<class T>(T*& place, int columns) {
    py::array array = new_array<T>(n_pairs, columns);
    place = data_of<T>(array);
    return array;
  };
  switch (letter) {
    case 'i':
      return make(output.idx_i, 1);
    case 'j':
      return make(output.idx_j, 1);
    case 'd':
      return make(output.d_ij, 1);
    case 'D':
      return make(output.r_ij, 3);
    default:
      return make(output.shifts, 3);
  }
}

py::object neighbor_list(const std::string& quantities, const py::object& positions,
                         const py::object& cell, const py::object& pbc, const py::object& cutoff,
                         int threads, const py::object& isa) {
  if (quantities.empty() || quantities.find_first_not_of("ijdDS") != std::string::npos) {
    throw py::value_error("`quantities` must be letters out of 'ijdDS', got '" + quantities + "'");
  }
  const py::array r = checked_positions(positions);
  Box box;
  read_cell(cell, box);
  read_pbc(pbc, box);
  const std::int64_t atom_ptr[2] = {0, r.shape(0)};
  auto& list = neighbor_list_of_this_thread();
  const std::int64_t n_pairs = find(list, r, atom_ptr, 1, box.has_cell ? box.cell : nullptr,
                                    box.pbc, checked_cutoff(cutoff), checked_options(threads, isa));
  core::PairArrays output;
  py::tuple result(quantities.size());
  for (std::size_t k = 0; k < quantities.size(); ++k) {
    if (quantities.find(quantities[k]) == k) result[k] = array_for(quantities[k], n_pairs, output);
  }
  without_gil(r.shape(0), [&] { list.write(output); });
  for (std::size_t k = 0; k < quantities.size(); ++k) {
    const std::size_t first = quantities.find(quantities[k]);
    if (first < k) result[k] = result[first].attr("copy")();
  }
  if (quantities.size() == 1) return result[0];
  return result;
}

py::tuple batch_neighbor_list(const py::object& positions, const py::object& atom_ptr,
                              const py::object& cells, const py::object& pbc,
                              const py::object& cutoff, int threads, const py::object& isa) {
  const py::array r = checked_positions(positions);
  const auto ptr = converted<std::int64_t>(atom_ptr, "atom_ptr");
  if (ptr.ndim() != 1 || ptr.size() == 0) {
    throw py::value_error("`atom_ptr` must have shape (n_structures + 1,), got " + shape_of(ptr));
  }
  const py::ssize_t n = ptr.size() - 1;
  if (ptr.data()[n] != r.shape(0)) {
    throw py::value_error("`atom_ptr` must end at the number of atoms, " +
                          std::to_string(r.shape(0)) + ", got " + std::to_string(ptr.data()[n]));
  }
  Array<double> boxes;
  Array<bool> periodic;
  if (!cells.is_none()) {
    boxes = converted<double>(cells, "cells");
    if (boxes.ndim() != 3 || boxes.shape(0) != n || boxes.shape(1) != 3 || boxes.shape(2) != 3) {
      throw py::value_error("`cells` must have shape (" + std::to_string(n) + ", 3, 3), got " +
                            shape_of(boxes));
    }
  }
  if (!pbc.is_none()) {
    periodic = converted<bool>(pbc, "pbc");
    if (periodic.ndim() != 2 || periodic.shape(0) != n || periodic.shape(1) != 3) {
      throw py::value_error("`pbc` must have shape (" + std::to_string(n) + ", 3), got " +
                            shape_of(periodic));
    }
  }
  auto& list = neighbor_list_of_this_thread();
  const std::int64_t n_pairs =
      find(list, r, ptr.data(), n, cells.is_none() ? nullptr : boxes.data(),
           pbc.is_none() ? nullptr : periodic.data(), checked_cutoff(cutoff),
           checked_options(threads, isa));
  core::PairArrays output;
  const py::array idx_i = array_for('i', n_pairs, output), idx_j = array_for('j', n_pairs, output);
  const py::array shifts = array_for('S', n_pairs, output);
  const py::array row_ptr = new_array<std::int64_t>(r.shape(0) + 1, 1);
  output.row_ptr = data_of<std::int64_t>(row_ptr);
  without_gil(r.shape(0), [&] { list.write(output); });
  return py::make_tuple(idx_i, idx_j, shifts, row_ptr);
}

py::list instruction_sets() {
  py::list names;
  for (auto set : core::cpu::available_instruction_sets()) names.append(core::cpu::name(set));
  return names;
}

}  // namespace

PYBIND11_MODULE(_C, module) {
  module.doc() = "Build facts, and the core of scschnet on NumPy arrays.";
  module.attr("build_torch") = SCSCHNET_BUILD_TORCH;
  module.def("instruction_sets", &instruction_sets,
             "Names of the instruction sets that run here, worst first.");
  module.def("neighbor_list", &neighbor_list, py::arg("quantities"), py::arg("positions"),
             py::arg("cell"), py::arg("pbc"), py::arg("cutoff"), py::arg("threads"),
             py::arg("isa") = py::none());
  module.def("batch_neighbor_list", &batch_neighbor_list, py::arg("positions"), py::arg("atom_ptr"),
             py::arg("cells"), py::arg("pbc"), py::arg("cutoff"), py::arg("threads"),
             py::arg("isa") = py::none());
}
