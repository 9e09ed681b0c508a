"""Requests to one registry: challenges, redirects that never carry credentials elsewhere, and retries."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlencode

import anyio
import httpx

from metalmark.model import MIB, ImageNotFound, NotAnImage, RegistryDenied, RegistryUnavailable
from metalmark.oci.access import RegistryAccess
from metalmark.oci.documents import Node, shown
from metalmark.oci.reference import Reference
from metalmark.oci.registry_answers import Hiccup, http_errors_told, read_bounded, retry_after, said
from metalmark.oci.registry_auth import Challenge, Credentials, find_credentials, parse_challenges, read_token
from metalmark.oci.registry_transport import Transport, is_loopback
from metalmark.system import in_thread, sleep_s

_MAX_ANSWER_BYTES = 1 * MIB
_MAX_REDIRECTS = 5
_CLIENT_ID = "metalmark"
T = TypeVar("T")


Content = Callable[[], bytes | AsyncIterator[bytes]]
"""Makes the body of a request, anew for each time that it is sent."""


@dataclass(frozen=True)
class Ask:
    """A request to a registry.

    Args:
        method: Of HTTP.
        path: Below ``/v2/REPOSITORY/``, or what a registry gave as a location.
        headers: Beside those that every request has.
        content: Its body.
        expected: Statuses of an answer that is taken; others are errors.
        answer_s: How long the answer may take, in seconds; None as long as any silence.
        lost: What a 404 means where beginning again may help.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    content: Content | None = None
    expected: tuple[int, ...] = (200,)
    answer_s: float | None = None
    lost: str | None = None


