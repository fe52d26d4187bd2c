"""Templates of the phone pages, read by `bot.web`."""
