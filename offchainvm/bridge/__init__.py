"""The bridge: everything between the Coordinator, Redis and the chain that needs no sandbox and holds no key."""
