"""The configuration document of an image (OCI image specification 1.1, "config")."""

from __future__ import annotations

from dataclasses import dataclass

from metalmark.model import Digest, ImageConfig, NotAnImage, Platform
from metalmark.oci.documents import Node

_MAX_WORDS = 65536
_MAX_LAYERS = 1024


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What is read of an image's configuration."""

    platform: Platform
    config: ImageConfig
    diff_ids: tuple[Digest, ...]
    """Digests of the layers' tar streams, bottom layer first."""
    created: str


def read_configuration(data: bytes, *, what: str) -> Configuration:
    """Read a configuration document.

    Raises:
        NotAnImage: Malformed; the field is named.
    """
    top = Node.parse(data, what=what)
    architecture, system = top.get("architecture"), top.get("os")
    if not architecture.text("") or not system.text(""):
        raise NotAnImage(f"{what} does not say its {'os' if architecture.text('') else 'architecture'}")
    rootfs = top.get("rootfs")
    if rootfs.get("type").text("layers") != "layers":
        rootfs.get("type").refuse("'layers'")
    run = top.get("config")
    return Configuration(
        platform=Platform(system.text(), architecture.text(), top.get("variant").text("")),
        config=_run(run) if run.value is not None else ImageConfig(),
        diff_ids=tuple(item.digest() for item in rootfs.get("diff_ids").items(_MAX_LAYERS)),
        created=top.get("created").text(""),
    )


def _run(node: Node) -> ImageConfig:
    return ImageConfig(
        entrypoint=node.get("Entrypoint").texts(_MAX_WORDS),
        cmd=node.get("Cmd").texts(_MAX_WORDS),
        env=node.get("Env").texts(_MAX_WORDS),
        workdir=node.get("WorkingDir").text(""),
        user=node.get("User").text(""),
        labels=node.get("Labels").mapping(_MAX_WORDS),
    )
