"""Files written by others: images, text, JSON, XML and YAML are read with limits, and data issues are collected."""
