"""Speed/accuracy studies: many configs measured in the same way, one row each, then figures and a choice."""
