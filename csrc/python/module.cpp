// scschnet._C: facts about the build, and the core on NumPy arrays. Thin: called for single molecules too.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>

#include "../core/neighbor_list.hpp"

namespace py = pybind11;
namespace core = scschnet;

namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;

std::string shape_of(const py::array& array) {
  return py::str(array.attr("shape")).cast<std::string>();
}

core::cpu::NeighborOptions options_from(int threads, const py::object& isa) {
  core::cpu::NeighborOptions options{.threads = threads};
  if (isa.is_none()) return options;
  const auto wanted = isa.cast<std::string>();
  for (auto set : core::cpu::available_instruction_sets()) {
    if (wanted == core::cpu::name(set)) {
      options.isa = set;
      options.choose_isa = false;
      return options;
    }
  }
  throw py::value_error("`isa` must be an instruction set of this machine, got '" + wanted + "'");
}

struct Inputs {
  py::array positions;
  Array<std::int64_t> atom_ptr;
  Array<double> cells;
  Array<bool> pbc;
};

std::int64_t find(core::cpu::NeighborList& list, const Inputs& in, double cutoff,
                  const core::cpu::NeighborOptions& options) {
  const auto run = [&](auto scalar) {
    using Scalar = decltype(scalar);
    const core::Structures<Scalar> input{static_cast<const Scalar*>(in.positions.data()), in.atom_ptr.data(),
                                         in.cells.data(), in.pbc.data(), in.atom_ptr.size() - 1};
    return list.find(input, cutoff, options);
  };
  return in.positions.dtype().num() == py::dtype::of<float>().num() ? run(float{}) : run(double{});
}

py::array checked_positions(const py::object& value) {
  py::array array = py::array::ensure(value, py::array::c_style);
  if (!array) throw py::type_error("`positions` must be an array of numbers");
  const char kind = array.dtype().kind();
  if (kind != 'f' && kind != 'i' && kind != 'u') {
    throw py::type_error("`positions` must be real numbers, got dtype " +
                         py::str(array.dtype()).cast<std::string>());
  }
  if (array.ndim() != 2 || array.shape(1) != 3) {
    throw py::value_error("`positions` must have shape (n_atoms, 3), got " + shape_of(array));
  }
  if (py::isinstance<Array<float>>(array)) return array;
  return Array<double>::ensure(array);
}

Array<double> checked_cell(const py::object& value) {
  Array<double> result({1, 3, 3});
  std::fill_n(result.mutable_data(), 9, 0.0);
  if (value.is_none()) return result;
  auto cell = Array<double>::ensure(value);
  if (!cell) throw py::type_error("`cell` must be an array of numbers");
  if (cell.ndim() == 1 && cell.shape(0) == 3) {
    for (int k = 0; k < 3; ++k) result.mutable_data()[4 * k] = cell.data()[k];
  } else if (cell.ndim() == 2 && cell.shape(0) == 3 && cell.shape(1) == 3) {
    std::copy_n(cell.data(), 9, result.mutable_data());
  } else {
    throw py::value_error("`cell` must have shape (3, 3) or (3,), got " + shape_of(cell));
  }
  return result;
}

Array<bool> checked_pbc(const py::object& value) {
  Array<bool> result({1, 3});
  std::fill_n(result.mutable_data(), 3, false);
  if (value.is_none()) return result;
  auto pbc = Array<bool>::ensure(value);
  if (pbc && pbc.ndim() == 0) {
    std::fill_n(result.mutable_data(), 3, *pbc.data());
  } else if (pbc && pbc.ndim() == 1 && pbc.shape(0) == 3) {
    std::copy_n(pbc.data(), 3, result.mutable_data());
  } else {
    throw py::value_error("`pbc` must be one flag or three, got " + py::repr(value).cast<std::string>());
  }
  return result;
}

