"""The world the sandbox serves: three accounts, one clock, a request log and a switchboard for faults."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox.clock import DEFAULT_NOW, Clock, WorkingHours
from sandbox.day import live
from sandbox.faults import Switchboard
from sandbox.getscreen.account import Getscreen, GetscreenSettings
from sandbox.people import Cast
from sandbox.posthog.account import Posthog, PosthogSettings
from sandbox.requestlog import RequestLog
from sandbox.scene import Scene
from sandbox.screendesk.account import Screendesk, ScreendeskSettings

if TYPE_CHECKING:
    from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Settings:
    """Each vendor's knobs; the same objects as `world.<vendor>.settings`."""

    screendesk: ScreendeskSettings
    getscreen: GetscreenSettings
    posthog: PosthogSettings


class World:
    """Everything there is to serve, and what tests change while it is served.

    The same arguments always give the same bytes. All methods may be called while a server thread reads.
    """

    def __init__(
        self,
        seed: int = 7,
        *,
        recordings: int = 500,
        users: int = 25,
        connections: int = 300,
        meetings: int = 60,
        now: datetime | None = None,
    ) -> None:
        self.seed = seed
        self.lock = threading.RLock()
        self._clock = Clock(now or DEFAULT_NOW)
        self.cast = Cast(seed, users)
        scene = Scene(seed, self._clock, self.lock, self.cast, WorkingHours(self._clock.now))
        self.screendesk = Screendesk(scene, recordings)
        self.getscreen = Getscreen(scene, connections)
        self.posthog = Posthog(scene, meetings)
        self.settings = Settings(self.screendesk.settings, self.getscreen.settings, self.posthog.settings)
        self.requests = RequestLog()
        self.faults = Switchboard()
        self.days_lived = 0

    @property
    def now(self) -> datetime:
        """The virtual present, in UTC."""
        return self._clock.now

    @now.setter
    def now(self, instant: datetime) -> None:
        with self.lock:
            self._clock.now = Clock(instant).now

    def advance(self, by: timedelta) -> None:
        """Let time pass; nothing else changes."""
        with self.lock:
            self._clock.now += by

    def live_a_day(self, deletes: int = 0) -> dict[str, int]:
        """Let a plausible day pass, and return how many records of each table it changed.

        `deletes` removes that many old Screendesk recordings as well.
        """
        with self.lock:
            return live(self, deletes)

    def secrets(self) -> tuple[str, ...]:
        """Every credential the world accepts at present."""
        return (self.screendesk.token, self.getscreen.token, self.posthog.token)
