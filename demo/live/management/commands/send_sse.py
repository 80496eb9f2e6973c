# SPDX-License-Identifier: Apache-2.0
"""Sends the dashboard its events: a random walk, published with django_eventstream.send_event.

Any process may do what this one does: a view, a Celery task, a cron job. It needs GRIP_URL, nothing else.
"""

import random
import signal
import threading
import time

from django.core.management.base import BaseCommand, CommandError
from django_eventstream import send_event

from live import readings
from live.models import Sample

CHANNEL = "test"
FORGET_EVERY = 100


class RandomWalk:
    """A smooth signal between 0 and 100: the speed wanders, the level is drawn back to the middle."""

    def __init__(self, level=50.0):
        self.level = level
        self.speed = 0.0

    def step(self):
        pull = 0.035 * (50.0 - self.level)
        self.speed = 0.82 * self.speed + pull * 0.4 + random.gauss(0.0, 1.3)
        self.level += self.speed
        if not 2.0 <= self.level <= 98.0:
            self.level = min(max(self.level, 2.0), 98.0)
            self.speed *= -0.5
        return round(self.level, 1)


class Command(BaseCommand):
    help = "Send sse_stat and sse_chart events on the channel `test` until stopped."

    def add_arguments(self, parser):
        parser.add_argument(
            "--count", type=int, default=0, help="how many times; 0 (the default) means until stopped"
        )
        parser.add_argument(
            "--interval", type=float, default=0.5, help="seconds between two, default 0.5"
        )

    def handle(self, *args, count, interval, **options):
        if count < 0:
            raise CommandError(f"--count: {count} is negative; 0 or more is accepted")
        if interval <= 0:
            raise CommandError(f"--interval: {interval} is not above 0 seconds")
        self.failing = False
        stop = threading.Event()
        for signum in (signal.SIGINT, signal.SIGTERM):
            # ignored means: started in the background, whoever started it ends it
            if signal.getsignal(signum) != signal.SIG_IGN:
                signal.signal(signum, lambda *_: stop.set())
        previous = Sample.objects.first()
        walk = RandomWalk(previous.value if previous else 50.0)
        done = 0
        due = time.monotonic()
        while not stop.is_set():
            previous = self.send(walk.step(), previous)
            done += 1
            if done % FORGET_EVERY == 0:
                Sample.forget_old()
            if done == count:
                break
            due = max(due + interval, time.monotonic())
            stop.wait(due - time.monotonic())

    def send(self, value, previous):
        sample = Sample.objects.create(value=value)
        newest_first = [sample] if previous is None else [sample, previous]
        try:
            self.publish("sse_stat", readings.render(newest_first))
            self.publish("sse_chart", value)
        except (OSError, ValueError) as error:
            if not self.failing:
                self.stderr.write(f"send_sse: publishing failed, will go on trying: {error}")
            self.failing = True
        else:
            if self.failing:
                self.stderr.write("send_sse: publishing works again")
            self.failing = False
        return sample

    @staticmethod
    def publish(event, data):
        # async_publish=False: wait for the answer, so that a failure is seen here
        send_event(CHANNEL, event, data, async_publish=False, json_encode=False)
