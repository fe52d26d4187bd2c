"""The tables' history: additive first, from the first table on."""
