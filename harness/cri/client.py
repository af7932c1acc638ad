"""What a kubelet asks containerd for, in the terms of pods."""

import json
from dataclasses import dataclass
from pathlib import Path

from grpclib import GRPCError
from grpclib.client import Channel
from grpclib.exceptions import StreamTerminatedError

from harness.cri.runtime_grpc import ImageServiceStub, RuntimeServiceStub
from harness.cri.runtime_pb2 import (
    ContainerConfig,
    ContainerMetadata,
    ContainerStatusRequest,
    CreateContainerRequest,
    ExecSyncRequest,
    ExecSyncResponse,
    FilesystemUsage,
    Image,
    ImageFsInfoRequest,
    ImageSpec,
    LinuxContainerConfig,
    LinuxPodSandboxConfig,
    ListImagesRequest,
    PodSandboxConfig,
    PodSandboxMetadata,
    PodSandboxStatusRequest,
    PullImageRequest,
    RemoveContainerRequest,
    RemoveImageRequest,
    RemovePodSandboxRequest,
    RunPodSandboxRequest,
    StartContainerRequest,
    StatusRequest,
    StopContainerRequest,
    StopPodSandboxRequest,
)

__all__ = ["CriClient", "Pod"]


@dataclass(frozen=True, kw_only=True)
class Pod:
    """A running pod."""

    id: str
    config: PodSandboxConfig
    """What it was made with, which its containers are made with as well."""


class CriClient:
    """Calls containerd; what it refuses is raised as `grpclib.GRPCError`.

    Parameters
    ----------
    socket
        containerd's, which need not be there yet.
    runtime
        Name of the runtime that pods are made by, and images pulled for; containerd's default where it is empty.
    """

    def __init__(self, socket: Path, *, runtime: str = "") -> None:
        self._channel = Channel(path=str(socket))
        self._handler = runtime
        # What a pod has to say besides: a pull happens before there is one.
        self._annotations = {"io.containerd.cri.runtime-handler": runtime} if runtime else {}
        self._images = ImageServiceStub(self._channel)
        self._runtime = RuntimeServiceStub(self._channel)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    async def is_ready(self) -> bool:
        """Return whether containerd answers, and can give pods a network."""
        try:
            status = (await self._runtime.Status(StatusRequest())).status
        except (GRPCError, OSError, StreamTerminatedError):
            return False
        return all(condition.status for condition in status.conditions)

    async def pull(self, image: str) -> str:
        """Pull an image, and return its ID."""
        sandbox = PodSandboxConfig(annotations=self._annotations)
        request = PullImageRequest(image=ImageSpec(image=image), sandbox_config=sandbox)
        response = await self._images.PullImage(request)
        return response.image_ref

    async def images(self) -> list[Image]:
        """Return all images."""
        return list((await self._images.ListImages(ListImagesRequest())).images)

    async def remove_image(self, image: str) -> None:
        """Remove an image, as a kubelet does that needs room."""
        await self._images.RemoveImage(RemoveImageRequest(image=ImageSpec(image=image)))

    async def image_file_system(self) -> FilesystemUsage:
        """Return where images are, and what they take."""
        (file_system,) = (await self._images.ImageFsInfo(ImageFsInfoRequest())).image_filesystems
        return file_system

    async def run_pod(self, name: str, *, logs: Path, cgroup: str) -> Pod:
        """Make a pod, with a network of its own.

        Parameters
        ----------
        name
            Unique on the node.
        logs
            Directory for what its containers write.
        cgroup
            Parent of its control groups.
        """
        config = PodSandboxConfig(
            metadata=PodSandboxMetadata(name=name, uid=f"uid-of-{name}", namespace="default"),
            hostname=name,
            log_directory=str(logs),
            annotations=self._annotations,
            linux=LinuxPodSandboxConfig(cgroup_parent=cgroup),
        )
        request = RunPodSandboxRequest(config=config, runtime_handler=self._handler)
        response = await self._runtime.RunPodSandbox(request)
        return Pod(id=response.pod_sandbox_id, config=config)

    async def address(self, pod: Pod) -> str:
        """Return the address of a pod."""
        status = (await self._runtime.PodSandboxStatus(PodSandboxStatusRequest(pod_sandbox_id=pod.id))).status
        return status.network.ip

    async def remove_pod(self, pod: Pod) -> None:
        """Stop and remove a pod, and what runs in it."""
        await self._runtime.StopPodSandbox(StopPodSandboxRequest(pod_sandbox_id=pod.id))
        await self._runtime.RemovePodSandbox(RemovePodSandboxRequest(pod_sandbox_id=pod.id))

    async def create(self, pod: Pod, name: str, image: str, *command: str) -> str:
        """Make a container, which writes to `NAME.log`, and return its ID."""
        config = ContainerConfig(
            metadata=ContainerMetadata(name=name),
            image=ImageSpec(image=image),
            command=command,
            log_path=f"{name}.log",
            linux=LinuxContainerConfig(),
        )
        request = CreateContainerRequest(pod_sandbox_id=pod.id, config=config, sandbox_config=pod.config)
        return (await self._runtime.CreateContainer(request)).container_id

    async def start(self, container: str) -> None:
        """Start a container."""
        await self._runtime.StartContainer(StartContainerRequest(container_id=container))

    async def process(self, container: str) -> int:
        """Return the first process of a container."""
        request = ContainerStatusRequest(container_id=container, verbose=True)
        response = await self._runtime.ContainerStatus(request)
        return int(json.loads(response.info["info"])["pid"])

    async def execute(self, container: str, *command: str) -> ExecSyncResponse:
        """Run a command in a container to its end."""
        return await self._runtime.ExecSync(ExecSyncRequest(container_id=container, cmd=command, timeout=60))

    async def stop(self, container: str) -> None:
        """End a container."""
        await self._runtime.StopContainer(StopContainerRequest(container_id=container))

    async def remove(self, container: str) -> None:
        """Remove a container."""
        await self._runtime.RemoveContainer(RemoveContainerRequest(container_id=container))
