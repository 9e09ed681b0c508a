"""``/v0/projects/{project}/images``: what a project has in the server's registry."""

from __future__ import annotations

from fastapi import APIRouter, Response

from metalmark.model import Permission
from metalmark.server.caller import CurrentActor
from metalmark.server.context import CurrentContext
from metalmark.server.paging import RequestedPage, set_total
from metalmark.server.permission import project_for
from metalmark.store import ImageRecord, ProjectRecord, list_images
from metalmark.wire import ImageBody, ResourceIdField

router = APIRouter(tags=["registry"])


@router.get("/v0/projects/{project}/images", operation_id="proj_images_get")
async def get_images(
    *,
    context: CurrentContext,
    actor: CurrentActor,
    response: Response,
    page: RequestedPage,
    project: ResourceIdField,
) -> list[ImageBody]:
    """List the images of a project by repository and tag."""
    async with context.store.read() as connection:
        found = await project_for(connection, actor, project, Permission.VIEW)
        images, total = await list_images(connection, page=page, project_id=found.id)
    set_total(response, total)
    return [_body(image, found) for image in images]


def _body(image: ImageRecord, project: ProjectRecord) -> ImageBody:
    repository = f"{project.slug}/{image.inner}" if image.inner else str(project.slug)
    return ImageBody(
        name=f"{repository}:{image.tag}",
        repository=repository,
        tag=image.tag,
        digest=str(image.digest),
        media_type=image.media_type,
        size=image.size_bytes,
        pushed=image.pushed,
    )
