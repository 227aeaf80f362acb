/*-------------------------------------------------------------------------
 *
 * promotion.c
 *	  May this server write WAL as its settings say, and may a standby be
 *	  promoted?
 *
 * A standby whose promotion cannot be, or would change whether WAL is encrypted,
 * says so while there is time: when it starts, and whenever what it replays changes
 * the answer.  A promotion that cannot be is refused before anything has changed,
 * and the standby goes on as one.
 *
 * Copyright (c) 2026, the Coffer authors
 *
 * src/backend/tde/wal/promotion.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "../keys/principal/principal_internal.h"
#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "miscadmin.h"
#include "tde/settings.h"
#include "wal_internal.h"

/*
 * "No server key" is the same everywhere but for what is to be done.
 */
static const char *
no_server_key_hint(void)
{
	if (StandbyMode ||
		(!AmStartupProcess() && IsUnderPostmaster && RecoveryInProgress()))
		return _("Set one on the primary with pg_tde_set_server_key_using_global_key_provider(), or turn \"pg_tde.wal_encrypt\" off here.");
	return _("Start the server with \"pg_tde.wal_encrypt\" off and set one with pg_tde_set_server_key_using_global_key_provider().");
}

TdeScope *
tde_wal_server_scope(uint8 *scope_key, TdeWalObstacle *obstacle)
{
	char		reason[256];
	char		problem[TDE_REASON_LEN];
	char		path[MAXPGPATH];
	TdeScope   *scope;

	memset(obstacle, 0, sizeof(*obstacle));
	scope = tde_scope_read(TDE_SCOPE_SERVER, InvalidOid, reason,
						   sizeof(reason));
	tde_scope_path(TDE_SCOPE_SERVER, InvalidOid, path);
	if (scope == NULL && reason[0] != '\0')
	{
		obstacle->sqlerrcode = ERRCODE_DATA_CORRUPTED;
		snprintf(obstacle->what, sizeof(obstacle->what),
				 _("could not use key file \"%s\": %s"), path, reason);
		obstacle->hint = _("Restore the file from a backup.");
		return NULL;
	}
	obstacle->sqlerrcode = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
	if (scope == NULL || scope->retired)
	{
		strlcpy(obstacle->what, _("no server key is set"),
				sizeof(obstacle->what));
		obstacle->hint = no_server_key_hint();
		return NULL;
	}
	if (tde_generation_key(&scope->generations[scope->ngenerations - 1].id,
						   scope_key))
		return scope;

	strlcpy(obstacle->what, _("the server's scope key is not available"),
			sizeof(obstacle->what));
	if (tde_scope_is_unavailable(TDE_SCOPE_SERVER, InvalidOid, problem))
		snprintf(obstacle->detail, sizeof(obstacle->detail),
				 _("The reason is: %s."), problem);
	else
		snprintf(obstacle->detail, sizeof(obstacle->detail),
				 _("It is in file \"%s\"."), path);
	obstacle->hint = _("Start the server when the key provider returns the key; if it has moved, tell the server with pg_tde_change_key_provider.");
	tde_scope_free(scope);
	return NULL;
}

/*
 * Is there a reason not to write WAL, after WAL that is encrypted or not?
 */
static bool
find_obstacle(bool after_encrypted, TdeWalObstacle *obstacle)
{
	memset(obstacle, 0, sizeof(*obstacle));
	if (tde_wal_will_encrypt())
	{
		uint8		scope_key[TDE_WRAP_KEY_LEN];
		TdeScope   *scope = tde_wal_server_scope(scope_key, obstacle);

		tde_wipe(scope_key, sizeof(scope_key));
		if (scope != NULL)
			tde_scope_free(scope);
		return scope == NULL;
	}
	if (after_encrypted && tde_enforce_wal_encryption &&
		!IsBootstrapProcessingMode() && !IsBinaryUpgrade)
	{
		obstacle->sqlerrcode = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
		strlcpy(obstacle->what, _("WAL would go on in clear"),
				sizeof(obstacle->what));
		strlcpy(obstacle->detail,
				_("WAL is encrypted so far, \"pg_tde.wal_encrypt\" is off, and \"pg_tde.enforce_wal_encryption\" is on."),
				sizeof(obstacle->detail));
		obstacle->hint = _("Turn \"pg_tde.wal_encrypt\" on, and restart the server.");
		return true;
	}
	return false;
}

static void
report(int elevel, const char *message, const TdeWalObstacle *obstacle)
{
	ereport(elevel,
			(errcode(obstacle->sqlerrcode),
			 errmsg(message, obstacle->what),
			 obstacle->detail[0] != '\0' ?
			 errdetail_internal("%s", obstacle->detail) : 0,
			 obstacle->hint != NULL ?
			 errhint("%s", obstacle->hint) : 0));
}

void
tde_wal_report_obstacle(const TdeWalObstacle *obstacle)
{
	report(FATAL, tde_wal_will_encrypt() ?
		   gettext_noop("WAL cannot be encrypted: %s") :
		   gettext_noop("WAL cannot be written: %s"), obstacle);
}

void
tde_wal_check_writing(bool after_encrypted)
{
	TdeWalObstacle obstacle;

	if (find_obstacle(after_encrypted, &obstacle))
		tde_wal_report_obstacle(&obstacle);
}

/* ---- a standby ---- */

static bool
is_replaying_encrypted(void)
{
	return pg_atomic_read_u32(&tde_wal_writing->replaying) != 0;
}

void
TdeWalWarnOfPromotion(void)
{
	static char last[sizeof(((TdeWalObstacle *) 0)->what)] = "";
	TdeWalObstacle obstacle;

	if (!StandbyMode)
		return;
	if (find_obstacle(is_replaying_encrypted(), &obstacle))
	{
		if (strcmp(last, obstacle.what) != 0)
			report(WARNING, gettext_noop("this standby cannot be promoted: %s"),
				   &obstacle);
	}
	else if (is_replaying_encrypted() && !tde_wal_encrypt)
	{
		strlcpy(obstacle.what, "in clear", sizeof(obstacle.what));
		if (strcmp(last, obstacle.what) != 0)
			ereport(WARNING,
					(errmsg("WAL would go on in clear if this standby were promoted"),
					 errdetail("The WAL that it replays is encrypted, and \"%s\" is off here.",
							   "pg_tde.wal_encrypt"),
					 errhint("Turn \"%s\" on, and restart the standby; turn \"%s\" on to have such promotions refused.",
							 "pg_tde.wal_encrypt",
							 "pg_tde.enforce_wal_encryption")));
	}
	else if (last[0] != '\0')
		ereport(LOG,
				(errmsg("nothing of WAL encryption is in the way of a promotion of this standby any more")));
	strlcpy(last, obstacle.what, sizeof(last));
}

bool
TdeWalRefusesPromotion(int elevel)
{
	TdeWalObstacle obstacle;
	bool		refused = find_obstacle(is_replaying_encrypted(), &obstacle);

	if (!refused && AmStartupProcess() &&
		tde_wal_goes_on(GetXLogReplayRecPtr(NULL)))
	{
		obstacle.sqlerrcode = ERRCODE_DATA_CORRUPTED;
		snprintf(obstacle.what, sizeof(obstacle.what),
				 _("WAL goes on at %X/%X with a page that cannot be used"),
				 LSN_FORMAT_ARGS(tde_wal_unread_page));
		obstacle.hint = _("See the server log for the key that is missing or for what is wrong with the page.");
		refused = true;
	}
	if (refused)
		report(elevel, gettext_noop("promotion refused: %s"), &obstacle);
	return refused;
}
