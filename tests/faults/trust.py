"""Faults 31 to 36: addresses, sizes, names and certificates that are not to be trusted, and secrets that come back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from faults.case import CANARIES, TOKENS, VENDORS
from faults.content import LIST_KEYS, with_records
from faults.network import HASTE
from faults.process import LISTS
from faults.stranger import CERTIFICATES, TlsFront, make_certificates
from sandbox.app import BASE_PATHS

if TYPE_CHECKING:
    from faults.case import Case

MOST_MEMORY = 700 << 20
"""What a run may hold, its interpreter and DuckDB included; a bomb of a gigabyte would take it past that."""


def next_elsewhere(case: Case) -> None:
    """31: `next` in every disguise, on every page; and base addresses that no credential may be sent to."""
    host, port = case.stranger.host, case.stranger.port
    tricks = [
        f"http://{host}/api/projects/4242/desktop_recordings/",
        f"https://{host}/api/projects/4242/desktop_recordings/",
        f"//{host}/x/",
        f"http://127.0.0.1:{case.site.port}@{host}/x/",
        f"http://user:word@{host}/x/",
        f"http:\\\\{host}/x/",
        f"http://localhost:{port}/x/",
        f"http://[::ffff:127.0.0.1]:{port}/x/",
        "http://169.254.169.254/latest/meta-data/",
        "file:///etc/passwd",
    ]
    picked = tricks if case.deep else [tricks[0], case.rng.choice(tricks[1:])]
    for trick in picked if case.ours else picked[:1]:
        case.change("posthog")

        def lead_away(reply: dict[str, Any], trick: str = trick) -> None:
            query = (reply["next"] or "").partition("?")[2]
            reply["next"] = f"{trick}?{query}" if query else None
            reply["previous"] = trick

        def everywhere(reply: dict[str, Any], trick: str = trick) -> None:
            reply.get("pagination", {})["next_page_url"] = trick
            reply |= {"next": trick, "next_url": trick, "links": {"next": trick}}

        case.rewrite(lead_away, vendor="posthog")
        case.rewrite(everywhere, vendor="getscreen")
        case.rewrite(everywhere, vendor="screendesk")
        run = case.sync(plan=HASTE)
        case.world.faults.clear()
        case.expect_ours(run.code == 0, f"{trick}: the run ended with {run.code}")
    case.refused()
    case.expect(case.stranger.connections == 0, f"the stranger was visited {case.stranger.connections} times")
    for setting in (
        "http://api.example/api/v2",
        f"https://user:word@{host}",
        f"http://127.0.0.1:{port}@{host}",
        "file:///etc",
    ):
        if case.ours:
            name = TOKENS["posthog"].replace("API_KEY", "BASE_URL")
            run = case.sync(**{name: setting})
            case.expect(run.code == 2 and name in run.stderr, f"{setting}: {run.code} {run.stderr[:200]}")
    case.expect_ours(case.stranger.connections == 0, "the stranger was visited because of a setting")


def redirected(case: Case) -> None:
    """32: every kind of redirect to the stranger, for every vendor."""
    case.change(*LISTS)
    for vendor in VENDORS:
        status = case.rng.choice([301, 302, 303, 307, 308])
        to = case.rng.choice(["http://{}/here", "//{}/here", "http://sandbox@{}/", "HTTP://{}"]).format(
            case.stranger.host
        )
        case.fault("redirect", vendor=vendor, status=status, to=to, times=None, after=case.rng.randrange(2))
    run = case.sync(plan=HASTE)
    case.refused(run, says="host 127.0.0.1")
    case.expect(case.stranger.connections == 0, f"the stranger was visited {case.stranger.connections} times")
    if case.ours:
        case.expect(
            all(not r["complete"] and not r["deleted"] for r in run.receipts.values()), "a table claims to be complete"
        )


def too_large(case: Case) -> None:
    """33: a gigabyte zipped small, a list without end, and an encoding nobody asked for."""
    case.change(*LISTS)
    kinds: list[dict[str, Any]] = [
        {"kind": "bomb"},
        {"kind": "endless"},
        {"kind": "bomb", "encoding": "zstd", "size": 1 << 20},
    ]
    case.rng.shuffle(kinds)
    for vendor, kind in zip(VENDORS, kinds, strict=True):
        case.fault(vendor=vendor, path_contains=LISTS[vendor], times=None, **kind)
    run = case.sync(plan=HASTE)
    case.resumed(run, *VENDORS)
    case.expect(run.memory < MOST_MEMORY, f"the run held {run.memory >> 20} MB")
    case.expect_ours("bytes" in run.reasons() and "encoding" in run.reasons(), f"said: {run.reasons()[:300]}")


HOSTILE = (
    "../../etc/x",
    "/etc/x",
    "C:\\x",
    "..",
    "%2e%2e%2fusers",
    "a?b#c",
    "x" * 300,
    "CON",
    ".tmp-current",
    "nul\x01name",
)


def hostile_names(case: Case) -> None:
    """34: ids and names that are paths, and a signed address that has expired: no file, no request outside the API."""
    recordings, connections = case.world.screendesk.recordings, case.world.getscreen.connections
    before = {str(p.relative_to(case.folder)) for p in case.folder.rglob("*") if "warehouse" not in p.parts}
    names = HOSTILE if case.deep else [HOSTILE[0], HOSTILE[3], *case.rng.sample(HOSTILE, 4)]
    with case.noting():
        for name in dict.fromkeys(names):
            recordings.insert(uuid=name, title=name)
        signed = "https://st.getscreen.example/../../video.mp4?X-Amz-Signature=canary&X-Amz-Expires=1"
        for key in connections.keys()[:2]:
            connections.update(key, {"video": {"url": signed, "size": 1}})
    case.recovered(case.sync(), "a run with hostile names")
    if case.ours:
        urls = {
            url for (url,) in case.query("SELECT video__url FROM getscreen.connections WHERE video__url IS NOT NULL")
        }
        case.expect(not any("Signature" in url for url in urls), "a signed address was stored")
    case.world.requests.clear()
    if case.ours:
        with case.noting():
            for name in dict.fromkeys(names):
                recordings.delete(name)
        case.recovered(case.sync(), "a run that asks for hostile ids which vanished")
    outside = [e.path for e in case.world.requests if not e.path.startswith(tuple(BASE_PATHS.values()))]
    case.expect(not outside, f"asked outside the API: {outside}")
    after = {str(p.relative_to(case.folder)) for p in case.folder.rglob("*") if "warehouse" not in p.parts}
    made = {name for name in after - before if not name.startswith(("out/", "desk/peer"))}
    case.expect(not made, f"files were made: {sorted(made)[:5]}")


def untrusted_certificates(case: Case) -> None:
    """35: self-signed, expired, for another host; then a good one of an authority of our own."""
    folder = case.folder / "certificates"
    authority = make_certificates(folder)
    front: TlsFront = case.enter(TlsFront(folder / "good.pem", case.site.port))
    # else `next` would lead from https to http, which is another fault
    case.world.posthog.settings.next_scheme = "https"
    only = ("posthog",) if case.ours and not case.deep else ()
    place = {"DESKHOUSE__WAREHOUSE_DIR": str(case.folder / "elsewhere")} if case.ours else {}
    urls = {
        TOKENS[v].rpartition("__")[0] + "__BASE_URL": f"https://localhost:{front.port}{path}"
        for v, path in BASE_PATHS.items()
    }
    for kind in CERTIFICATES[1:]:
        front.present(folder / f"{kind}.pem")
        trusting = (
            {} if kind == "self-signed" else {"SSL_CERT_FILE": str(authority), "REQUESTS_CA_BUNDLE": str(authority)}
        )
        run = case.sync(*only, plan=HASTE, **place, **urls, **trusting)
        case.refused(run, says="could not be verified")
        case.expect(not front.heard, f"{kind}: {len(b''.join(front.heard))} bytes were sent")
    front.present(folder / "good.pem")
    case.expect_ours(case.sync(*only, plan=HASTE, **place, **urls).code == 1, "an unknown authority was trusted")
    case.expect(not front.heard, "bytes were sent to a server of an unknown authority")
    trusting = {"SSL_CERT_FILE": str(authority), "REQUESTS_CA_BUNDLE": str(authority)}
    run = case.sync(*only, plan=HASTE, **place, **urls, **trusting)
    case.expect(run.code == 0, f"an authority of one's own is not accepted: {run.output[-300:]}")
    case.world.posthog.settings.next_scheme = None


def secrets_come_back(case: Case) -> None:
    """36: credentials in error bodies, headers, addresses, records and quarantine, at the most talkative log level."""
    world = case.world
    case.change(*LISTS)
    talkative = ("--log-level", "debug") if case.ours else ()
    for vendor, status in zip(VENDORS, case.rng.sample([500, 401, 400, 302, 429], 3), strict=True):
        case.fault(
            "echo", vendor=vendor, status=status, times=None, to="https://login.example/" if status == 302 else ""
        )
    loud = {} if case.ours else {"RUNTIME__LOG_LEVEL": "DEBUG"}
    plan = {**HASTE, "retry_after_cap": 0.2}
    run = case.sync(*talkative, plan=plan, **loud)
    case.refused(run)
    world.faults.clear()

    def repeat(reply: dict[str, Any]) -> None:
        for record in reply[LIST_KEYS["screendesk"]][:2]:
            record["title"] = f"token {CANARIES['screendesk']}"
            record["debug"] = {"header": f"Bearer {CANARIES['screendesk']}", CANARIES["screendesk"]: 1}

    case.rewrite(repeat, vendor="screendesk", path_contains="/recordings")
    with_records(case, "posthog", [{"id": None, "notes": f"Bearer {CANARIES['posthog']}"}])
    run = case.sync(*talkative, plan=HASTE, **loud)
    case.expect(run.code == 0, f"a run with secrets in records ended with {run.code}")
