# /// script
# [tool.marimo.display]
# theme = "light"
# ///
import marimo

__generated_with = "0.25.2"
app = marimo.App(
    width="full",
    app_title="Support overview",
    css_file="support_overview.css",
    sql_output="native",
)

with app.setup:
    from datetime import UTC, datetime, timedelta
    from html import escape

    import altair as alt
    import marimo as mo

    from pipelines.opening import NothingPublishedError, open_published  # noqa: TID251 - how a notebook opens the file

    VENDORS = {"screendesk": "Screendesk", "getscreen": "Getscreen.me", "posthog": "PostHog"}
    KINDS = {
        "recording": ("Screendesk recording", "#4f46e5"),
        "live_call": ("Screendesk live call", "#a5a3f7"),
        "remote_session": ("Getscreen.me remote session", "#0d9488"),
        "meeting": ("PostHog meeting", "#ea7317"),
    }
    PERIODS = {"7 days": 7, "30 days": 30, "90 days": 90, "12 months": 365, "Everything": 0}
    INK, MUTED, LINE = "#17202e", "#5d6878", "#e4e8ee"
    STALE_AFTER = timedelta(hours=26)
    ROWS_AT_MOST = 200

    @alt.theme.register("deskhouse", enable=True)
    def theme():
        quiet = {
            "labelColor": MUTED,
            "titleColor": MUTED,
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
        }
        font = "PT Sans, system-ui, sans-serif"
        return alt.theme.ThemeConfig(
            usermeta={"embedOptions": {"actions": False, "renderer": "svg"}},
            config={
                "font": font,
                "background": "transparent",
                "autosize": {"type": "fit-x", "contains": "padding"},
                "view": {"stroke": None},
                "axis": {
                    **quiet,
                    "gridColor": LINE,
                    "domainColor": LINE,
                    "tickColor": LINE,
                    "labelFont": font,
                    "titleFont": font,
                },
                "legend": {**quiet, "symbolType": "circle", "labelLimit": 240},
                "bar": {"color": "#4f46e5"},
            },
        )

    def rows(relation):
        """What a SQL cell found, as dictionaries."""
        return relation.to_arrow_table().to_pylist()

    def number(value, digits=0):
        return "–" if value is None else f"{value:,.{digits}f}"

    def ago(then, now):
        seconds = max(int((now - then).total_seconds()), 0)
        for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
            if seconds >= size:
                count = seconds // size
                return f"{count} {unit}{'s' if count > 1 else ''} ago"
        return "just now"

    def card(title, note, *parts, key):
        """A section: its question, how to read it, and what answers it."""
        inside = "".join(part if isinstance(part, str) else mo.as_html(part).text for part in parts)
        return mo.Html(
            f'<section class="dh dh-card" id="{key}"><h2>{escape(title)}</h2><p class="note">{escape(note)}</p>{inside}</section>'
        )

    def empty(text):
        return f'<p class="dh-empty">{escape(text)}</p>'

    def grid(*parts, shape=""):
        """Cards beside each other where there is room."""
        return mo.Html(f'<div class="dh-grid {shape}">{"".join(part.text for part in parts)}</div>')

    def table(found, widths=None):
        """A table, ten rows a page; numbers to the right."""
        numeric = [name for name in found[0] if any(isinstance(row[name], int | float) for row in found)]
        return mo.ui.table(
            found,
            selection=None,
            pagination=len(found) > 10,
            page_size=10,
            show_column_summaries=False,
            show_data_types=False,
            show_download=True,
            show_search=len(found) > 10,
            text_justify_columns=dict.fromkeys(numeric, "right"),
            format_mapping=dict.fromkeys(numeric, lambda value: "–" if value is None else f"{value:,}"),
            column_widths={**dict.fromkeys(numeric, 84), **(widths or {})},
        )

    def step_axis(steps, step):
        """Every day, week or month of the period, those without a session as well."""
        shape = {"day": "%-d %b", "week": "%-d %b", "month": "%b %Y"}[step]
        return alt.X(
            "day:O",
            title=None,
            scale=alt.Scale(domain=steps),
            axis=alt.Axis(
                labelExpr=f"timeFormat(toDate(datum.value + 'T00:00:00'), '{shape}')",
                labelAngle=0,
                labelOverlap="greedy",
                labelSeparation=12,
                ticks=False,
                domain=False,
            ),
        )

    def literal(value):
        """A text as SQL writes it."""
        return "NULL" if value is None else "'" + value.replace("'", "''") + "'"

    def bars(found, name, value, colour, title):
        """Horizontal bars with their numbers, the longest first."""
        base = alt.Chart(alt.Data(values=found)).encode(
            y=alt.Y(f"{name}:N", sort=None, title=None, axis=alt.Axis(labelLimit=130, ticks=False, domain=False)),
            x=alt.X(f"{value}:Q", title=None, axis=None),
            tooltip=[alt.Tooltip(f"{name}:N", title=title), alt.Tooltip(f"{value}:Q", title="sessions", format=",")],
        )
        drawn = base.mark_bar(color=colour, cornerRadiusEnd=3, height={"band": 0.7})
        labels = base.mark_text(align="left", dx=5, color=MUTED).encode(text=alt.Text(f"{value}:Q", format=","))
        return (drawn + labels).properties(width="container", height=26 * len(found))

    def sparkline(values, colour):
        """A small line without axes: how a number went over the period."""
        known = [value or 0 for value in values]
        if len(known) < 2 or not any(known):
            return "<svg></svg>"
        top = max(known)
        points = [(100 * i / (len(known) - 1), 28 - 25 * value / top) for i, value in enumerate(known)]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        return (
            '<svg viewBox="0 0 100 30" preserveAspectRatio="none" aria-hidden="true">'
            f'<polygon points="0,30 {line} 100,30" fill="{colour}" opacity="0.10"/>'
            f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.6" vector-effect="non-scaling-stroke"/></svg>'
        )


