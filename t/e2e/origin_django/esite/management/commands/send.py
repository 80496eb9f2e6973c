# SPDX-License-Identifier: Apache-2.0
"""manage.py send CHANNEL TYPE DATA: what cron jobs, Celery tasks and shells do."""

from django.core.management.base import BaseCommand
from django_eventstream import send_event


class Command(BaseCommand):
    def add_arguments(self, parser):
        parser.add_argument("channel")
        parser.add_argument("type")
        parser.add_argument("data")
        parser.add_argument("--count", type=int, default=1)
        parser.add_argument("--skip", action="append")

    def handle(self, *args, **options):
        for n in range(options["count"]):
            data = options["data"].replace("{n}", str(n))
            send_event(options["channel"], options["type"], {"text": data},
                       skip_user_ids=options["skip"])
