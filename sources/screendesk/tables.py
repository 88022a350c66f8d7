"""Declared tables of Screendesk: recordings (with the participants of live calls) and users."""

from sources._schema import ChildTable, Column, Privacy, Table, Type

RECORDINGS = Table(
    schema="screendesk",
    name="recordings",
    key="uuid",
    cursor="metadata__updated_at",
    order="metadata__created_at",
    description="One row per screen recording or live call.",
    columns=(
        Column("uuid", Type.TEXT, "Identifies the recording."),
        Column("title", Type.TEXT, "Title, typed by a person or generated.", Privacy.SENSITIVE),
        Column("summary", Type.TEXT, "Short summary.", Privacy.SENSITIVE),
        Column("description", Type.TEXT, "Longer description.", Privacy.SENSITIVE),
        Column("metadata__created_at", Type.TIMESTAMP, "When the recording was made."),
        Column(
            "metadata__updated_at", Type.TIMESTAMP, "When Screendesk says it last changed; not every change moves it."
        ),
        Column("metadata__duration", Type.INTEGER, "Length in seconds; 0 or NULL until processed."),
        Column("metadata__impressions_count", Type.INTEGER, "How often the recording was viewed."),
        Column("metadata__recording_type", Type.TEXT, "`Received`, `Sent` or `Live`."),
        Column("metadata__recording_source", Type.TEXT, "Where it came from, e.g. `Zendesk Ticket`."),
        Column(
            "metadata__url",
            Type.TEXT,
            "Page that plays the recording; by default whoever holds it can watch.",
            Privacy.SENSITIVE,
        ),
        Column("metadata__helpdesk_info__platform", Type.TEXT, "Helpdesk the recording belongs to, e.g. `zendesk`."),
        Column("metadata__helpdesk_info__conversation_id", Type.TEXT, "Conversation in that helpdesk."),
        Column("metadata__helpdesk_info__ticket_id", Type.TEXT, "Ticket in that helpdesk."),
        Column("metadata__helpdesk_info__user_id", Type.TEXT, "User in that helpdesk.", Privacy.PERSONAL),
        Column("metadata__helpdesk_info__operator_id", Type.TEXT, "Operator in that helpdesk.", Privacy.PERSONAL),
        Column("metadata__helpdesk_info__customer_id", Type.TEXT, "Customer in that helpdesk.", Privacy.PERSONAL),
        Column("metadata__helpdesk_info__issue_id", Type.TEXT, "Issue in that helpdesk."),
        Column("technical_details__vendor", Type.TEXT, "Browser or device vendor."),
        Column("technical_details__ip_address", Type.TEXT, "IP address of the person who recorded.", Privacy.PERSONAL),
        Column("technical_details__timezone", Type.TEXT, "Time zone of the person who recorded."),
        Column("technical_details__network_type", Type.TEXT, "Network type, e.g. `4g`."),
        Column("technical_details__isp", Type.TEXT, "Internet provider of the person who recorded.", Privacy.PERSONAL),
        Column("console_logs", Type.TEXT, "Browser console output captured during the recording.", Privacy.SENSITIVE),
        Column(
            "customer__email",
            Type.TEXT,
            "E-mail of the customer.",
            Privacy.PERSONAL,
            about=(
                "metadata__helpdesk_info__user_id",
                "metadata__helpdesk_info__customer_id",
                "technical_details__ip_address",
                "technical_details__isp",
            ),
        ),
        Column(
            "user__email",
            Type.TEXT,
            "E-mail of the agent who owns the recording.",
            Privacy.PERSONAL,
            about=(
                "user__name",
                "metadata__helpdesk_info__operator_id",
                "technical_details__ip_address",
                "technical_details__isp",
            ),
        ),
        Column("user__name", Type.TEXT, "Name of the agent who owns the recording.", Privacy.PERSONAL),
        Column("room_insights__started_at", Type.TIMESTAMP, "Live calls: when the call started."),
        Column("room_insights__ended_at", Type.TIMESTAMP, "Live calls: when the call ended; NULL while it runs."),
        Column("room_insights__duration", Type.INTEGER, "Live calls: length in seconds."),
        Column(
            "room_insights__total_participant_minutes", Type.NUMBER, "Live calls: minutes summed over participants."
        ),
        Column("room_insights__total_unique_participants", Type.INTEGER, "Live calls: how many people took part."),
    ),
    children=(
        ChildTable(
            name="recordings__room_insights__participants_insights",
            path=("room_insights", "participants_insights"),
            parent_key="recording_uuid",
            description="One row per participant of a live call.",
            columns=(
                Column("participant_id", Type.TEXT, "Identifies the participant within the call."),
                Column("display_name", Type.TEXT, "Name shown in the call.", Privacy.PERSONAL, about=("user_agent",)),
                Column("role", Type.TEXT, "Role in the call, e.g. `host`."),
                Column("browser", Type.TEXT, "Browser."),
                Column("os", Type.TEXT, "Operating system."),
                Column("device", Type.TEXT, "Device model."),
                Column("device_type", Type.TEXT, "Kind of device, e.g. `desktop`."),
                Column("user_agent", Type.TEXT, "Browser's user agent text.", Privacy.PERSONAL),
                Column("joined_at", Type.TIMESTAMP, "When the participant joined."),
                Column("left_at", Type.TIMESTAMP, "When the participant left; NULL while present."),
            ),
        ),
    ),
)

USERS = Table(
    schema="screendesk",
    name="users",
    key="email",
    cursor="updated_at",
    description="One row per member of the Screendesk account.",
    columns=(
        Column("email", Type.TEXT, "Identifies the user; the API offers no other id.", Privacy.PERSONAL),
        Column("name", Type.TEXT, "Name.", Privacy.PERSONAL),
        Column("has_profile_picture", Type.BOOLEAN, "Whether a picture is set."),
        Column("created_at", Type.TIMESTAMP, "When the user was added."),
        Column("updated_at", Type.TIMESTAMP, "When Screendesk says the user last changed."),
        Column("role", Type.TEXT, "Role in the account, e.g. `admin` or `member`."),
        Column("notifications__notify_first_view", Type.TEXT, "`Enabled` or `Disabled`."),
        Column("notifications__notify_all_recordings", Type.TEXT, "`Enabled` or `Disabled`."),
        Column("notifications__notify_own_recordings", Type.TEXT, "`Enabled` or `Disabled`."),
    ),
)

TABLES = (RECORDINGS, USERS)
