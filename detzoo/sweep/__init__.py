"""The speed/accuracy study: many configs measured alike, one row each, then figures and a choice."""