@app.cell
def _():
    refresh = mo.ui.button(
        label="Refresh", value=0, on_click=lambda count: count + 1, tooltip="Read the newest published data"
    )
    opened = []
    return opened, refresh


@app.cell
def _(opened, refresh):
    refresh.value
    missing = None
    try:
        if opened:
            opened[0].refresh()
        else:
            opened.append(open_published())
    except NothingPublishedError as error:
        missing = str(error)
    connection = opened[0].connection if opened else None
    generation = opened[0].generation if opened and missing is None else None
    return connection, generation, missing


@app.cell
def _(generation, missing, refresh):
    mo.stop(
        generation is None,
        mo.Html(
            '<section class="dh dh-card" id="nothing"><h1>Support overview</h1>'
            f'<p class="note">There is nothing to show yet: {escape(missing or "")}.</p>{refresh.text}</section>'
        ),
    )
    ready = generation.name
    return (ready,)


@app.cell
def _():
    get_agent, set_agent = mo.state("All agents")
    return get_agent, set_agent


@app.cell
def _(connection, ready):
    agents_known = mo.sql(
        f"""
        -- everybody who held a session; {ready}
        SELECT agent_email, any_value(people.name) AS name, count(*) AS sessions
        FROM analytics.support_sessions
        LEFT JOIN analytics.people ON people.email = agent_email
        WHERE agent_email IS NOT NULL
        GROUP BY agent_email
        ORDER BY sessions DESC, agent_email
        LIMIT 500
        """,
        output=False,
        engine=connection,
    )
    return (agents_known,)


@app.cell
def _(agents_known, get_agent, set_agent):
    agent_emails = {"All agents": None}
    agent_names = {}
    for _row in rows(agents_known):
        agent_names[_row["agent_email"]] = _row["name"] or _row["agent_email"]
        _label = f"{_row['name']} · {_row['agent_email']}" if _row["name"] else _row["agent_email"]
        agent_emails[_label] = _row["agent_email"]
    agent = mo.ui.dropdown(
        list(agent_emails),
        value=get_agent() if get_agent() in agent_emails else "All agents",
        on_change=set_agent,
        allow_select_none=False,
        searchable=True,
        label="Agent",
    )
    return agent, agent_emails, agent_names


@app.cell
def _():
    period = mo.ui.dropdown(list(PERIODS), value="30 days", allow_select_none=False, label="Period")
    vendor = mo.ui.dropdown(
        ["All vendors", *VENDORS.values()], value="All vendors", allow_select_none=False, label="Vendor"
    )
    return period, vendor


@app.cell
def _(agent, agent_emails, period, ready, vendor):
    ready
    days = PERIODS[period.value] or 36_500
    wanted_vendor = literal(next((key for key, name in VENDORS.items() if name == vendor.value), None))
    wanted_agent = literal(agent_emails[agent.value])
    return days, wanted_agent, wanted_vendor


@app.cell
def _(connection, days, ready, wanted_agent, wanted_vendor):
    mo.sql(
        f"""
        -- the sessions of the period and of the one before it; {ready}
        CREATE OR REPLACE TEMP TABLE chosen AS
        WITH calendar AS (
            SELECT coalesce(max(local_day), current_date) AS last_day
            FROM analytics.support_sessions WHERE local_day <= current_date
        )
        SELECT
            session_key, vendor, kind, title, started_at, ended_at, duration_seconds, duration_flag, agent_email,
            customer_email, ticket_key, device_id, device_name, device_os, country, participant_count, never_viewed,
            deleted_at, local_day, last_day, local_day > last_day - {days} AS is_current
        FROM analytics.support_sessions CROSS JOIN calendar
        WHERE local_day > last_day - 2 * {days} AND local_day <= last_day
            AND vendor = coalesce({wanted_vendor}, vendor)
            AND ({wanted_agent} IS NULL OR agent_email = {wanted_agent})
        """,
        output=False,
        engine=connection,
    )
    mo.sql(
        f"""
        -- days, weeks or months, so that a chart has between a handful and some forty steps
        CREATE OR REPLACE TEMP TABLE grain AS
        SELECT
            min(local_day) AS first_session_day,
            any_value(last_day) AS last_day,
            CASE
                WHEN least({days}, any_value(last_day) - min(local_day) + 1) <= 45 THEN 'day'
                WHEN least({days}, any_value(last_day) - min(local_day) + 1) <= 300 THEN 'week'
                ELSE 'month'
            END AS step
        FROM chosen WHERE is_current
        """,
        output=False,
        engine=connection,
    )
    chosen = f"{ready} {days} {wanted_vendor} {wanted_agent}"
    return (chosen,)


