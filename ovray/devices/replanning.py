"""Says what a new plan means for replicas that run: which of them stay, and what the others will give back.

May not enter: ray, openvino, the life of replicas.  Who plans: plan.py.  Who asks: the driver's placement.py.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ovray.core.ids import ReplicaId
from ovray.devices.records import Host, ReplicaSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """Are the replicas of a pool that is planned anew."""

    #: May stay where the new plan has them, too.
    staying: tuple[ReplicaSpec, ...] = ()
    #: Will end, whatever is planned; nobody may have their ids meanwhile.
    leaving: tuple[ReplicaSpec, ...] = ()

    @property
    def all(self) -> tuple[ReplicaSpec, ...]:
        return (*self.staying, *self.leaving)


def as_if_free(hosts: Sequence[Host], present: Iterable[ReplicaSpec]) -> tuple[Host, ...]:
    """Returns the hosts as they will be when these replicas have given back what they hold."""
    on_node: dict[str, list[ReplicaSpec]] = defaultdict(list)
    for spec in present:
        on_node[spec.node_id].append(spec)
    # Ray nodes of one machine see each other's leases: their cores are the same.
    on_machine: dict[str, set[int]] = defaultdict(set)
    for host in hosts:
        held = {core for spec in on_node[host.node_id] if spec.ray_num_cpus for core in spec.cores}
        on_machine[host.machine_id or host.node_id] |= held
    return tuple(
        _given_back(host, on_node[host.node_id], on_machine[host.machine_id or host.node_id]) for host in hosts
    )


def _given_back(host: Host, present: Sequence[ReplicaSpec], cores: set[int]) -> Host:
    cpus = {cpu for core in host.topology.cores if core.id in cores for cpu in core.cpus}
    books = dict(host.available_resources)
    if "CPU" in host.resources and books:
        claimed = sum(spec.ray_num_cpus for spec in present)
        books["CPU"] = min(host.resources["CPU"], books.get("CPU", 0.0) + claimed)
    return replace(host, leased_cpus=host.leased_cpus - cpus - cores, available_resources=books)


def held_by(hosts: Sequence[Host], present: Iterable[ReplicaSpec]) -> tuple[Host, ...]:
    """Returns the hosts with the cores of these replicas leased, also where they are not just now."""
    cores: dict[str, set[int]] = defaultdict(set)
    for spec in present:
        cores[spec.node_id].update(spec.cores if spec.ray_num_cpus else ())
    return tuple(
        replace(
            host,
            leased_cpus=host.leased_cpus.union(
                *(core.cpus for core in host.topology.cores if core.id in cores[host.node_id])
            ),
        )
        for host in hosts
    )


def keep_standing(present: Present, planned: Sequence[ReplicaSpec]) -> tuple[ReplicaSpec, ...]:
    """Gives planned replicas the ids of those that run just so already, and to all others ids of their own.

    A replica stays where it is planned on the same cores or device, with the same properties; its place among
    the devices may change.  The order is that of ``planned``.
    """
    running: dict[object, list[ReplicaId]] = defaultdict(list)
    for spec in present.staying:
        running[_what(spec)].append(spec.id)
    kept: dict[int, ReplicaId] = {}
    # One that is planned under its own id keeps it before another takes it.
    for number, spec in enumerate(planned):
        if spec.id in running[_what(spec)]:
            kept[number] = spec.id
            running[_what(spec)].remove(spec.id)
    for number, spec in enumerate(planned):
        if number not in kept and running[_what(spec)]:
            kept[number] = running[_what(spec)].pop(0)
    taken = {spec.id for spec in present.all}
    numbers: Counter[str] = Counter()
    return tuple(
        replace(spec, id=kept[number] if number in kept else _free_id(spec, taken, numbers))
        for number, spec in enumerate(planned)
    )


def _free_id(spec: ReplicaSpec, taken: set[ReplicaId], numbers: Counter[str]) -> ReplicaId:
    place = spec.id.rpartition("#")[0]
    while ReplicaId(f"{place}#{numbers[place]}") in taken:
        numbers[place] += 1
    taken.add(found := ReplicaId(f"{place}#{numbers[place]}"))
    return found


def _what(spec: ReplicaSpec) -> object:
    """Returns what tells a replica from others, whatever they are called and whoever is preferred."""
    fields = {name: getattr(spec, name) for name in ReplicaSpec.__dataclass_fields__}
    del fields["id"], fields["rank"]
    fields["properties"] = tuple(sorted(spec.properties.items()))
    return tuple(fields.items())
