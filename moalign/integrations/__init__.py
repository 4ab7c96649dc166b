"""moalign's parts inside other toolkits: each is an extra, and is imported only by whoever uses it."""
