# SPDX-License-Identifier: Apache-2.0
"""Settings of the demo project.

What makes it live are three lines, the same three that a project behind Pushpin has: GripMiddleware
first in MIDDLEWARE, GRIP_URL, and the django_eventstream urls (see urls.py).

run.sh passes what differs from one start to the next through the environment:

    ES_DEMO_RUN   directory for the database and the collected static files
    ES_DEMO_KEY   SECRET_KEY, the same for the server and for send_sse
    GRIP_URL      where send_event publishes, default http://localhost:5561
"""

import os
from pathlib import Path

from django.core.management.utils import get_random_secret_key

BASE_DIR = Path(__file__).resolve().parent.parent
RUN_DIR = Path(os.environ.get("ES_DEMO_RUN", BASE_DIR / "run"))

SECRET_KEY = os.environ.get("ES_DEMO_KEY") or get_random_secret_key()
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]"]

GRIP_URL = os.environ.get("GRIP_URL", "http://localhost:5561")

INSTALLED_APPS = [
    "live",  # before dashboards: its dashboards/dashboard.html is the one in use
    "dashboards",
    "django_eventstream",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.staticfiles",
]

MIDDLEWARE = [
    "django_grip.GripMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "demosite.urls"
WSGI_APPLICATION = "demosite.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    }
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": RUN_DIR / "demo.sqlite3",
        "OPTIONS": {"timeout": 10},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

STATIC_URL = "/static/"
STATIC_ROOT = RUN_DIR / "static"

USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
USE_I18N = False