class RegistryClient:
    """Requests to the registry that a reference names.

    Args:
        reference: The image; its registry is the only host that is given credentials, but for the token service that
            the registry itself names.
        access: Credentials, transport and patience.
        actions: What tokens are asked for: ``pull``, or ``pull,push``.
    """

    def __init__(self, reference: Reference, access: RegistryAccess, *, actions: str = "pull") -> None:
        self._reference = reference
        self._access = access
        self._actions = actions
        self._transport = Transport(reference.registry, access)
        self._origin: httpx.URL | None = None
        self._authorization = ""
        self._static_token = False
        self._challenge_lock = anyio.Lock()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

    @asynccontextmanager
    async def get(self, path: str, headers: Mapping[str, str]) -> AsyncIterator[httpx.Response]:
        """Send a GET and give the answer (200 or 206) with its body still to be read.

        Args:
            path: Below ``/v2/REPOSITORY/``.
            headers: Further headers.

        Raises:
            Hiccup: Another try may help.
            RegistryDenied: Refused.
            ImageNotFound: There is no such thing.
        """
        async with self.ask(Ask("GET", path, headers=headers, expected=(200, 206))) as response:
            yield response

    @asynccontextmanager
    async def ask(self, ask: Ask) -> AsyncIterator[httpx.Response]:
        """Send a request and give the answer with its body still to be read.

        Raises:
            Hiccup: Another try may help.
            RegistryDenied: Refused.
            ImageNotFound: There is no such thing.
        """
        origin = await self._begin()
        url = origin.join(f"/v2/{self._reference.repository}/").join(ask.path)
        with http_errors_told(self._reference.registry):
            response = await self._send(url, ask)
            if response.status_code == 401 and not self._static_token:
                await self._authenticate(response)
                response = await self._send(url, ask)
            try:
                if response.status_code not in ask.expected:
                    await self._refuse(response, ask)
                yield response
            finally:
                with anyio.CancelScope(shield=True):
                    await response.aclose()

    async def retry(self, what: str, attempt: Callable[[], Awaitable[T]], progressed: Callable[[], int] = int) -> T:
        """Call until it succeeds, with growing pauses; the count starts anew whenever there was progress.

        Args:
            what: What is tried, for the error.
            attempt: Raises `Hiccup` for what may mend itself.
            progressed: Returns a number that grows with progress.

        Raises:
            RegistryUnavailable: It kept failing.
        """
        patience = self._access.patience
        failures, before = 0, progressed()
        while True:
            try:
                return await attempt()
            except Hiccup as error:
                failures = 1 if progressed() > before else failures + 1
                before = progressed()
                if failures >= patience.attempts:
                    raise RegistryUnavailable(
                        f"{what} could not be {self._verbs[2]} {self._reference.registry}",
                        why=f"{error} (tried {failures} times)",
                        hint="try again later",
                    ) from error
                pause = patience.first_wait_s * 2 ** (failures - 1) * random.uniform(0.75, 1.25)  # noqa: S311 - jitter
                await sleep_s(min(patience.longest_wait_s, pause if error.wait_s is None else error.wait_s))

    @property
    def plain_http(self) -> bool:
        """Whether the registry is spoken to without TLS; known once something was asked."""
        return self._origin is not None and self._origin.scheme == "http"

    async def _begin(self) -> httpx.URL:
        if self._origin is None:
            async with self._challenge_lock:
                if self._origin is None:
                    await self._start()
        if self._origin is None:
            raise Hiccup("the client has not started")
        return self._origin

    async def _start(self) -> None:
        await self._transport.start()
        token = await in_thread(read_token, self._access)
        self._static_token = bool(token)
        self._authorization = f"Bearer {token}" if token else ""
        scheme = await self._transport.scheme(self._reference.host, self._reference.server)
        self._origin = httpx.URL(f"{scheme}://{self._reference.server}")

    async def _send(self, url: httpx.URL, ask: Ask) -> httpx.Response:
        """Follow redirects by hand: credentials go to the registry's own origin and nowhere else."""
        for _ in range(_MAX_REDIRECTS):
            own = self._is_own(url)
            sent = dict(ask.headers)
            if own and self._authorization:
                sent["Authorization"] = self._authorization
            client = self._transport.client_for(url)
            timeout = client.timeout
            if ask.answer_s is not None:
                timeout = httpx.Timeout(timeout.write, read=ask.answer_s, connect=timeout.connect, pool=timeout.pool)
            content = None if ask.content is None else ask.content()
            request = client.build_request(ask.method, url, headers=sent, content=content, timeout=timeout)
            response = await client.send(request, stream=True)
            if response.status_code not in (301, 302, 303, 307, 308) or ask.method not in ("GET", "HEAD"):
                if response.status_code == 401 and not own:
                    await response.aclose()
                    raise RegistryDenied(
                        f"{self._reference.registry} redirected to {url.host}, which asks for credentials",
                        why="credentials are only given to the registry that was named",
                    )
                return response
            await response.aclose()
            target = url.join(response.headers.get("Location", ""))
            if target.scheme != "https" and not (target.scheme == "http" and url.scheme == "http"):
                raise RegistryDenied(
                    f"{self._reference.registry} redirected to {_place(target)}",
                    why="a redirect from https must stay on https",
                )
            url = target
        raise RegistryDenied(f"{self._reference.registry} redirected more than {_MAX_REDIRECTS} times")

    def _is_own(self, url: httpx.URL) -> bool:
        origin = self._origin
        return origin is not None and (url.scheme, url.host, url.port) == (origin.scheme, origin.host, origin.port)

    async def _authenticate(self, response: httpx.Response) -> None:
        used = response.request.headers.get("Authorization", "")
        challenges = parse_challenges(", ".join(response.headers.get_list("WWW-Authenticate")))
        await response.aclose()
        async with self._challenge_lock:
            if used != self._authorization:
                return  # another request was faster
            credentials = await find_credentials(self._reference.registry, self._reference.repository, self._access)
            by_scheme = {challenge.scheme: challenge for challenge in reversed(challenges)}
            if "bearer" in by_scheme:
                self._authorization = f"Bearer {await self._fetch_token(by_scheme['bearer'], credentials)}"
            elif "basic" in by_scheme and credentials is not None and credentials.username:
                self._authorization = credentials.basic
            else:
                raise self._unauthorized("it wants credentials and there are none", given=credentials is not None)

    async def _fetch_token(self, challenge: Challenge, credentials: Credentials | None) -> str:
        realm = httpx.URL(challenge.parameters.get("realm", ""))
        if not self._may_have_credentials(realm):
            raise RegistryDenied(
                f"{self._reference.registry} names {_place(realm)} as its token service",
                why="credentials are not sent there without TLS",
            )
        service = challenge.parameters.get("service", "")
        scope = challenge.parameters.get("scope") or f"repository:{self._reference.repository}:{self._actions}"
        if self._actions != "pull":
            # What is asked first is only whether a blob is there: one token shall do for all that follows.
            scope = f"repository:{self._reference.repository}:{self._actions}"
        client = self._transport.client_for(realm)
        if credentials is not None and credentials.identity_token:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": credentials.identity_token,
                "service": service,
                "scope": scope,
                "client_id": _CLIENT_ID,
            }
            request = client.build_request("POST", realm, data=form)
        else:
            query = (
                realm.query.decode() + ("&" if realm.query else "") + urlencode({"service": service, "scope": scope})
            )
            headers = {"Authorization": credentials.basic} if credentials is not None and credentials.username else {}
            request = client.build_request("GET", realm.copy_with(query=query.encode()), headers=headers)
        answer = await client.send(request, stream=True)
        try:
            data = await read_bounded(answer, _MAX_ANSWER_BYTES)
        finally:
            await answer.aclose()
        if answer.status_code in (429, *range(500, 600)):
            raise Hiccup(f"its token service {realm.host} answered {answer.status_code}", retry_after(answer))
        if answer.status_code != 200:
            raise self._unauthorized(
                f"its token service {realm.host} answered {answer.status_code}", given=credentials is not None
            )
        try:
            node = Node.parse(data, what=f"the answer of the token service {realm.host}")
            token = node.get("token").text("") or node.get("access_token").text("")
        except NotAnImage as error:
            raise RegistryDenied(f"the token service {realm.host} gave no token", why=str(error)) from error
        if not token or not token.isascii() or not token.isprintable():
            raise RegistryDenied(f"the token service {realm.host} gave no token")
        return token

    def _may_have_credentials(self, realm: httpx.URL) -> bool:
        """Whether a token service has TLS, or is on loopback or the registry's own host, where http was accepted."""
        if realm.scheme == "https":
            return bool(realm.host)
        origin = self._origin
        is_near = origin is not None and (realm.host == origin.host or is_loopback(realm.host))
        return realm.scheme == "http" and is_near and origin is not None and origin.scheme == "http"

    async def _refuse(self, response: httpx.Response, ask: Ask) -> None:
        status, path = response.status_code, ask.path
        message = said(await read_bounded(response, _MAX_ANSWER_BYTES, strict=False))
        if status in (408, 429) or status >= 500:
            raise Hiccup(f"it answered {status}{message}", retry_after(response))
        if status == 401:
            raise self._unauthorized(f"it answered 401{message}", given=bool(self._authorization))
        if status == 403:
            raise RegistryDenied(
                f"{self._reference.registry} forbids {self._verbs[1]} {self._reference.repository}",
                why=f"it answered 403{message}",
                hint="use an account that may",
            )
        if status == 404 and ask.lost is not None:
            raise Hiccup(ask.lost)
        if status == 404:
            raise ImageNotFound(
                f"{self._reference.registry} has no {self._reference.repository} {path.rpartition('/')[2]}",
                why=f"it answered 404{message}",
                hint="check the name and the tag",
            )
        raise RegistryDenied(f"{self._reference.registry} answered {status} for {path}", why=message.lstrip(": "))

    def _unauthorized(self, why: str, *, given: bool) -> RegistryDenied:
        registry = self._reference.registry
        return RegistryDenied(
            f"{registry} does not let {'these credentials' if given else 'anonymous users'} {self._verbs[0]}"
            f" {self._reference.repository}",
            why=why,
            hint=self._access.login_hint
            or f"log in with `docker login {registry}` or `podman login {registry}`,"
            " or give --authfile or --token-file",
        )

    @property
    def _verbs(self) -> tuple[str, str, str]:
        pulls = self._actions == "pull"
        return ("read", "reading", "fetched from") if pulls else ("push to", "pushing to", "pushed to")


def _place(url: httpx.URL) -> str:
    """Return where an address leads, without what may be secret in it: a password, a signed query."""
    return shown(f"{url.scheme}://{url.netloc.decode('ascii', 'replace')}{url.path}")