@app.cell
def _(chosen, connection, days):
    spans = mo.sql(
        f"""
        -- {chosen}
        SELECT
            last_day,
            CASE WHEN {days} > 36000 THEN first_session_day ELSE last_day - {days} + 1 END AS first_day,
            step
        FROM grain
        """,
        output=False,
        engine=connection,
    )
    return (spans,)


@app.cell
def _(agent, period, refresh, spans, vendor):
    span = rows(spans)[0]
    has_rows = span["last_day"] is not None
    _when = (
        f"{span['first_day']:%-d %b %Y} – {span['last_day']:%-d %b %Y}"
        + (f", compared with the {period.value} before" if PERIODS[period.value] else "")
        if has_rows
        else "No session matches these filters"
    )
    mo.vstack(
        [
            mo.Html(
                f'<header class="dh" id="top"><h1>Support overview</h1><p class="note" style="margin-bottom:.4rem"'
                f' id="span">{_when}</p></header>'
            ),
            mo.hstack([period, vendor, agent, refresh], justify="start", wrap=True, gap=1, align="end"),
        ],
        gap=0.5,
    )
    return has_rows, span


@app.cell
def _(connection, ready):
    freshness = mo.sql(
        f"""
        -- {ready}
        SELECT raw_table, vendor, live_rows, data_through, verdict, reason
        FROM analytics.freshness ORDER BY raw_table
        """,
        output=False,
        engine=connection,
    )
    return (freshness,)


@app.cell
def _(freshness, generation):
    tables_read = rows(freshness)
    _now = datetime.now(UTC)
    _read = [one for one in tables_read if one["verdict"] != "never read"]
    _wrong = [one for one in _read if one["verdict"] != "complete"]
    _through = min((one["data_through"] for one in _read if one["data_through"]), default=None)
    _unread = sorted({VENDORS[one["vendor"]] for one in tables_read} - {VENDORS[one["vendor"]] for one in _read})
    if _wrong:
        _class, _say = "bad", f"{len(_wrong)} of {len(_read)} tables are not complete"
    elif _through is None:
        _class, _say = "warn", "No source has been read completely yet"
    elif _now - _through > STALE_AFTER:
        _class, _say = "warn", f"Complete, but old: the newest data is of {ago(_through, _now)}"
    else:
        _class, _say = "good", "Complete"
    _details = [f"{one['raw_table']}: {one['reason'] or one['verdict']}" for one in _wrong]
    _details += [f"{name} is not connected: no run has read it" for name in _unread]
    _list = f"<ul>{''.join(f'<li>{escape(one)}</li>' for one in _details)}</ul>" if _details else ""
    mo.Html(
        f'<div class="dh dh-banner {_class}" id="banner" data-generation="{escape(generation.name)}"><b>{escape(_say)}.</b>'
        + (f"<span>Data through {_through:%-d %b %Y, %H:%M %Z} ({ago(_through, _now)})</span>" if _through else "")
        + f"<span>Published {ago(generation.published_at, _now)}</span>{_list}</div>"
    )
    return (tables_read,)


@app.cell
def _(chosen, connection):
    totals = mo.sql(
        f"""
        -- {chosen}
        SELECT
            is_current,
            count(*) AS sessions,
            round(coalesce(sum(duration_seconds) FILTER (WHERE duration_flag = 'ok'), 0) / 3600.0, 1) AS hours,
            round(median(duration_seconds) FILTER (WHERE duration_flag = 'ok') / 60.0, 1) AS median_minutes,
            count(DISTINCT ticket_key) AS tickets,
            count(DISTINCT customer_email) AS customers,
            count(*) FILTER (WHERE never_viewed) AS never_viewed
        FROM chosen
        GROUP BY is_current
        """,
        output=False,
        engine=connection,
    )
    courses = mo.sql(
        """
        WITH calendar AS (
            SELECT unnest(generate_series(
                date_trunc(step, min(local_day)), date_trunc(step, any_value(chosen.last_day)), CAST('1 ' || step AS INTERVAL)
            )) AS step_day
            FROM chosen CROSS JOIN grain WHERE is_current GROUP BY step
        ),
        counted AS (
            SELECT
                date_trunc(step, local_day) AS step_day,
                count(*) AS sessions,
                sum(duration_seconds) FILTER (WHERE duration_flag = 'ok') / 3600.0 AS hours,
                median(duration_seconds) FILTER (WHERE duration_flag = 'ok') / 60.0 AS median_minutes,
                count(DISTINCT ticket_key) AS tickets,
                count(DISTINCT customer_email) AS customers,
                count(*) FILTER (WHERE never_viewed) AS never_viewed
            FROM chosen CROSS JOIN grain
            WHERE is_current
            GROUP BY ALL
        )
        SELECT * FROM calendar LEFT JOIN counted USING (step_day) ORDER BY step_day
        """,
        output=False,
        engine=connection,
    )
    return courses, totals


