"""Images for the self-test, packed on the spot: one static program, a few files, a configuration a scenario."""

from __future__ import annotations

import json
import platform as machine_platform
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from metalmark.model import Digest, ImageConfig, Platform, ToolMissing
from metalmark.oci import PackRequest, PackSource, pack
from metalmark.sandbox import selftest_program
from metalmark.system import in_thread, run

PROGRAM = "/bin/selftest"
MESSAGE = "content from the layer\n"
USER_LINE = "tester:x:1234:1234::/home/tester:/bin/sh\n"
_INTERPRETER_SEGMENT = 3
_LIST_S = 20.0


@dataclass(frozen=True, kw_only=True)
class ImageShop:
    """Makes images below a folder of its own."""

    folder: Path

    def open(self) -> None:
        """Make the folder and the standard files."""
        self.folder.mkdir()
        _plant(self.folder / "tree")

    async def basic(self, name: str, config: ImageConfig) -> str:
        """Return the path of an image with the standard files and a configuration."""
        return await in_thread(self._basic, name, config)

    async def layered(self, name: str, config: ImageConfig) -> str:
        """Return the path of an image of three layers, each with a file, the last one replacing one of the first."""
        return await in_thread(self._layered, name, config)

    async def dynamic(self, name: str) -> str:
        """Return the path of an image that holds this host's ``echo``, its loader and its libraries, and no shell.

        Raises:
            ToolMissing: There is no dynamically linked ``echo`` here.
        """
        program = Path("/bin/echo")
        loader = _interpreter(program)
        if loader is None:
            raise ToolMissing("/bin/echo of this host is not dynamically linked")
        listed = await run([loader, "--list", str(program)], timeout_s=_LIST_S)
        libraries = [word for word in listed.stdout.decode().split() if word.startswith("/")]
        if listed.returncode != 0 or not libraries:
            raise ToolMissing(f"{loader} does not list the libraries of /bin/echo")
        config = ImageConfig(cmd=("/bin/echo", "dynamically linked"))
        return await in_thread(self._pack, name, _resolved((*libraries, loader, str(program))), config)

    def _basic(self, name: str, config: ImageConfig) -> str:
        return self._pack(name, (PackSource(path=self.folder / "tree"), *_programs()), config)

    def _pack(self, name: str, sources: tuple[PackSource, ...], config: ImageConfig) -> str:
        target = self.folder / name
        request = PackRequest(
            sources=sources, config=config, platform=Platform.of_machine(machine_platform.machine()), tag="test"
        )
        return f"oci:{pack(request, target, archive=False).path}"

    def _layered(self, name: str, config: ImageConfig) -> str:
        layout = self.folder / name
        parts = []
        for number in (1, 2, 3):
            tree = self.folder / f"layer-{number}"
            tree.mkdir()
            (tree / f"file-{number}").write_text(f"layer {number}\n", encoding="ascii")
            (tree / "shared").write_text(f"from layer {number}\n", encoding="ascii")
            sources = (PackSource(path=tree), *(_programs() if number == 1 else ()))
            request = PackRequest(
                sources=sources,
                config=config,
                platform=Platform.of_machine(machine_platform.machine()),
                tag=f"{number}",
            )
            parts.append(pack(request, layout, archive=False))
        _join_layers(layout, [part.digest for part in parts])
        return f"oci:{layout}"


def _resolved(places: Iterable[str]) -> tuple[PackSource, ...]:
    return tuple(PackSource(path=Path(place).resolve(), target=place) for place in dict.fromkeys(places))


def _plant(tree: Path) -> None:
    for folder in ("bin", "etc", "data/private", "home/tester"):
        (tree / folder).mkdir(parents=True)
    (tree / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n" + USER_LINE, encoding="ascii")
    (tree / "etc/group").write_text("root:x:0:\ntester:x:1234:\nextra:x:4321:tester\n", encoding="ascii")
    (tree / "data/message.txt").write_text(MESSAGE, encoding="ascii")
    (tree / "data/plain").write_text("not a program\n", encoding="ascii")
    (tree / "data/plain").chmod(0o644)
    (tree / "data/private").chmod(0o750)
    (tree / "link").symlink_to("/data/message.txt")


def _programs() -> tuple[PackSource, ...]:
    program = selftest_program(machine_platform.machine())
    return tuple(PackSource(path=program, target=place) for place in (PROGRAM, "/bin/sh", "/data/program"))


def _join_layers(layout: Path, manifests: list[Digest]) -> None:
    """Write a manifest with the layers of several, and an index that has only that."""
    read = [json.loads(_blob(layout, digest).read_bytes()) for digest in manifests]
    configs = [json.loads(_blob(layout, Digest.parse(item["config"]["digest"])).read_bytes()) for item in read]
    config = configs[-1]
    config["rootfs"]["diff_ids"] = [diff_id for item in configs for diff_id in item["rootfs"]["diff_ids"]]
    config.pop("history", None)
    manifest = read[-1]
    manifest["layers"] = [layer for item in read for layer in item["layers"]]
    manifest["config"] = {**manifest["config"], **_put(layout, config)}
    descriptor = {"mediaType": manifest["mediaType"], **_put(layout, manifest)}
    index = {"schemaVersion": 2, "manifests": [descriptor]}
    (layout / "index.json").write_text(json.dumps(index), encoding="ascii")


def _put(layout: Path, document: object) -> dict[str, object]:
    data = json.dumps(document).encode()
    _blob(layout, Digest.of(data)).write_bytes(data)
    return {"digest": str(Digest.of(data)), "size": len(data)}


def _blob(layout: Path, digest: Digest) -> Path:
    return layout / "blobs" / digest.algorithm / digest.hex


def _interpreter(program: Path) -> str | None:
    """Return the loader that a 64-bit little-endian ELF program names (System V ABI, program header PT_INTERP)."""
    try:
        data = program.read_bytes()
    except OSError:
        return None
    if data[:6] != b"\x7fELF\x02\x01":
        return None
    (offset,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    for number in range(count):
        kind, _, start, _, _, length = struct.unpack_from("<IIQQQQ", data, offset + number * size)
        if kind == _INTERPRETER_SEGMENT:
            return data[start : start + length].rstrip(b"\0").decode()
    return None
