"""The container of a DaemonSet's pod, as `docker run` starts it: its security context, mounts and environment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.engine import Engine
from tests.support.kubernetes import Rendered

__all__ = ["Pod"]

_PROPAGATION = {"Bidirectional": "rshared", "HostToContainer": "rslave", "None": "rprivate"}


@dataclass(frozen=True, kw_only=True)
class Pod:
    """One pod on a node."""

    engine: Engine
    """What runs it, as the kubelet has containerd run it."""
    rendered: Rendered
    name: str
    """Of the DaemonSet, and of the container."""
    image: str
    """What the image is called on this engine."""
    places: Mapping[str, Path]
    """Directories of this machine that stand for those of the node."""
    moved: Mapping[str, Path] = field(default_factory=dict)
    """Where the container has some of them, if not where the manifest says."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Variables that differ here."""
    directory: Path
    """For files of Secrets and ConfigMaps."""
    secrets: Mapping[str, str] = field(default_factory=dict)
    """The files of its Secret."""
    options: tuple[str, ...] = ()
    """Further options of `docker run`."""

    async def start(self) -> None:
        """Start it; its image's program is all that there is."""
        environment = {**self.rendered.environment(self.name), **self.settings}
        variables = [f"--env={name}={value}" for name, value in environment.items()]
        options = [*self._security(), *self._mounts(), *variables, *self.options]
        await self.engine.docker("run", "--detach", f"--name={self.name}", *options, self.image)

    async def exec(self, *command: str) -> str:
        """Run a command in it, as probes do."""
        return (await self.engine.docker("exec", self.name, *command)).text

    async def delete(self) -> None:
        """End it as the kubelet does, and wait for its end."""
        grace = self.rendered.pod(self.name)["terminationGracePeriodSeconds"]
        await self.engine.docker("stop", f"--time={grace}", self.name)
        await self.engine.docker("rm", self.name)

    async def process(self) -> int:
        """Return the number of its first process."""
        return int((await self.engine.docker("inspect", "--format={{.State.Pid}}", self.name)).text)

    async def log(self) -> str:
        """Return what it has written."""
        logs = await self.engine.docker("logs", self.name)
        return logs.text + logs.complaint

    def _security(self) -> list[str]:
        context = self.rendered.container(self.name)["securityContext"]
        options = [f"--user={context['runAsUser']}:{context['runAsGroup']}"]
        if context["readOnlyRootFilesystem"]:
            options.append("--read-only")
        if context.get("privileged"):
            return [*options, "--privileged"]
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert context["appArmorProfile"] == {"type": "Unconfined"}
        options.append("--security-opt=apparmor=unconfined")
        options += [f"--cap-drop={name}" for name in context["capabilities"]["drop"]]
        return options + [f"--cap-add={name}" for name in context["capabilities"]["add"]]

    def _mounts(self) -> list[str]:
        volumes = {volume["name"]: volume for volume in self.rendered.pod(self.name)["volumes"]}
        return [
            self._mount(mount, volumes[mount["name"]]) for mount in self.rendered.container(self.name)["volumeMounts"]
        ]

    def _mount(self, mount: Mapping[str, Any], volume: Mapping[str, Any]) -> str:
        path = mount["mountPath"]
        if "emptyDir" in volume:
            return f"--tmpfs={path}"
        options = ["type=bind", f"source={self._source(volume)}", f"target={self.moved.get(path, path)}"]
        options.append(f"bind-propagation={_PROPAGATION[mount.get('mountPropagation', 'None')]}")
        if mount.get("readOnly"):
            options.append("readonly")
        return f"--mount={','.join(options)}"

    def _source(self, volume: Mapping[str, Any]) -> Path:
        if "hostPath" in volume:
            source: Path = self.places[volume["hostPath"]["path"]]
            if volume["hostPath"]["type"] == "DirectoryOrCreate":
                source.mkdir(parents=True, exist_ok=True)
            return source
        if "configMap" in volume:
            files = self.rendered.get("ConfigMap", volume["configMap"]["name"])["data"]
        else:
            files = self.secrets
        directory = self.directory / str(volume["name"])
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (directory / name).write_text(content)
        return directory
