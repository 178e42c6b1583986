"""The looks and pieces of all pages: style sheet, layout, tables, charts, and safe text (floor 0)."""
