/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hub's life: start the intake and its loops, run until told to stop, end everything. Called by
 * the glue in the forked hub process, and by unit tests in a thread.
 */
#include "intake_int.h"

#include <errno.h>
#include <string.h>

es_err_t es_hub_run(const es_hub_config_t *config)
{
    es_intake_t intake;
    es_err_t err = es_intake_init(&intake, config);

    if (err == ES_OK) {
        es_log(&config->log, ES_LOG_INFO, "ES0330",
               "mod_eventstream " ES_VERSION ": the hub runs with %d loop threads",
               intake.loop_count);
        es_intake_run(&intake);
    }
    else {
        es_log(&config->log, ES_LOG_ERR, "ES0331", "the hub cannot start: %s (%s)",
               es_err_name(err), strerror(errno));
    }
    es_intake_destroy(&intake);
    return err;
}