@app.cell
def _(courses, span):
    course = rows(courses)
    step = span["step"]
    steps = [f"{row['step_day']:%Y-%m-%d}" for row in course]
    return course, step, steps


@app.cell
def _(course, days, period, totals):
    _by_period = {row["is_current"]: row for row in rows(totals)}
    _nothing = {"sessions": 0, "hours": 0.0, "median_minutes": None, "tickets": 0, "customers": 0, "never_viewed": 0}
    _now, _before = _by_period.get(True, _nothing), _by_period.get(False, _nothing)
    # name, key, digits, unit, colour, and whether more of it is bad news
    _kinds = (
        ("Sessions", "sessions", 0, "", "#4f46e5", None),
        ("Time in sessions", "hours", 1, "h", "#4f46e5", None),
        ("Median session", "median_minutes", 1, "min", "#4f46e5", None),
        ("Tickets", "tickets", 0, "", "#4f46e5", None),
        ("Customers", "customers", 0, "", "#4f46e5", None),
        ("Never viewed", "never_viewed", 0, "", "#b42318", True),
    )

    def _change(now, before, digits, more_is_bad):
        if days > 36_000:
            return "", "in all"
        if not before or now is None:
            return "", "none before"
        percent = 100 * (now - before) / before
        kind = "" if more_is_bad is None or not round(percent) else ("bad" if (percent > 0) == more_is_bad else "good")
        sign = "▲" if round(percent) > 0 else "▼" if round(percent) < 0 else "±"
        return kind, f"{sign} {abs(percent):,.0f} % from {number(before, digits)}"

    def _tile(label, key, digits, unit, colour, more_is_bad):
        kind, change = _change(_now[key], _before[key], digits, more_is_bad)
        return (
            f'<div class="dh-tile" id="tile-{key}"><div class="label">{label}</div>'
            f'<div class="value">{number(_now[key], digits)}{f"<small>{unit}</small>" if unit else ""}</div>'
            f'<div class="change {kind}">{change}</div>'
            f"{sparkline([one[key] for one in course], colour)}</div>"
        )

    mo.Html(f'<div class="dh dh-tiles" id="tiles">{"".join(_tile(*kind) for kind in _kinds)}</div>')
    return


@app.cell
def _(chosen, connection):
    activity = mo.sql(
        f"""
        -- {chosen}
        SELECT CAST(date_trunc(step, local_day) AS DATE) AS day, step, kind, count(*) AS sessions
        FROM chosen CROSS JOIN grain
        WHERE is_current
        GROUP BY ALL
        ORDER BY ALL
        """,
        output=False,
        engine=connection,
    )
    return (activity,)


@app.cell
def _(activity, has_rows, step, steps):
    def _draw():
        order = {name: place for place, (name, _) in enumerate(KINDS.values())}
        data = [
            {"day": f"{row['day']:%Y-%m-%d}", "kind": KINDS[row["kind"]][0], "sessions": row["sessions"]}
            for row in rows(activity)
        ]
        data = [{**row, "rank": order[row["kind"]]} for row in data]
        present = [(name, colour) for name, colour in KINDS.values() if any(row["kind"] == name for row in data)]
        scale = alt.Scale(domain=[name for name, _ in present], range=[colour for _, colour in present])
        hover = {"day": "%A, %-d %B %Y", "week": "week of %-d %B %Y", "month": "%B %Y"}[step]
        return (
            alt.Chart(alt.Data(values=data))
            .transform_calculate(time="toDate(datum.day + 'T00:00:00')")
            .mark_bar(cornerRadius=1.5)
            .encode(
                x=step_axis(steps, step),
                y=alt.Y("sessions:Q", title=None, axis=alt.Axis(tickCount=4, domain=False, ticks=False, format=",d")),
                color=alt.Color("kind:N", scale=scale, legend=None),
                order=alt.Order("rank:Q"),
                tooltip=[
                    alt.Tooltip("time:T", title=step, format=hover),
                    alt.Tooltip("kind:N", title="kind"),
                    alt.Tooltip("sessions:Q", format=","),
                ],
            )
            .properties(width="container", height=230)
        )

    _legend = "".join(
        f'<span class="legend"><i class="dot" style="background:{colour}"></i>{name}</span>'
        for name, colour in KINDS.values()
    )
    card(
        "How many sessions, and of which kind?",
        "By the local day they began, those since deleted at the vendor included.",
        f"<p>{_legend}</p>",
        _draw() if has_rows else empty("No session in this period matches the filters."),
        key="activity",
    )
    return


