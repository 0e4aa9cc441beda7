"""For any host and any device string: no core twice, nothing outside of the mask, never above the quota."""

from __future__ import annotations

import dataclasses
from collections import Counter

from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from ovray.devices.grammar import parse
from ovray.devices.plan import PlanOptions, make_plan
from ovray.devices.records import Core, CoreKind, CoreSharing, Hint, Host, HostTopology, NumaNode, Plan
from ovray.errors import ConfigError

hints = st.sampled_from(Hint)


@st.composite
def topologies(draw: st.DrawFn) -> HostTopology:
    """Any machine up to 5 nodes of 6 cores, with some CPUs masked or offline, and perhaps a quota."""
    cores_of_nodes = draw(st.lists(st.integers(0, 6), min_size=1, max_size=5))
    threads = draw(st.integers(1, 2))
    total = sum(cores_of_nodes)
    masked = draw(st.sets(st.integers(0, 2 * total), max_size=total))
    efficient_from = draw(st.integers(0, 2 * total))
    nodes, first = [], 0
    for node, size in enumerate(cores_of_nodes):
        cores = []
        for core in range(first, first + size):
            cpus = tuple(cpu for cpu in range(core, core + threads * total, total) if cpu not in masked)
            kind = CoreKind.EFFICIENT if core >= efficient_from else CoreKind.PERFORMANCE
            if cpus:
                cores.append(Core(id=core, cpus=cpus, numa_node=node, package=0, cache=core // 2, kind=kind))
        nodes.append(NumaNode(id=node, cores=tuple(cores)))
        first += size
    return HostTopology(
        nodes=tuple(nodes),
        online_cpus=tuple(range(threads * total)),
        quota_cpus=draw(st.none() | st.floats(0.1, 20)),
    )


@st.composite
def hosts(draw: st.DrawFn) -> list[Host]:
    """One to three hosts; some are Ray nodes of one machine, some cores are held by others."""
    found = []
    for number in range(draw(st.integers(1, 3))):
        topology = draw(topologies())
        if number and draw(st.booleans()):
            topology = dataclasses.replace(found[0].topology, quota_cpus=topology.quota_cpus)
            machine = "first"
        else:
            machine = "first" if number == 0 else f"machine {number}"
        leased = draw(st.frozensets(st.integers(0, 40), max_size=8))
        found.append(Host(name=f"h{number}", topology=topology, machine_id=machine, leased_cpus=leased))
    return found


core_sets = st.sets(st.integers(0, 9), min_size=1, max_size=3).map(lambda cpus: "@" + "+".join(map(str, cpus)))
wanted = st.builds(
    "{}CPU{}{}".format,
    st.sampled_from(["", "h0/"]),
    st.sampled_from(["", ".0", ".1"]) | core_sets,
    st.sampled_from(["", "", "*2", "*3"]),
)
left_out = st.builds("-CPU{}".format, st.sampled_from([".0", ".2"]) | core_sets)
device_strings = st.lists(wanted | left_out, min_size=1, max_size=3).map(",".join)


def plan_or_refusal(devices: str, found: list[Host], options: PlanOptions) -> Plan:
    """Returns a plan; one without replicas for a string that means nothing here, which breaks no promise."""
    try:
        return make_plan(parse(devices), found, options)
    except ConfigError:
        event("refused")
        return Plan(replicas=())


def check_promises(plan: Plan, found: list[Host]) -> None:
    by_name = {host.name: host for host in found}
    owners = Counter[tuple[str, int]]()
    busy = Counter[str]()
    for spec in plan.replicas:
        host = by_name[spec.host]
        cores = {core.id: core for core in host.topology.cores}
        own = [cores[core] for core in spec.cores]
        # Every CPU of the mask belongs to a core that the replica owns, and every core gives it at least one.
        assert spec.cpus
        assert set(spec.cpus) <= {cpu for core in own for cpu in core.cpus}
        assert all(not set(core.cpus).isdisjoint(spec.cpus) for core in own)
        assert set(spec.cpus) <= set(host.topology.allowed_cpus)
        assert spec.numa_node is None or {core.numa_node for core in own} == {spec.numa_node}
        owners.update((host.machine_id, core) for core in spec.cores)
        busy[spec.host] += len(spec.cpus)
    assert max(owners.values(), default=0) <= 1
    for host in found:
        budget = host.topology.cpu_budget
        assert budget is None or busy[host.name] <= budget
    assert len({spec.id for spec in plan.replicas}) == len(plan.replicas)


@settings(max_examples=150)
@given(found=hosts(), hint=hints, count=st.integers(1, 4))
def test_plain_cpu_entries_keep_every_promise(found: list[Host], hint: Hint, count: int) -> None:
    plan = plan_or_refusal(f"CPU*{count}", found, PlanOptions(hint=hint))

    check_promises(plan, found)
    # Replicas of one node are equal.
    sizes: dict[tuple[str, int | None], set[int]] = {}
    for spec in plan.replicas:
        sizes.setdefault((spec.host, spec.numa_node), set()).add(len(spec.cores))
    assert all(len(found) == 1 for found in sizes.values())


@settings(max_examples=300)
@given(found=hosts(), hint=hints, devices=device_strings)
def test_any_device_string_keeps_every_promise(found: list[Host], hint: Hint, devices: str) -> None:
    plan = plan_or_refusal(devices, found, PlanOptions(hint=hint))

    check_promises(plan, found)


@settings(max_examples=75)
@given(topology=topologies(), hint=hints)
def test_without_a_quota_every_core_that_the_hint_uses_has_a_replica(topology: HostTopology, hint: Hint) -> None:
    assume(topology.cores)
    host = Host(name="h0", topology=dataclasses.replace(topology, quota_cpus=None))

    plan = make_plan(parse("CPU"), [host], PlanOptions(hint=hint))

    planned = {core for spec in plan.replicas for core in spec.cores}
    for node in topology.nodes:
        big = {core.id for core in node.cores if core.kind is CoreKind.PERFORMANCE}
        every = {core.id for core in node.cores}
        assert planned & every == (big if hint is Hint.LATENCY and big else every)


@settings(max_examples=75)
@given(topology=topologies(), hint=hints)
def test_a_quota_is_used_up_as_far_as_there_are_cores(topology: HostTopology, hint: Hint) -> None:
    assume(topology.cores)
    host = Host(name="h0", topology=topology)
    budget = topology.cpu_budget
    unbounded = Host(name="h0", topology=dataclasses.replace(topology, quota_cpus=None))

    cores = [
        core for spec in make_plan(parse("CPU"), [host], PlanOptions(hint=hint)).replicas for core in spec.cores
    ]
    most = sum(len(spec.cores) for spec in make_plan(parse("CPU"), [unbounded], PlanOptions(hint=hint)).replicas)

    assert len(cores) == (most if budget is None else min(budget, most))


@settings(max_examples=75)
@given(found=hosts(), devices=device_strings)
def test_shared_cores_never_ask_for_more_threads_than_their_mask(found: list[Host], devices: str) -> None:
    plan = plan_or_refusal(devices, found, PlanOptions(sharing=CoreSharing.SHARED))

    for spec in plan.replicas:
        assert spec.threads is not None
        assert 1 <= spec.threads <= len(spec.cpus)
        assert spec.ray_num_cpus == 0
