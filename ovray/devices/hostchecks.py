"""Looks for what goes wrong on a host in practice.  Runs on that host, in the process of hostprobe.py.

May not enter: ray, other hosts.  What can only be seen from outside (clocks, versions) is in doctor.py.
A check is a function that returns one ``Finding``; what it looks at comes as arguments, so that tests can show it
a host that they do not have.
"""

import os
import resource
from collections.abc import Collection, Mapping
from pathlib import Path

from ovray.devices.cpulist import format_cpu_list
from ovray.devices.findings import Finding, Status
from ovray.devices.leases import CoreLeases
from ovray.devices.neighbours import Neighbour, find_pinned_neighbours
from ovray.devices.records import Host, HostTopology
from ovray.devices.topology import LIVE_SYSFS
from ovray.errors import ConfigError

#: What Ray itself asks for (ray/_private/worker.py); a replica adds a socket for each peer and a file a reader.
MIN_FILE_DESCRIPTORS = 4096

#: Docker gives 64 MiB of /dev/shm unless told otherwise; Ray then keeps its objects in a file on disk.
MIN_SHARED_MEMORY_BYTES = 512 * 2**20

#: PCI vendor and classes (pci.ids): 03 is a display controller, 12 a processing accelerator.
INTEL_VENDOR = "0x8086"
PCI_CLASSES = {"GPU": "0x03", "NPU": "0x12"}
DEVICE_NODES = {"GPU": "dri/renderD*", "NPU": "accel/accel*"}
KERNEL_DRIVERS = {"GPU": "i915 or xe", "NPU": "intel_vpu"}
USER_DRIVERS = {"GPU": "intel-opencl-icd", "NPU": "intel-driver-compiler-npu and intel-level-zero-npu"}