py::object neighbor_list(const std::string& quantities, const py::object& positions, const py::object& cell,
                         const py::object& pbc, double cutoff, int threads, const py::object& isa) {
  if (quantities.empty() || quantities.find_first_not_of("ijdDS") != std::string::npos) {
    throw py::value_error("`quantities` must be letters out of 'ijdDS', got '" + quantities + "'");
  }
  Inputs in{checked_positions(positions), Array<std::int64_t>(2), checked_cell(cell), checked_pbc(pbc)};
  in.atom_ptr.mutable_data()[0] = 0;
  in.atom_ptr.mutable_data()[1] = in.positions.shape(0);
  core::cpu::NeighborList list;
  const std::int64_t n = find(list, in, cutoff, options_from(threads, isa));
  py::tuple result(quantities.size());
  for (std::size_t k = 0; k < quantities.size(); ++k) {
    core::PairArrays output;
    switch (quantities[k]) {
      case 'i': { py::array_t<std::int64_t> a(n); output.idx_i = a.mutable_data(); result[k] = a; break; }
      case 'j': { py::array_t<std::int64_t> a(n); output.idx_j = a.mutable_data(); result[k] = a; break; }
      case 'd': { py::array_t<double> a(n); output.d_ij = a.mutable_data(); result[k] = a; break; }
      case 'D': { py::array_t<double> a({n, std::int64_t{3}}); output.r_ij = a.mutable_data(); result[k] = a; break; }
      default: { py::array_t<std::int32_t> a({n, std::int64_t{3}}); output.shifts = a.mutable_data(); result[k] = a; }
    }
    list.write(output);
  }
  if (quantities.size() == 1) return result[0];
  return result;
}

py::tuple batch_neighbor_list(const py::object& positions, const py::object& atom_ptr, const py::object& cells,
                              const py::object& pbc, double cutoff, int threads, const py::object& isa) {
  Inputs in{checked_positions(positions), Array<std::int64_t>::ensure(atom_ptr), {}, {}};
  if (!in.atom_ptr || in.atom_ptr.ndim() != 1 || in.atom_ptr.size() == 0) {
    throw py::value_error("`atom_ptr` must have shape (n_structures + 1,)");
  }
  const py::ssize_t n_structures = in.atom_ptr.size() - 1;
  if (in.atom_ptr.data()[n_structures] != in.positions.shape(0)) {
    throw py::value_error("`atom_ptr` must end at the number of atoms, " + std::to_string(in.positions.shape(0)));
  }
  in.cells = cells.is_none() ? Array<double>(py::array::ShapeContainer(std::vector<py::ssize_t>{n_structures, 3, 3})) : Array<double>::ensure(cells);
  if (cells.is_none()) std::fill_n(in.cells.mutable_data(), 9 * n_structures, 0.0);
  in.pbc = pbc.is_none() ? Array<bool>(py::array::ShapeContainer(std::vector<py::ssize_t>{n_structures, 3})) : Array<bool>::ensure(pbc);
  if (pbc.is_none()) std::fill_n(in.pbc.mutable_data(), 3 * n_structures, false);
  if (!in.cells || in.cells.ndim() != 3 || in.cells.shape(0) != n_structures || in.cells.shape(1) != 3 || in.cells.shape(2) != 3) {
    throw py::value_error("`cells` must have shape (n_structures, 3, 3), got " + shape_of(in.cells));
  }
  if (!in.pbc || in.pbc.ndim() != 2 || in.pbc.shape(0) != n_structures || in.pbc.shape(1) != 3) {
    throw py::value_error("`pbc` must have shape (n_structures, 3), got " + shape_of(in.pbc));
  }
  core::cpu::NeighborList list;
  const std::int64_t n = find(list, in, cutoff, options_from(threads, isa));
  py::array_t<std::int64_t> idx_i(n), idx_j(n), row_ptr(list.n_atoms() + 1);
  py::array_t<std::int32_t> shifts({n, std::int64_t{3}});
  list.write({.idx_i = idx_i.mutable_data(), .idx_j = idx_j.mutable_data(),
              .shifts = shifts.mutable_data(), .row_ptr = row_ptr.mutable_data()});
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
  module.def("instruction_sets", &instruction_sets, "Names of the instruction sets that can run here.");
  module.def("neighbor_list", &neighbor_list, py::arg("quantities"), py::arg("positions"), py::arg("cell"),
             py::arg("pbc"), py::arg("cutoff"), py::arg("threads"), py::arg("isa") = py::none());
  module.def("batch_neighbor_list", &batch_neighbor_list, py::arg("positions"), py::arg("atom_ptr"), py::arg("cells"),
             py::arg("pbc"), py::arg("cutoff"), py::arg("threads"), py::arg("isa") = py::none());
}
