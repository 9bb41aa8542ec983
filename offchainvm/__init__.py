"""OffchainVM Worker: runs the off-chain part of NEAR smart contracts."""
