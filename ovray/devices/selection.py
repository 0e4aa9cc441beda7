"""Finds what each entry of a device string means on these hosts: claims on cores, devices and simulated devices.

May not enter: how claims are cut to replicas (allotment.py) and what a replica is told (plan.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from ovray.devices.cpulist import format_cpu_list
from ovray.devices.grammar import DeviceEntry, DeviceString, HostPattern
from ovray.devices.ranking import wanted_entries
from ovray.devices.records import Core, CoreKind, Hint, Host, OpenVINODevice
from ovray.errors import ConfigError

#: Values of OpenVINO's SCHEDULING_CORE_TYPE that keep to one kind of cores; ANY_CORE does not.
CORE_TYPES = {"PCORE_ONLY": CoreKind.PERFORMANCE, "ECORE_ONLY": CoreKind.EFFICIENT}

#: How many hosts an error lists before it says how many more there are.
LISTED_HOSTS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A host under the name that tells it from all others."""

    name: str
    host: Host
    #: The same for Ray nodes of one machine, whose cores are the same cores.
    machine: str

    def is_meant(self, entry: DeviceEntry) -> bool:
        """Tells whether the entry's host part means this host: by name, address, Ray node id or labels."""
        if entry.host is None:
            return True
        if isinstance(entry.host, HostPattern):
            names = (self.name, self.host.name, self.host.address, self.host.node_id)
            return any(fnmatchcase(name.lower(), entry.host.glob.lower()) for name in names if name)
        return all(term.matches(self.host.labels) for term in entry.host.terms)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CoreClaim:
    """One entry's claim on cores of one NUMA node, or on the very CPUs after its ``@``."""

    entry: DeviceEntry
    site: Site
    hint: Hint
    #: ``None`` for a core set that spans nodes.
    numa_node: int | None
    #: Best first: P-cores before E-cores, cores that share a cache side by side.
    cores: tuple[Core, ...]

    @property
    def count(self) -> int:
        """Returns how many replicas the claim is for."""
        return self.entry.count or 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DeviceClaim:
    """One entry's claim on a GPU, a tile of one, or an NPU."""

    entry: DeviceEntry
    site: Site
    hint: Hint
    device: OpenVINODevice


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SimClaim:
    """One entry's wish for simulated devices, which cost nothing, dealt out over hosts."""

    entry: DeviceEntry
    sites: tuple[Site, ...]


Claim = CoreClaim | DeviceClaim | SimClaim


def sites_of(hosts: Sequence[Host]) -> tuple[Site, ...]:
    """Names the hosts apart: Ray nodes of the same host name go by address, or by a part of their node id."""
    names = Counter(host.name for host in hosts)
    addresses = Counter(host.address for host in hosts)
    parts = Counter(host.node_id[:8] for host in hosts)
    sites = []
    for number, host in enumerate(hosts):
        if names[host.name] == 1:
            name = host.name
        elif host.address and addresses[host.address] == 1:
            name = host.address
        else:
            part = host.node_id[:8] if parts[host.node_id[:8]] == 1 else host.node_id
            name = f"{host.name}.{part or number}"
        sites.append(Site(name=name, host=host, machine=host.machine_id or f"host {number}"))
    return tuple(sites)


def select(devices: DeviceString, sites: Sequence[Site], hint: Hint) -> list[Claim]:
    """Finds the claims of every entry, in the order of the entries, then of the hosts, then of nodes and devices.

    Raises:
        ConfigError: an entry means nothing on these hosts; the message lists what they have.
    """
    for entry in devices.entries:
        if not any(site.is_meant(entry) for site in sites):
            raise devices.error(f"no host is meant by '{entry.host}'; {_inventory(sites)}", entry)
    left_out = [entry for entry in devices.entries if entry.excluded]
    is_named = any(not entry.excluded for entry in devices.entries)
    claims: list[Claim] = []
    for entry in wanted_entries(devices):
        found = list(_claims(devices, entry, [site for site in sites if site.is_meant(entry)], left_out, hint))
        if is_named and not found:
            raise devices.error(f"nothing here is '{_without_numbers(entry)}'; {_inventory(sites)}", entry)
        claims += found
    if not claims:
        raise ConfigError(f"'{devices}' leaves no device; {_inventory(sites)}; nothing was started")
    return claims


def _claims(
    devices: DeviceString, entry: DeviceEntry, sites: Sequence[Site], left_out: Sequence[DeviceEntry], hint: Hint
) -> Iterator[Claim]:
    hint = _hint_of(devices, entry, hint)
    if entry.device == "SIM":
        if not any(out.device == "SIM" for out in left_out):
            yield SimClaim(entry=entry, sites=tuple(sites))
        return
    for site in sites:
        out = [other for other in left_out if other.device == entry.device and site.is_meant(other)]
        if entry.device != "CPU":
            yield from (
                DeviceClaim(entry=entry, site=site, hint=hint, device=device)
                for device in _with_tiles(site.host.devices)
                if _is_meant(entry, device) and not any(_is_meant(other, device) for other in out)
            )
        elif entry.cpus is not None:
            yield _core_set(devices, entry, site, _usable_cores(site, out), hint)
        else:
            yield from _nodes(entry, site, _usable_cores(site, out), hint)


