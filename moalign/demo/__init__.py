"""The embedded default: a help-desk world whose every answer is known, and the demo that is run in it."""
