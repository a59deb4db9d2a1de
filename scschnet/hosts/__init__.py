"""Trained models inside other Python programs for molecular dynamics; each module needs its program installed.

    scschnet.hosts.openmm      PythonForce of OpenMM, made of an exported file
    scschnet.hosts.metatomic   file for metatomic, made of an exported file
    scschnet.hosts.torch_sim   model of torch-sim, made of a run

For ASE, and what speaks with ASE such as i-PI, there is `scschnet.ScSchNetCalculator`.
"""
