# SPDX-License-Identifier: Apache-2.0
import json

from django.contrib.auth import get_user_model, login
from django.http import HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django_eventstream import send_event
from django_eventstream.eventstream import channel_permission_changed


@csrf_exempt
def send(request):
    """Sends the events of the body: a list of [channel, type, data] or with skip_user_ids."""
    for channel, kind, data, *skip in json.loads(request.body):
        send_event(channel, kind, data, skip_user_ids=skip[0] if skip else None)
    return HttpResponse("sent\n")


def kick(request, channel):
    channel_permission_changed(None, channel)
    return HttpResponse("kicked\n")


def grip(request):
    """What GripMiddleware made of the request."""
    return JsonResponse({
        "proxied": request.grip.proxied,
        "signed": request.grip.signed,
        "features": sorted(request.grip.features),
        "accept-encoding": request.headers.get("Accept-Encoding"),
        "host": request.get_host(),
    })


def enter(request, number):
    """Logs a user in, who is made when there is none; the answer's cookie is the session."""
    user, _ = get_user_model().objects.get_or_create(pk=number,
                                                     defaults={"username": f"user{number}"})
    login(request, user)
    return HttpResponse(f"{user.pk}\n")
