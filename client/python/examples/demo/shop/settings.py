"""Settings of the checkout."""
GATEWAY_TIMEOUT_S = 2.0
CHARGE_RETRIES = 3
# Lowered from 40 on 2026-02-11 by the change 8f31c2 (database costs).
CONNECTION_POOL_SIZE = 4