@app.cell
def _(chosen, connection):
    agent_rows = mo.sql(
        f"""
        -- {chosen}
        WITH running AS (
            SELECT
                agent_email,
                epoch(started_at) AS began,
                epoch(ended_at) AS ended,
                max(epoch(ended_at)) OVER (
                    PARTITION BY agent_email ORDER BY started_at, ended_at ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                ) AS covered_until
            FROM chosen
            WHERE is_current AND duration_flag = 'ok' AND agent_email IS NOT NULL
        ),
        hands_on AS (
            SELECT agent_email, sum(greatest(ended - greatest(began, coalesce(covered_until, began)), 0)) / 3600 AS hours
            FROM running
            GROUP BY agent_email
        )
        SELECT
            agent_email,
            count(*) AS sessions,
            count(*) FILTER (WHERE kind = 'recording') AS recordings,
            count(*) FILTER (WHERE kind = 'live_call') AS live_calls,
            count(*) FILTER (WHERE kind = 'remote_session') AS remote_sessions,
            round(coalesce(any_value(hours), 0), 1) AS hands_on_hours,
            round(median(duration_seconds) FILTER (WHERE duration_flag = 'ok') / 60, 1) AS median_minutes,
            count(DISTINCT customer_email) AS customers,
            count(DISTINCT ticket_key) AS tickets
        FROM chosen LEFT JOIN hands_on USING (agent_email)
        WHERE is_current AND agent_email IS NOT NULL
        GROUP BY agent_email
        ORDER BY sessions DESC, agent_email
        LIMIT {ROWS_AT_MOST}
        """,
        output=False,
        engine=connection,
    )
    agent_steps = mo.sql(
        f"""
        -- {chosen}
        SELECT agent_email, CAST(date_trunc(step, local_day) AS DATE) AS day, step, count(*) AS sessions
        FROM chosen CROSS JOIN grain
        WHERE is_current AND agent_email IN (
            SELECT agent_email FROM chosen WHERE is_current AND agent_email IS NOT NULL
            GROUP BY agent_email ORDER BY count(*) DESC, agent_email LIMIT 12
        )
        GROUP BY ALL
        ORDER BY ALL
        """,
        output=False,
        engine=connection,
    )
    return agent_rows, agent_steps


@app.cell
def _(agent_names, agent_rows, agent_steps, step, steps):
    _found = [
        {
            "Agent": agent_names.get(row["agent_email"], row["agent_email"]),
            "Sessions": row["sessions"],
            "Recordings": row["recordings"],
            "Live calls": row["live_calls"],
            "Remote": row["remote_sessions"],
            "Hands-on h": row["hands_on_hours"],
            "Median min": row["median_minutes"],
            "Customers": row["customers"],
            "Tickets": row["tickets"],
        }
        for row in rows(agent_rows)
    ]

    def _heat():
        found = rows(agent_steps)
        order = {}
        for row in found:
            order[row["agent_email"]] = order.get(row["agent_email"], 0) + row["sessions"]
        ranked = sorted(order, key=lambda email: (-order[email], email))
        data = [
            {
                "agent": agent_names.get(row["agent_email"], row["agent_email"]),
                "day": f"{row['day']:%Y-%m-%d}",
                "sessions": row["sessions"],
            }
            for row in found
        ]
        return (
            alt.Chart(alt.Data(values=data))
            .mark_rect(cornerRadius=2, stroke="#ffffff", strokeWidth=1.5)
            .encode(
                x=step_axis(steps, step),
                y=alt.Y(
                    "agent:N",
                    sort=[agent_names.get(email, email) for email in ranked],
                    title=None,
                    axis=alt.Axis(labelLimit=120, ticks=False, domain=False),
                ),
                color=alt.Color("sessions:Q", scale=alt.Scale(range=["#e0e2fb", "#4f46e5", "#272386"]), legend=None),
                tooltip=["agent:N", alt.Tooltip("day:O", title=f"{step} of"), "sessions:Q"],
            )
            .properties(width="container", height=24 * len(ranked))
        )

    card(
        "Who held them?",
        "Hands-on hours count overlapping sessions once. Meetings have no agent. The chart shows the twelve busiest, each "
        f"{step}: the darker, the more sessions.",
        *(
            [_heat(), table(_found, {"Agent": 190})]
            if _found
            else [empty("No session of an agent in this period matches the filters; PostHog meetings have none.")]
        ),
        key="agents",
    )
    return


