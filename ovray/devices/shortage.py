"""Lays replicas out on what is free where less is free than is wanted, and says what is missing, why, what to do.

Others may hold cores by lease, or Ray's CPUs; a Ray node may have been started with fewer CPUs than it has cores.

May not enter: ray, openvino, waiting.  What is wanted: plan.py.  What Ray has: resources.py.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ovray.devices.records import Host, Plan, ReplicaSpec
from ovray.devices.resources import CpusTakenError, check_resources, free_cpus
from ovray.devices.selection import LISTED_HOSTS, sites_of
from ovray.errors import ConfigError

#: Makes a plan for hosts as they are given.
LayOut = Callable[[Sequence[Host]], Plan]


def lay_out_what_is_free(lay_out: LayOut, hosts: Sequence[Host]) -> Plan:
    """Plans for the CPUs that Ray has free on each node: fewer cores, or fewer replicas, than without that bound.

    Where something is missing, ``Plan.shortage`` says so, in place of what ``lay_out`` says of leased cores.

    Raises:
        CpusTakenError: for now, Ray has CPUs for none of the replicas.
        TooFewCpusError: it never will have.
        ConfigError: as ``lay_out``.
    """
    plan = lay_out(hosts)
    fitting = _fitting(lay_out, plan, hosts)
    if not fitting:
        _refuse(lay_out, plan, hosts)
    wanted = lay_out([replace(host, leased_cpus=frozenset()) for host in hosts])
    shortage = _shortage(meant_for_work(wanted.replicas, hosts), fitting, hosts)
    warnings = plan.warnings if shortage is None else (*wanted.warnings, shortage)
    return replace(plan, replicas=fitting, warnings=warnings, shortage=shortage)


def cores_on_nodes(replicas: Sequence[ReplicaSpec]) -> Mapping[str, int]:
    """Counts the cores that replicas have to themselves, by Ray's node id."""
    cores = Counter[str]()
    for spec in replicas:
        cores[spec.node_id] += spec.ray_num_cpus
    return cores


def meant_for_work(replicas: Sequence[ReplicaSpec], hosts: Sequence[Host]) -> tuple[ReplicaSpec, ...]:
    """Leaves out replicas with cores on nodes that were started with no CPUs at all: nobody wants work there."""
    idle = {host.node_id for host in hosts if host.resources and not host.resources.get("CPU")}
    return tuple(spec for spec in replicas if not (spec.ray_num_cpus and spec.node_id in idle))


def with_free_cores(replicas: Sequence[ReplicaSpec], hosts: Sequence[Host]) -> tuple[ReplicaSpec, ...]:
    """Returns those that have cores to themselves, none of which is leased now."""
    leased = {host.node_id: host.leased_cpus for host in hosts}
    return tuple(
        spec
        for spec in replicas
        if spec.ray_num_cpus and leased.get(spec.node_id, frozenset()).isdisjoint((*spec.cpus, *spec.cores))
    )


def can_start_at_once(replicas: Sequence[ReplicaSpec], hosts: Sequence[Host]) -> bool:
    """Tells whether any of these has its cores free, or needs none to itself."""
    return any(not spec.ray_num_cpus for spec in replicas) or bool(with_free_cores(replicas, hosts))


def _fitting(lay_out: LayOut, plan: Plan, hosts: Sequence[Host]) -> tuple[ReplicaSpec, ...]:
    """Returns what can be started of a plan: fewer cores where Ray has too few CPUs, else fewer replicas."""
    fitting = _that_fit(plan, hosts)
    if len(fitting) == len(plan.replicas):
        return fitting
    try:
        fewer = lay_out(_within_books(plan, hosts))
    except ConfigError:
        return fitting  # what is left suffices for none of what an entry asks for
    return _that_fit(fewer, hosts)


def _refuse(lay_out: LayOut, plan: Plan, hosts: Sequence[Host]) -> None:
    idle = [replace(host, available_resources=host.resources) for host in hosts]
    try:
        check_resources(plan, hosts)
    except ConfigError as error:
        if not _fitting(lay_out, plan, idle):
            raise
        raise CpusTakenError(str(error)) from error


