"""The cast: agents, leavers and customers, shared by the three vendors so that their data can be joined."""

# ruff: noqa: PLR2004 - probabilities of made-up data are clearest where they are drawn

from __future__ import annotations

import random
from typing import NamedTuple

from sandbox import vocabulary as words

_CUSTOMERS = 400
_LEAVERS = 4
_IPV4_NETS = ("192.0.2", "198.51.100", "203.0.113")


class Person(NamedTuple):
    """Someone with a name, an address, a place and a machine."""

    name: str
    email: str
    place: words.Place
    machine: words.Machine
    ip: str
    provider: str


class Device(NamedTuple):
    """A computer with a Getscreen agent installed."""

    id: int
    name: str
    group: str
    os: str
    version: str
    owner: str
    place: words.Place
    ip: str


class Cast:
    """Everyone who appears in a world."""

    def __init__(self, seed: int, users: int) -> None:
        self._rng = random.Random(f"{seed}:cast")
        self._taken: set[str] = set()
        self.agents = [self.hire() for _ in range(users)]
        self.leavers = [self.hire() for _ in range(_LEAVERS)]
        self.customers = [self._customer() for _ in range(_CUSTOMERS)]
        self.owners = (self.agents * 6 + self.leavers) or self.leavers
        self.devices = [self._device(number) for number in range(120)]

    def hire(self) -> Person:
        """A new support agent."""
        return self._person(words.SUPPORT_DOMAIN)

    def _customer(self) -> Person:
        return self._person(self._rng.choice(words.CUSTOMER_DOMAINS))

    def _person(self, domain: str) -> Person:
        rng = self._rng
        first, last = rng.choice(words.FIRST_NAMES), rng.choice(words.LAST_NAMES)
        email = f"{first[1]}.{last[1]}@{domain}"
        copies = 1
        while email.lower() in self._taken:
            copies += 1
            email = f"{first[1]}.{last[1]}{copies}@{domain}"
        self._taken.add(email.lower())
        if rng.random() < 0.15:
            email = ".".join(part.capitalize() for part in email.split("."))
        return Person(
            name=f"{first[0]} {last[0]}",
            email=email,
            place=rng.choice(words.PLACES),
            machine=rng.choice(words.MACHINES),
            ip=address(rng),
            provider=rng.choice(words.PROVIDERS),
        )

    def _device(self, number: int) -> Device:
        rng = self._rng
        os, version = rng.choice(words.DEVICE_SYSTEMS)
        code = "".join(rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ23456789") for _ in range(7))
        return Device(
            id=1405000 + number * 7,
            name=f"DESKTOP-{code}" if rng.random() < 0.8 else f"{rng.choice(words.FIRST_NAMES)[0]}s Rechner",
            group=rng.choice(words.DEVICE_GROUPS),
            os=os,
            version=version,
            owner=rng.choice(self.owners).email,
            place=rng.choice(words.PLACES),
            ip=address(rng),
        )


def address(rng: random.Random) -> str:
    """An IP address from the ranges reserved for documentation."""
    if rng.random() < 0.15:
        return f"2001:db8:{rng.randrange(65536):x}::{rng.randrange(1, 65536):x}"
    return f"{rng.choice(_IPV4_NETS)}.{rng.randrange(1, 255)}"