@app.cell
def _(chosen, connection):
    ticket_rows = mo.sql(
        f"""
        -- {chosen}
        SELECT
            ticket_platform || ' ' || ticket_id AS ticket,
            live_calls,
            round(live_call_minutes, 1) AS live_call_minutes,
            likely_remote_sessions,
            round(likely_remote_minutes, 1) AS likely_remote_minutes,
            recordings,
            agent_count AS agents,
            strftime(last_session_at, '%Y-%m-%d') AS last_session
        FROM analytics.tickets
        WHERE (live_calls > 0 OR likely_remote_sessions > 0)
            AND ticket_key IN (SELECT ticket_key FROM chosen WHERE is_current)
        ORDER BY tickets.live_call_minutes + tickets.likely_remote_minutes DESC, ticket_key
        LIMIT {ROWS_AT_MOST}
        """,
        output=False,
        engine=connection,
    )
    return (ticket_rows,)


@app.cell
def _(ticket_rows):
    _names = {
        "ticket": "Ticket",
        "live_calls": "Live calls",
        "live_call_minutes": "Live min",
        "likely_remote_sessions": "Likely remote",
        "likely_remote_minutes": "Remote min",
        "recordings": "Recordings",
        "agents": "Agents",
        "last_session": "Last session",
    }
    _found = [{_names[key]: value for key, value in row.items()} for row in rows(ticket_rows)]
    card(
        "Which tickets needed a live call or a remote session?",
        "Tickets with a session in the period, counted over their whole life. Getscreen.me names no ticket: a remote session is "
        "likely part of the ticket its agent worked on at most two hours before.",
        table(_found, {"Ticket": 190, "Likely remote": 112, "Remote min": 100, "Last session": 125})
        if _found
        else empty("No ticket with a live call or a remote session matches the filters."),
        key="tickets",
    )
    return


@app.cell
def _(chosen, connection):
    talk = mo.sql(
        f"""
        -- {chosen}
        WITH latest AS (
            SELECT session_key, title, local_day, started_at
            FROM chosen
            WHERE is_current AND session_key IN (SELECT session_key FROM analytics.meeting_talk WHERE share_of_speech IS NOT NULL)
            ORDER BY started_at DESC
            LIMIT 8
        ),
        ranked AS (
            SELECT
                session_key, title, latest.local_day, latest.started_at, speaker, share_of_speech,
                row_number() OVER (PARTITION BY session_key ORDER BY share_of_speech DESC, speaker) AS place
            FROM latest JOIN analytics.meeting_talk USING (session_key)
        )
        SELECT
            session_key, title, local_day, started_at, least(place, 4) AS place,
            string_agg(speaker, ', ' ORDER BY ranked.place) AS speaker,
            sum(share_of_speech) AS share
        FROM ranked
        GROUP BY ALL
        ORDER BY started_at DESC, place
        """,
        output=False,
        engine=connection,
    )
    meeting_rows = mo.sql(
        f"""
        -- {chosen}
        WITH attended AS (
            SELECT session_key, string_agg(coalesce(name, email), ', ' ORDER BY position) AS people
            FROM analytics.session_participants WHERE kind = 'meeting' GROUP BY session_key
        ),
        talked AS (
            SELECT session_key, max_by(speaker, share_of_speech) AS loudest, max(share_of_speech) AS share,
                any_value(meeting_seconds) AS seconds
            FROM analytics.meeting_talk GROUP BY session_key
        )
        SELECT
            strftime(local_day, '%Y-%m-%d') AS day,
            coalesce(title, 'Untitled meeting') AS title,
            coalesce(people, '–') AS people,
            round(seconds / 60, 1) AS minutes,
            coalesce(loudest || ' ' || CAST(round(100 * share) AS INTEGER) || ' %', '–') AS loudest
        FROM chosen
        LEFT JOIN attended USING (session_key)
        LEFT JOIN talked USING (session_key)
        WHERE is_current AND kind = 'meeting'
        ORDER BY started_at DESC, session_key
        LIMIT {ROWS_AT_MOST}
        """,
        output=False,
        engine=connection,
    )
    return meeting_rows, talk


