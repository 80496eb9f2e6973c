# SPDX-License-Identifier: Apache-2.0
"""The dashboard: the same signal polled, pushed and drawn.

EventStreamPanel opens the page's only EventSource (htmx's sse extension) and every live element
inside takes its events by name, so a tab costs one connection.
"""

from urllib.parse import urlsplit

from dashboards.component import Stat, Text
from dashboards.component.layout import Card, ComponentLayout, HTMLComponentLayout
from dashboards.dashboard import Dashboard
from dashboards.registry import registry
from django.conf import settings

from . import readings


class EventStreamPanel(HTMLComponentLayout):
    """Wraps cards in one element that is connected to the stream at `url`."""

    template_name = "live/panel.html"


class LiveCard(Card):
    """A card with a badge that says how its content gets here."""

    template_name = "live/card.html"


def event_path(**kwargs):
    return {"publish_port": urlsplit(settings.GRIP_URL).port or 80}


@registry.register
class SSEDashboard(Dashboard):
    polled = Stat(
        template_name="live/polled.html",
        defer=readings.latest,
        defer_loading_template_name="live/waiting.html",
        poll_rate=3,
    )
    pushed = Stat(template_name="live/pushed.html", value=readings.latest)
    delivery = Text(template_name="live/delivery.html", value="")
    chart = Text(template_name="live/chart.html", value=readings.recent)
    path = Text(template_name="live/path.html", value=event_path)

    class Meta:
        name = "Live dashboard"
        app_label = "live"

    class Media:
        extend = False
        js = ("live/chart.js", "live/dashboard.js")
        css = {"all": ("live/dashboard.css",)}

    class Layout(Dashboard.Layout):
        components = ComponentLayout(
            EventStreamPanel(
                LiveCard(
                    "polled",
                    heading="Signal, polled",
                    badge="HTMX poll",
                    footer="The page asks Django every 3 seconds.",
                    grid_css_classes="span-4",
                ),
                LiveCard(
                    "pushed",
                    heading="Signal, pushed",
                    badge="SSE",
                    footer="Django sends it the moment it changes.",
                    grid_css_classes="span-4",
                ),
                LiveCard(
                    "delivery",
                    heading="Delivery",
                    badge="SSE",
                    footer="From send_event() to this page, median.",
                    grid_css_classes="span-4",
                ),
                LiveCard(
                    "chart",
                    heading="The last minute",
                    badge="SSE",
                    grid_css_classes="span-12",
                ),
                url="/events/",
            ),
            "path",
        )
