"""Reads and writes the kernel's lists of CPUs, such as ``0-3,8``.

May not enter: files.  Who has such text: /proc/<pid>/status, sysfs, cgroups.
"""

from collections.abc import Iterable


def parse_cpu_list(text: str) -> frozenset[int]:
    """Return the CPUs that a list of the kernel's names, e.g. ``0-3,8``; an empty text names none."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.strip().partition("-")
        if first:
            cpus.update(range(int(first), int(last or first) + 1))
    return frozenset(cpus)


def format_cpu_list(cpus: Iterable[int]) -> str:
    """Return the shortest list for these CPUs, spelt as the kernel does; ``""`` for none."""
    runs: list[tuple[int, int]] = []
    for cpu in sorted(set(cpus)):
        if runs and cpu == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], cpu)
        else:
            runs.append((cpu, cpu))
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
