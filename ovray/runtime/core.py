"""Is OpenVINO's ``Core`` and ``compile_model`` over a cluster: models are read here, and compiled in replicas.

May not enter: requests; what options mean (options.py); where replicas go (devices/).
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import openvino as ov

from ovray.devices.probe import recorded_sysfs_root
from ovray.devices.records import Host, OpenVINODevice
from ovray.driver.opening import open_pool
from ovray.driver.planning import look_at_hosts
from ovray.errors import ConfigError
from ovray.replica.model import read_model
from ovray.runtime.compiled_model import CompiledModel
from ovray.runtime.options import DEVICE_PROPERTIES, ServingOptions, read_options
from ovray.runtime.ports import Ports
from ovray.runtime.serving import Serving

if TYPE_CHECKING:
    from typing_extensions import Unpack

ModelSource: TypeAlias = ov.Model | str | os.PathLike[str] | bytes

#: What the probe knows of a device without compiling anything.
_PROBED: Mapping[str, Callable[[OpenVINODevice], Any]] = {
    "FULL_DEVICE_NAME": lambda device: device.full_name,
    "OPTIMIZATION_CAPABILITIES": lambda device: list(device.capabilities),
    "DEVICE_ARCHITECTURE": lambda device: device.architecture,
}


class Core(ov.Core):  # type: ignore[misc]  # openvino is untyped
    """Is the way to the devices of a cluster.

    Reading models is OpenVINO's own.  Devices are named ``host/DEVICE``; where a device string stands, all of
    ovray's grammar does: ``MULTI``, ``CPU*2``, ``node-a/GPU.0,node-b/CPU``.

    Args:
        xml_config_file: as in OpenVINO.
        address: ``HOST:PORT`` of a Ray head, for everything that is asked of this object.

    Example:
        >>> core = ov.Core()
        >>> core.available_devices  # doctest: +ELLIPSIS
        ['.../CPU']
        >>> core.read_model(model_path).inputs[0].any_name
        'features'
    """

    def __init__(self, xml_config_file: Any = "", *, address: str | None = None) -> None:
        super().__init__(xml_config_file)
        self._address = address
        self._properties: dict[str, Any] = {}
        self._properties_by_device: dict[str, dict[str, Any]] = {}
        self._hosts: tuple[Host, ...] | None = None

    def compile_model(
        self,
        model: ModelSource,
        device_name: str | None = None,
        config: Mapping[str, Any] | None = None,
        *,
        weights: bytes | None = None,
        **options: "Unpack[ServingOptions]",
    ) -> CompiledModel:
        """Compiles a model on devices of the cluster; returns when the first replica is ready, others join later.

        Args:
            model: from ``read_model``, or a file that OpenVINO reads.  Changes that are made to it afterwards do
                not reach the compiled one.
            device_name: a device string; ``None`` is ``AUTO``.
            config: OpenVINO properties; also ``MULTI_DEVICE_PRIORITIES``, ``SCHEDULE_POLICY`` and
                ``DEVICE_PROPERTIES``.  The hint is ``LATENCY`` unless one is given or the string begins with
                ``MULTI``.
            weights: of a model that is given as text or bytes.
            options: see ``ServingOptions``: ``address``, ``share_cores``, ``batch_size`` ...

        Raises:
            ConfigError: the model cannot be read, has variable states, or no device can run it; the device string
                or a property is wrong; Ray has too few CPUs.
            ReplicaError: no replica could start.
            TypeError: an option that there is not.

        Example:
            >>> core, config = ov.Core(), {"PERFORMANCE_HINT": "LATENCY"}
            >>> with core.compile_model(model, "CPU", config, share_cores=True) as compiled:
            ...     compiled(np.ones((1, 32)))["logits"].shape
            (1, 3)
        """
        if self._address is not None:
            options.setdefault("address", self._address)
        options.setdefault("share_cores", Serving.is_any_open())
        read = self._read(model, weights)
        _refuse_states(read)
        pool_options = read_options(device_name, self._with_defaults(config or {}), options)
        return CompiledModel(Serving(open_pool(read, pool_options), Ports(read), pool_options))

    @property
    def available_devices(self) -> list[str]:
        """The devices of every host, as ``host/DEVICE``; looked for once."""
        return [f"{host.name}/{device.name}" for host in self._look() for device in host.devices]

    def get_available_devices(self) -> list[str]:
        """Returns the devices of every host, as ``host/DEVICE``.

        Example:
            >>> ov.Core().get_available_devices() == ov.Core().available_devices
            True
        """
        return self.available_devices

    def get_property(self, *args: Any, **named: Any) -> Any:
        """Returns a property of a device, ``get_property(device_name, name)``, or of this object,
        ``get_property(name)``.

        Known are what was set, ``FULL_DEVICE_NAME``, ``OPTIMIZATION_CAPABILITIES``, ``DEVICE_ARCHITECTURE`` and
        ``AVAILABLE_DEVICES``.

        Raises:
            ConfigError: no such device, or a property that only a compiled model has.

        Example:
            >>> "FP32" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            True
        """
        device_name, name = _device_and("property", args, named)
        if device_name is None:
            if name == "AVAILABLE_DEVICES":
                return self.available_devices
            known = self._properties
        else:
            device = self._device(device_name)
            known = {name: read(device) for name, read in _PROBED.items()}
            known |= {
                "AVAILABLE_DEVICES": self.available_devices,
                **self._properties_by_device.get(device_name, {}),
            }
        if name == "SUPPORTED_PROPERTIES":
            return {name: "RO" for name in known}
        if name not in known:
            raise ConfigError(
                f"Unsupported property {name}: known here are {', '.join(known) or 'those that were set'};"
                " compile a model and ask that, or see ovray.devices()"
            )
        return known[name]

    def set_property(self, *args: Any, **named: Any) -> None:
        """Sets properties for the models that are compiled from now on: ``set_property([device_name,]
        properties)``.

        Args:
            args: ``properties`` is a dictionary or a pair of name and value; ``device_name`` is OpenVINO's, such
                as ``CPU``, or ``host/device``; without one they are for every device.

        Raises:
            TypeError: neither a dictionary nor a pair.

        Example:
            >>> core = ov.Core()
            >>> core.set_property("CPU", {"NUM_STREAMS": 1})
            >>> core.get_property("CPU", "NUM_STREAMS")
            1
        """
        device_name, wanted = _device_and("properties", args, named)
        if isinstance(wanted, tuple) and len(wanted) == 2:
            wanted = dict([wanted])
        if not isinstance(wanted, Mapping):
            raise TypeError(f"incompatible properties of type {type(wanted).__name__}; give a dictionary")
        of_device = self._properties_by_device.setdefault(device_name, {}) if device_name else self._properties
        of_device.update({str(name): value for name, value in wanted.items()})

    # --- what one process alone can do ----------------------------------------------------------------------

    def import_model(self, *args: Any, **named: Any) -> NoReturn:
        """Raises: an exported model is made for the device of one host.

        Raises:
            ConfigError: always.
        """
        _refuse(
            "import_model",
            "an exported model is made for the device of one host; compile the model itself, and"
            " set CACHE_DIR to compile it once on each host",
        )

    def query_model(self, *args: Any, **named: Any) -> NoReturn:
        """Raises: which operations a device takes is known where the device is.

        Raises:
            ConfigError: always.
        """
        _refuse(
            "query_model",
            "which operations a device takes is known on its host; ovray.plan(model) compiles the"
            " model there and says what came of it",
        )

    def get_versions(self, *args: Any, **named: Any) -> NoReturn:
        """Raises: plugins are loaded in the replicas.

        Raises:
            ConfigError: always.
        """
        _refuse(
            "get_versions",
            "plugins are loaded in the replicas; openvino.get_version() is the same on every host that takes part",
        )

    def create_context(self, *args: Any, **named: Any) -> NoReturn:
        """Raises: a remote context is memory of a device of this process.

        Raises:
            ConfigError: always.
        """
        _refuse(
            "create_context",
            "a remote context is memory of a device of this process, and models run in others;"
            " give NumPy arrays or openvino.Tensor",
        )

    def get_default_context(self, *args: Any, **named: Any) -> NoReturn:
        """Raises, as ``create_context``.

        Raises:
            ConfigError: always.
        """
        self.create_context()

    def add_extension(self, *args: Any, **named: Any) -> NoReturn:
        """Raises: replicas would not know the operation.

        Raises:
            ConfigError: always.
        """
        _refuse(
            "add_extension",
            "replicas would not know the operation; express it in OpenVINO's own operations before compiling",
        )

    def register_plugin(self, *args: Any, **named: Any) -> NoReturn:
        """Raises: plugins are loaded in the replicas.

        Raises:
            ConfigError: always.
        """
        _refuse(
            "register_plugin", "plugins are loaded in the replicas; install OpenVINO with the plugin on the hosts"
        )

    register_plugins = register_plugin

    def unload_plugin(self, device_name: str) -> None:
        """Does nothing: no plugin is loaded in this process."""

    def __repr__(self) -> str:
        return f"<Core: address {self._address}>"

    def _read(self, model: Any, weights: bytes | None) -> ov.Model:
        if weights is not None:
            return self.read_model(model.encode() if isinstance(model, str) else model, weights)
        if isinstance(model, bytes):
            return self.read_model(model)
        if not isinstance(model, ov.Model | str | os.PathLike):
            raise ConfigError(
                f"model is of type {type(model).__name__}; give an openvino.Model or the path of a file that"
                " OpenVINO reads"
            )
        return read_model(model if isinstance(model, ov.Model) else Path(model))

    def _with_defaults(self, config: Mapping[str, Any]) -> dict[str, Any]:
        merged = {**self._properties, **{str(name): value for name, value in config.items()}}
        if not self._properties_by_device:
            return merged
        by_device = {name: dict(values) for name, values in self._properties_by_device.items()}
        for device, properties in merged.get(DEVICE_PROPERTIES, {}).items():
            by_device[device] = {**by_device.get(device, {}), **properties}
        return {**merged, DEVICE_PROPERTIES: by_device}

    def _look(self) -> tuple[Host, ...]:
        if self._hosts is None:
            self._hosts = look_at_hosts(self._address, recorded_sysfs_root(os.environ)).hosts
        return self._hosts

    def _device(self, name: str) -> OpenVINODevice:
        for host in self._look():
            for device in host.devices:
                if name in (device.name, f"{host.name}/{device.name}"):
                    return device
        raise ConfigError(
            f"device {name!r} is not in this cluster; it has {', '.join(self.available_devices)}; see"
            " ovray.devices()"
        )


def compile_model(
    model: ModelSource,
    device_name: str | None = "AUTO",
    config: Mapping[str, Any] | None = None,
    **options: "Unpack[ServingOptions]",
) -> CompiledModel:
    """Compiles a model on devices of the cluster.  Args and errors: as for ``Core.compile_model``.

    Example:
        >>> with ov.compile_model(model, "CPU", share_cores=True) as compiled:
        ...     compiled(np.ones((1, 32)))["total"].shape
        (1, 1)
    """
    return Core().compile_model(model, device_name, config, **options)


def _refuse_states(model: ov.Model) -> None:
    if model.get_variables():
        names = ", ".join(variable.get_info().variable_id for variable in model.get_variables())
        raise ConfigError(
            f"the model keeps state between inferences ({names}), and its requests run on any replica; nothing was"
            " started; make the states inputs and outputs of the model, or run it with openvino itself"
        )


def _refuse(what: str, why: str) -> NoReturn:
    raise ConfigError(f"{what}() cannot be had across processes: {why}")


def _device_and(what: str, args: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[str | None, Any]:
    """Tells ``(device_name, value)`` from ``(value)``, as OpenVINO's overloads do."""
    names = ("device_name", what) if len(args) + len(named) > 1 else (what,)
    given = {**dict(zip(names, args, strict=False)), **named}
    if what not in given or given.keys() - {"device_name", what} or len(args) > 2:
        raise TypeError(f"takes ({what}) or (device_name, {what}), not {args or dict(named)}")
    return given.get("device_name"), given[what]
