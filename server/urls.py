"""The addresses of the web pages. /healthz and /readyz are answered earlier, by server.health."""

from django.conf import settings
from django.contrib import admin
from django.urls import path
from django.views.generic import RedirectView

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    # Browsers ask for it by this name on pages that name no other, such as a CSV or an error.
    path("favicon.ico", RedirectView.as_view(url=f"/{settings.STATIC_URL.lstrip('/')}server/favicon.svg")),
    path("admin/", admin.site.urls),
]
