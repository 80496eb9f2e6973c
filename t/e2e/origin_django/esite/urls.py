# SPDX-License-Identifier: Apache-2.0
import django_eventstream
from django.urls import include, path

from . import views

urlpatterns = [
    path("events/", include(django_eventstream.urls)),
    path("room/<channel>/", include(django_eventstream.urls)),
    path("fixed/", include(django_eventstream.urls), {"channels": ["fixed-one", "fixed-two"]}),
    path("send/", views.send),
    path("kick/<channel>/", views.kick),
    path("grip/", views.grip),
    path("login/<int:number>/", views.enter),
]
