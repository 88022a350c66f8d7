"""Words the made-up data is put together from. Domains and addresses are reserved for documentation."""

# ruff: noqa: RUF001 - letters and dashes that look like others are part of real text

from __future__ import annotations

from typing import NamedTuple


class Place(NamedTuple):
    """Where someone is, as geo look-ups spell it."""

    country: str
    region: str
    city: str
    timezone: str


class Machine(NamedTuple):
    """A browser on a device."""

    browser: str
    os: str
    device: str
    device_type: str
    user_agent: str


# display name, and how it is written in an e-mail address
FIRST_NAMES = (
    ("Amelia", "amelia"), ("Aoife", "aoife"), ("Łukasz", "lukasz"), ("Zoë", "zoe"), ("José", "jose"),
    ("Mónica", "monica"), ("Jürgen", "juergen"), ("Søren", "soren"), ("Chloé", "chloe"), ("Fatima", "fatima"),
    ("Priya", "priya"), ("Rahul", "rahul"), ("Wei", "wei"), ("Mei-Ling", "mei-ling"), ("Daniel", "daniel"),
    ("Grace", "grace"), ("Olumide", "olumide"), ("Ngozi", "ngozi"), ("Владимир", "vladimir"), ("Ольга", "olga"),
    ("陽子", "yoko"), ("健太", "kenta"), ("ياسمين", "yasmin"), ("Noam", "noam"), ("Ingrid", "ingrid"),
    ("Mateus", "mateus"), ("Beatriz", "beatriz"), ("Thomas", "thomas"), ("Hannah", "hannah"), ("Seán", "sean"),
    ("Emre", "emre"), ("Elif", "elif"), ("Tuấn", "tuan"), ("Linh", "linh"), ("Minjun", "minjun"),
    ("서연", "seoyeon"), ("Ruth", "ruth"), ("Walter", "walter"), ("Íñigo", "inigo"), ("Maja", "maja"),
)  # fmt: skip
LAST_NAMES = (
    ("Okafor", "okafor"), ("O'Brien", "obrien"), ("Müller", "mueller"), ("Nowak", "nowak"), ("García", "garcia"),
    ("Lefèvre", "lefevre"), ("Sørensen", "sorensen"), ("Kowalczyk", "kowalczyk"), ("Iyer", "iyer"),
    ("Sharma", "sharma"), ("Chen", "chen"), ("Nakamura", "nakamura"), ("Иванова", "ivanova"), ("高橋", "takahashi"),
    ("Haddad", "haddad"), ("Levi", "levi"), ("Johansson", "johansson"), ("Almeida", "almeida"), ("Costa", "costa"),
    ("Whitfield", "whitfield"), ("Carter", "carter"), ("Nguyễn", "nguyen"), ("Yılmaz", "yilmaz"), ("Park", "park"),
    ("van der Berg", "vanderberg"), ("Doyle", "doyle"), ("Fischer", "fischer"), ("Rossi", "rossi"),
    ("Novák", "novak"), ("Smith-Jones", "smith-jones"),
)  # fmt: skip

SUPPORT_DOMAIN = "support.example"
CUSTOMER_DOMAINS = (
    "example.com", "example.org", "example.net", "northwind.example", "acme.example", "blue-harbor.example",
    "Lindgren.example", "ofertas.example", "tanaka-works.example", "lakeside-clinic.example",
)  # fmt: skip

