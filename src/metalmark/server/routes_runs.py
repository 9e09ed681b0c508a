"""``/v0/run``: results that were measured elsewhere, or a job that is to measure them."""

from __future__ import annotations

from fastapi import APIRouter, Request

from metalmark.server.caller import CurrentActor
from metalmark.server.context import CurrentContext
from metalmark.server.report_bodies import report_body
from metalmark.server.run_submission import Submitter, submit_run
from metalmark.wire import NewRun, ReportBody

router = APIRouter(tags=["run"])


@router.post("/v0/run", operation_id="run_post", status_code=201)
async def post_run(context: CurrentContext, actor: CurrentActor, request: Request, body: NewRun) -> ReportBody:
    """Submit a run. Its project, branch and testbed are made when they are not there.

    A run under an idempotency key that the project has seen is answered with the report of the first.
    """
    submitted = await submit_run(Submitter(context=context, request=request, actor=actor), body)
    return report_body(submitted.report, submitted.project)
