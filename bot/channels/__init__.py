"""One module a platform; nothing above this folder knows a platform's rules."""
