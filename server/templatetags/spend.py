"""server.formats for templates."""

from decimal import Decimal

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

from server import formats

register = template.Library()
register.filter("exact", formats.exact)
register.filter("number", formats.count)
register.filter("short_number", formats.short)
register.filter("duration", formats.duration)
register.filter("when", formats.when)


@register.simple_tag
def usd(amount: Decimal | None, places: int = 2) -> SafeString:
    """An amount, with the exact one as title and as data for whoever reads the page by program."""
    if amount is None:
        return format_html('<span class="sw-unknown" title="not known">{}</span>', formats.UNKNOWN)
    exact = formats.exact(amount)
    return format_html(
        '<span class="sw-usd" data-usd="{}" title="{} USD">{}</span>', exact, exact, formats.usd(amount, places)
    )
