"""Charges a card over the payment gateway."""
import settings


class GatewayTimeout(Exception):
    """The gateway did not answer within settings.GATEWAY_TIMEOUT_S."""


def charge(gateway, card, cents):
    """Tries settings.CHARGE_RETRIES times; a timeout counts as a failed try."""
    for attempt in range(settings.CHARGE_RETRIES):
        reply = gateway.post("/charge", card=card, cents=cents,
                             timeout=settings.GATEWAY_TIMEOUT_S)
        if reply is not None:
            return reply
    raise GatewayTimeout(f"no answer after {settings.CHARGE_RETRIES} tries")
