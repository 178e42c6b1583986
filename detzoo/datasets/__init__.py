"""Annotations to records: importers, repair, inspection, embedded data sets, proposal search, drawing."""
