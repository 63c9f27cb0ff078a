"""The Django project: it composes the apps and belongs to none of them."""

from server.celery import app as celery_app

__all__ = ["celery_app"]
