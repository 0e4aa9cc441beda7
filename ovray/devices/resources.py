"""Compares what a plan claims from Ray with what Ray's nodes have, and says who could give what is missing.

May not enter: ray.  Who asks Ray: probe.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ovray.devices.records import Host, Plan
from ovray.devices.selection import Site, sites_of
from ovray.errors import ConfigError


class TooFewCpusError(ConfigError):
    """Ray has not the CPUs that a plan claims."""


class CpusTakenError(TooFewCpusError):
    """Ray has the CPUs that a plan claims, but others hold them for now."""


def check_resources(plan: Plan, hosts: Sequence[Host]) -> None:
    """Checks that every node has as many free CPUs in Ray's books as the plan claims there.

    Raises:
        CpusTakenError: a node has too few free for now; the message says who has some.
        TooFewCpusError: a node has too few, and always will.
    """
    claimed = Counter[str]()
    for replica in plan.replicas:
        claimed[replica.host] += replica.ray_num_cpus
    sites = sites_of(hosts)
    short = [site for site in sites if claimed[site.name] > free_cpus(site.host)]
    if short:
        reasons = "; ".join(_reason(site, claimed[site.name]) for site in short)
        others = [
            f"{site.name} ({free_cpus(site.host) - claimed[site.name]:g})"
            for site in sites
            if _spare(site, claimed)
        ]
        elsewhere = f"; free CPUs are left on {', '.join(others)}" if others else "; no other node has CPUs left"
        will_do = all(claimed[site.name] <= site.host.resources.get("CPU", 0.0) for site in short)
        raise (CpusTakenError if will_do else TooFewCpusError)(
            f"Ray has not enough CPUs for this plan: {reasons}{elsewhere}; nothing was started; claim fewer "
            f"(--devices 'CPU@CPUS' or '-CPU'), or share cores (--share-cores), which claims none"
        )


def _reason(site: Site, claimed: int) -> str:
    total = site.host.resources.get("CPU", 0.0)
    free = free_cpus(site.host)
    if claimed > total:
        return (
            f"{site.name} was started with {total:g} of the {claimed} that are claimed; restart that node with "
            f"'ray start --num-cpus={claimed}' or more"
        )
    return (
        f"{site.name} has {free:g} of {total:g} free and {claimed} are claimed; other jobs and actors hold "
        f"{total - free:g} ('ray list actors --filter state=ALIVE' shows them): wait for them or stop them"
    )


def _spare(site: Site, claimed: Counter[str]) -> bool:
    return free_cpus(site.host) > claimed[site.name]


def free_cpus(host: Host) -> float:
    """Returns Ray's free CPUs; the total where the probe did not learn what is free."""
    books = host.available_resources or host.resources
    return books.get("CPU", 0.0)
