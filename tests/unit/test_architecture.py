"""The rules of ARCHITECTURE.md and CONTRIBUTING.md that a machine can check and that no linter does."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from metalmark.model import Outcome, Phase, RootfsMode, SandboxName
from metalmark.sandbox import Accelerator

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "metalmark"
MODULES = sorted(SOURCE.rglob("*.py"))
MODULE_LINES = 500
FUNCTION_LINES = 80
README_LINES = 150

TESTED_ELSEWHERE = {
    "cli/application.py": "tests/integration/test_command_line.py",
    "cli/main.py": "tests/integration/test_command_line.py",
    "cli/reference.py": "tests/integration/test_command_line.py",
    "cli/dashed_command.py": "tests/unit/cli/test_runner.py",
    "cli/job_file_reference.py": "tests/integration/test_command_line.py",
    "cli/local_job_file.py": "tests/unit/cli/test_runner.py",
    "cli/run.py": "tests/integration/cli/test_run.py",
    "cli/run_command.py": "tests/machine/runner/test_run_command.py",
    "cli/selftest_command.py": "tests/machine/runner/test_selftest.py",
    "cli/server_admin.py": "tests/integration/cli/test_server_admin.py",
    "cli/server_audit.py": "tests/integration/cli/test_server_audit.py",
    "cli/server_options.py": "tests/integration/cli/test_server_admin.py",
    "cli/runner_service.py": "tests/integration/cli/test_runner_service.py",
    "cli/server_updates.py": "tests/integration/cli/test_server_updates.py",
    "cli/server_up.py": "tests/integration/cli/test_server_up.py",
    "client/channel_connection.py": "tests/integration/client/test_channel_connection.py",
    "client/channel_opening.py": "tests/integration/client/test_channel_connection.py",
    "oci/push.py": "tests/integration/oci/test_push.py",
    "oci/push_target.py": "tests/integration/oci/test_push.py",
    "oci/upload_record.py": "tests/integration/oci/test_push.py",
    "oci/bounds.py": "tests/integration/oci/test_odd_trees.py",
    "oci/ext4.py": "tests/integration/oci/test_rootfs.py",
    "oci/layer_stream.py": "tests/unit/oci/test_merge.py",
    "oci/merge_plan.py": "tests/unit/oci/test_merge.py",
    "oci/origin.py": "tests/unit/oci/test_pull.py",
    "oci/resolve.py": "tests/integration/oci/test_resolve.py",
    "oci/rootfs.py": "tests/integration/oci/test_rootfs.py",
    "oci/rootfs_build.py": "tests/integration/oci/test_rootfs.py",
    "oci/rootfs_cache.py": "tests/integration/oci/test_rootfs.py",
    "oci/squashfs.py": "tests/integration/oci/test_rootfs.py",
    "oci/squashfs_root.py": "tests/integration/oci/test_rootfs.py",
    "oci/tar_header.py": "tests/integration/oci/test_odd_headers.py",
    "oci/tar_records.py": "tests/integration/oci/test_odd_headers.py",
    "oci/tar_stream.py": "tests/integration/oci/test_odd_headers.py",
    "runner/end_teller.py": "tests/unit/runner/test_session_own.py",
    "runner/iteration.py": "tests/unit/runner/test_executor.py",
    "runner/job_in_hand.py": "tests/unit/runner/test_jobs_in_hand.py",
    "runner/job_teller.py": "tests/unit/runner/test_session_own.py",
    "runner/job_voice.py": "tests/unit/runner/test_session_own.py",
    "runner/link_observer.py": "tests/unit/runner/test_link.py",
    "runner/output_teller.py": "tests/unit/runner/test_session_own.py",
    "runner/phase_teller.py": "tests/unit/runner/test_session_own.py",
    "runner/real_surroundings.py": "tests/machine/runner/test_run_command.py",
    "runner/runner_identity.py": "tests/unit/runner/test_session_own.py",
    "runner/selftest_checks.py": "tests/unit/runner/test_selftest.py",
    "runner/selftest_images.py": "tests/machine/runner/test_selftest.py",
    "runner/selftest_scenario.py": "tests/unit/runner/test_selftest.py",
    "runner/selftest_scenarios_images.py": "tests/machine/runner/test_selftest.py",
    "runner/selftest_scenarios_limits.py": "tests/machine/runner/test_selftest.py",
    "runner/selftest_scenarios_run.py": "tests/machine/runner/test_selftest.py",
    "runner/session_pace.py": "tests/unit/runner/test_session_own.py",
    "runner/texts.py": "tests/unit/runner/test_session_own.py",
    "runner/session_public.py": "tests/integration/runner/test_contract_server.py",
    "runner/writable_root.py": "tests/machine/runner/test_selftest.py",
    "runner/version_folder.py": "tests/integration/runner/test_version_folder.py",
    "server/routes_updates.py": "tests/integration/server/channel/test_updates.py",
    "server/update_publishing.py": "tests/integration/server/channel/test_updates.py",
    "store/updates.py": "tests/integration/server/channel/test_updates.py",
    "store/revision_0005_updates.py": "tests/integration/store/test_migrations.py",
    "sandbox/accounted_box.py": "tests/machine/sandbox/test_host_boxes.py",
    "sandbox/agent_binary.py": "tests/machine/sandbox/test_qemu.py",
    "sandbox/agent_stream.py": "tests/unit/sandbox/test_agent.py",
    "sandbox/artifacts.py": "tests/integration/sandbox/test_artifacts.py",
    "sandbox/awaited_stream.py": "tests/machine/sandbox/test_qemu.py",
    "sandbox/box_life.py": "tests/machine/sandbox/test_qemu.py",
    "sandbox/container.py": "tests/machine/sandbox/test_container.py",
    "sandbox/container_process.py": "tests/machine/sandbox/test_container.py",
    "sandbox/firecracker.py": "tests/integration/sandbox/test_fake_firecracker.py",
    "sandbox/firecracker_process.py": "tests/integration/sandbox/test_fake_firecracker.py",
    "sandbox/furnished_root.py": "tests/machine/sandbox/test_host_boxes.py",
    "sandbox/kernel.py": "tests/unit/runner/test_kernel_package.py",
    "sandbox/kvm_guest.py": "tests/unit/sandbox/test_kvm.py",
    "sandbox/mounted_root.py": "tests/machine/sandbox/test_host_boxes.py",
    "sandbox/none.py": "tests/machine/sandbox/test_host_boxes.py",
    "sandbox/none_process.py": "tests/machine/sandbox/test_host_boxes.py",
    "sandbox/port.py": "tests/machine/sandbox/test_host_boxes.py",
    "sandbox/qemu.py": "tests/machine/sandbox/test_qemu.py",
    "sandbox/scratch.py": "tests/machine/sandbox/test_host_boxes.py",
    "sandbox/tsc.py": "tests/machine/sandbox/test_qemu.py",
    "sandbox/vcpu_binding.py": "tests/machine/sandbox/test_qemu.py",
    "sandbox/vmm_cgroup.py": "tests/machine/sandbox/test_qemu.py",
    "server/actor.py": "tests/integration/server/test_permission.py",
    "server/caller.py": "tests/integration/server/test_permission.py",
    "server/administration.py": "tests/integration/cli/test_server_admin.py",
    "server/backups.py": "tests/integration/server/test_running.py",
    "server/channel_job.py": "tests/integration/server/channel/test_public.py",
    "server/channel_own.py": "tests/integration/server/channel/test_own.py",
    "server/channel_public.py": "tests/integration/server/channel/test_public.py",
    "server/claim_batches.py": "tests/integration/server/test_dispatcher.py",
    "server/connection.py": "tests/integration/server/test_connection.py",
    "server/context.py": "tests/integration/server/test_running.py",
    "server/deadlines.py": "tests/integration/server/test_deadlines.py",
    "server/dispatcher.py": "tests/integration/server/test_dispatcher.py",
    "server/errors.py": "tests/unit/server/test_application.py",
    "server/first_start.py": "tests/integration/server/test_first_start.py",
    "server/job_bodies.py": "tests/integration/server/test_jobs.py",
    "server/job_pending.py": "tests/integration/server/test_jobs.py",
    "server/job_desk.py": "tests/integration/server/channel/test_own.py",
    "server/large_output.py": "tests/integration/server/channel/test_own.py",
    "server/output_sweep.py": "tests/integration/server/channel/test_output.py",
    "server/permission.py": "tests/integration/server/test_permission.py",
    "server/project_removal.py": "tests/integration/server/test_accounts.py",
    "server/pull_token.py": "tests/integration/server/channel/test_pull_token.py",
    "server/query_values.py": "tests/unit/server/test_application.py",
    "server/registry_access.py": "tests/integration/server/test_registry_access.py",
    "server/registry_token.py": "tests/integration/server/test_registry_access.py",
    "server/routes_registry_token.py": "tests/integration/server/test_registry_access.py",
    "server/registry_desk.py": "tests/integration/server/registry/test_push.py",
    "server/registry_damage.py": "tests/integration/server/registry/test_damage.py",
    "server/registry_manifests.py": "tests/integration/server/registry/test_push.py",
    "server/routes_registry_blobs.py": "tests/integration/server/registry/test_push.py",
    "server/routes_registry_manifests.py": "tests/integration/server/registry/test_push.py",
    "server/routes_registry_uploads.py": "tests/integration/server/registry/test_push.py",
    "store/registry_blobs.py": "tests/integration/server/registry/test_push.py",
    "store/registry_release.py": "tests/integration/server/registry/test_collection.py",
    "server/file_sending.py": "tests/integration/server/test_file_sending.py",
    "store/registry_uploads.py": "tests/integration/server/registry/test_push.py",
    "store/revision_0006_registry.py": "tests/integration/store/test_migrations.py",
    "cli/image_registry.py": "tests/integration/cli/test_image_registry.py",
    "client/image_target.py": "tests/integration/cli/test_image_registry.py",
    "server/registry_retention.py": "tests/integration/server/registry/test_retention.py",
    "server/routes_images.py": "tests/integration/cli/test_image_registry.py",
    "store/registry_images.py": "tests/integration/server/registry/test_retention.py",
    "cli/registry.py": "tests/integration/server/registry/test_collection.py",
    "server/registry_collection.py": "tests/integration/server/registry/test_collection.py",
    "server/report_bodies.py": "tests/integration/server/test_runs.py",
    "server/report_draft.py": "tests/integration/server/test_runs.py",
    "server/request_body.py": "tests/unit/server/test_application.py",
    "server/request_frame.py": "tests/unit/server/test_application.py",
    "server/request_path.py": "tests/unit/server/test_application.py",
    "server/routes_auth.py": "tests/integration/server/test_accounts.py",
    "server/routes_branches.py": "tests/integration/server/conformance/test_projects.py",
    "server/routes_channel.py": "tests/integration/server/channel/test_public.py",
    "server/routes_health.py": "tests/integration/server/test_running.py",
    "server/routes_jobs.py": "tests/integration/server/test_jobs.py",
    "server/routes_members.py": "tests/integration/server/conformance/test_accounts.py",
    "server/routes_organizations.py": "tests/integration/server/conformance/test_accounts.py",
    "server/routes_output.py": "tests/integration/server/channel/test_output.py",
    "server/routes_project_keys.py": "tests/integration/server/conformance/test_projects.py",
    "server/routes_projects.py": "tests/integration/server/conformance/test_projects.py",
    "server/routes_reports.py": "tests/integration/server/test_runs.py",
    "server/routes_runners.py": "tests/integration/server/conformance/test_runners.py",
    "server/routes_runs.py": "tests/integration/server/test_runs.py",
    "server/routes_server.py": "tests/integration/server/test_running.py",
    "server/routes_specs.py": "tests/integration/server/conformance/test_runners.py",
    "server/routes_testbeds.py": "tests/integration/server/conformance/test_projects.py",
    "server/routes_tokens.py": "tests/integration/server/conformance/test_accounts.py",
    "server/routes_user_keys.py": "tests/integration/server/conformance/test_accounts.py",
    "server/routes_users.py": "tests/integration/server/conformance/test_accounts.py",
    "server/run_project.py": "tests/integration/server/test_runs.py",
    "server/run_spec.py": "tests/integration/server/test_runs.py",
    "server/run_submission.py": "tests/integration/server/test_runs.py",
    "server/runner_credential.py": "tests/integration/server/channel/test_public.py",
    "server/running.py": "tests/integration/server/test_running.py",
    "server/socket_protocol.py": "tests/integration/server/channel/test_public.py",
    "store/audit.py": "tests/integration/store/test_keys.py",
    "store/backup.py": "tests/integration/store/test_backup.py",
    "store/blob_owners.py": "tests/integration/server/test_orphan_sweep.py",
    "store/branch_start.py": "tests/integration/store/test_branches.py",
    "store/branches.py": "tests/integration/store/test_branches.py",
    "store/claims.py": "tests/integration/store/test_claims.py",
    "store/database.py": "tests/integration/store/test_database.py",
    "store/heads.py": "tests/integration/store/test_branches.py",
    "store/invites.py": "tests/integration/store/test_organizations.py",
    "store/job_deadlines.py": "tests/integration/store/test_job_moves.py",
    "store/job_events.py": "tests/integration/store/test_job_moves.py",
    "store/job_moves.py": "tests/integration/store/test_job_moves.py",
    "store/job_retry.py": "tests/integration/store/test_job_moves.py",
    "store/job_waits.py": "tests/integration/server/test_jobs.py",
    "store/jobs.py": "tests/integration/store/test_job_moves.py",
    "store/keys.py": "tests/integration/store/test_keys.py",
    "store/members.py": "tests/integration/store/test_organizations.py",
    "store/migrations.py": "tests/integration/store/test_migrations.py",
    "store/organizations.py": "tests/integration/store/test_organizations.py",
    "store/output.py": "tests/integration/server/channel/test_output.py",
    "store/page.py": "tests/integration/store/test_fleet.py",
    "store/postgresql_engine.py": "tests/faults/store/test_database_faults.py",
    "store/project_names.py": "tests/integration/server/test_runs.py",
    "store/projects.py": "tests/integration/store/test_organizations.py",
    "store/reports.py": "tests/integration/server/test_runs.py",
    "store/revision_0001_accounts.py": "tests/integration/store/test_migrations.py",
    "store/revision_0002_fleet.py": "tests/integration/store/test_migrations.py",
    "store/revision_0003_measured_things.py": "tests/integration/store/test_migrations.py",
    "store/revision_0004_jobs.py": "tests/integration/store/test_migrations.py",
    "store/runners.py": "tests/integration/store/test_fleet.py",
    "store/selection.py": "tests/integration/store/test_users.py",
    "store/signing.py": "tests/integration/store/test_keys.py",
    "store/slugs.py": "tests/integration/store/test_users.py",
    "store/specs.py": "tests/integration/store/test_fleet.py",
    "store/sqlite_driver.py": "tests/integration/store/test_database.py",
    "store/sqlite_engine.py": "tests/faults/store/test_database_faults.py",
    "store/statistics.py": "tests/integration/server/test_running.py",
    "store/tables_accounts.py": "tests/integration/store/test_keys.py",
    "store/tables_registry.py": "tests/integration/store/test_migrations.py",
    "store/testbeds.py": "tests/integration/store/test_testbeds.py",
    "store/users.py": "tests/integration/store/test_users.py",
    "system/process.py": "tests/integration/system/test_process.py",
    "testing/fake_sandbox.py": "tests/unit/runner/test_executor.py",
    "testing/public_calls.py": "tests/integration/server/conformance/test_public_cli.py",
    "testing/public_cli.py": "tests/integration/server/conformance/test_public_cli.py",
    "testing/public_shapes.py": "tests/integration/server/conformance/test_public_cli.py",
    "testing/server_process.py": "tests/faults/server/test_server_killed.py",
    "wire/job_config.py": "tests/unit/wire/test_channel.py",
    "wire/rest_output.py": "tests/integration/server/channel/test_output.py",
}
"""Modules whose work is with processes, devices or whole images, and where that is tested instead of in tests/unit."""


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function's body without its docstring: a signature may be long where it declares a command's flags."""
    assert function.end_lineno is not None
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and first.end_lineno is not None:
        return function.end_lineno - first.end_lineno
    return function.end_lineno - first.lineno + 1


