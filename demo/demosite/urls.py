# SPDX-License-Identifier: Apache-2.0
"""Three doors: the dashboard, its event stream, and `/` that leads to the dashboard."""

import django_eventstream.urls
from dashboards.registry import registry
from django.urls import include, path
from django.views.generic import RedirectView

# django-dashboards lists the registered dashboards when its urls are imported: look for them first
registry.autodiscover()

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="dashboards:live_ssedashboard")),
    path("dashboard/", include("dashboards.urls")),
    path("events/", include(django_eventstream.urls), {"channels": ["test"]}),
]
