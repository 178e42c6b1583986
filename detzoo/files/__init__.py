"""Files from any source: images, text, JSON, XML and YAML are read with limits, and data issues are collected."""
