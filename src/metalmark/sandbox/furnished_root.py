"""What a box without a kernel of its own finds in its root besides the image: the same as in a virtual machine.

The folders ``/tmp`` and ``/run`` are there, and ``/etc/hosts``, ``/etc/hostname`` and, with a network,
``/etc/resolv.conf`` are covered with the box's own. Links of the image are never followed: they may point anywhere.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from metalmark.model import StableError
from metalmark.sandbox.pasta import read_resolv_confs, resolv_conf_of
from metalmark.sandbox.port import BoxSpec
from metalmark.system import MountFlag, bind, mount

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def etc_files(spec: BoxSpec) -> dict[str, str]:
    """Return the content of the files below ``/etc`` that a box has of its own."""
    files = {
        "hostname": f"{spec.hostname}\n",
        "hosts": f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{spec.hostname}\n",
    }
    if spec.network:
        files["resolv.conf"] = resolv_conf_of(read_resolv_confs())
    return files


def furnish_root(root: Path, *, workspace: Path, files: Mapping[str, str]) -> None:
    """Make the folders and cover the files, in a thread with a mount namespace of its own.

    Args:
        root: The mounted root.
        workspace: Where the content of the files is put.
        files: Names below ``/etc`` and their content.

    Raises:
        StableError: The image has something else where a folder must be, or the kernel refused.
    """
    sources = workspace / "etc"
    sources.mkdir(exist_ok=True)
    # A small disk of its own: what the box writes to these files must not fill the host's.
    mount("tmpfs", sources, "tmpfs", flags=MountFlag.NO_SUID | MountFlag.NO_DEV, data="mode=755,size=64k")
    top = os.open(root, _FOLDER)
    try:
        for name, mode in (("run", 0o755), ("tmp", 0o1777), ("etc", 0o755)):
            _make_folder(top, name, mode)
        etc = os.open("etc", _FOLDER, dir_fd=top)
        try:
            for name, content in files.items():
                (sources / name).write_text(content, encoding="utf-8")
                (sources / name).chmod(0o644)
                _cover(etc, name, sources / name)
        finally:
            os.close(etc)
    except OSError as error:
        raise StableError(
            f"the root cannot be furnished: {error.filename}", why=error.strerror or str(error)
        ) from error
    finally:
        os.close(top)


def _make_folder(top: int, name: str, mode: int) -> None:
    with suppress(FileExistsError):
        os.mkdir(name, mode, dir_fd=top)
        # The umask is not the image's business.
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
        try:
            os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)


def _cover(folder: int, name: str, source: Path) -> None:
    with suppress(FileNotFoundError):
        if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=folder)
    with suppress(FileExistsError):
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644, dir_fd=folder))
    target = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        bind(source, Path(f"/proc/thread-self/fd/{target}"))
    finally:
        os.close(target)
