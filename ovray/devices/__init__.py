"""What a cluster has and what goes where.  The package is also a function: ``ovray.devices()`` looks at a cluster.

Both are public names, so one object has to be both.  A function put over the package would win or lose with the
order of imports, and ``import ovray.devices.grammar as g`` would break.  A module whose class can be called is
found under either use, in any order.  It calls up a floor by name, when it is called: the import stays downstairs.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ovray.devices.inventory import ClusterProbe


class _DevicesPackage(ModuleType):
    """Is the package ``ovray.devices``."""

    def __call__(self, address: str | None = None, *, timeout_s: float = 60.0) -> "ClusterProbe":
        """Return what every host of a cluster has; see ``ovray.driver.inspection.devices``.

        Example:
            >>> [host.name for host in ovray.devices().hosts] != []
            True
        """
        inspection = importlib.import_module("ovray.driver.inspection")
        found: ClusterProbe = inspection.devices(address, timeout_s=timeout_s)
        return found


sys.modules[__name__].__class__ = _DevicesPackage
