"""Every table, by the name it has in the database."""

from __future__ import annotations

from metalmark.store.columns import metadata
from metalmark.store.tables_accounts import (
    audit_log,
    invites,
    organization_roles,
    organizations,
    project_keys,
    project_roles,
    projects,
    signing_secrets,
    tokens,
    user_keys,
    users,
)
from metalmark.store.tables_fleet import runner_capabilities, runner_specs, runners, specs, updates
from metalmark.store.tables_jobs import job_events, job_output_chunks, jobs
from metalmark.store.tables_projects import branches, head_versions, heads, reports, testbeds, versions
from metalmark.store.tables_registry import (
    registry_blobs,
    registry_contents,
    registry_links,
    registry_manifest_blobs,
    registry_manifest_children,
    registry_manifests,
    registry_parts,
    registry_repositories,
    registry_tags,
    registry_uploads,
)

__all__ = [
    "audit_log",
    "branches",
    "head_versions",
    "heads",
    "invites",
    "job_events",
    "job_output_chunks",
    "jobs",
    "metadata",
    "organization_roles",
    "organizations",
    "project_keys",
    "project_roles",
    "projects",
    "registry_blobs",
    "registry_contents",
    "registry_links",
    "registry_manifest_blobs",
    "registry_manifest_children",
    "registry_manifests",
    "registry_parts",
    "registry_repositories",
    "registry_tags",
    "registry_uploads",
    "reports",
    "runner_capabilities",
    "runner_specs",
    "runners",
    "signing_secrets",
    "specs",
    "testbeds",
    "tokens",
    "updates",
    "user_keys",
    "users",
    "versions",
]
