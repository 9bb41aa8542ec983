"""A whole world on loopback, for development, the demo and tests: Redis, the Coordinator and the NEAR chain.

Independent of ``offchainvm.near`` on purpose: what the client side encodes, this side decodes by its own code.
"""
