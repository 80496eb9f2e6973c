# SPDX-License-Identifier: Apache-2.0
"""A reading as the cards show it: the same data and the same template, polled or pushed."""

import time
from dataclasses import asdict
from datetime import timedelta

from dashboards.component.text import StatData
from django.template.loader import render_to_string
from django.utils import timezone

from .models import Sample

TEMPLATE = "live/reading.html"
CHART_SECONDS = 60


def reading(samples):
    """StatData of the newest of `samples` (newest first), with its change against the one before."""
    if not samples:
        return StatData(text="–", sub_text="no reading yet")
    newest = samples[0]
    change = round(newest.value - samples[1].value, 1) if len(samples) > 1 else None
    return StatData(
        text=f"{newest.value:.1f}",
        change_by=change,
        change_by_text=None if change is None else f"{abs(change):.1f}",
        sub_text=f"{newest.at:%H:%M:%S} UTC",
    )


def latest(**kwargs):
    return reading(list(Sample.objects.all()[:2]))


def recent(**kwargs):
    """The chart's first minute: [age in milliseconds, value], oldest first."""
    now = timezone.now()
    newest = Sample.objects.filter(at__gte=now - timedelta(seconds=CHART_SECONDS))
    points = [[round((now - s.at).total_seconds() * 1000), s.value] for s in newest]
    return {"points": points[::-1], "seconds": CHART_SECONDS}


def render(samples):
    """The html fragment of an sse_stat event; `sent` lets the page tell how long it took."""
    context = {"rendered_value": asdict(reading(samples)), "sent": f"{time.time() * 1000:.3f}"}
    return render_to_string(TEMPLATE, context)
