"""The list of calls, one call, and the list as CSV: pages of the admin over what is in ClickHouse.

The list is read a page at a time; nothing here changes a call. Never here: SQL, sums.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from unfold.admin import ModelAdmin

from ledger.clickhouse import connection
from server.models import Call
from server.pages.detail import sections
from server.pages.export import csv_lines
from server.pages.filters import CHOICES, FIXED, RANGES, TEXTS, CallFilter, read_filter
from spendwatch.clickhouse import queries
from spendwatch.clickhouse.client import Connection
from spendwatch.errors import SpendwatchError

PAGE_SIZE = 50
LAST_PAGE = 200
"""ClickHouse reads all pages before the one that is asked for; further back one narrows the time."""
CALLER = "server.calls"


@admin.register(Call)
class CallAdmin(ModelAdmin):  # type: ignore[misc]  # unfold ships no types
    """Calls: seen and exported, never edited."""

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002  # the signature is Django's
        return False

    def has_change_permission(self, request: HttpRequest, obj: Call | None = None) -> bool:  # noqa: ARG002  # as above
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Call | None = None) -> bool:  # noqa: ARG002  # as above
        return False

    def has_export_permission(self, request: HttpRequest) -> bool:
        """Whether this person may take the list away as a file."""
        return request.user.has_perm("spendwatch_server.export_call")

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        return [
            path("", wrap(self._allowed(self.list_view)), name="spendwatch_server_call_changelist"),
            path("export.csv", wrap(self._allowed(self.export_view)), name="spendwatch_server_call_export"),
            path("<int:call_id>/", wrap(self._allowed(self.detail_view)), name="spendwatch_server_call_detail"),
        ]

    def list_view(self, request: HttpRequest) -> HttpResponse:
        """One page of the calls that the address asks for."""
        wanted = read_filter(request.GET, timezone.now())
        page = _page_number(request.GET.get("page", ""))
        context: dict[str, Any] = {"title": "Calls", "wanted": wanted, "page": page, "is_fullwidth": "1"}
        try:
            ch = connection(CALLER)
            found = queries.calls_page(
                ch, wanted.scope, wanted.window, page=page, page_size=PAGE_SIZE, search=wanted.search or None
            )
            pages = max(1, -(-found.total // PAGE_SIZE))
            context |= {
                "calls": found.calls,
                "total": found.total,
                "pages": pages,
                "first": (page - 1) * PAGE_SIZE + 1,
                "last": (page - 1) * PAGE_SIZE + len(found.calls),
                "previous": _address(request, page - 1) if page > 1 else "",
                "next": _address(request, page + 1) if page < min(pages, LAST_PAGE) else "",
                "cut": pages > LAST_PAGE,
                "filters": _filters(wanted, ch),
            }
        except SpendwatchError as error:
            context |= {"store_problem": str(error), "filters": _filters(wanted, None)}
        context["texts"] = [(name, label, wanted.given.get(name, "")) for name, (label, _) in TEXTS.items()]
        context["ranges"] = RANGES
        context["may_export"] = self.has_export_permission(request)
        context["export"] = f"{reverse('admin:spendwatch_server_call_export')}?{urlencode(wanted.given)}"
        return self._page(request, "server/call_list.html", context)

    def detail_view(self, request: HttpRequest, call_id: int) -> HttpResponse:
        """Everything known about one call."""
        context: dict[str, Any] = {"title": f"Call {call_id}"}
        try:
            call = queries.call(connection(CALLER), call_id) if call_id < 2**64 else None
        except SpendwatchError as error:
            return self._page(request, "server/call.html", {**context, "store_problem": str(error)})
        if call is None:
            raise Http404(f"there is no call {call_id}")
        context |= {"call": call, "sections": sections(call)}
        return self._page(request, "server/call.html", context)

    def export_view(self, request: HttpRequest) -> HttpResponseBase:
        """The list as CSV."""
        if not self.has_export_permission(request):
            raise PermissionDenied
        wanted = read_filter(request.GET, timezone.now())
        if wanted.problem:
            return HttpResponse(wanted.problem, status=400, content_type="text/plain; charset=utf-8")
        try:
            ch = connection(CALLER)
        except SpendwatchError as error:
            return HttpResponse(str(error), status=503, content_type="text/plain; charset=utf-8")
        name = f"spendwatch-calls-{wanted.window.start:%Y%m%dT%H%M}-{wanted.window.end:%Y%m%dT%H%M}.csv"
        return StreamingHttpResponse(
            csv_lines(ch, wanted),
            content_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    def _allowed(self, view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
        @wraps(view)
        def allowed(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if not self.has_view_permission(request):
                raise PermissionDenied
            return view(request, *args, **kwargs)

        return allowed

    def _page(self, request: HttpRequest, template: str, context: dict[str, Any]) -> TemplateResponse:
        return TemplateResponse(
            request, template, {**self.admin_site.each_context(request), "opts": Call._meta, **context}
        )


def _filters(wanted: CallFilter, ch: Connection | None) -> list[tuple[str, str, str, list[str]]]:
    """Name, label, chosen value and choices of each filter with a list. Raises StoreError."""
    found = []
    for name, (label, dimension) in CHOICES.items():
        chosen = wanted.given.get(name, "")
        if name in FIXED:
            choices = list(FIXED[name])
        else:
            choices = sorted(queries.distinct(ch, dimension, wanted.window)) if ch is not None else []
        if chosen and chosen not in choices:
            choices.insert(0, chosen)
        found.append((name, label, chosen, choices))
    return found


def _page_number(text: str) -> int:
    return min(max(int(text), 1), LAST_PAGE) if text.isascii() and text.isdigit() and len(text) < 10 else 1


def _address(request: HttpRequest, page: int) -> str:
    query = request.GET.copy()
    query["page"] = str(page)
    return f"?{query.urlencode()}"
