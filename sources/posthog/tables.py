"""Declared tables of PostHog desktop recordings: meetings, their participants, transcripts and tasks."""

from sources._schema import ChildTable, Column, Form, Privacy, Table, Type

DESKTOP_RECORDINGS = Table(
    schema="posthog",
    name="desktop_recordings",
    key="id",
    cursor="updated_at",
    order="started_at",
    description="One row per recorded meeting.",
    columns=(
        Column("id", Type.TEXT, "Identifies the meeting."),
        Column("team", Type.INTEGER, "PostHog project the meeting belongs to."),
        Column("created_by", Type.INTEGER, "PostHog user who recorded it.", Privacy.PERSONAL),
        Column("sdk_upload_id", Type.TEXT, "Upload id of the desktop recorder."),
        Column("recall_recording_id", Type.TEXT, "Recording id at Recall.ai."),
        Column("platform", Type.TEXT, "`zoom`, `teams`, `meet`, `desktop_audio` or `slack`."),
        Column("meeting_title", Type.TEXT, "Title of the meeting.", Privacy.SENSITIVE),
        Column("meeting_url", Type.TEXT, "Link of the meeting.", Privacy.SENSITIVE),
        Column("duration_seconds", Type.INTEGER, "Length in seconds; often NULL."),
        Column(
            "status", Type.TEXT, "`recording`, `uploading`, `processing`, `ready` or `error`; `ready` is not final."
        ),
        Column("notes", Type.TEXT, "Notes typed by a person.", Privacy.SENSITIVE),
        Column("error_message", Type.TEXT, "What went wrong, if anything."),
        Column(
            "video_url", Type.TEXT, "Address of the video file, without its query.", Privacy.SENSITIVE, Form.VIDEO_URL
        ),
        Column("video_size_bytes", Type.INTEGER, "Size of the video file in bytes."),
        Column("transcript_text", Type.TEXT, "Texts of all segments in one.", Privacy.SENSITIVE),
        Column("summary", Type.TEXT, "Generated summary.", Privacy.SENSITIVE),
        Column("tasks_generated_at", Type.TIMESTAMP, "When tasks were last extracted."),
        Column("summary_generated_at", Type.TIMESTAMP, "When the summary was generated."),
        Column("started_at", Type.TIMESTAMP, "When the meeting started, as the recorder says."),
        Column("completed_at", Type.TIMESTAMP, "When the recording was complete; often NULL."),
        Column("created_at", Type.TIMESTAMP, "When PostHog first stored the meeting."),
        Column("updated_at", Type.TIMESTAMP, "When PostHog last saved it; changes by SQL do not move it."),
    ),
    children=(
        ChildTable(
            name="desktop_recordings__participants",
            path=("participants",),
            parent_key="desktop_recording_id",
            description="One row per participant of a meeting.",
            plain_values=True,
            columns=(Column("value", Type.TEXT, "Name of the participant.", Privacy.PERSONAL),),
        ),
        ChildTable(
            name="desktop_recordings__transcript_segments",
            path=("transcript_segments",),
            parent_key="desktop_recording_id",
            description="One row per transcript segment, in order of arrival.",
            columns=(
                Column(
                    "timestamp",
                    Type.NUMBER,
                    "Start in milliseconds from the recording's start; not unique, may be NULL.",
                ),
                Column("speaker", Type.TEXT, "Who spoke; may be empty.", Privacy.PERSONAL),
                Column("text", Type.TEXT, "What was said.", Privacy.SENSITIVE),
                Column("confidence", Type.NUMBER, "Confidence of the transcription, 0 to 1."),
                Column("is_final", Type.BOOLEAN, "Whether the text was final when sent."),
            ),
        ),
        ChildTable(
            name="desktop_recordings__extracted_tasks",
            path=("extracted_tasks",),
            parent_key="desktop_recording_id",
            description="One row per task found in a meeting.",
            columns=(
                Column("title", Type.TEXT, "Title of the task.", Privacy.SENSITIVE),
                Column("description", Type.TEXT, "Description of the task.", Privacy.SENSITIVE),
                Column("assignee", Type.TEXT, "Who should do it.", Privacy.PERSONAL),
            ),
        ),
    ),
)

TABLES = (DESKTOP_RECORDINGS,)
