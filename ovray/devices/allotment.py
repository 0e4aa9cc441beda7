"""Cuts claims on cores into replicas: whole physical cores, each to one replica, within every host's CPU quota.

May not enter: other devices than CPU, names of replicas, properties.  Who claims: selection.py.  Caller: plan.py.

In order: Ray nodes of one machine divide its cores; two entries that meet are an error; cores that others hold
leases on are left out; the quota is dealt out; each claim is cut to its count.

The quota is a number of CPUs for the whole host.  Core sets (``CPU@``) take theirs first, then entries that name a
NUMA node (``CPU.1``) get equal numbers of cores, then ``CPU`` fills node after node: a few cores of one node
serve better than the same number scattered over all.  Physical cores come first: siblings are used only where all
of them fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ovray.devices.cpulist import format_cpu_list
from ovray.devices.grammar import DeviceString
from ovray.devices.records import Core, CoreKind, CoreSharing, Hint
from ovray.devices.selection import CoreClaim, claims_by_site

Cores = tuple[Core, ...]
#: What each claim still has; nothing where it lost all.
Allotted = dict[CoreClaim, Cores]


@dataclass(frozen=True, slots=True, kw_only=True)
class Allotment:
    """The cores of one replica."""

    claim: CoreClaim
    cores: Cores
    #: Logical CPUs to run on, ascending.
    cpus: tuple[int, ...]


def allot(
    devices: DeviceString, claims: Sequence[CoreClaim], sharing: CoreSharing, warnings: list[str]
) -> dict[CoreClaim, list[Allotment]]:
    """Cuts every claim into its replicas, and says in ``warnings`` what was left out and why.

    Raises:
        ConfigError: entries claim the same cores, or there are too few cores for what they ask.
    """
    for claim in claims:
        if len(claim.cores) < claim.count:
            raise devices.error(
                f"{_place(claim)} has {_number(len(claim.cores), 'usable core')}, too few for {claim.count} "
                f"replicas; each needs a physical core of its own",
                claim.entry,
            )
    allotted: Allotted = {claim: claim.cores for claim in claims}
    if sharing is CoreSharing.EXCLUSIVE:
        allotted = _divided_between_ray_nodes(allotted, warnings)
        _check_overlaps(devices, allotted)
        allotted = _without_leased_cores(allotted, warnings)
    for on_site in claims_by_site(allotted):
        allotted |= _within_quota(devices, {claim: allotted[claim] for claim in on_site}, sharing, warnings)
    _check_nothing_vanished(devices, allotted)
    return {claim: list(_replicas(claim, cores, warnings)) for claim, cores in allotted.items()}


def _divided_between_ray_nodes(allotted: Allotted, warnings: list[str]) -> Allotted:
    """Gives each Ray node of a machine its part of the cores that one entry claims for all of them."""
    divided = dict(allotted)
    for group in _same_cores_seen_twice(allotted):
        taken: set[int] = set()
        all_cores = {core.id for claim in group for core in allotted[claim]}
        for place, claim in enumerate(group):
            share = max(claim.count, (len(all_cores) - len(taken)) // (len(group) - place))
            part = tuple(core for core in allotted[claim] if core.id not in taken)[:share]
            divided[claim] = part if len(part) >= claim.count else ()
            taken |= {core.id for core in divided[claim]}
        names = ", ".join(claim.site.name for claim in group)
        warnings.append(f"{names} are Ray nodes of one machine: its cores are divided between them")
    return divided


def _same_cores_seen_twice(allotted: Allotted) -> Iterator[list[CoreClaim]]:
    groups: dict[tuple[int, str, int | None], list[CoreClaim]] = {}
    for claim in allotted:
        if claim.entry.cpus is None:
            groups.setdefault((id(claim.entry), claim.site.machine, claim.numa_node), []).append(claim)
    for group in groups.values():
        ids = [core.id for claim in group for core in allotted[claim]]
        if len(set(ids)) < len(ids):
            yield group


def _check_overlaps(devices: DeviceString, allotted: Allotted) -> None:
    owners: dict[tuple[str, int], CoreClaim] = {}
    for claim, cores in allotted.items():
        for core in cores:
            other = owners.setdefault((claim.site.machine, core.id), claim)
            if other is not claim:
                raise devices.error(_overlap(claim, other, core), claim.entry)


def _overlap(claim: CoreClaim, other: CoreClaim, core: Core) -> str:
    threads = f"CPU {core.id}" if core.cpus == (core.id,) else f"CPUs {format_cpu_list(core.cpus)}"
    return (
        f"'{claim.entry}' and '{other.entry}' both claim the physical core of {threads} on {claim.site.name}; two "
        f"replicas never share a core; name other cores, write CPU*2 for two replicas side by side, or share "
        f"cores on purpose (--share-cores)"
    )


def _without_leased_cores(allotted: Allotted, warnings: list[str]) -> Allotted:
    """Leaves out cores that others hold.  An entry that would get nothing keeps them all; its replicas wait."""
    free = {claim: _free_cores(claim, cores) for claim, cores in allotted.items()}
    entries_with_room = {id(claim.entry) for claim, cores in free.items() if len(cores) >= claim.count}
    kept: Allotted = {}
    for claim, cores in allotted.items():
        leased = len(cores) - len(free[claim])
        kept[claim] = cores
        if not leased:
            continue
        held = f"{_place(claim)}: {_number(leased, 'core')} of {len(cores)} held by other replicas"
        if claim.entry.cpus is not None or id(claim.entry) not in entries_with_room:
            warnings.append(f"{held}; '{claim.entry}' has to wait for them")
        else:
            kept[claim] = free[claim] if len(free[claim]) >= claim.count else ()
            warnings.append(f"{held} and left out")
    return kept


def _free_cores(claim: CoreClaim, cores: Cores) -> Cores:
    return tuple(core for core in cores if claim.site.host.leased_cpus.isdisjoint(core.cpus))


def _within_quota(
    devices: DeviceString, allotted: Allotted, sharing: CoreSharing, warnings: list[str]
) -> Allotted:
    """Cuts the claims on one host to its quota."""
    site = next(iter(allotted)).site
    budget = site.host.topology.cpu_budget
    if budget is None or _busy_cpus(allotted) <= budget:
        return allotted
    quota = f"the CPU quota of {site.name} ({site.host.topology.quota_cpus:g}) allows {_number(budget, 'CPU')}"
    sets = [claim for claim in allotted if claim.entry.cpus is not None]
    for claim in sets:
        budget -= len(claim.entry.cpus or ())
        if budget < 0:
            raise devices.error(f"{quota}, fewer than the core sets claim; name fewer CPUs", claim.entry)
    others = [claim for claim in allotted if claim.entry.cpus is None and allotted[claim]]
    granted = _deal(budget, {claim: len(allotted[claim]) for claim in others}, sharing)
    cut: Allotted = dict(allotted)
    for claim in others:
        cut[claim] = allotted[claim][: granted[claim]]
        if not cut[claim] and claim.entry.id is not None:
            raise devices.error(f"{quota}, none of them left for this entry; name fewer nodes", claim.entry)
    used = sum(map(len, cut.values()))
    warnings.append(f"{quota}: {used} of {_number(sum(map(len, allotted.values())), 'core')} used")
    if _busy_cpus(cut) > (site.host.topology.cpu_budget or 0):
        cut |= {claim: tuple(_without_siblings(core) for core in cut[claim]) for claim in others}
    return cut


def _deal(budget: int, wanted: Mapping[CoreClaim, int], sharing: CoreSharing) -> dict[CoreClaim, int]:
    """Deals CPUs out as numbers of cores, in steps that divide by each claim's count.

    Claims that name a node share equally, as do all claims where cores are shared; the rest go in order.
    """
    granted = dict.fromkeys(wanted, 0)
    equals = [claim for claim in wanted if claim.entry.id is not None or sharing is CoreSharing.SHARED]
    hungry = list(equals)
    while hungry:
        for claim in tuple(hungry):
            if claim.count <= budget and granted[claim] + claim.count <= wanted[claim]:
                granted[claim] += claim.count
                budget -= claim.count
            else:
                hungry.remove(claim)
    for claim in wanted:
        if claim not in equals:
            granted[claim] = min(budget, wanted[claim]) // claim.count * claim.count
            budget -= granted[claim]
    return granted


def _busy_cpus(allotted: Allotted) -> int:
    return sum(len(_used_cpus(claim, cores)) for claim, cores in allotted.items())


def _without_siblings(core: Core) -> Core:
    return replace(core, cpus=core.cpus[:1])


def _used_cpus(claim: CoreClaim, cores: Cores) -> tuple[int, ...]:
    """Returns the logical CPUs that a claim would use were there no quota.

    LATENCY uses no siblings, THROUGHPUT does within one node: OpenVINO's apply_hyper_threading() in
    src/plugins/intel_cpu/src/cpu_map_scheduling.cpp turns siblings off for LATENCY, and for THROUGHPUT where it
    sees more than one NUMA node; a property of the entry goes first.  A pinned replica sees the one node of its
    mask, and counts the only thread that the mask has of a core as that core: update_valid_processor_linux() in
    src/inference/src/os/lin/lin_system_conf.cpp.
    """
    if claim.entry.cpus is not None:
        return tuple(sorted(cpu for core in cores for cpu in core.cpus if cpu in claim.entry.cpus))
    if uses_siblings(claim):
        return tuple(sorted(cpu for core in cores for cpu in core.cpus))
    return tuple(sorted(core.cpus[0] for core in cores))


def uses_siblings(claim: CoreClaim) -> bool:
    """Tells whether OpenVINO would run a thread on each sibling that the mask holds."""
    own = claim.entry.properties.get("ENABLE_HYPER_THREADING")
    if own is None:
        return claim.hint is not Hint.LATENCY and claim.numa_node is not None
    return own.upper() in ("YES", "TRUE")


def _check_nothing_vanished(devices: DeviceString, allotted: Allotted) -> None:
    alive = {id(claim.entry) for claim, cores in allotted.items() if cores}
    for claim in allotted:
        if id(claim.entry) not in alive:
            raise devices.error(
                f"no cores are left for '{claim.entry}' on {claim.site.name}; name fewer or other entries, or "
                f"raise the CPU quota",
                claim.entry,
            )


def _replicas(claim: CoreClaim, cores: Cores, warnings: list[str]) -> Iterator[Allotment]:
    if not cores:
        return
    parts = split_equally(cores, claim.count)
    idle = len(cores) - sum(map(len, parts))
    if idle:
        warnings.append(
            f"{_place(claim)}: {_number(idle, 'core')} of {len(cores)} idle; its {claim.count} replicas are equal"
        )
    for part in parts:
        yield Allotment(claim=claim, cores=part, cpus=_used_cpus(claim, part))


def split_equally(cores: Cores, parts: int) -> list[Cores]:
    """Cuts cores into parts of equal size, and of equal kinds where each kind suffices for all parts."""
    kinds = [tuple(core for core in cores if core.kind is kind) for kind in CoreKind]
    if any(0 < len(kind) < parts for kind in kinds):
        kinds = [cores]
    sizes = [len(kind) // parts for kind in kinds]
    return [
        tuple(
            core for kind, size in zip(kinds, sizes, strict=True) for core in kind[part * size : (part + 1) * size]
        )
        for part in range(parts)
    ]


def _place(claim: CoreClaim) -> str:
    node = "the core set" if claim.entry.cpus is not None else f"NUMA node {claim.numa_node}"
    return f"{node} of {claim.site.name}"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
