"""Where Argilla calls when somebody answered there."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, Response

from annotation.argilla_hooks import MOST_BYTES, PATH, HookRefused
from studio.services.argilla import ArgillaService


def add_hooks(app: FastAPI, argilla: ArgillaService) -> None:
    """Add the call: 204 for one that Argilla signed just now, 401 for any other, 413 for one that is too long."""
    router = APIRouter()

    @router.post(PATH)
    async def hear(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_BYTES:
                return JSONResponse({"found": "The call is too long."}, status_code=413)
        try:
            argilla.hear(request.headers, body)
        except HookRefused as error:
            return JSONResponse({"found": error.found}, status_code=401)
        return Response(status_code=204)

    app.include_router(router)
