"""The chat machine: it listens, talks and delivers, and knows nothing of any county."""

import os

# Near misses are compared syllable by syllable; the phrase tables would only cost 45 MB of memory.
os.environ.setdefault("PYPINYIN_NO_PHRASES", "true")
