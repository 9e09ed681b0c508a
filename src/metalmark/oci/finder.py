"""From the document a reference leads to, through indexes, to the manifest for one platform."""

from __future__ import annotations

from dataclasses import dataclass, field

from metalmark.model import Digest, DigestMismatch, NotAnImage, Platform
from metalmark.oci.configuration import Configuration, read_configuration
from metalmark.oci.manifest import MAX_DOCUMENT_BYTES, Descriptor, Index, Manifest, read_document
from metalmark.oci.media import INDEXES
from metalmark.oci.origin import Origin, Root
from metalmark.oci.selection import suitability, wrong_platform

_MAX_DEPTH = 4
_MAX_DOCUMENTS = 64
_UNSAID = 1000
"""How well a manifest serves that does not say what it is for: worse than any that does."""


@dataclass(frozen=True, kw_only=True)
class FoundManifest:
    """The manifest that serves a platform, and the documents on the way to it."""

    manifest: Manifest
    configuration: Configuration
    documents: dict[Digest, bytes] = field(default_factory=dict)
    """Indexes, manifest and configuration by digest, in the order they were read."""
    digest: Digest


class ManifestFinder:
    """Walks from a root document to the manifest for a platform.

    Args:
        origin: Where the documents are.
        platform: What the image must run on.
        name: The image, for errors.
    """

    def __init__(self, origin: Origin, platform: Platform, name: str) -> None:
        self._origin = origin
        self._platform = platform
        self._name = name
        self._documents: dict[Digest, bytes] = {}
        self.offered: list[Platform] = []

    async def find(self, root: Root) -> FoundManifest:
        """Return the manifest.

        Raises:
            WrongPlatform: None of them serves.
            NotAnImage: A document is malformed.
            DigestMismatch: A document does not have its digest.
        """
        if root.digest is not None:
            self._documents[root.digest] = root.data
        if isinstance(root.document, Manifest):
            if root.digest is None:
                raise NotAnImage(f"{self._name} has no digest")
            found = await self._take(root.digest, root.document, None)
            if found is not None:
                return found
        else:
            for _, descriptor in sorted(await self._candidates(root.document, 0), key=lambda pair: pair[0]):
                document = await self.document(descriptor)
                if isinstance(document, Manifest):
                    found = await self._take(descriptor.digest, document, descriptor.platform)
                    if found is not None:
                        return found
        raise wrong_platform(self._name, self._platform, self.offered)

    async def _candidates(self, index: Index, depth: int) -> list[tuple[int, Descriptor]]:
        """Return the manifests that may serve with how well; those that do not say what they are for come last."""
        if depth > _MAX_DEPTH:
            raise NotAnImage(f"{self._name} nests indexes more than {_MAX_DEPTH} deep")
        found: list[tuple[int, Descriptor]] = []
        for descriptor in index.manifests:
            if descriptor.media_type in INDEXES:
                inner = await self.document(descriptor)
                if isinstance(inner, Index):
                    found += await self._candidates(inner, depth + 1)
            elif descriptor.platform is None or not descriptor.platform.os:
                found.append((_UNSAID, descriptor))
            else:
                self.offered.append(descriptor.platform)
                fit = suitability(self._platform, descriptor.platform)
                if fit is not None:
                    found.append((fit, descriptor))
        return found

    async def _take(self, digest: Digest, manifest: Manifest, listed: Platform | None) -> FoundManifest | None:
        what = f"configuration {manifest.config.digest}"
        data = await self._read(manifest.config, what)
        configuration = read_configuration(data, what=what)
        own = configuration.platform
        if listed is not None and not own.variant and listed.variant:
            own = Platform(own.os, own.architecture, listed.variant)
        self.offered.append(own)
        if suitability(self._platform, own) is None:
            return None
        if len(configuration.diff_ids) != len(manifest.layers):
            raise NotAnImage(
                f"{what} lists {len(configuration.diff_ids)} layers", why=f"the manifest lists {len(manifest.layers)}"
            )
        return FoundManifest(
            manifest=manifest, configuration=configuration, documents=dict(self._documents), digest=digest
        )

    async def document(self, descriptor: Descriptor) -> Manifest | Index:
        """Fetch and read a manifest or index.

        Raises:
            NotAnImage: It is malformed, or there are too many.
            DigestMismatch: It does not have its digest.
        """
        what = f"manifest {descriptor.digest}"
        data = await self._read(descriptor, what)
        return read_document(data, media_type=descriptor.media_type, what=what)

    async def _read(self, descriptor: Descriptor, what: str) -> bytes:
        if descriptor.digest in self._documents:
            return self._documents[descriptor.digest]
        if len(self._documents) >= _MAX_DOCUMENTS:
            raise NotAnImage(f"{self._name} leads to more than {_MAX_DOCUMENTS} documents")
        if descriptor.size_bytes > MAX_DOCUMENT_BYTES:
            raise NotAnImage(f"{what} has {descriptor.size_bytes} bytes", why=f"at most {MAX_DOCUMENT_BYTES} are read")
        data = await self._origin.read(descriptor)
        found = Digest.of(data, descriptor.digest.algorithm)
        if found != descriptor.digest or len(data) != descriptor.size_bytes:
            raise DigestMismatch(
                f"{what} has {len(data)} bytes with the digest {found}",
                why=f"{descriptor.size_bytes} bytes with {descriptor.digest} were announced",
            )
        self._documents[descriptor.digest] = data
        return data
