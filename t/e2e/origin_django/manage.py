# SPDX-License-Identifier: Apache-2.0
"""Django's command line; DJANGO_SETTINGS_MODULE says which variant of the site."""
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
