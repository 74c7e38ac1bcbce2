"""Alive, ready, and the numbers: what monitors and load balancers ask."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from replicator.coordinator.api.answers import Alive, Ready, answer
from replicator.coordinator.api.context import Given
from replicator.coordinator.api.roles import READ
from replicator.coordinator.operations import WORKER_SEEN_SECONDS
from replicator.store.port import StoreUnavailable

router = APIRouter(tags=["health"])


@router.get("/healthz", responses=answer(Alive))
async def healthz() -> dict[str, Any]:
    """200 while the process answers at all."""
    return {"status": "ok"}


@router.get("/readyz", responses=answer(Ready) | answer(Ready, 503))
async def readyz(given: Given) -> JSONResponse:
    """200 once the store answers and the files given at start have been applied; else 503 and what is missing."""
    missing = []
    try:
        await given.store.identity()
    except StoreUnavailable as error:
        missing.append(str(error))
    if not given.readiness.applied:
        missing.append(given.readiness.waiting_for or "the files given at start are being applied")
    return JSONResponse({"status": "not-ready" if missing else "ok", "missing": missing}, status_code=503 if missing else 200)


@router.get("/metrics", dependencies=[READ], response_class=PlainTextResponse)
async def metrics(given: Given) -> Response:
    """Prometheus' text format."""
    try:
        workers = {holder: info for holder, info, _ in await given.store.workers(WORKER_SEEN_SECONDS)}
        given.metrics.update(await given.coordinator.figures(), workers, await given.coordinator.leading())
    except StoreUnavailable:
        given.metrics.store_lost()
    return Response(given.metrics.render(), media_type=CONTENT_TYPE_LATEST)
