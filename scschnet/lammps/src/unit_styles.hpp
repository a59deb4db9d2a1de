// The unit systems of LAMMPS, against eV, Å and g/mol.
#pragma once

#include <array>
#include <string_view>

namespace scschnet::lammps {

/// What one eV, one Å and one g/mol are in a unit style. CODATA 2018.
struct UnitStyle {
  std::string_view name;
  double electronvolt;
  double angstrom;
  double dalton;
  std::string_view mass_unit;  ///< for messages
};

inline constexpr double joule = 1.602176634e-19;       // of one eV
inline constexpr double kilogram = 1.66053906660e-27;  // of one g/mol
inline constexpr std::array<UnitStyle, 7> unit_styles{{
    {"metal", 1.0, 1.0, 1.0, "g/mol"},
    {"real", joule * 6.02214076e23 / 4184.0, 1.0, 1.0, "g/mol"},              // kcal/mol, Å
    {"electron", 1.0 / 27.211386245988, 1.0 / 0.529177210903, 1.0, "g/mol"},  // hartree, bohr
    {"si", joule, 1e-10, kilogram, "kg"},                                     // J, m
    {"cgs", joule * 1e7, 1e-8, kilogram * 1e3, "g"},                          // erg, cm
    {"micro", joule * 1e15, 1e-4, kilogram * 1e15, "pg"},                     // pg µm²/µs², µm
    {"nano", joule * 1e21, 0.1, kilogram * 1e21, "ag"},                       // ag nm²/ns², nm
}};

}  // namespace scschnet::lammps
