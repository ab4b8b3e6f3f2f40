"""When to publish, and when to leave it for a while: around the publisher, which knows how."""

import random
import time
from collections.abc import Iterator
from typing import Literal

import structlog
from msgspec import Struct

from dynamic_toolset import tracing
from dynamic_toolset.controller.leadership import Leadership
from dynamic_toolset.controller.pacer import Alarm, Pacer
from dynamic_toolset.kube.errors import ApiError, KubernetesError
from dynamic_toolset.kube.reflector import RETRY_AFTER_CAP
from dynamic_toolset.model import Hold, Problem
from dynamic_toolset.publication.configmap import DocumentsTooLarge
from dynamic_toolset.publication.publisher import CONTESTED, Publisher, Render, Withheld, Written
from dynamic_toolset.settings import Settings

log = structlog.get_logger()


class Publication(Struct, frozen=True):
    """What became of one attempt, and what a person should know about it if it did not work."""

    outcome: Literal["unchanged", "created", "updated", "withheld", "failed"] | Hold
    problem: Problem | None = None

    @property
    def holds(self) -> bool:
        """Whether the ConfigMap says by now what it should."""
        return self.outcome in {"unchanged", "created", "updated"}


class Publishing:
    """Publishes for the leader. After a failure nothing is tried before its pause is over, however many events come.

    While there is a ``hold`` it only finds out what there would be to write.
    """

    def __init__(
        self, publisher: Publisher, leadership: Leadership, settings: Settings, pacer: Pacer, *, unsettled: bool = False
    ) -> None:
        self.hold = _hold(settings, unsettled=unsettled)
        self._publisher = publisher
        self._leadership = leadership
        self._target = settings.config_map
        self._failures = 0
        self._refused: Problem | None = None
        self._retry = Alarm(pacer.notify)
        self._calm = Alarm(pacer.notify)

    async def publish(self, render: Render) -> Publication:
        """Publish; what went wrong, if anything, is a problem to report, and what was published last stays.

        Raises NotLeading.
        """
        if self.hold is not None:
            return self._rehearse(render, self.hold)
        if self._refused is not None and self._retry.is_set:
            render(self._publisher.present())
            return Publication("failed", self._refused)
        fence, began = self._leadership.fence, time.monotonic()
        try:
            with tracing.span("publish"):
                written = await self._publisher.publish(render, fence=fence)
                tracing.note(outcome=written.value)
        except DocumentsTooLarge as error:
            return Publication("withheld", Problem("TooLarge", f"{error}; what was published last stays"))
        except Withheld as withheld:
            self._retry.set(withheld.retry_in)
            return Publication("withheld", Problem(withheld.reason, str(withheld)))
        except KubernetesError as error:
            self._refused = Problem("PublicationFailed", str(error))
            self._try_again_later(error)
            return Publication("failed", self._refused)
        self._failures, self._refused = 0, None
        self._retry.set(None)
        if written is not Written.NOTHING:
            self._leadership.has_fenced()
            log.info(
                "published",
                configmap=f"{self._target.namespace}/{self._target.name}",
                outcome=written.value,
                duration=round(time.monotonic() - began, 4),
            )
        return Publication(written.value)

    def _rehearse(self, render: Render, hold: Hold) -> Publication:
        self._publisher.stand_down()  # what others write meanwhile is no drift
        try:
            return Publication(hold if self._publisher.rehearse(render) else "unchanged")
        except DocumentsTooLarge as error:
            return Publication("withheld", Problem("TooLarge", f"{error}; nothing could be written"))
        except Withheld as withheld:
            return Publication("withheld", Problem(withheld.reason, str(withheld)))

    def adjust(self, settings: Settings, *, unsettled: bool = False) -> None:
        """Write, or do not write, as these settings say from now on; not while it is ``unsettled`` which those are."""
        self.hold = _hold(settings, unsettled=unsettled)

    def contest(self, failure: Problem | None) -> Iterator[Problem]:
        """Yield the condition of a fight over the ConfigMap, as long as it goes on."""
        contest = self._publisher.contest
        if contest is not None and (failure is None or failure.reason != CONTESTED):
            yield Problem(CONTESTED, contest)
        self._calm.set(self._publisher.contest_ends_in)

    def _try_again_later(self, error: KubernetesError) -> None:
        """Pause for 1 s, doubling to a minute, with jitter; or longer, if the API asks for that. A timer ends it."""
        self._failures += 1
        delay = min(2.0 ** (self._failures - 1), 60.0) * random.uniform(0.8, 1.2)  # noqa: S311 - jitter is no secret
        if isinstance(error, ApiError) and error.retry_after is not None:
            delay = max(delay, min(error.retry_after, RETRY_AFTER_CAP))
        self._retry.set(delay)


def _hold(settings: Settings, *, unsettled: bool) -> Hold | None:
    if unsettled:
        return "unsettled"
    if settings.paused:
        return "paused"
    return "dry_run" if settings.dry_run else None