def is_stub(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a function says only what it would do, as those of a protocol."""
    return all(
        isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for node in function.body
    )


def test_packages_are_two_levels_deep() -> None:
    assert [relative(path) for path in MODULES if len(path.relative_to(SOURCE).parts) > 2] == []


def imports(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Modules that a file imports, in functions and for types too, and the names it takes from each."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module, [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)


def test_other_packages_are_imported_by_their_package_name_only() -> None:
    wrong = []
    for path in MODULES:
        for module, names in imports(path):
            package = module.split(".")[1] if module.startswith("metalmark.") else path.parent.name
            if package == path.parent.name:
                continue
            public = importlib.import_module(f"metalmark.{package}").__all__
            hidden = [name for name in names if name not in public] if module.count(".") == 1 else [module]
            wrong += [f"{relative(path)} imports {name}, which metalmark.{package} does not export" for name in hidden]
    assert wrong == []


@pytest.mark.parametrize("folder", ["src", "guest", "tests", "benchmarks"])
def test_no_file_is_over_its_length(folder: str) -> None:
    files = [path for kind in ("*.py", "*.c", "*.h") for path in sorted((ROOT / folder).rglob(kind))]
    limit = MODULE_LINES if folder in ("src", "guest") else 2 * MODULE_LINES
    counted = {relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {name: lines for name, lines in counted.items() if lines > limit} == {}


def test_no_function_is_over_its_length() -> None:
    counted = {
        f"{relative(path)}:{function.lineno} {function.name}": length(function)
        for path in MODULES
        for function in functions(path)
    }
    assert {name: lines for name, lines in counted.items() if lines > FUNCTION_LINES} == {}


def test_what_is_public_has_a_docstring() -> None:
    bare = []
    for path in MODULES:
        public = [
            node for node in tree(path).body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        ]
        for node in public:
            if not node.name.startswith("_") and ast.get_docstring(node) is None:
                bare.append(f"{relative(path)}:{node.lineno} {node.name}")
        if ast.get_docstring(tree(path)) is None:
            bare.append(relative(path))
    assert bare == []


def test_no_file_is_named_for_nothing() -> None:
    nothing = {"utils", "util", "common", "helpers", "helper", "base", "manager", "core", "misc"}
    assert [relative(path) for path in MODULES if path.stem in nothing or path.parent.name in nothing] == []


def code_modules() -> list[Path]:
    """Modules that do something: not those that only hold values or protocols, nor the fakes."""
    candidates = [path for path in MODULES if path.name != "__init__.py" and path.parent.name != "testing"]
    return [path for path in candidates if not all(map(is_stub, functions(path)))]


def test_every_module_is_tested_under_its_own_name() -> None:
    missing = []
    for path in code_modules():
        name = path.relative_to(SOURCE)
        mirror = ROOT / "tests" / "unit" / name.parent / f"test_{name.name}"
        if not mirror.exists() and name.as_posix() not in TESTED_ELSEWHERE:
            missing.append(f"{relative(path)} wants {relative(mirror)}, or an entry in TESTED_ELSEWHERE")
    assert missing == []


def test_exceptions_from_the_mirror_are_needed_and_true() -> None:
    for name, test in TESTED_ELSEWHERE.items():
        assert (SOURCE / name).exists(), name
        assert (ROOT / test).exists(), f"{name} is said to be tested in {test}"
        assert not (ROOT / "tests/unit" / Path(name).parent / f"test_{Path(name).name}").exists(), name


def test_every_unit_test_is_named_for_a_module() -> None:
    stray = []
    for test in sorted((ROOT / "tests/unit").glob("*/test_*.py")):
        noun = test.stem.removeprefix("test_")
        modules = [path.stem for path in (SOURCE / test.parent.name).glob("*.py")]
        if not any(noun == module or noun.startswith(f"{module}_") for module in modules):
            stray.append(relative(test))
    assert stray == []


def documents() -> list[Path]:
    found = [*ROOT.glob("*.md")]
    for folder in ("docs", "examples", "scripts", "benchmarks", "guest", "tests"):
        found += (ROOT / folder).rglob("*.md")
    return sorted(found)


def anchors(document: Path) -> set[str]:
    """The anchors that a forge makes of a document's headings."""
    found = set()
    for heading in re.findall(r"^#+ +(.+?) *$", document.read_text(encoding="utf-8"), re.MULTILINE):
        kept = re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading.lower()))
        found.add(kept.replace(" ", "-"))
    return found


@pytest.mark.parametrize("document", documents(), ids=relative)
def test_links_of_documents_resolve(document: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        place = (document.parent / name).resolve() if name else document
        if not place.exists() or (anchor and anchor not in anchors(place)):
            broken.append(target)
    assert broken == []


def test_every_page_of_the_documentation_is_in_its_index() -> None:
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert [page for page in sorted(pages) if page != "README.md" and f"({page})" not in index] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < README_LINES


def test_the_glossary_has_every_word_of_a_result() -> None:
    glossary = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    words = [*Outcome, *Phase, *SandboxName, *RootfsMode, *Accelerator]
    assert [word.value for word in words if f"`{word.value}`" not in glossary] == []