def _hint_of(devices: DeviceString, entry: DeviceEntry, hint: Hint) -> Hint:
    """Returns the hint of an entry: its own ``PERFORMANCE_HINT``, or the one for all."""
    own = entry.properties.get("PERFORMANCE_HINT")
    if own is None:
        return hint
    if own not in Hint.__members__:
        raise devices.error(f"PERFORMANCE_HINT={own}: legal are {', '.join(Hint.__members__)}", entry)
    return Hint[own]


def _with_tiles(devices: Iterable[OpenVINODevice]) -> Iterator[OpenVINODevice]:
    for device in devices:
        yield device
        yield from (replace(device, name=tile, tiles=()) for tile in device.tiles)


def _is_meant(entry: DeviceEntry, device: OpenVINODevice) -> bool:
    """Tells whether an entry means a device.  OpenVINO calls an only GPU ``GPU``; its full name is ``GPU.0``.

    ``GPU`` alone means every GPU as a whole; a tile is meant only where it is named.
    """
    kind, _, id_ = device.name.partition(".")
    if kind != entry.device:
        return False
    return "." not in id_ if entry.id is None else entry.id == (id_ or "0")


def _usable_cores(site: Site, left_out: Iterable[DeviceEntry]) -> tuple[Core, ...]:
    def is_left_out(core: Core) -> bool:
        return any(
            (out.id is None or int(out.id) == core.numa_node)
            and (out.cpus is None or not set(out.cpus).isdisjoint(core.cpus))
            for out in out_here
        )

    out_here = tuple(left_out)
    return tuple(core for core in site.host.topology.cores if not is_left_out(core))


def _nodes(entry: DeviceEntry, site: Site, cores: Sequence[Core], hint: Hint) -> Iterator[CoreClaim]:
    for node in site.host.topology.nodes:
        here = [core for core in cores if core.numa_node == node.id]
        if here and (entry.id is None or int(entry.id) == node.id):
            chosen = _of_wanted_kind(here, entry, hint)
            yield CoreClaim(entry=entry, site=site, hint=hint, numa_node=node.id, cores=_best_first(chosen))


def _of_wanted_kind(cores: Sequence[Core], entry: DeviceEntry, hint: Hint) -> Sequence[Core]:
    """Returns the cores of a hybrid CPU that a hint uses: LATENCY keeps to P-cores.

    The entry's own SCHEDULING_CORE_TYPE goes first; as in OpenVINO, a kind that is not there means any.
    """
    default = "PCORE_ONLY" if hint is Hint.LATENCY else "ANY_CORE"
    kind = CORE_TYPES.get(entry.properties.get("SCHEDULING_CORE_TYPE", default))
    return [core for core in cores if core.kind is kind] or cores


def _core_set(
    devices: DeviceString, entry: DeviceEntry, site: Site, cores: Sequence[Core], hint: Hint
) -> CoreClaim:
    in_node = [core for core in cores if entry.id is None or int(entry.id) == core.numa_node]
    usable = {cpu for core in in_node for cpu in core.cpus}
    wanted = set(entry.cpus or ())
    if not wanted <= usable:
        where = site.name if entry.id is None else f"NUMA node {entry.id} of {site.name}"
        raise devices.error(
            f"CPU {format_cpu_list(wanted - usable)} cannot be used on {where}: not there, offline, left out, or "
            f"outside of the affinity mask or cpuset; usable are {format_cpu_list(usable) or 'none'}",
            entry,
        )
    touched = [core for core in in_node if not wanted.isdisjoint(core.cpus)]
    nodes = {core.numa_node for core in touched}
    return CoreClaim(
        entry=entry,
        site=site,
        hint=hint,
        numa_node=nodes.pop() if len(nodes) == 1 else None,
        cores=_best_first(touched),
    )


def _best_first(cores: Iterable[Core]) -> tuple[Core, ...]:
    return tuple(
        sorted(cores, key=lambda core: (core.kind is CoreKind.EFFICIENT, core.numa_node, core.cache, core.id))
    )


def _without_numbers(entry: DeviceEntry) -> str:
    return entry.name if entry.host is None else f"{entry.host}/{entry.name}"


def _inventory(sites: Sequence[Site]) -> str:
    """Returns what the cluster has, host by host."""
    if not sites:
        return "there is no host at all"
    listed = "; ".join(
        f"{site.name}: {', '.join(_devices_of(site.host)) or 'nothing'}" for site in sites[:LISTED_HOSTS]
    )
    more = f"; and {len(sites) - LISTED_HOSTS} hosts more" if len(sites) > LISTED_HOSTS else ""
    return f"there are {listed}{more}"


def _devices_of(host: Host) -> list[str]:
    nodes = [f"CPU.{node.id}" for node in host.topology.nodes if node.cores]
    return nodes + [device.name for device in _with_tiles(host.devices) if device.name != "CPU"]


def claims_by_site(claims: Iterable[CoreClaim]) -> list[list[CoreClaim]]:
    """Groups claims by the host they are on, in their order."""
    by_site: dict[str, list[CoreClaim]] = {}
    for claim in claims:
        by_site.setdefault(claim.site.name, []).append(claim)
    return list(by_site.values())
