"""Writes small sysfs trees of machines that we do not have."""

from pathlib import Path


def write_two_sockets(root: Path) -> Path:
    """Two sockets, each one NUMA node with two cores without SMT."""
    for node, cpus in {0: (0, 1), 1: (2, 3)}.items():
        folder = root / f"devices/system/node/node{node}"
        folder.mkdir(parents=True)
        (folder / "cpulist").write_text(",".join(map(str, cpus)))
        for cpu in cpus:
            topology = root / f"devices/system/cpu/cpu{cpu}/topology"
            topology.mkdir(parents=True)
            (topology / "physical_package_id").write_text(f"{node}\n")
            (topology / "core_cpus_list").write_text(f"{cpu}\n")
    (root / "devices/system/cpu/online").write_text("0-3\n")
    return root
