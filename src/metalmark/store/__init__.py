"""Keeps accounts, projects, runners, specs, jobs, reports and blobs, on SQLite or PostgreSQL."""

from __future__ import annotations

from metalmark.store.audit import Act, ActRecord, list_acts, record_act
from metalmark.store.backup import back_up, restore, vacuum
from metalmark.store.blob_owners import BlobOwners, find_blob_owners
from metalmark.store.blobs import BlobFacts, Blobs
from metalmark.store.branch_start import StartRequest, branch_for_run, needs_new_head, restart_branch, start_point_for
from metalmark.store.branches import (
    BranchChanges,
    BranchRecord,
    create_branch,
    delete_branch,
    find_branch,
    find_branch_at,
    list_branches,
    update_branch,
)
from metalmark.store.claims import Claimant, ClaimedJob, ClaimRules, NoClaim, claim_job, claim_jobs
from metalmark.store.database import Connection, Store, parse_database_url
from metalmark.store.heads import HeadRecord, StartPoint, VersionRecord, version_for_report
from metalmark.store.invites import InviteRecord, accept_invite, create_invite, find_open_invite
from metalmark.store.job_deadlines import (
    due_jobs,
    expire_job,
    extend_limits,
    next_job_deadline,
    renew_leases,
    unread_jobs,
)
from metalmark.store.job_events import JobEventRecord, list_events
from metalmark.store.job_moves import LeaseHolder, Moved, StoredOutput, move_job, record_phase, return_claim
from metalmark.store.job_retry import retry_job
from metalmark.store.job_waits import POSITION_MOST, find_pending_reason, find_queue_position
from metalmark.store.jobs import (
    DEFAULT_PRIORITY,
    JobRecord,
    NewJob,
    count_jobs,
    find_job,
    insert_job,
    list_jobs,
    pending_specs,
)
from metalmark.store.keys import (
    HeldKey,
    Holder,
    KeyRecord,
    create_key,
    find_held_key,
    find_key,
    find_key_by_digest,
    list_keys,
    rename_key,
    revoke_key,
    revoke_keys,
)
from metalmark.store.members import (
    MemberRecord,
    add_member,
    find_member,
    find_organization_role,
    give_project_role,
    list_members,
    remove_member,
    update_member,
)
from metalmark.store.migrations import NewerDatabase
from metalmark.store.notices import MISSED, Notice, NoticeKind, Notices, Subscription, announce
from metalmark.store.organizations import (
    OrganizationRecord,
    create_organization,
    erase_organization,
    find_organization,
    hide_organization,
    list_organizations,
    update_organization,
)
from metalmark.store.output import (
    LIVE_OUTPUT_MAX_BYTES,
    Appended,
    ChunkRecord,
    NewChunk,
    OutputStream,
    append_output,
    drop_old_output,
    lease_of_output,
    read_output,
)
from metalmark.store.pace import Isolation, Pace
from metalmark.store.page import ALL, Page
from metalmark.store.project_names import free_project_name
from metalmark.store.projects import (
    ProjectChanges,
    ProjectRecord,
    ProjectWithRoles,
    Sight,
    create_project,
    erase_project,
    find_project,
    find_project_with_roles,
    hide_project,
    list_projects,
    projects_of,
    unfinished_jobs,
    update_project,
)
from metalmark.store.registry_blobs import (
    RegistryBlob,
    Swept,
    blob_sizes,
    drop_unlinked,
    find_registry_blob,
    mount_blob,
    publish_blob,
    registry_bytes,
    touch_blob,
    unlink_blob,
    unlink_unused,
)  # fmt: skip
from metalmark.store.registry_contents import (
    REGISTRY_PREFIX,
    ContentPart,
    condemn_content,
    condemned_contents,
    create_content,
    drop_contents,
    find_parts,
    known_parts,
    part_key,
)
from metalmark.store.registry_health import (
    ProjectShare,
    RegistryCounts,
    StoredBlob,
    StoredManifest,
    mark_blob,
    name_of_repository,
    names_of_blob,
    read_project_shares,
    read_registry_counts,
    stored_blobs,
    stored_manifests,
)  # fmt: skip
from metalmark.store.registry_images import (
    ImageRecord,
    delete_manifests,
    delete_tags,
    forsaken_manifests,
    images_of_jobs,
    list_images,
    old_tags,
)  # fmt: skip
from metalmark.store.registry_manifests import (
    Lacking,
    ManifestRecord,
    NewManifest,
    ReferrerRecord,
    TagRecord,
    delete_manifest,
    delete_tag,
    find_manifest,
    find_manifest_digest,
    list_referrers,
    list_tags,
    put_manifest,
    touch_manifest,
)  # fmt: skip
from metalmark.store.registry_release import release_images
from metalmark.store.registry_repositories import (
    RepositoryOwner,
    RepositoryPlace,
    RepositoryRecord,
    find_repository_id,
    list_repositories,
    repositories_in_turn,
)  # fmt: skip
from metalmark.store.registry_uploads import (
    UploadRecord,
    append_to_upload,
    cancel_upload,
    count_parts,
    count_uploads,
    expire_uploads,
    find_upload,
    start_upload,
)
from metalmark.store.reports import (
    NewReportRecord,
    ReportFilter,
    ReportRecord,
    ReportUser,
    delete_report,
    find_report,
    find_report_by_key,
    insert_report,
    list_reports,
    new_report_id,
    set_report_times,
)
from metalmark.store.runners import (
    RunnerChanges,
    RunnerProof,
    RunnerRecord,
    add_runner_spec,
    create_runner,
    find_proof,
    find_runner,
    find_runner_by_key,
    list_runner_specs,
    list_runners,
    note_heartbeat,
    record_proof,
    remove_runner_spec,
    rotate_runner_key,
    runner_keys_in_force,
    update_runner,
)
from metalmark.store.selection import ListOrder, Selection
from metalmark.store.signing import database_mark, ensure_signing_secrets
from metalmark.store.slugs import insert_with_slug
from metalmark.store.specs import (
    SpecChanges,
    SpecRecord,
    create_spec,
    delete_spec,
    find_fallback_spec,
    find_spec,
    list_specs,
    update_spec,
)
from metalmark.store.statistics import (
    Cohort,
    Statistics,
    read_statistics,
)
from metalmark.store.testbeds import (
    TestbedChanges,
    TestbedRecord,
    create_testbed,
    delete_testbed,
    find_testbed,
    find_testbed_of_run,
    list_testbeds,
    testbed_for_run,
    update_testbed,
)
from metalmark.store.updates import (
    PublishedUpdate,
    UpdateAudience,
    find_update,
    find_update_by_checksum,
    list_updates,
    publish_updates,
    update_key,
    withdraw_updates,
)
from metalmark.store.users import (
    UserChanges,
    UserRecord,
    any_user,
    create_personal_organization,
    create_user,
    end_sessions,
    find_user,
    find_user_by_email,
    list_users,
    update_user,
)

