"""The monthly report of a field team: asked, read, checked, filed, corrected and shown."""
