# SPDX-License-Identifier: Apache-2.0
"""Who may read which channel: all but those for which a file lies in settings.DENIED."""

import pathlib

from django.conf import settings
from django_eventstream.channelmanager import DefaultChannelManager


class ChannelManager(DefaultChannelManager):
    def can_read_channel(self, user, channel):
        return not (pathlib.Path(settings.DENIED) / channel).exists()