def _that_fit(plan: Plan, hosts: Sequence[Host]) -> tuple[ReplicaSpec, ...]:
    """Returns the replicas for which Ray has CPUs, the first ones first."""
    free = {site.name: free_cpus(site.host) for site in sites_of(hosts)}
    fitting = []
    for spec in plan.replicas:
        if spec.ray_num_cpus <= free[spec.host]:
            free[spec.host] -= spec.ray_num_cpus
            fitting.append(spec)
        elif not spec.ray_num_cpus:
            fitting.append(spec)
    return tuple(fitting)


def _within_books(plan: Plan, hosts: Sequence[Host]) -> list[Host]:
    """Returns the hosts with as many of the planned cores as Ray has CPUs; the others count as taken."""
    planned = defaultdict[str, list[int]](list)
    for spec in plan.replicas:
        planned[spec.host] += spec.cores if spec.ray_num_cpus else ()
    bounded = []
    for site in sites_of(hosts):
        beyond = set(planned[site.name][int(free_cpus(site.host)) :])
        cpus = {cpu for core in site.host.topology.cores if core.id in beyond for cpu in core.cpus}
        bounded.append(replace(site.host, leased_cpus=site.host.leased_cpus | cpus))
    return bounded


def _shortage(wanted: Sequence[ReplicaSpec], got: Sequence[ReplicaSpec], hosts: Sequence[Host]) -> str | None:
    """Says what is missing; ``None`` where nothing is."""
    wanted_cores, free_cores = _cores_at_places(wanted), _cores_at_places(with_free_cores(got, hosts))
    if sum(map(len, free_cores.values())) >= sum(map(len, wanted_cores.values())):
        return None
    host_of = {site.name: site.host for site in sites_of(hosts)}
    short = [
        _short(f"{host}/{device}", cores, free_cores[host, device], host_of[host])
        for (host, device), cores in wanted_cores.items()
        if len(free_cores[host, device]) < len(cores)
    ]
    if not short:
        return None
    listed = "; ".join(short[:LISTED_HOSTS])
    more = f"; and {len(short) - LISTED_HOSTS} places more" if len(short) > LISTED_HOSTS else ""
    waiting = sum(bool(spec.ray_num_cpus) for spec in got) - len(with_free_cores(got, hosts))
    waits = f"; {waiting} of them wait for their cores first" if waiting else ""
    found, asked = (sum(map(len, cores.values())) for cores in (free_cores, wanted_cores))
    return (
        f"less is free than was asked for, so {len(got)} of {len(wanted)} replicas are started, on {found} of"
        f" {asked} cores{waits}: {listed}{more}. Cores that become free get replicas. `ovray devices` shows"
        " leases, `ray list actors --filter state=ALIVE` who holds Ray's CPUs; leave out with --devices what"
        " is not to be had"
    )


def _short(place: str, wanted: Sequence[int], free: Sequence[int], host: Host) -> str:
    cpus = {core.id: core.cpus for core in host.topology.cores}
    leased = sum(not host.leased_cpus.isdisjoint(cpus.get(core, ())) for core in wanted)
    total = host.resources.get("CPU", 0.0)
    reasons = [f"{leased} leased by other replicas"] if leased else []
    if host.resources and total < len(wanted):
        reasons.append(f"Ray was started there with {total:g} CPUs, --num-cpus={len(wanted)} would give all")
    elif host.resources and free_cpus(host) < len(wanted) - leased:
        reasons.append(f"Ray has {free_cpus(host):g} of {total:g} CPUs free there")
    return f"{place} {len(free)} of {len(wanted)} cores ({', '.join(reasons) or 'divided with others'})"


def _cores_at_places(replicas: Sequence[ReplicaSpec]) -> defaultdict[tuple[str, str], list[int]]:
    cores = defaultdict[tuple[str, str], list[int]](list)
    for spec in replicas:
        if spec.ray_num_cpus:
            cores[spec.host, spec.device] += spec.cores
    return cores
