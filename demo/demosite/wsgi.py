# SPDX-License-Identifier: Apache-2.0
"""The WSGI entry point: an ordinary synchronous application, no ASGI server needed."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demosite.settings")

application = get_wsgi_application()
