# SPDX-License-Identifier: Apache-2.0
"""Settings that all variants share."""

SECRET_KEY = "only for tests on loopback, thirty-two bytes or more"
DEBUG = False
ALLOWED_HOSTS = ["*"]
USE_TZ = True
TIME_ZONE = "UTC"
ROOT_URLCONF = "esite.urls"
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django_eventstream",
    "esite",
]
MIDDLEWARE = [
    "django_grip.GripMiddleware",
    "django.middleware.gzip.GZipMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
EVENTSTREAM_CHANNELMANAGER_CLASS = "esite.channels.ChannelManager"
EVENTSTREAM_ALLOW_ORIGIN = "http://app.test"
EVENTSTREAM_ALLOW_CREDENTIALS = True