@app.cell
def _(meeting_rows, talk):
    _shades = ["#c2560a", "#ea7317", "#f5a76b", "#fad9bf"]
    _places = ["most", "second", "third", "others"]

    def _draw(found):
        data = [
            {
                "meeting": row["session_key"],
                "label": f"{row['local_day']:%-d %b}  {row['title'] or 'Untitled meeting'}",
                "speaker": row["speaker"],
                "share": row["share"],
                "place": _places[row["place"] - 1],
                "rank": row["place"],
                "said": f"{row['speaker']}  {100 * row['share']:.0f} %" if row["place"] == 1 else "",
            }
            for row in found
        ]
        meetings = list(dict.fromkeys(row["meeting"] for row in data))
        labels = {row["meeting"]: row["label"] for row in data}
        named = "{" + ", ".join(f"{key!r}: {label!r}" for key, label in labels.items()) + "}"
        base = alt.Chart(alt.Data(values=data)).encode(
            y=alt.Y(
                "meeting:N",
                sort=meetings,
                title=None,
                axis=alt.Axis(labelExpr=f"({named})[datum.value]", labelLimit=150, ticks=False, domain=False),
            )
        )
        drawn = base.mark_bar(height={"band": 0.72}).encode(
            x=alt.X(
                "share:Q",
                stack="zero",
                title=None,
                scale=alt.Scale(domain=[0, 1]),
                axis=alt.Axis(format="%", tickCount=4, grid=False),
            ),
            color=alt.Color("place:N", scale=alt.Scale(domain=_places, range=_shades), legend=None),
            order=alt.Order("rank:Q"),
            tooltip=[alt.Tooltip("label:N", title="meeting"), "speaker:N", alt.Tooltip("share:Q", format=".0%")],
        )
        spoken = base.transform_filter("datum.rank == 1").encode(text="said:N")
        placed = {"align": "left", "fontSize": 12, "x": 6, "limit": 180}
        # a name may be longer than its bar, and then stands on a lighter one
        halo = spoken.mark_text(**placed, stroke="#c2560a", strokeWidth=3.5, strokeJoin="round")
        return (drawn + halo + spoken.mark_text(**placed, color="#ffffff")).properties(
            width="container", height=30 * len(meetings)
        )

    _talk, _meetings = rows(talk), rows(meeting_rows)
    _names = {
        "day": "Day",
        "title": "Meeting",
        "people": "Who was there",
        "minutes": "Minutes",
        "loudest": "Talked most",
    }
    _found = [{_names[key]: value for key, value in row.items()} for row in _meetings]
    grid(
        card(
            "Who talked?",
            "Share of speech in the latest meetings with a transcript: the darkest is who talked most. Estimated from the starts of what was said.",
            _draw(_talk) if _talk else empty("No meeting with a transcript matches the filters."),
            key="talk",
        ),
        card(
            "Who was in the meeting?",
            "Names as PostHog recorded them; minutes as reported, else until the last word.",
            table(_found, {"Day": 92, "Meeting": 125, "Who was there": 140, "Minutes": 72, "Talked most": 160})
            if _found
            else empty("No meeting matches the filters; meetings have no agent."),
            key="meetings",
        ),
        shape="wide-last",
    )
    return


@app.cell
def _(chosen, connection):
    unseen_rows = mo.sql(
        f"""
        -- {chosen}
        SELECT
            strftime(local_day, '%Y-%m-%d') AS day,
            coalesce(title, 'Untitled') AS title,
            CASE kind WHEN 'live_call' THEN 'live call' ELSE kind END AS kind,
            agent_email,
            round(duration_seconds / 60, 1) AS minutes
        FROM chosen
        WHERE is_current AND never_viewed
        ORDER BY started_at DESC, session_key
        LIMIT {ROWS_AT_MOST}
        """,
        output=False,
        engine=connection,
    )
    unseen_agents = mo.sql(
        f"""
        -- {chosen}
        SELECT agent_email, count(*) AS recordings
        FROM chosen
        WHERE is_current AND never_viewed AND agent_email IS NOT NULL
        GROUP BY agent_email
        ORDER BY recordings DESC, agent_email
        LIMIT 8
        """,
        output=False,
        engine=connection,
    )
    return unseen_agents, unseen_rows


@app.cell
def _(agent_names, unseen_agents, unseen_rows):
    _found = [
        {
            "Day": row["day"],
            "Title": row["title"],
            "Kind": row["kind"],
            "Agent": agent_names.get(row["agent_email"], row["agent_email"]),
            "Minutes": row["minutes"],
        }
        for row in rows(unseen_rows)
    ]
    _owners = [
        {"agent": agent_names.get(row["agent_email"], row["agent_email"]), "recordings": row["recordings"]}
        for row in rows(unseen_agents)
    ]
    grid(
        card(
            "Which recordings were never watched?",
            "Made in the period, still there, and Screendesk counts no view. The newest first.",
            table(_found, {"Day": 95, "Title": 250, "Kind": 85})
            if _found
            else empty("None: everything that matches the filters was viewed."),
            key="unseen",
        ),
        card(
            "Whose are they?",
            "Recordings never viewed, by the agent who made them.",
            bars(_owners, "agent", "recordings", "#b42318", "agent") if _owners else empty("Nobody's."),
            key="unseen-agents",
        ),
        shape="wide-first",
    )
    return


