"""The requests that the public CLI makes: the method, path, credential and answer of each of its commands."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel

from metalmark.testing import public_shapes as shapes

__all__ = ["PUBLIC_CALLS", "PublicCall"]


@dataclass(frozen=True, kw_only=True)
class PublicCall:
    """One command's request."""

    method: str
    path: str
    shape: type[BaseModel] | None
    """The answer's shape, none where it is empty or the CLI reads any JSON."""

    needs_credential: bool = True
    """Whether the CLI refuses to send the request without a credential."""


def call(method: str, path: str, shape: type[BaseModel] | None = None, *, public: bool = False) -> PublicCall:
    """A row of the table below."""
    return PublicCall(method=method, path=f"/v0/{path}", shape=shape, needs_credential=not public)


PUBLIC_CALLS: dict[str, PublicCall] = {
    "server version": call("GET", "server/version", shapes.ApiVersion, public=True),
    "server spec": call("GET", "server/spec", public=True),
    "server config view": call("GET", "server/config"),
    "server config console": call("GET", "server/config/console", shapes.Console, public=True),
    "server stats": call("GET", "server/stats"),
    "server backup": call("POST", "server/backup", shapes.Backup),
    "auth signup": call("POST", "auth/signup", shapes.AuthAck, public=True),
    "auth login": call("POST", "auth/login", shapes.AuthAck, public=True),
    "auth confirm": call("POST", "auth/confirm", shapes.AuthUser, public=True),
    "auth accept": call("POST", "auth/accept", shapes.AuthAck),
    "user list": call("GET", "users", shapes.Users),
    "user view": call("GET", "users/{user}", shapes.User),
    "user update": call("PATCH", "users/{user}", shapes.User),
    "user key list": call("GET", "users/{user}/keys", shapes.KeysOfUser),
    "user key create": call("POST", "users/{user}/keys", shapes.NewKeyOfUser),
    "user key view": call("GET", "users/{user}/keys/{key}", shapes.KeyOfUser),
    "user key update": call("PATCH", "users/{user}/keys/{key}", shapes.KeyOfUser),
    "user key revoke": call("DELETE", "users/{user}/keys/{key}"),
    "token list": call("GET", "users/{user}/tokens", shapes.Tokens),
    "token create": call("POST", "users/{user}/tokens", shapes.Token),
    "token view": call("GET", "users/{user}/tokens/{token}", shapes.Token),
    "organization list": call("GET", "organizations", shapes.Organizations),
    "organization create": call("POST", "organizations", shapes.Organization),
    "organization view": call("GET", "organizations/{organization}", shapes.Organization),
    "organization update": call("PATCH", "organizations/{organization}", shapes.Organization),
    "organization delete": call("DELETE", "organizations/{organization}"),
    "organization claim": call("POST", "organizations/{organization}/claim", shapes.Organization),
    "organization allowed": call("GET", "organizations/{organization}/allowed/{permission}", shapes.Allowed),
    "member list": call("GET", "organizations/{organization}/members", shapes.Members),
    "member invite": call("POST", "organizations/{organization}/members", shapes.AuthAck),
    "member view": call("GET", "organizations/{organization}/members/{user}", shapes.Member),
    "member update": call("PATCH", "organizations/{organization}/members/{user}", shapes.Member),
    "member remove": call("DELETE", "organizations/{organization}/members/{user}"),
    "project list": call("GET", "projects", shapes.Projects, public=True),
    "project list organization": call("GET", "organizations/{organization}/projects", shapes.Projects),
    "project create": call("POST", "organizations/{organization}/projects", shapes.Project),
    "project view": call("GET", "projects/{project}", shapes.Project, public=True),
    "project update": call("PATCH", "projects/{project}", shapes.Project),
    "project delete": call("DELETE", "projects/{project}"),
    "project allowed": call("GET", "projects/{project}/allowed/{permission}", shapes.Allowed),
    "project key list": call("GET", "projects/{project}/keys", shapes.KeysOfProject),
    "project key create": call("POST", "projects/{project}/keys", shapes.NewKeyOfProject),
    "project key view": call("GET", "projects/{project}/keys/{key}", shapes.KeyOfProject),
    "project key update": call("PATCH", "projects/{project}/keys/{key}", shapes.KeyOfProject),
    "project key revoke": call("DELETE", "projects/{project}/keys/{key}"),
    "branch list": call("GET", "projects/{project}/branches", shapes.Branches, public=True),
    "branch create": call("POST", "projects/{project}/branches", shapes.Branch),
    "branch view": call("GET", "projects/{project}/branches/{branch}", shapes.Branch, public=True),
    "branch update": call("PATCH", "projects/{project}/branches/{branch}", shapes.Branch),
    "branch delete": call("DELETE", "projects/{project}/branches/{branch}"),
    "testbed list": call("GET", "projects/{project}/testbeds", shapes.Testbeds, public=True),
    "testbed create": call("POST", "projects/{project}/testbeds", shapes.Testbed),
    "testbed view": call("GET", "projects/{project}/testbeds/{testbed}", shapes.Testbed, public=True),
    "testbed update": call("PATCH", "projects/{project}/testbeds/{testbed}", shapes.Testbed),
    "testbed delete": call("DELETE", "projects/{project}/testbeds/{testbed}"),
    "report list": call("GET", "projects/{project}/reports", shapes.Reports, public=True),
    "report create": call("POST", "projects/{project}/reports", shapes.Report),
    "report view": call("GET", "projects/{project}/reports/{report}", shapes.Report, public=True),
    "report delete": call("DELETE", "projects/{project}/reports/{report}"),
    "job list": call("GET", "projects/{project}/jobs", shapes.Jobs, public=True),
    "job view": call("GET", "projects/{project}/jobs/{job}", shapes.Job, public=True),
    "run": call("POST", "run", shapes.Report, public=True),
    "runner list": call("GET", "runners", shapes.Runners),
    "runner create": call("POST", "runners", shapes.RunnerKey),
    "runner view": call("GET", "runners/{runner}", shapes.Runner),
    "runner update": call("PATCH", "runners/{runner}", shapes.Runner),
    "runner key": call("POST", "runners/{runner}/key", shapes.RunnerKey),
    "runner spec list": call("GET", "runners/{runner}/specs", shapes.Specs),
    "runner spec add": call("POST", "runners/{runner}/specs", shapes.Spec),
    "runner spec remove": call("DELETE", "runners/{runner}/specs/{spec}"),
    "spec list": call("GET", "specs", shapes.Specs),
    "spec create": call("POST", "specs", shapes.Spec),
    "spec view": call("GET", "specs/{spec}", shapes.Spec),
    "spec update": call("PATCH", "specs/{spec}", shapes.Spec),
    "spec delete": call("DELETE", "specs/{spec}"),
}
"""Every command of the public CLI that this server answers, by its words."""