def check_host(host: Host, sysfs_root: Path) -> tuple[Finding, ...]:
    """Run every check of this file; on a recorded tree only those that look at the tree."""
    device_names = [device.name for device in host.devices]
    of_tree = (
        check_quota(host.topology),
        check_smt(host.topology),
        check_accelerator("GPU", device_names, sysfs_root, Path("/dev")),
        check_accelerator("NPU", device_names, sysfs_root, Path("/dev")),
    )
    if sysfs_root != LIVE_SYSFS:
        return of_tree
    return (
        *of_tree,
        check_pinned_processes(find_pinned_neighbours(host.topology.allowed_cpus)),
        check_core_leases(),
        check_model_cache(model_cache_directory(os.environ)),
        check_file_descriptors(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        check_shared_memory(_shared_memory_bytes()),
    )


def check_quota(topology: HostTopology) -> Finding:
    """Warn when the container may run on more CPUs than it is given time for."""
    cpus, budget = len(topology.allowed_cpus), topology.cpu_budget
    if budget is None or budget >= cpus:
        return _ok("cpu-quota", f"no CPU quota below the {cpus} CPUs that may be used")
    return Finding(
        check="cpu-quota",
        host="",
        status=Status.WARN,
        what=f"the container's quota is {topology.quota_cpus:g} CPUs, but its mask shows {cpus}: ovray uses "
        f"{budget}, other programs start one thread for each CPU they see and are throttled",
        mend="give the container whole CPUs of its own (docker run --cpuset-cpus; in Kubernetes equal integer CPU "
        f"requests and limits under the static CPU manager policy), or raise the quota to {cpus}",
    )


def check_smt(topology: HostTopology) -> Finding:
    """Say how cores with two threads are used."""
    paired = sum(len(core.cpus) > 1 for core in topology.cores)
    if not paired:
        return _ok("smt", f"{len(topology.cores)} cores with one usable thread each")
    return Finding(
        check="smt",
        host="",
        status=Status.INFO,
        what=f"{paired} of {len(topology.cores)} cores run two threads (SMT): LATENCY leaves the second ones "
        "idle, THROUGHPUT uses them where OpenVINO does; a core is never split between replicas",
    )


def check_accelerator(kind: str, device_names: Collection[str], sysfs_root: Path, dev_root: Path) -> Finding:
    """Warn when the PCI bus has an Intel GPU or NPU that OpenVINO does not see; say what it lacks."""
    check = f"{kind.lower()}-driver"
    if any(name.split(".")[0] == kind for name in device_names):
        return _ok(check, f"OpenVINO sees the {kind}")
    slots = _intel_pci_slots(sysfs_root, PCI_CLASSES[kind])
    if not slots:
        return _ok(check, f"no Intel {kind} in this host")
    what = f"there is an Intel {kind} (PCI {', '.join(slots)}), but OpenVINO does not see it: "
    nodes = sorted(dev_root.glob(DEVICE_NODES[kind]))
    closed = [node for node in nodes if not os.access(node, os.R_OK | os.W_OK)]
    folder = dev_root / DEVICE_NODES[kind].split("/")[0]
    if not nodes:
        reason = f"{folder} has no device node"
        mend = f"load the kernel driver ({KERNEL_DRIVERS[kind]}); in a container pass --device {folder}"
    elif len(closed) == len(nodes):
        reason = f"this user may not open {closed[0]}"
        mend = "add the user that runs Ray to the group `render` (usermod -aG render USER) and log in again; in a "
        mend += "container pass --group-add with the group's number"
    else:
        reason = f"{nodes[0]} can be opened, so the user-space driver is missing or too old"
        mend = f"install {USER_DRIVERS[kind]}"
    return Finding(check=check, host="", status=Status.WARN, what=what + reason, mend=mend)


def check_pinned_processes(neighbours: Collection[Neighbour]) -> Finding:
    """Warn when other processes that work right now are pinned to some of our CPUs (openvino#14394, #32444)."""
    if not neighbours:
        return _ok("pinned-processes", "no other busy process is pinned to some of these CPUs")
    return Finding(
        check="pinned-processes",
        host="",
        status=Status.WARN,
        what="busy processes without a lease of ovray's are pinned to CPUs that replicas would use: "
        + "; ".join(map(str, neighbours)),
        mend="end them or move them (taskset -acp CPUS PID), or leave those cores out with --devices CPU@CPUS; "
        "in OpenVINO programs set ENABLE_CPU_PINNING=False",
    )


def check_core_leases() -> Finding:
    """Fail when there is no directory in which cores can be leased."""
    try:
        leases = CoreLeases()
        held = leases.held()
    except ConfigError as error:
        return Finding(
            check="core-leases",
            host="",
            status=Status.FAIL,
            what=str(error),
            mend="mount one host directory with mode 1777 into all containers and name it in OVRAY_LEASE_DIR",
        )
    owners = sorted({str(owner) for owner in held.values()})
    if owners:
        cpus = format_cpu_list(held)
        return Finding(
            check="core-leases", host="", status=Status.INFO, what=f"CPUs {cpus} are leased by {'; '.join(owners)}"
        )
    return _ok("core-leases", f"cores can be leased in {leases.directory}; none is")


def model_cache_directory(environment: Mapping[str, str]) -> Path:
    """Return where compiled models are kept on this host: OVRAY_CACHE_DIR, else the user's cache folder."""
    if named := environment.get("OVRAY_CACHE_DIR"):
        return Path(named)
    caches = environment.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(caches) / "ovray"


def check_model_cache(directory: Path) -> Finding:
    """Fail when compiled models cannot be kept on this host."""
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return _ok("model-cache", f"the model cache {directory} can be written")
    return Finding(
        check="model-cache",
        host="",
        status=Status.FAIL,
        what=f"the model cache {directory} cannot be written ({existing} forbids it or is no folder): every start "
        "compiles the model again",
        mend=f"make {existing} writable for the user that runs Ray, or name another folder, local to the host, in "
        "OVRAY_CACHE_DIR",
    )


def check_file_descriptors(limit: int) -> Finding:
    """Warn when a process may not open enough files."""
    if limit == resource.RLIM_INFINITY or limit >= MIN_FILE_DESCRIPTORS:
        return _ok("file-descriptors", "enough file descriptors")
    return Finding(
        check="file-descriptors",
        host="",
        status=Status.WARN,
        what=f"a process may open {limit} files; Ray asks for {MIN_FILE_DESCRIPTORS} and more",
        mend="run `ulimit -n 65536` before `ray start`, or raise nofile in /etc/security/limits.conf or "
        "LimitNOFILE= of the service",
    )


def check_shared_memory(total_bytes: int) -> Finding:
    """Warn when /dev/shm cannot hold the tensors that are under way."""
    mib = total_bytes // 2**20
    if total_bytes >= MIN_SHARED_MEMORY_BYTES:
        return _ok("shared-memory", f"/dev/shm holds {mib:,} MiB")
    return Finding(
        check="shared-memory",
        host="",
        status=Status.WARN,
        what=f"/dev/shm holds {mib:,} MiB: Ray keeps what does not fit in files on disk, which is slow",
        mend="start the container with --shm-size=8g (Kubernetes: an emptyDir with medium Memory at /dev/shm)",
    )


def _intel_pci_slots(sysfs_root: Path, pci_class: str) -> list[str]:
    slots = sorted((sysfs_root / "bus/pci/devices").glob("*"))
    return [
        slot.name
        for slot in slots
        if _text(slot / "vendor") == INTEL_VENDOR and _text(slot / "class").startswith(pci_class)
    ]


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _shared_memory_bytes() -> int:
    try:
        shared = os.statvfs("/dev/shm")
    except FileNotFoundError:
        return 0
    return shared.f_blocks * shared.f_frsize


def _ok(check: str, what: str) -> Finding:
    return Finding(check=check, host="", status=Status.OK, what=what)