PLACES = (
    Place("USA", "California", "Los Angeles", "America/Los_Angeles"),
    Place("USA", "New York", "New York", "America/New_York"),
    Place("USA", "Texas", "Austin", "America/Chicago"),
    Place("Canada", "Québec", "Montréal", "America/Toronto"),
    Place("Brazil", "São Paulo", "São Paulo", "America/Sao_Paulo"),
    Place("Mexico", "Ciudad de México", "Mexico City", "America/Mexico_City"),
    Place("United Kingdom", "England", "Leeds", "Europe/London"),
    Place("Ireland", "Leinster", "Dublin", "Europe/Dublin"),
    Place("Germany", "Nordrhein-Westfalen", "Köln", "Europe/Berlin"),
    Place("France", "Auvergne-Rhône-Alpes", "Lyon", "Europe/Paris"),
    Place("Spain", "Andalucía", "Málaga", "Europe/Madrid"),
    Place("Poland", "Małopolskie", "Kraków", "Europe/Warsaw"),
    Place("Denmark", "Hovedstaden", "København", "Europe/Copenhagen"),
    Place("Sweden", "Västra Götaland", "Göteborg", "Europe/Stockholm"),
    Place("Türkiye", "İstanbul", "İstanbul", "Europe/Istanbul"),
    Place("Nigeria", "Lagos", "Lagos", "Africa/Lagos"),
    Place("South Africa", "Gauteng", "Johannesburg", "Africa/Johannesburg"),
    Place("India", "Karnataka", "Bengaluru", "Asia/Kolkata"),
    Place("Japan", "大阪府", "大阪市", "Asia/Tokyo"),
    Place("South Korea", "서울", "서울", "Asia/Seoul"),
    Place("Viet Nam", "Hà Nội", "Hà Nội", "Asia/Ho_Chi_Minh"),
    Place("Australia", "New South Wales", "Sydney", "Australia/Sydney"),
)
PROVIDERS = (
    "Example Telecom",
    "Fibra Óptica S.A.",
    "Northlink",
    "Société Réseau",
    "CityNet GmbH",
    "さくら光",
    "Airlink",
)
NETWORKS = ("wifi", "4g", "5g", "ethernet", "3g")

_WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
MACHINES = (
    Machine("Chrome", "Windows 11", "Desktop", "desktop", f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_WEBKIT} Chrome/141.0.0.0 Safari/537.36"),
    Machine("Edge", "Windows 10", "ThinkPad T14", "desktop", f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_WEBKIT} Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0"),
    Machine("Safari", "macOS 15", "MacBook Pro", "desktop", "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Safari/605.1.15"),
    Machine("Firefox", "Ubuntu", "Desktop", "desktop", "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0"),
    Machine("Mobile Safari", "iOS 18", "iPhone", "mobile", "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Mobile/15E148 Safari/604.1"),
    Machine("Chrome Mobile", "Android 15", "Pixel 9", "mobile", f"Mozilla/5.0 (Linux; Android 15; Pixel 9) {_WEBKIT} Chrome/141.0.0.0 Mobile Safari/537.36"),
    Machine("Samsung Internet", "Android 14", "Galaxy Tab S9", "tablet", f"Mozilla/5.0 (Linux; Android 14; SM-X710) {_WEBKIT} SamsungBrowser/27.0 Chrome/125.0.0.0 Safari/537.36"),
)  # fmt: skip

PRODUCTS = ("invoice export", "two-step login", "shared calendar", "PDF preview", "bulk import", "label printer",
            "API key page", "mobile app", "Zahlungsübersicht", "tableau de bord", "請求書", "exportación CSV")  # fmt: skip
