"""The embedded default: a help-desk world that is known to the last answer, and a base model that lives in it."""
