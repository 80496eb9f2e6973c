/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directives of the native endpoint, as lines of the table in config.c, which alone includes this.
 * The setters are in native_config.c.
 */
#ifndef ES_NATIVE_COMMANDS_H
#define ES_NATIVE_COMMANDS_H

#include "es_httpd.h"

const char *es_set_history(cmd_parms *cmd, void *conf, int argc, char *const argv[]);
const char *es_set_channel(cmd_parms *cmd, void *conf, const char *arg);
const char *es_set_channel_param(cmd_parms *cmd, void *conf, const char *arg);
const char *es_set_channel_prefix(cmd_parms *cmd, void *conf, const char *arg);
const char *es_set_allow_channels(cmd_parms *cmd, void *conf, const char *arg);
const char *es_set_keep_alive(cmd_parms *cmd, void *conf, const char *arg);
const char *es_set_retry(cmd_parms *cmd, void *conf, const char *arg);
const char *es_set_allow_origin(cmd_parms *cmd, void *conf, const char *arg);
const char *es_set_allow_credentials(cmd_parms *cmd, void *conf, int on);
const char *es_set_allow_headers(cmd_parms *cmd, void *conf, const char *arg);
const char *es_set_authorize(cmd_parms *cmd, void *conf, const char *arg);
const char *es_set_publish(cmd_parms *cmd, void *conf, int on);
const char *es_set_presence(cmd_parms *cmd, void *conf, const char *on, const char *grace);
const char *es_set_subscribe_key(cmd_parms *cmd, void *conf, const char *a, const char *b);

/* clang-format off */
#define ES_NATIVE_COMMANDS                                                                         \
    AP_INIT_TAKE_ARGV("EventStreamHistory", es_set_history, NULL, RSRC_CONF,                       \
                      "off, or a directory where messages are kept, and [size=BYTES] "             \
                      "[age=TIME] [count=N] (default: off)"),                                      \
    AP_INIT_ITERATE("EventStreamChannel", es_set_channel, NULL, ACCESS_CONF | RSRC_CONF,           \
                    "channels of every stream here: names, or expr=EXPRESSION that gives one "     \
                    "(default: the URL names them)"),                                              \
    AP_INIT_TAKE1("EventStreamChannelParam", es_set_channel_param, NULL, ACCESS_CONF | RSRC_CONF,  \
                  "query parameter that names channels (default: channel)"),                       \
    AP_INIT_TAKE1("EventStreamChannelPrefix", es_set_channel_prefix, NULL,                         \
                  ACCESS_CONF | RSRC_CONF,                                                         \
                  "put before each channel's name, such as events- (default: nothing)"),           \
    AP_INIT_ITERATE("EventStreamAllowChannels", es_set_allow_channels, NULL,                       \
                    ACCESS_CONF | RSRC_CONF,                                                       \
                    "patterns of the channels that a URL may name (default: *)"),                  \
    AP_INIT_TAKE1("EventStreamKeepAlive", es_set_keep_alive, NULL, ACCESS_CONF | RSRC_CONF,        \
                  "silence after which a keep-alive event is sent, 1s to 1h; 0: never "            \
                  "(default: 20s)"),                                                               \
    AP_INIT_TAKE1("EventStreamRetry", es_set_retry, NULL, ACCESS_CONF | RSRC_CONF,                 \
                  "time after which a browser connects again, 100ms to 1h; 0: its own choice "     \
                  "(default: 3s)"),                                                                \
    AP_INIT_ITERATE("EventStreamAllowOrigin", es_set_allow_origin, NULL, ACCESS_CONF | RSRC_CONF,  \
                    "origins of pages that may read the streams here, with patterns; * for all "   \
                    "(default: none but the own)"),                                                \
    AP_INIT_FLAG("EventStreamAllowCredentials", es_set_allow_credentials, NULL,                    \
                 ACCESS_CONF | RSRC_CONF,                                                          \
                 "On: these pages may send cookies (default: Off)"),                               \
    AP_INIT_ITERATE("EventStreamAllowHeaders", es_set_allow_headers, NULL,                         \
                    ACCESS_CONF | RSRC_CONF,                                                       \
                    "request headers that these pages may send (default: none)"),                  \
    AP_INIT_TAKE1("EventStreamAuthorize", es_set_authorize, NULL, ACCESS_CONF | RSRC_CONF,         \
                  "path of the application that is asked who may subscribe; None: nobody is "      \
                  "asked (default: None)"),                                                        \
    AP_INIT_FLAG("EventStreamPublish", es_set_publish, NULL, ACCESS_CONF | RSRC_CONF,              \
                 "On: POST publishes and DELETE clears here (default: Off)"),                      \
    AP_INIT_TAKE12("EventStreamPresence", es_set_presence, NULL, ACCESS_CONF | RSRC_CONF,          \
                   "On: who is on a channel is told on CHANNEL/presence; [grace=TIME] until "      \
                   "a leave is told (default: Off, 5s)"),                                          \
    AP_INIT_TAKE12("EventStreamSubscribeKey", es_set_subscribe_key, NULL,                          \
                   ACCESS_CONF | RSRC_CONF,                                                        \
                   "[issuer and] key of the tokens that subscribers must show: a secret (raw, "    \
                   "base64:TEXT) or file:PATH (default: no token is asked for)")
/* clang-format on */

#endif
