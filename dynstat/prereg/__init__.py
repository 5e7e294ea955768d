"""Plan, lock, ledger and runner of registered studies."""
