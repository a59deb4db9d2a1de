"""Reading exported files: every record checked, then metadata, then the module; and calling what was read."""

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scschnet.archive import ERRORS_OF_ZIPFILE, checked_records
from scschnet.elements import check_elements
from scschnet.export.compiled import outputs
from scschnet.export.metadata import LIBRARY, check_metadata
from scschnet.export.torchscript import first_line, last_line, torchscript_deprecation_ignored
from scschnet.kinds import EXPORTED_METADATA, Kind, kind_of


class ExportedModel:
    """An exported model, ready to be called.

    torch's profiling executor is switched off for the calls: it would optimize again whenever the number of pairs
    changes, and gains nothing here.

    Args:
        metadata: what the file says about itself.
        module: the TorchScript module.
    """

    def __init__(self, metadata: dict[str, Any], module: torch.jit.ScriptModule) -> None:
        self.metadata = metadata
        self.module = module
        self._methods = {"forward": module.forward, "forward_pairs": module.forward_pairs}

    def forward(
        self,
        positions: Tensor,
        atomic_numbers: Tensor,
        cell: Tensor,
        pbc: Tensor,
        layers: bool = False,
        atom_virial: bool = False,
    ) -> dict[str, Tensor]:
        """Evaluate a structure, see `scschnet.export.potential.Potential.forward`.

        Args:
            positions: (n_atoms, 3) float32 or float64, Å.
            atomic_numbers: (n_atoms,) int64.
            cell: (3, 3), rows are lattice vectors, Å.
            pbc: (3,) bool.
            layers: whether the energies of the layers are wanted.
            atom_virial: whether the virials of the atoms are wanted.

        Raises:
            ValueError: if an argument is wrong, or an element unknown.
        """
        n_atoms = positions.shape[0]
        _check("positions", positions, (n_atoms, 3), torch.float64, torch.float32)
        _check("atomic_numbers", atomic_numbers, (n_atoms,), torch.int64)
        _check("cell", cell, (3, 3), torch.float64, torch.float32)
        _check("pbc", pbc, (3,), torch.bool)
        return self._call("forward", positions, atomic_numbers, cell, pbc, layers, atom_virial)

    def forward_pairs(
        self,
        atomic_numbers: Tensor,
        idx_i: Tensor,
        idx_j: Tensor,
        r_ij: Tensor,
        n_local: int,
        halo: bool,
        layers: bool = False,
        atom_virial: bool = False,
    ) -> dict[str, Tensor]:
        """Evaluate given pairs, see `scschnet.export.potential.Potential.forward_pairs`.

        Args:
            atomic_numbers: (n_atoms,) int64, ghosts included.
            idx_i: (n_pairs,) int64, sorted.
            idx_j: (n_pairs,) int64.
            r_ij: (n_pairs, 3) float64, Å.
            n_local: number of local atoms.
            halo: whether the features of ghosts are exchanged between blocks.
            layers: whether the energies of the layers are wanted.
            atom_virial: whether the virials of the atoms are wanted.

        Raises:
            ValueError: if an argument is wrong, or an element unknown.
        """
        n_pairs = idx_i.shape[0]
        _check("atomic_numbers", atomic_numbers, (atomic_numbers.shape[0],), torch.int64)
        _check("idx_i", idx_i, (n_pairs,), torch.int64)
        _check("idx_j", idx_j, (n_pairs,), torch.int64)
        _check("r_ij", r_ij, (n_pairs, 3), torch.float64)
        if not 0 <= n_local <= atomic_numbers.shape[0]:
            raise ValueError(
                f"`n_local` must lie between 0 and the number of atoms, {atomic_numbers.shape[0]}, got {n_local}"
            )
        return self._call(
            "forward_pairs", atomic_numbers, idx_i, idx_j, r_ij, n_local, halo, layers, atom_virial
        )

    def _call(self, method: str, *arguments: Any) -> dict[str, Tensor]:
        optimizing = torch._C._get_graph_executor_optimize()
        torch._C._set_graph_executor_optimize(False)  # of this thread; the public form takes longer
        try:
            return self._methods[method](*arguments)
        except (torch.jit.Error, RuntimeError) as error:
            raise ValueError(last_line(error)) from error
        finally:
            torch._C._set_graph_executor_optimize(optimizing)


class CompiledModel(ExportedModel):
    """A .pt2 file, which has the pair call alone, with an exchange of ghosts and without extras.

    Args:
        metadata: what the file says about itself.
        run: torch's runner of the compiled code, from inputs to outputs as in `scschnet.export.compiled`.
    """

    def __init__(
        self, metadata: dict[str, Any], run: Callable[[list[Tensor]], list[Tensor]]
    ) -> None:
        self.metadata = metadata
        self.run = run

    def _call(self, method: str, *arguments: Any) -> dict[str, Tensor]:
        if method != "forward_pairs":
            raise ValueError("a .pt2 file has the pair call alone: export without --format pt2")
        atomic_numbers, idx_i, idx_j, r_ij, n_local, halo, layers, atom_virial = arguments
        if layers or atom_virial or (not halo and n_local < len(atomic_numbers)):
            raise ValueError(
                "a .pt2 file has neither `layers` nor `atom_virial`, and takes ghosts with `halo` alone: export "
                "without --format pt2"
            )
        check_elements(atomic_numbers.tolist(), self.metadata["elements"], "`atomic_numbers`")
        local = torch.zeros(n_local, dtype=torch.bool)
        try:
            values = self.run([atomic_numbers, idx_i, idx_j, r_ij, local])
        except RuntimeError as error:
            raise ValueError(first_line(error)) from error
        names = outputs(
            self.metadata.get("unfamiliarity") is not None,
            bool(self.metadata.get("error_bars")),
        )
        result = dict(zip(names, values, strict=True))
        if not bool(torch.isfinite(result["energy"] + result["virial"].sum())):
            raise ValueError("the results are not finite: atoms must lie on different points")
        return result


