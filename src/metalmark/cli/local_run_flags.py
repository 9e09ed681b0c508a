"""The flags of ``runner run``."""

from __future__ import annotations

from typing import Annotated

import typer

ImageArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="IMAGE",
        help="OCI layout (folder or tar), `docker save` archive (packed or unpacked), or registry reference; "
        "oci:, oci-archive:, docker-archive: and docker:// say which.",
        show_default=False,
    ),
]
ImageFlag = Annotated[str | None, typer.Option("--image", metavar="IMAGE", help="The image, instead of the argument.")]
Sandbox = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="firecracker, qemu, container or none. Without it: the best that works here."),
]
Timeout = Annotated[
    str, typer.Option(metavar="TIME", help="Limit of one iteration, from its exec; s, m, h understood; 0 is 300.")
]
Iterations = Annotated[str, typer.Option("--iter", metavar="N", help="Iterations; 0 runs nothing.")]
AllowFailure = Annotated[bool, typer.Option("--allow-failure", help="Go on after a failed iteration, and exit with 0.")]
Entrypoint = Annotated[
    list[str] | None,
    typer.Option(
        metavar="WORD...", help="Replace the image's ENTRYPOINT, and drop its CMD; '' is none.", show_default=False
    ),
]
Cmd = Annotated[list[str] | None, typer.Option(metavar="WORD...", help="Replace the image's CMD.", show_default=False)]
Env = Annotated[
    list[str] | None, typer.Option(metavar="NAME=VALUE", help="Set a variable; repeatable.", show_default=False)
]
User = Annotated[
    str | None, typer.Option(metavar="USER[:GROUP]", help="Run as this user of the image, by name or number.")
]
Workdir = Annotated[str | None, typer.Option(metavar="DIR", help="Working directory in the image.")]
Network = Annotated[
    bool, typer.Option("--network", help="Give the benchmark a network; never this machine's own services.")
]
Output = Annotated[
    list[str] | None,
    typer.Option(metavar="PATH", help="File or glob to collect after each iteration; repeatable.", show_default=False),
]
Vcpus = Annotated[str, typer.Option(metavar="N", help="Virtual CPUs.")]
Memory = Annotated[str, typer.Option(metavar="SIZE", help="Memory; a bare number counts MiB.")]
Disk = Annotated[str, typer.Option(metavar="SIZE", help="Writable disk, 64 or more; a bare number counts MiB.")]
Cpus = Annotated[
    str | None, typer.Option(metavar="LIST", help="CPUs to bind to, like 2-3,6. Without it: chosen by placement.")
]
Rootfs = Annotated[
    str, typer.Option(metavar="MODE", help="overlay: read-only base with scratch; ext4: one writable image.")
]
MaxOutputSize = Annotated[
    str, typer.Option(metavar="SIZE", help="Most to keep of each stream, and of all output files together.")
]
MaxFileCount = Annotated[str, typer.Option(metavar="N", help="Most output files to keep.")]
MaxSymlinks = Annotated[
    str | None,
    typer.Option(metavar="N", help="Accepted for compatibility: links are resolved by the kernel, which allows 40."),
]
GracePeriod = Annotated[
    str, typer.Option(metavar="TIME", help="Time between the polite and the forced end of the benchmark.")
]
Token = Annotated[
    str | None,
    typer.Option(metavar="TOKEN", help="Bearer token for the registry; others can see it: use --token-file."),
]
TokenFile = Annotated[str | None, typer.Option(metavar="FILE", help="File with a bearer token for the registry.")]
Authfile = Annotated[str | None, typer.Option(metavar="FILE", help="Docker config.json or containers auth.json.")]
PlainHttp = Annotated[bool, typer.Option("--plain-http", help="Speak http to the registry, not https.")]
Platform = Annotated[str, typer.Option(metavar="OS/ARCH", help="Platform of the image. Without it: this machine's.")]
Live = Annotated[str, typer.Option(metavar="on|off", help="off holds output in the box until the benchmark has ended.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object; the benchmark's output goes to standard error.")
]
Save = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Keep result.json, raw streams and output files in a new or empty folder."),
]
OciRuntime = Annotated[
    str | None, typer.Option(metavar="PATH", help="OCI runtime of the sandbox container: runc, crun or a path.")
]
DangerAllowNoSandbox = Annotated[
    bool,
    typer.Option("--danger-allow-no-sandbox", help="Allow --sandbox none: the image's programs run on this host."),
]
SandboxLogLevel = Annotated[
    str | None,
    typer.Option(metavar="LEVEL", help="Accepted for compatibility, with --sandbox: off, error … trace; see -v."),
]
DebugBoot = Annotated[
    bool, typer.Option("--debug-boot", help="Attach a serial console to the microVM and keep its log.")
]
Verbose = Annotated[
    int, typer.Option("--verbose", "-v", count=True, show_default=False, help="Log more to standard error.")
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Neither progress nor table; only the benchmark's output and errors.")
]
