"""The NEAR client: a library that takes and returns values; only ``nonces`` touches Redis, only ``signer`` a key."""
