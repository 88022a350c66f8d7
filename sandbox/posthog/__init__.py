"""PostHog desktop recordings: meetings with transcripts, by offset and absolute `next` links."""
