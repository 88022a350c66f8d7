"""Declared tables of Getscreen.me: the connection history and who joined each connection."""

from sources._schema import ChildTable, Column, Form, Privacy, Table, Type

CONNECTIONS = Table(
    schema="getscreen",
    name="connections",
    key="id",
    cursor=None,
    description="One row per remote-desktop connection.",
    empty_objects=([], ""),
    never_stored=("url",),
    span=("start", "stop"),
    columns=(
        Column("id", Type.INTEGER, "Identifies the connection.", form=Form.ID),
        Column("start", Type.TIMESTAMP, "When the connection started.", form=Form.UNIX_SECONDS),
        Column("stop", Type.TIMESTAMP, "When it ended; NULL while it is open.", form=Form.UNIX_SECONDS),
        Column("support_id", Type.INTEGER, "Quick-support invitation it came from; NULL for none.", form=Form.ID),
        Column("agent__id", Type.INTEGER, "Device that was controlled; NULL for none.", form=Form.ID),
        Column("agent__name", Type.TEXT, "Device name, often that of its user.", Privacy.PERSONAL),
        Column("agent__group", Type.TEXT, "Group the device is in."),
        Column("agent__geo__ip", Type.TEXT, "IP address of the device.", Privacy.PERSONAL),
        Column("agent__geo__country", Type.TEXT, "Country of the device."),
        Column("agent__geo__region", Type.TEXT, "Region of the device."),
        Column("agent__geo__city", Type.TEXT, "City of the device.", Privacy.PERSONAL),
        Column("agent__os", Type.TEXT, "Operating system: `win`, `mac`, `linux` or `android`."),
        Column("agent__version", Type.TEXT, "Getscreen.me version on the device."),
        Column(
            "agent__owner",
            Type.TEXT,
            "Login of the account that owns the device.",
            Privacy.PERSONAL,
            about=("agent__name", "agent__geo__ip", "agent__geo__city"),
        ),
        Column(
            "video__url", Type.TEXT, "Address of the video file, without its query.", Privacy.SENSITIVE, Form.VIDEO_URL
        ),
        Column("video__size", Type.INTEGER, "Size of the video file in bytes."),
    ),
    children=(
        ChildTable(
            name="connections__client",
            path=("client",),
            parent_key="connection_id",
            description="One row per operator who joined a connection.",
            single_object=True,
            columns=(
                Column("user_agent", Type.TEXT, "Browser's user agent text.", Privacy.PERSONAL),
                Column(
                    "login",
                    Type.TEXT,
                    "Login of the operator, usually an e-mail.",
                    Privacy.PERSONAL,
                    about=("user_agent", "geo__ip", "geo__city"),
                ),
                Column("geo__ip", Type.TEXT, "IP address of the operator.", Privacy.PERSONAL),
                Column("geo__country", Type.TEXT, "Country of the operator."),
                Column("geo__region", Type.TEXT, "Region of the operator."),
                Column("geo__city", Type.TEXT, "City of the operator.", Privacy.PERSONAL),
            ),
        ),
    ),
)

TABLES = (CONNECTIONS,)
