"""The credentials a fresh `World` accepts. They open nothing outside the sandbox."""

SCREENDESK_TOKEN = "sandbox-screendesk-token"  # noqa: S105
GETSCREEN_KEY = "sandbox-getscreen-key"
POSTHOG_KEY = "phx_sandbox_posthog_key"
POSTHOG_PROJECT_ID = "4242"
