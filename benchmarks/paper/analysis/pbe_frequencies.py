"""Harmonic frequencies at the level of revised MD17, PBE/def2-SVP: python pbe_frequencies.py start.xyz

Needs PySCF and geomeTRIC, which nothing else here needs: pip install pyscf geometric ase.
"""

import sys

import ase.io
from pyscf import dft, gto
from pyscf.geomopt.geometric_solver import optimize
from pyscf.hessian import thermo


def functional(molecule: gto.Mole) -> dft.rks.RKS:
    """PBE on a fine grid."""
    found = dft.RKS(molecule, xc="pbe")
    found.grids.level = 4
    found.conv_tol = 1e-11
    return found


atoms = ase.io.read(sys.argv[1])
molecule = gto.M(atom=list(zip(atoms.symbols, atoms.positions, strict=True)), basis="def2-svp")
limits = {"energy": 1e-6, "gmax": 1e-4, "grms": 5e-5, "dmax": 1e-2, "drms": 1e-2}
molecule = optimize(functional(molecule), **{f"convergence_{k}": v for k, v in limits.items()})
second = functional(molecule).run().Hessian()
second.grid_response = True
hessian = second.kernel()
for wavenumber in thermo.harmonic_analysis(molecule, hessian)["freq_wavenumber"]:
    print(f"{wavenumber.real - wavenumber.imag:.2f}")
