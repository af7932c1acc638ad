"""What `kubectl apply --kustomize` would apply of deploy/kubernetes: rendered by kustomize, as a site has it."""

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

__all__ = ["EXAMPLES", "NODE", "STRATUM0", "Rendered", "overlay", "render"]

_DEPLOY: Final = Path(__file__).parents[2] / "deploy" / "kubernetes"
NODE: Final = _DEPLOY / "node"
"""What is for nodes."""
STRATUM0: Final = _DEPLOY / "stratum0"
"""What is for the stratum 0."""
_WORKLOADS: Final = ("DaemonSet", "Deployment", "Job")
EXAMPLES: Final = sorted((NODE / "examples").iterdir())
"""Pods that use it."""
_FIELDS: Final = {"status.podIP": "127.0.0.1"}
"""What a pod is told of itself."""
_STORE: Final = "LAYER_STORE_ENDPOINT=https://s3.example.org\n"


@dataclass(frozen=True)
class Rendered:
    """Objects, as the API server gets them."""

    objects: Sequence[dict[str, Any]]

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """Return the only object of a kind and name."""
        (found,) = (one for one in self.objects if (one["kind"], one["metadata"]["name"]) == (kind, name))
        return found

    def workloads(self) -> Sequence[dict[str, Any]]:
        """Return all DaemonSets, Deployments and Jobs."""
        return [one for one in self.objects if one["kind"] in _WORKLOADS]

    def container(self, name: str) -> dict[str, Any]:
        """Return the only container of a workload."""
        (found,) = self.pod(name)["containers"]
        return dict(found)

    def pod(self, name: str) -> dict[str, Any]:
        """Return what the pods of a workload are made of."""
        (found,) = (one for one in self.workloads() if one["metadata"]["name"] == name)
        return dict(found["spec"]["template"]["spec"])

    def environment(self, name: str) -> dict[str, str]:
        """Return the variables of a workload's container."""
        container = self.container(name)
        variables: dict[str, str] = {}
        for source in container.get("envFrom", ()):
            variables |= self._settings(source["configMapRef"]["name"])
        for variable in container.get("env", ()):
            name, source = variable["name"], variable.get("valueFrom", {})
            if "value" in variable:
                variables[name] = re.sub(r"\$\((\w+)\)", lambda match: variables[match[1]], variable["value"])
            elif "fieldRef" in source:
                variables[name] = _FIELDS[source["fieldRef"]["fieldPath"]]
            else:
                reference = source["configMapKeyRef"]
                variables[name] = self._settings(reference["name"])[reference["key"]]
        return variables

    def _settings(self, name: str) -> Mapping[str, str]:
        return dict(self.get("ConfigMap", name)["data"])

    def host_paths(self, name: str) -> dict[str, str]:
        """Return the directories of the machine that a workload's container has, by where it has them."""
        paths = {
            volume["name"]: volume["hostPath"]["path"] for volume in self.pod(name)["volumes"] if "hostPath" in volume
        }
        mounts = self.container(name)["volumeMounts"]
        return {mount["mountPath"]: paths[mount["name"]] for mount in mounts if mount["name"] in paths}


def overlay(directory: Path, name: str, *, commits: bool) -> Path:
    """Make a site's copy of an overlay, in a copy of all that there is.

    Parameters
    ----------
    directory
        What does not exist yet, and gets the copy.
    commits
        Whether the component `commits` is used, and its settings are set.
    """
    shutil.copytree(NODE, directory)
    site = directory / "overlays" / name
    kustomization = site / "kustomization.yaml"
    if commits:
        lines = kustomization.read_text().splitlines(keepends=True)
        used = [line.removeprefix("# ") if line == "# components:\n" else line for line in lines]
        kustomization.write_text("".join(_use(line) for line in used))
        with (site / "settings.env").open("a") as settings:
            settings.write(_STORE)
    if (site / "client").is_dir():
        (site / "client" / "images.example.org.pub").write_text("a key\n")
    return site


def _use(line: str) -> str:
    return "  - ../../components/commits\n" if line.endswith("- ../../components/commits\n") else line


def render(site: Path) -> Rendered:
    """Run kustomize."""
    built = subprocess.run(["kustomize", "build", str(site)], capture_output=True, text=True, check=True, timeout=300)
    assert built.stderr == ""
    return Rendered(list(yaml.safe_load_all(built.stdout)))