@app.cell
def _(chosen, connection):
    systems = mo.sql(
        f"""
        -- {chosen}
        WITH named AS (
            SELECT
                CASE
                    WHEN device_os ILIKE 'win%' THEN 'Windows'
                    WHEN device_os ILIKE 'mac%' OR device_os ILIKE 'os x%' THEN 'macOS'
                    WHEN device_os ILIKE 'ios%' OR device_os ILIKE 'ipad%' OR device_os ILIKE 'iphone%' THEN 'iOS'
                    WHEN device_os ILIKE 'android%' THEN 'Android'
                    WHEN device_os ILIKE 'linux%' OR device_os ILIKE 'ubuntu%' OR device_os ILIKE 'debian%' THEN 'Linux'
                    ELSE device_os
                END AS system
            FROM chosen
            WHERE is_current AND device_os IS NOT NULL
        )
        SELECT system, count(*) AS sessions FROM named GROUP BY system ORDER BY sessions DESC, system LIMIT 8
        """,
        output=False,
        engine=connection,
    )
    countries = mo.sql(
        f"""
        -- {chosen}
        SELECT country, count(*) AS sessions
        FROM chosen
        WHERE is_current AND country IS NOT NULL
        GROUP BY country
        ORDER BY sessions DESC, country
        LIMIT 8
        """,
        output=False,
        engine=connection,
    )
    return countries, systems


@app.cell
def _(countries, systems):
    _systems, _countries = rows(systems), rows(countries)
    grid(
        card(
            "On which devices?",
            "Operating system of the device that was controlled, or of the guest in a live call, where the vendor says.",
            bars(_systems, "system", "sessions", "#64748b", "system")
            if _systems
            else empty("No session that matches names one."),
            key="systems",
        ),
        card(
            "In which countries?",
            "Country of the controlled device; only Getscreen.me knows one. The eight with most sessions.",
            bars(_countries, "country", "sessions", "#0d9488", "country")
            if _countries
            else empty("No session that matches names one."),
            key="countries",
        ),
    )
    return


@app.cell
def _(chosen, connection):
    returning_customers = mo.sql(
        f"""
        -- {chosen}
        SELECT customer_email, count(*) AS sessions, count(DISTINCT local_day) AS days,
            strftime(max(local_day), '%Y-%m-%d') AS last_day
        FROM chosen
        WHERE is_current AND customer_email IS NOT NULL
        GROUP BY customer_email
        HAVING count(DISTINCT local_day) >= 2
        ORDER BY days DESC, sessions DESC, customer_email
        LIMIT {ROWS_AT_MOST}
        """,
        output=False,
        engine=connection,
    )
    returning_devices = mo.sql(
        f"""
        -- {chosen}
        SELECT coalesce(max_by(device_name, started_at), CAST(device_id AS VARCHAR)) AS device,
            coalesce(max_by(country, started_at), '') AS country,
            count(*) AS sessions, count(DISTINCT local_day) AS days, strftime(max(local_day), '%Y-%m-%d') AS last_day
        FROM chosen
        WHERE is_current AND device_id IS NOT NULL
        GROUP BY device_id
        HAVING count(DISTINCT local_day) >= 2
        ORDER BY days DESC, sessions DESC, device_id
        LIMIT {ROWS_AT_MOST}
        """,
        output=False,
        engine=connection,
    )
    return returning_customers, returning_devices


@app.cell
def _(returning_customers, returning_devices):
    _customers = [
        {"Customer": row["customer_email"], "Days": row["days"], "Sessions": row["sessions"], "Last": row["last_day"]}
        for row in rows(returning_customers)
    ]
    _devices = [
        {
            "Device": row["device"],
            "Country": row["country"],
            "Days": row["days"],
            "Sessions": row["sessions"],
            "Last": row["last_day"],
        }
        for row in rows(returning_devices)
    ]
    grid(
        card(
            "Which customers come back?",
            "With sessions on two days or more of the period; only Screendesk names customers.",
            table(_customers, {"Customer": 235, "Last": 95})
            if _customers
            else empty("No customer who matches the filters came back."),
            key="customers",
        ),
        card(
            "Which devices come back?",
            "With connections on two days or more of the period.",
            table(_devices, {"Device": 150, "Country": 110, "Last": 95})
            if _devices
            else empty("No device that matches the filters came back."),
            key="devices",
        ),
    )
    return


@app.cell
def _(tables_read):
    _lines = "".join(
        f"<tr><td>{escape(one['raw_table'])}</td><td class='number'>{one['live_rows']:,}</td>"
        f"<td>{one['data_through'].strftime('%-d %b %Y, %H:%M') if one['data_through'] else 'never'}</td>"
        f"<td>{escape(one['verdict'])}{': ' + escape(one['reason']) if one['reason'] else ''}</td></tr>"
        for one in tables_read
    )
    card(
        "How fresh and complete is this?",
        "Everything the vendor had at the time named is in the warehouse. Every number on this page has its query in docs/metrics.md.",
        '<div class="dh-scroll"><table class="dh-table"><tr><th>Table</th><th class="number">Live rows</th><th>Data through</th>'
        f"<th>Last run</th></tr>{_lines}</table></div>",
        key="freshness",
    )
    return


if __name__ == "__main__":
    app.run()
