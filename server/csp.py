"""The Content-Security-Policy header: strict everywhere, widened below /admin/ by what the admin's skin needs.

The skin evaluates expressions in its markup (script-src 'unsafe-eval') and sets colours in a style element
(style-src 'unsafe-inline'). Without the first not even its login button can be clicked. Never here: inline scripts,
other hosts.
"""

from csp.middleware import CSPMiddleware, PolicyParts
from django.http import HttpRequest
from django.http.response import HttpResponseBase

ADMIN_ADDITIONS = {"script-src": ["'unsafe-eval'"], "style-src": ["'unsafe-inline'"]}


class ContentSecurityPolicy(CSPMiddleware):
    """django-csp's middleware, with the additions for the admin's pages."""

    def get_policy_parts(
        self, request: HttpRequest, response: HttpResponseBase, report_only: bool = False
    ) -> PolicyParts:
        parts = super().get_policy_parts(request, response, report_only)
        if not report_only and request.path_info.startswith("/admin/"):
            parts.update = {**ADMIN_ADDITIONS, **(parts.update or {})}
        return parts
