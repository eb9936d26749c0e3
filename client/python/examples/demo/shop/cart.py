"""What is in the basket, and what it costs."""


def total_cents(items):
    """Sum of price times count, in cents. Vouchers are taken off last and never below zero."""
    total = sum(item.price_cents * item.count for item in items if not item.is_voucher)
    vouchers = sum(item.price_cents for item in items if item.is_voucher)
    return max(total - vouchers, 0)