COMPLAINTS = (
    "{product} does not load", "{product}: spinner never stops", "Cannot save changes in {product}",
    "{product} shows the wrong total", "Walk-through of {product}", "{product} – erro ao salvar 😕",
    'Error "undefined" in {product}', "{product} broken since Monday", "How do I use the {product}?",
    "Re: {product}, second attempt", "Der Dialog von {product} bleibt leer", "{product}が表示されない",
)  # fmt: skip
SUMMARIES = (
    "The customer opens the page, clicks Save twice and the form clears without a message.",
    "Agent walks through the settings; the toggle was off for this workspace. Resolved on the call.",
    "Reproduced in a private window. An extension blocks the request; see console.",
    "Le client montre que l'export s'arrête à 50 %. Contournement proposé, ticket laissé ouvert.",
    "Kunde zeigt den Fehler zweimal. Cache geleert, danach in Ordnung.",
    "画面共有で再現を確認。次回リリースで修正予定。",
    "Customer's words: \"it worked yesterday\".\nNext step: send logs to engineering.",
    "Short recording with no sound; the steps are visible. 🎥",
)  # fmt: skip
DESCRIPTIONS = (
    "1. Open the list\n2. Filter by last month\n3. Press Export\n\nExpected: a file. Actual: nothing happens.",
    "Steps attached. Happens only with more than 1,000 rows & when the filter contains <, > or an apostrophe's twin ’.",
    "Asked the customer for a HAR file.",
    "Видно, что кнопка не нажимается. Передано второй линии.",
    "See also the recording from last week; same account, other browser.",
)  # fmt: skip

LOG_MESSAGES = (
    "[log] app booted in 812ms",
    "[warn] DevTools failed to load source map: 404",
    "[error] Uncaught TypeError: Cannot read properties of undefined (reading 'total')",
    '[error] POST https://app.example.com/api/export 500 {"error":"timeout"}',
    '[info] feature flags: {"new_export":true,"beta_nav":false}',
    "[log] router → /settings/billing?tab=plans",
    "[warn] [Violation] 'click' handler took 312ms",
    "[error] Failed to load resource: net::ERR_BLOCKED_BY_CLIENT",
    "[log] websocket open wss://live.example.com/socket",
    '[log] websocket closed code=1006 reason=""',
    "[debug] cache miss key=orders:2026-11:page=3",
    "[info] saved draft ✓ (id 88213)",
    "[error]   at renderRow (table.js:210:17)",
    "[error]   at Array.map (<anonymous>)",
    "[warn] Überschreitung des Kontingents: 98 %",
    "[log] C:\\Users\\demo\\Downloads\\export (1).csv",
)  # fmt: skip

DEVICE_GROUPS = ("Accounting", "Warehouse", "Front desk", "Вторая линия", "Clínica", "Field laptops", "")
DEVICE_SYSTEMS = (("win", "2.21.4"), ("win", "2.20.9"), ("mac", "2.21.1"), ("linux", "2.19.0"), ("android", "1.8.2"))

MEETING_TITLES = (
    "Weekly support sync", "Bug triage", "Onboarding: {company}", "Escalation review", "Retro 🎯", "Q4 planning",
    "{company} <> Support", "Demo for {company}", "1:1", "Réunion d'équipe", "月次レビュー", "Incident follow-up",
)  # fmt: skip
UTTERANCES = (
    "Can everyone see my screen?", "Yes, go ahead.", "Sorry, I was on mute.", "So the export stops at fifty percent.",
    "Which browser was that?", "Let me pull up the ticket.", "We saw the same thing on Tuesday with another account.",
    "I think the filter is the problem, not the export.", "Could you try it once more in a private window?",
    "Okay, now it works.", "That's weird.", "Donc on attend la prochaine version ?", "Ja, genau so sieht es bei uns aus.",
    "We should write this down for the help centre.", "Who takes that one?", "I can take it, due Friday.",
    'He said "never again" and then did it anyway.', "Hmm.", "Right.", "はい、わかりました。", "Das Kontingent war voll, 98 %.",
    "Let's move on to the next item.", "The customer asked for a call back on Monday at nine.", "Any objections? No? Good.",
    "The label printer needs the older driver; the new one drops the umlauts – ä, ö, ü.", "Thanks everyone, bye 👋",
)  # fmt: skip
TASKS = (
    ("Send the customer a summary", "Include the workaround and the ticket number."),
    ("File a bug for the export timeout", "Attach the console log."),
    ("Update the help centre article", ""),
    ("Check quotas of large accounts", "Anything over 90 % of plan."),
    ("Rückruf am Montag", "9 Uhr, Nummer steht im Ticket."),
)  # fmt: skip
