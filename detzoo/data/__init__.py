"""From files to padded batches, and from other annotation formats to records (floor 2)."""
