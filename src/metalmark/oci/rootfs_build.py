"""From the layers of an image to a squashfs: read, merged and written in one go, or in two where one will not do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from metalmark.model import Canceled, Progress, ProgressSink, ignore_progress
from metalmark.oci.bounds import Bounds, Tally
from metalmark.oci.entry import Entry
from metalmark.oci.image import LayerBlob
from metalmark.oci.layer_stream import LayerStream
from metalmark.oci.merge import Merger, OutOfOrder
from metalmark.oci.merge_plan import MergePlan
from metalmark.oci.squashfs import StopFlag, make_squashfs
from metalmark.oci.tar_stream import TarReader
from metalmark.oci.tar_writer import TarWriter
from metalmark.oci.unpack import UnpackLimits

_PROGRESS_BYTES = 16 * 1024 * 1024


async def build_rootfs(
    layers: Sequence[LayerBlob],
    target: Path,
    *,
    bounds: Bounds | None = None,
    limits: UnpackLimits | None = None,
    progress: ProgressSink = ignore_progress,
) -> None:
    """Merge layers into a squashfs. The file is complete and synced on return; after an error it may be anything.

    Args:
        layers: Bottom layer first.
        target: An existing, empty file.
        bounds: Limits on the image.
        limits: Limits on what each layer unpacks to.
        progress: Told how much of the layers, as they are stored, has been read.

    Raises:
        LayerRefused: A layer is malformed, hostile or over a bound.
        ToolMissing: mksquashfs is not installed, is too old or fails.
        TransientError: mksquashfs was killed.
        NoSpace: The file system is full.
    """
    work = _Layers(layers, bounds or Bounds(), limits, progress)
    try:
        await make_squashfs(target, work.feed_in_one_pass)
    except OutOfOrder:
        target.open("wb").close()
        await make_squashfs(target, work.feed_in_two_passes)
    work.finished()


class _Layers:
    def __init__(
        self, layers: Sequence[LayerBlob], bounds: Bounds, limits: UnpackLimits | None, progress: ProgressSink
    ) -> None:
        self._layers = layers
        self._bounds = bounds
        self._limits = limits
        self._progress = progress
        self._total = sum(layer.size_bytes for layer in layers)
        self._tally = Tally(bounds)

    def feed_in_one_pass(self, descriptor: int, stop: StopFlag) -> Entry | None:
        writer = TarWriter(descriptor)
        merger = Merger(writer, tally=self._tally)
        done = 0
        for index in range(len(self._layers) - 1, -1, -1):
            with self._opened(index, stop, done) as reader:
                merger.merge_layer(reader, index=index, name=str(self._layers[index].digest))
            done += self._layers[index].size_bytes
        merger.finish()
        writer.finish()
        return merger.root

    def feed_in_two_passes(self, descriptor: int, stop: StopFlag) -> Entry | None:
        self._tally = Tally(self._bounds)
        plan = MergePlan(tuple(str(layer.digest) for layer in self._layers), tally=self._tally)
        for index in range(len(self._layers)):
            with self._opened(index, stop, 0) as reader:
                plan.add_layer(reader, index=index)
        self._tally = Tally(self._bounds)
        writer = TarWriter(descriptor)
        for index in plan.wanted():
            with self._opened(index, stop, 0) as reader:
                plan.emit_layer(reader, writer, index=index)
        plan.finish(writer)
        writer.finish()
        return plan.root

    @contextmanager
    def _opened(self, index: int, stop: StopFlag, done: int) -> Iterator[TarReader]:
        layer = self._layers[index]
        with LayerStream(layer.path, layer=str(layer.digest), limits=self._limits) as stream:
            pieces = self._watched(stream, stop, done)
            yield TarReader(pieces, layer=str(layer.digest), tally=self._tally)

    def _watched(self, stream: LayerStream, stop: StopFlag, done: int) -> Iterator[bytes]:
        told = 0
        for piece in stream:
            if stop.is_set:
                raise Canceled("stopped while the layers were merged")
            yield piece
            if stream.packed_bytes - told >= _PROGRESS_BYTES:
                told = stream.packed_bytes
                self._progress(Progress(task="root file system", done=done + told, total=self._total))

    def finished(self) -> None:
        self._progress(Progress(task="root file system", done=self._total, total=self._total, finished=True))
