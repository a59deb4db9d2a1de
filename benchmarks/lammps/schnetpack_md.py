"""Times a step of dynamics with SchNetPack's ASE calculator, for side_by_side.py; run in SchNetPack's own environment.

    schnetpack-venv/bin/python benchmarks/lammps/schnetpack_md.py DATA REPEATS SETTING

The network, the structures, the settings and the timing are those of benchmarks/peers; prints JSON.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))
import schnetpack_step as peer
import torch


def main() -> None:
    data, repeats, setting = Path(sys.argv[1]), int(sys.argv[2]), peer.SETTINGS[sys.argv[3]]
    torch.set_num_threads(1)
    torch.set_flush_denormal(setting.flush_denormals)
    case = peer.Case("md", data.stem, 1, 128, 50, repeats=repeats, skin=0.3)
    run, _ = peer.prepare_md(case, peer.read_structures(data.parent, case))
    print(json.dumps(peer.measure(run, seconds=5.0, least=5)))


if __name__ == "__main__":
    main()
