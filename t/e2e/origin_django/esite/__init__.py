# SPDX-License-Identifier: Apache-2.0
"""A Django site as users write it: django-eventstream and django-grip, unmodified. The tests write
a settings module for each variant; it starts with `from esite.base import *`."""
