"""What a runner has to know of a job beside its spec: stored with the job, sent when it is claimed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from metalmark.model import ARGUMENTS_MAX, ENTRIES_MAX
from metalmark.wire.scalars import U32, Body, DateTimeField, Flag, PositiveI32, Text, UrlField, UuidField

ImageDigest = Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$", max_length=135)]
Arguments = Annotated[tuple[Text, ...], Field(max_length=ARGUMENTS_MAX)]
Variables = Annotated[dict[str, str], Field(max_length=ENTRIES_MAX)]
FilePaths = Annotated[tuple[Text, ...], Field(max_length=ENTRIES_MAX)]
Average = Literal["mean", "median"]
Fold = Literal["min", "max", "mean", "median"]


class JobConfig(Body):
    """How to pull and run the image. What is None is left out on the wire.

    ``timeout`` is the limit of one iteration in seconds; ``registry`` ends in a slash. An image is pulled as
    ``<authority of registry>/<project>@<digest>``, or, from a registry that is not the server's own, as
    ``<authority of registry>/<repository>@<digest>`` and without a token.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    registry: UrlField
    project: UuidField
    digest: ImageDigest
    timeout: PositiveI32
    image: Text | None = None
    repository: Text | None = None
    """Only for our own runners: public ones are given no such job."""
    entrypoint: Arguments | None = None
    cmd: Arguments | None = None
    env: Variables | None = None
    file_paths: FilePaths | None = None
    build_time: Flag | None = None
    file_size: Flag | None = None
    iter: U32 | None = None
    allow_failure: Flag | None = None
    average: Average | None = None
    fold: Fold | None = None
    backdate: DateTimeField | None = None

    @model_serializer(mode="wrap")
    def _leave_out_nothing(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        return {name: value for name, value in handler(self).items() if value is not None}
