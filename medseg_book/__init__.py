"""The machine of the book: its pages (`page`), its runner (`run`), its command (`cli`)."""