__all__ = [
    "ALL", "DEFAULT_PRIORITY", "LIVE_OUTPUT_MAX_BYTES", "MISSED", "POSITION_MOST", "REGISTRY_PREFIX", "Act",
    "ActRecord", "Appended", "BlobFacts", "BlobOwners", "Blobs", "BranchChanges", "BranchRecord", "ChunkRecord",
    "ClaimRules", "Claimant", "ClaimedJob", "Cohort", "Connection", "ContentPart", "HeadRecord", "HeldKey", "Holder",
    "ImageRecord", "InviteRecord", "Isolation", "JobEventRecord", "JobRecord", "KeyRecord", "Lacking", "LeaseHolder",
    "ListOrder", "ManifestRecord", "MemberRecord", "Moved", "NewChunk", "NewJob", "NewManifest", "NewReportRecord",
    "NewerDatabase", "NoClaim", "Notice", "NoticeKind", "Notices", "OrganizationRecord", "OutputStream", "Pace", "Page",
    "ProjectChanges", "ProjectRecord", "ProjectShare", "ProjectWithRoles", "PublishedUpdate", "ReferrerRecord",
    "RegistryBlob", "RegistryCounts", "ReportFilter", "ReportRecord", "ReportUser", "RepositoryOwner",
    "RepositoryPlace", "RepositoryRecord", "RunnerChanges", "RunnerProof", "RunnerRecord", "Selection", "Sight",
    "SpecChanges", "SpecRecord", "StartPoint", "StartRequest", "Statistics", "Store", "StoredBlob", "StoredManifest",
    "StoredOutput", "Subscription", "Swept", "TagRecord", "TestbedChanges", "TestbedRecord", "UpdateAudience",
    "UploadRecord", "UserChanges", "UserRecord", "VersionRecord", "accept_invite", "add_member", "add_runner_spec",
    "announce", "any_user", "append_output", "append_to_upload", "back_up", "blob_sizes", "branch_for_run",
    "cancel_upload", "claim_job", "claim_jobs", "condemn_content", "condemned_contents", "count_jobs", "count_parts",
    "count_uploads", "create_branch", "create_content", "create_invite", "create_key", "create_organization",
    "create_personal_organization", "create_project", "create_runner", "create_spec", "create_testbed", "create_user",
    "database_mark", "delete_branch", "delete_manifest", "delete_manifests", "delete_report", "delete_spec",
    "delete_tag", "delete_tags", "delete_testbed", "drop_contents", "drop_old_output", "drop_unlinked", "due_jobs",
    "end_sessions", "ensure_signing_secrets", "erase_organization", "erase_project", "expire_job", "expire_uploads",
    "extend_limits", "find_blob_owners", "find_branch", "find_branch_at", "find_fallback_spec", "find_held_key",
    "find_job", "find_key", "find_key_by_digest", "find_manifest", "find_manifest_digest", "find_member",
    "find_open_invite", "find_organization", "find_organization_role", "find_parts", "find_pending_reason",
    "find_project", "find_project_with_roles", "find_proof", "find_queue_position",
    "find_registry_blob", "find_report", "find_report_by_key", "find_repository_id", "find_runner",
    "find_runner_by_key", "find_spec", "find_testbed", "find_testbed_of_run", "find_update", "find_update_by_checksum",
    "find_upload", "find_user", "find_user_by_email", "forsaken_manifests", "free_project_name", "give_project_role",
    "hide_organization", "hide_project", "images_of_jobs", "insert_job", "insert_report", "insert_with_slug",
    "known_parts", "lease_of_output", "list_acts", "list_branches", "list_events", "list_images", "list_jobs",
    "list_keys", "list_members", "list_organizations", "list_projects", "list_referrers", "list_reports",
    "list_repositories", "list_runner_specs", "list_runners", "list_specs", "list_tags", "list_testbeds",
    "list_updates", "list_users", "mark_blob", "mount_blob", "move_job", "name_of_repository", "names_of_blob",
    "needs_new_head", "new_report_id", "next_job_deadline", "note_heartbeat", "old_tags", "parse_database_url",
    "part_key", "pending_specs", "projects_of", "publish_blob", "publish_updates", "put_manifest", "read_output",
    "read_project_shares", "read_registry_counts", "read_statistics", "record_act", "record_phase", "record_proof",
    "registry_bytes", "release_images", "remove_member", "remove_runner_spec", "rename_key", "renew_leases",
    "repositories_in_turn", "restart_branch", "restore", "retry_job", "return_claim", "revoke_key", "revoke_keys",
    "rotate_runner_key", "runner_keys_in_force", "set_report_times", "start_point_for", "start_upload", "stored_blobs",
    "stored_manifests", "testbed_for_run", "touch_blob", "touch_manifest", "unfinished_jobs", "unlink_blob",
    "unlink_unused", "unread_jobs", "update_branch", "update_key", "update_member", "update_organization",
    "update_project", "update_runner", "update_spec", "update_testbed", "update_user", "vacuum", "version_for_report",
    "withdraw_updates",
]  # fmt: skip
