"""Turns a device string and what the hosts have into replica specs: who runs where, with what.

May not enter: ray, openvino, files.  What entries mean: selection.py.  Which cores: allotment.py.  Whether Ray has
them to give: resources.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ovray.core.ids import ReplicaId
from ovray.devices.allotment import Allotment, allot, uses_siblings
from ovray.devices.grammar import DeviceEntry, DeviceString
from ovray.devices.precision import (
    CAPABILITIES,
    PRECISION_PROPERTY,
    can_compute_in,
    expected_precision,
    precision_warnings,
)
from ovray.devices.ranking import rank_of
from ovray.devices.records import CoreSharing, Hint, Host, OpenVINODevice, Plan, ReplicaSpec
from ovray.devices.selection import Claim, CoreClaim, DeviceClaim, SimClaim, Site, select, sites_of
from ovray.errors import ConfigError

FIRST_TOUCH = "first-touch"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """What the caller wants of all replicas alike."""

    hint: Hint = Hint.THROUGHPUT
    sharing: CoreSharing = CoreSharing.EXCLUSIVE
    #: INFERENCE_PRECISION_HINT for every replica; ``None`` leaves it to each device.
    precision: str | None = None

    def __post_init__(self) -> None:
        if self.precision is not None and self.precision not in CAPABILITIES:
            raise ConfigError(
                f"precision '{self.precision}' is unknown; legal are {', '.join(CAPABILITIES)}; nothing was run"
            )


def make_plan(devices: DeviceString, hosts: Sequence[Host], options: PlanOptions | None = None) -> Plan:
    """Says where every replica runs.  The same string, hosts and options always give the same plan.

    Args:
        devices: the parsed device string.
        hosts: what the probe found; their order is the order of replicas within an entry.
        options: ``None`` means THROUGHPUT, cores that are not shared, and each device's own precision.

    Raises:
        ConfigError: the string means nothing here, claims a core twice, or asks for more than there is.
    """
    options = options or PlanOptions()
    claims = select(devices, sites_of(hosts), options.hint)
    if options.sharing is CoreSharing.EXCLUSIVE:
        _check_devices_are_claimed_once(devices, claims)
    warnings: list[str] = []
    core_claims = [claim for claim in claims if isinstance(claim, CoreClaim)]
    allotments = allot(devices, core_claims, options.sharing, warnings)
    draft = _Draft(devices, options, allotments)
    drafts = [spec for claim in claims for spec in draft.replicas(claim)]
    replicas = _numbered(sorted(drafts, key=lambda spec: spec.rank))
    warnings += [*draft.warnings, *_spread_warnings(core_claims)]
    if options.sharing is CoreSharing.SHARED and core_claims:
        warnings.append(
            "cores are shared: nothing is leased or pinned, threads are divided between replicas of a core"
        )
    return Plan(replicas=replicas, warnings=(*warnings, *precision_warnings(replicas)))


class _Draft:
    """Writes the specs of claims; only the numbers at the end of their ids are missing."""

    def __init__(
        self, devices: DeviceString, options: PlanOptions, allotments: Mapping[CoreClaim, Sequence[Allotment]]
    ) -> None:
        self._devices = devices
        self._options = options
        self._allotments = allotments
        self.warnings: list[str] = []
        #: How many replicas run on each core of each machine; more than one only where cores are shared.
        self._users = Counter(
            (claim.site.machine, core.id)
            for claim, parts in allotments.items()
            for part in parts
            for core in part.cores
        )

    def replicas(self, claim: Claim) -> Iterator[ReplicaSpec]:
        if isinstance(claim, CoreClaim):
            yield from map(self._on_cores, self._allotments[claim])
        elif isinstance(claim, DeviceClaim):
            spec = self._on_openvino(claim, claim.device, claim.device.name)
            yield from [spec] * (claim.entry.count or 1)
        else:
            yield from (self._simulated(claim, site) for site in _dealt_out(claim))

    def _on_cores(self, part: Allotment) -> ReplicaSpec:
        claim = part.claim
        host = claim.site.host
        device = next((device for device in host.devices if device.name == "CPU"), OpenVINODevice(name="CPU"))
        name = "CPU" if claim.numa_node is None else f"CPU.{claim.numa_node}"
        return replace(
            self._on_openvino(claim, device, name),
            numa_node=claim.numa_node,
            cpus=part.cpus,
            cores=tuple(sorted(core.id for core in part.cores)),
            threads=self._number(claim.entry, "INFERENCE_NUM_THREADS") or self._threads(part),
            memory_policy=_memory_policy(host, claim.numa_node),
        )

    def _threads(self, part: Allotment) -> int | None:
        """Returns how many threads to ask for; ``None`` where OpenVINO takes every CPU of the mask by itself."""
        if self._options.sharing is CoreSharing.SHARED:
            shares = (
                len(set(core.cpus) & set(part.cpus)) / self._users[part.claim.site.machine, core.id]
                for core in part.cores
            )
            return max(1, int(sum(shares)))
        siblings_idle = len(part.cores) < len(part.cpus) and not uses_siblings(part.claim)
        return len(part.cores) if siblings_idle else None

    def _on_openvino(self, claim: CoreClaim | DeviceClaim, device: OpenVINODevice, name: str) -> ReplicaSpec:
        asked = self._precision(claim.entry, device, f"{claim.site.name}/{name}")
        mode = claim.entry.properties.get("EXECUTION_MODE_HINT")
        one = 1 if claim.hint is Hint.LATENCY else None
        return ReplicaSpec(
            id=ReplicaId(f"{claim.site.name}/{name}"),
            host=claim.site.name,
            node_id=claim.site.host.node_id,
            device=name,
            openvino_device=device.name,
            numa_node=None,
            cpus=(),
            hint=claim.hint,
            nireq=claim.entry.nireq or one,
            streams=self._number(claim.entry, "NUM_STREAMS") or one,
            sharing=self._options.sharing,
            rank=rank_of(self._devices, claim.entry, device),
            precision=expected_precision(device, asked, mode),
            properties={**claim.entry.properties, **({PRECISION_PROPERTY: asked} if asked else {})},
        )

    def _simulated(self, claim: SimClaim, site: Site) -> ReplicaSpec:
        return ReplicaSpec(
            id=ReplicaId(f"{site.name}/SIM"),
            host=site.name,
            node_id=site.host.node_id,
            device="SIM",
            openvino_device="",
            numa_node=None,
            cpus=(),
            hint=self._options.hint,
            nireq=claim.entry.nireq or self._number(claim.entry, "nireq") or 1,
            sharing=self._options.sharing,
            rank=rank_of(self._devices, claim.entry, None),
            properties=dict(claim.entry.properties),
        )

    def _precision(self, entry: DeviceEntry, device: OpenVINODevice, place: str) -> str | None:
        """Returns the precision to ask a device for; GPU and NPU plugins refuse one that they do not have."""
        own = entry.properties.get(PRECISION_PROPERTY)
        wanted = self._options.precision
        if own is not None and wanted is not None and own != wanted:
            raise self._devices.error(f"{PRECISION_PROPERTY}={own} contradicts --precision {wanted}", entry)
        asked = own or wanted
        if asked is None or can_compute_in(device, asked):
            return asked
        used = expected_precision(device, asked, None) or "its own precision"
        self.warnings.append(f"{place} cannot compute in {asked} and uses {used}")
        return asked if device.name == "CPU" else own

    def _number(self, entry: DeviceEntry, key: str) -> int | None:
        value = entry.properties.get(key)
        return int(value) if value is not None and value.isdecimal() else None


def _dealt_out(claim: SimClaim) -> Iterator[Site]:
    for number in range(claim.entry.count or 1):
        yield claim.sites[number % len(claim.sites)]


def _memory_policy(host: Host, numa_node: int | None) -> str:
    """Returns ``preferred:N`` where memory can be asked from the replica's own node, else the kernel's default."""
    has_memory = any(node.id == numa_node and node.memory_bytes != 0 for node in host.topology.nodes)
    return f"preferred:{numa_node}" if host.can_bind_memory and has_memory else FIRST_TOUCH


def _numbered(drafts: Sequence[ReplicaSpec]) -> tuple[ReplicaSpec, ...]:
    seen: Counter[str] = Counter()
    replicas = []
    for draft in drafts:
        replicas.append(replace(draft, id=ReplicaId(f"{draft.id}#{seen[draft.id]}")))
        seen[draft.id] += 1
    return tuple(replicas)


def _check_devices_are_claimed_once(devices: DeviceString, claims: Sequence[Claim]) -> None:
    owners: dict[tuple[str, str], DeviceClaim] = {}
    for claim in claims:
        if not isinstance(claim, DeviceClaim):
            continue
        for name in (claim.device.name, *claim.device.tiles):
            other = owners.setdefault((claim.site.machine, name), claim)
            if other is not claim and (other.entry is not claim.entry or other.site is claim.site):
                raise devices.error(
                    f"'{claim.entry}' and '{other.entry}' both claim {name} on {claim.site.name}; write GPU*2 for "
                    f"two replicas on one device, or share on purpose (--share-cores)",
                    claim.entry,
                )


def _spread_warnings(claims: Sequence[CoreClaim]) -> list[str]:
    return [
        f"'{claim.entry}' spans NUMA nodes of {claim.site.name}: its memory is not local, and OpenVINO uses one "
        f"thread a core there; a core set for each node is faster"
        for claim in claims
        if claim.numa_node is None
    ]
