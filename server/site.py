"""The admin site: the skin's own site with our title, and the one on which every room registers its models."""

from typing import Any

from django.http import HttpRequest
from django.template.response import TemplateResponse
from unfold.sites import UnfoldAdminSite


class SpendwatchAdminSite(UnfoldAdminSite):  # type: ignore[misc]  # unfold ships no types
    """What /admin/ serves."""

    index_title = "Start"
    site_title = "Spendwatch"
    site_header = "Spendwatch"
    enable_nav_sidebar = True

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        """The start page. Somebody who may not see calls gets the page without what ClickHouse knows."""
        from server.pages import start

        page: TemplateResponse = super().index(request, {**start.context(request), **(extra_context or {})})
        return page
