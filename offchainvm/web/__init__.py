"""The status page: what the records, the registry and the keys say, as pages for a browser. It changes nothing."""
