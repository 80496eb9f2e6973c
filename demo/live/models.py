# SPDX-License-Identifier: Apache-2.0
"""What the demo measures: one number, twice a second."""

from datetime import timedelta

from django.db import models
from django.utils import timezone


class Sample(models.Model):
    """A reading of the signal. send_sse writes them, the polled card and the chart's start read them."""

    KEEP = timedelta(minutes=10)

    value = models.FloatField()
    at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        ordering = ["-at"]

    def __str__(self):
        return f"{self.value:.1f} at {self.at:%H:%M:%S}"

    @classmethod
    def forget_old(cls):
        cls.objects.filter(at__lt=timezone.now() - cls.KEEP).delete()
