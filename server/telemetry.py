"""What is counted, timed and named about every request, whatever becomes of it."""

from __future__ import annotations

import logging
import re
import secrets
import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.datastructures import Headers, MutableHeaders

from pipelines.machine import free_disk_bytes
from server.errors import internal_error
from server.space import pause_reason

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from server.settings import Settings
    from server.store import JobStore

_log = logging.getLogger("homereel.api")

API_VERSION = "2020-10-01"
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# A client may invent methods; each would be a time series.
_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """One app's numbers; two apps in one process do not meet."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        labels = ("method", "route", "status")
        self.requests = Counter("homereel_http_requests", "Requests answered.", labels, registry=self.registry)
        self.seconds = Histogram(
            "homereel_http_request_seconds", "Time to answer.", ("route",), buckets=_SECONDS, registry=self.registry
        )

    def observe_jobs(self, store: JobStore, settings: Settings) -> None:
        """Add what the store and the disk know; they are asked at every scrape."""
        self.registry.register(_Jobs(store, settings))


class _Jobs(Collector):
    def __init__(self, store: JobStore, settings: Settings) -> None:
        self._store = store
        self._settings = settings

    def describe(self) -> Iterable[Metric]:
        # Without this, registering would ask the database.
        return []

    def collect(self) -> Iterable[Metric]:
        jobs = GaugeMetricFamily("homereel_jobs", "Videos by status.", labels=["status"])
        for status, count in self._store.counts().items():
            jobs.add_metric([status], count)
        busy = GaugeMetricFamily("homereel_worker_busy", "1 while the worker makes a video.", labels=["device"])
        workers = self._store.workers()
        total = GaugeMetricFamily("homereel_device_memory_bytes", "What the device has.", labels=["device"])
        free = GaugeMetricFamily("homereel_device_memory_free_bytes", "What can still be had.", labels=["device"])
        for worker in workers:
            busy.add_metric([worker.device], worker.job is not None)
            if worker.memory is not None:
                total.add_metric([worker.device], worker.memory.total_bytes)
                free.add_metric([worker.device], worker.memory.free_bytes)
        paused = pause_reason(self._settings, [worker.paused for worker in workers])
        return [
            jobs,
            busy,
            total,
            free,
            GaugeMetricFamily(
                "homereel_queue_paused", "1 while nothing is begun; /ready says why.", paused is not None
            ),
            GaugeMetricFamily(
                "homereel_disk_free_bytes", "What may still be written.", free_disk_bytes(self._settings.assets_dir)
            ),
        ]


class Telemetry:
    """ASGI middleware: names the request, times and counts it, and turns a crash into an answer."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _SANE_ID.fullmatch(given) else f"req_{secrets.token_hex(16)}"
        status = 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["openai-version"] = API_VERSION
                headers["openai-processing-ms"] = str(round((time.perf_counter() - began) * 1000))
            await send(message)

        try:
            await self._app(scope, receive, send_named)
        except Exception:
            _log.exception("request_failed id=%s", request_id)
            if status:
                # Half an answer is out: only closing the connection tells the client so.
                raise
            await internal_error()(scope, receive, send_named)
        finally:
            self._note(scope, status, time.perf_counter() - began, request_id)

    def _note(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        # The template, never the path: paths hold ids, and every id would be a time series.
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.requests.labels(method, route, status).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        _log.info("request id=%s method=%s route=%s status=%d s=%.3f", request_id, method, route, status, seconds)
