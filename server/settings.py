"""Django settings, all drawn from server.env; no other module reads the environment."""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dj_database_url

from server.env import env
from server.navigation import UNFOLD as UNFOLD
from server.schedule import BEAT_SCHEDULE

BASE_DIR = Path(__file__).resolve().parent.parent
_env = env()

SECRET_KEY = _env.django_secret_key
SECRET_KEY_FALLBACKS = list(_env.secret_key_fallbacks)
# Encrypted columns derive their key from SECRET_KEY, which is 64 random characters: the salt need not be secret, only
# stay the same, or what is stored can't be read any more.
SALT_KEY = "spendwatch.encrypted_fields.1"
DEBUG = _env.debug
ALLOWED_HOSTS = list(_env.allowed_hosts)
CSRF_TRUSTED_ORIGINS: list[str] = []
if _env.public_url:
    _public = urlsplit(_env.public_url)
    CSRF_TRUSTED_ORIGINS.append(f"{_public.scheme}://{_public.netloc}")
    if _public.hostname and _public.hostname not in ALLOWED_HOSTS:
        ALLOWED_HOSTS.append(_public.hostname)

INSTALLED_APPS = [
    "server.apps.ServerConfig",  # before unfold: its templates must be found first
    "unfold.apps.BasicAppConfig",
    "unfold.contrib.filters",
    "unfold.contrib.forms",
    "server.apps.SpendwatchAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "axes",
    "csp",
    "encrypted_fields",
    "django_celery_beat",
    "ledger",
    "collectors",
    "alerts",
]

MIDDLEWARE = [
    "server.health.HealthMiddleware",  # first: a probe knows neither our host name nor https
    "django.middleware.security.SecurityMiddleware",
    "server.csp.ContentSecurityPolicy",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",  # last, so that it sees how a login ended
]

ROOT_URLCONF = "server.urls"
WSGI_APPLICATION = "server.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

DATABASES: dict[str, Any]
if _env.database_url:
    DATABASES = {"default": dj_database_url.parse(_env.database_url, conn_max_age=60, conn_health_checks=True)}
else:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": _env.data_dir / "spendwatch.sqlite3",
            # Several processes write: WAL lets readers go on, IMMEDIATE makes a writer wait its turn instead of failing
            # when it turns from reader to writer.
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            },
        }
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True

# Static files come straight from the packages: nothing has to be collected before a first start.
STATIC_URL = "static/"
WHITENOISE_USE_FINDERS = True
WHITENOISE_MAX_AGE = 3600

AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"
AXES_FAILURE_LIMIT = 8
AXES_COOLOFF_TIME = timedelta(minutes=15)
# Per name and address: nobody can lock another person out from elsewhere by guessing badly under their name.
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_LOCKOUT_TEMPLATE = "server/locked_out.html"
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False

SESSION_COOKIE_AGE = int(timedelta(hours=12).total_seconds())
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
if _env.https:
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
    SECURE_SSL_REDIRECT = True
    SECURE_HSTS_SECONDS = int(timedelta(days=30).total_seconds())
    # The service speaks no TLS itself, so https means that a proxy of ours stands in front and sets this header.
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
# These two speak for every host below the domain, which is not ours to promise.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]

_SELF = ["'self'"]
# Every page but the admin's. server.csp adds, below /admin/ only, what the admin's skin can't do without.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'none'"],
        "script-src": _SELF,
        "style-src": _SELF,
        "img-src": [*_SELF, "data:"],
        "font-src": _SELF,
        "connect-src": _SELF,
        "form-action": _SELF,
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
    }
}

SPENDWATCH = _env
SPENDWATCH_CLICKHOUSE_DSN = _env.clickhouse_dsn
SPENDWATCH_RETENTION_DAYS = _env.retention_days

CELERY_BROKER_URL = _env.celery_broker_url
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
if urlsplit(_env.celery_broker_url).scheme.startswith(("redis", "valkey", "unix")):
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        # A worker's unfinished tasks come back this many seconds after its death. No task of ours runs longer, and one
        # that did would only run twice: all are idempotent.
        "visibility_timeout": 600,
        # Without these two the look for such tasks happens only about every 100 s.
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
    }
CELERY_TIMEZONE = "UTC"
CELERY_ENABLE_UTC = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_TASK_IGNORE_RESULT = True
# No results are kept, so none have to be cleaned up: beat would add a task for it.
CELERY_RESULT_EXPIRES = None
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
CELERY_BEAT_SCHEDULE = BEAT_SCHEDULE

# A command's standard output is its answer (JSON, CSV), so what it logs goes to standard error; a service logs to
# standard output.
_LOG_TO = "ext://sys.stderr" if Path(sys.argv[0]).name == "manage.py" else "ext://sys.stdout"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{", "datefmt": "%Y-%m-%dT%H:%M:%S%z"}
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line", "stream": _LOG_TO}},
    "root": {"handlers": ["console"], "level": _env.log_level.upper()},
    "loggers": {
        # Django adds handlers of its own to this one; ours is enough.
        "django": {"handlers": [], "level": "INFO", "propagate": True},
        "django.server": {"handlers": [], "propagate": True},
        # Beat says "Sending due task" several times a second, the worker "received" and "succeeded" as often.
        "celery.beat": {"level": "WARNING"},
        "celery.worker.strategy": {"level": "WARNING"},
        "celery.app.trace": {"level": "WARNING"},
        "axes": {"level": "WARNING"},
        # What these two warn of reaches whoever asked as an error of ours, with what to do.
        "urllib3": {"level": "ERROR"},
        "clickhouse_connect": {"level": "ERROR"},
        "httpx": {"level": "WARNING"},
        "httpx2": {"level": "WARNING"},
    },
}