def load_exported(
    path: str | os.PathLike[str], device: str | torch.device = "cpu"
) -> ExportedModel:
    """Read an exported model.

    torch itself does not notice flipped bits; here every record is compared with its checksum before torch sees it.
    That finds damage, not malice: a .pt file holds a TorchScript program and a .pt2 file machine code, which can do
    whatever this process may, from loading on. Load none that you do not trust; `read_metadata` runs nothing.

    Args:
        path: file written by `scschnet.export`.
        device: where the model is to run; a full file runs on the CPU, a portable one anywhere.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, foreign, of a newer version, or cannot be run by this installation.
    """
    data = _content(Path(path))
    metadata = _metadata(path, data)
    if metadata["host"] != "any":
        raise ValueError(
            f"{path} was exported for {metadata['host']}, which calls it in its own way: export it without --host"
        )
    for library in metadata["operator_libraries"]:
        if library != LIBRARY:
            raise ValueError(
                f"{path} needs the operators of {library}, which scschnet does not have"
            )
    if metadata["kind"] == "full" and torch.device(device).type != "cpu":
        raise ValueError(
            f"`device` must be cpu for {path}, whose operators run there, got {device}: exported with --portable, "
            "the model runs elsewhere as well"
        )
    if metadata["container"] == "pt2":
        return _load_compiled(path, metadata)
    try:
        with torchscript_deprecation_ignored():
            module = torch.jit.load(io.BytesIO(data), map_location=device)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path} cannot be loaded: {_reason(error, metadata)}") from error
    try:
        exported = ExportedModel(metadata, module)
        _try_out(exported, torch.device(device))
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} cannot be used: {first_line(error)}") from error
    return exported


def _try_out(exported: ExportedModel, device: torch.device) -> None:
    """Two atoms, in both calls: that the module works, and what torch prepares on first calls."""
    z = torch.full((2,), exported.metadata["elements"][0], device=device)
    r_ij = torch.full((1, 3), exported.metadata["cutoff"] / 2, dtype=torch.float64, device=device)
    i, nothing = torch.zeros(1, dtype=torch.int64, device=device), torch.zeros_like(r_ij)
    cell, pbc = nothing.repeat(3, 1), torch.zeros(3, dtype=torch.bool, device=device)
    exported.forward(torch.cat([nothing, r_ij]), z, cell, pbc, layers=True, atom_virial=True)
    if exported.metadata.get("energy", True):
        exported.forward_pairs(z, i, i + 1, r_ij, 2, True, layers=True, atom_virial=True)


def _load_compiled(path: str | os.PathLike[str], metadata: dict[str, Any]) -> CompiledModel:
    built, running = metadata["versions"]["torch"], torch.__version__
    if built.split(".")[:2] != running.split(".")[:2]:
        raise ValueError(
            f"{path} was compiled with torch {built}, but torch {running} is installed"
        )
    try:  # the class that C++ programs use, too; torch's wrapper takes seconds to import, and loads no other files
        loader = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1)
    except RuntimeError as error:
        raise ValueError(f"{path} cannot be loaded: {first_line(error)}") from error
    return CompiledModel(metadata, loader.boxed_run)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What an exported file says about itself.

    Args:
        path: file written by `scschnet.export`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, foreign or of a newer version.
    """
    return _metadata(path, _content(Path(path)))


def _check(name: str, tensor: Tensor, shape: tuple[int, ...], *dtypes: torch.dtype) -> None:
    if tensor.shape != shape:
        raise ValueError(f"`{name}` must have shape {shape}, got {tuple(tensor.shape)}")
    if tensor.dtype not in dtypes:
        expected = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise ValueError(
            f"`{name}` must be {expected}, got {str(tensor.dtype).removeprefix('torch.')}"
        )


def _content(path: Path) -> bytes:
    if path.is_dir():
        raise ValueError(
            f"{path} is a folder, not an exported model: scschnet export writes one from a run folder"
        )
    if not path.is_file():
        raise FileNotFoundError(f"there is no exported model at {path}")
    return path.read_bytes()


def _metadata(path: str | os.PathLike[str], data: bytes) -> dict[str, Any]:
    try:
        records = checked_records(data)
    except ERRORS_OF_ZIPFILE as error:
        raise ValueError(f"{path} is not an exported model, or is damaged: {error}") from error
    if EXPORTED_METADATA not in records:
        raise ValueError(f"{path} is {_what_else(Path(path))}")
    try:
        return check_metadata(_record(data, records[EXPORTED_METADATA]).decode())
    except ValueError as error:
        raise ValueError(f"{path} cannot be used: {error}") from error


def _record(data: bytes, name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(name)


def _what_else(path: Path) -> str:
    """What a sound archive without our metadata is."""
    kind = kind_of(path)
    if kind is Kind.CHECKPOINT:
        return "a checkpoint, not an exported model: run scschnet export on it"
    what = "a file of torch" if kind is Kind.TORCH else "a zip archive"
    return f"{what}, but not an exported model of scschnet"


def _reason(error: Exception, metadata: dict[str, Any]) -> str:
    text = str(error)
    _, found, rest = text.partition("Unknown builtin op: ")
    if found:
        return (
            f"it needs the operator {rest.split('.')[0]}, which this scschnet does not have: install scschnet "
            f"{metadata['versions'].get('scschnet')} or newer"
        )
    return first_line(error)
