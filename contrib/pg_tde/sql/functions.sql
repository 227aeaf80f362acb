--
-- The functions of the extension are those of data/functions.data, with these
-- names of arguments, types and results, and who may call them is as it says:
-- everybody (P), who is granted it (G), superusers only (S)
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set data :abs_srcdir '/data/functions.data'
CREATE TEMPORARY TABLE expected (name text, arguments text, result text, class text);
COPY expected FROM :'data';
CREATE TEMPORARY VIEW actual AS
  SELECT p.oid, proname::text AS name, pg_get_function_arguments(p.oid) AS arguments,
         pg_get_function_result(p.oid) AS result, pronargdefaults, prosecdef, proacl
    FROM pg_proc p
    JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
                    AND d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass
    JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'pg_tde'
   WHERE proname LIKE 'pg\_tde%';

SELECT count(*) > 40 AS many FROM expected;
-- missing
SELECT name, arguments, result FROM expected EXCEPT
SELECT name, arguments, result FROM actual ORDER BY 1, 2;
-- not listed
SELECT name, arguments, result FROM actual EXCEPT
SELECT name, arguments, result FROM expected ORDER BY 1, 2;
-- no argument has a default, and nobody gets the privileges of the owner
SELECT name, arguments FROM actual WHERE pronargdefaults > 0 OR prosecdef;
-- PUBLIC may execute what it should, and nothing else
SELECT name, arguments, class FROM expected JOIN actual USING (name, arguments)
 WHERE has_function_privilege('public', oid, 'EXECUTE') <> (class = 'P');

-- In a transaction that is read only, what changes providers or keys is refused,
-- before it looks at its arguments; "runs" is what changes neither.
CREATE FUNCTION try_read_only(f oid) RETURNS text LANGUAGE plpgsql AS $$
DECLARE call text;
BEGIN
  SELECT format('SELECT * FROM %s(%s)', p.oid::regproc,
                (SELECT string_agg('NULL::' || t::regtype, ', ') FROM unnest(proargtypes) t))
    INTO call FROM pg_proc p WHERE p.oid = f;
  EXECUTE call;
  RETURN 'runs';
EXCEPTION
  WHEN read_only_sql_transaction THEN RETURN 'refused';
  WHEN OTHERS THEN RETURN 'runs';
END $$;
BEGIN READ ONLY;
SELECT name, try_read_only(oid) AS read_only FROM actual
 WHERE arguments <> 'internal' AND actual.result <> 'event_trigger'
 GROUP BY 1, 2 ORDER BY name COLLATE "C";
SELECT pg_tde_delete_database_key_provider('dp');
COMMIT;
DROP FUNCTION try_read_only;

-- Call each as an ordinary user, with nulls for arguments: how far does he get?
CREATE ROLE regress_tde_user;
CREATE FUNCTION try(f oid) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  call text;
  message text;
  detail text;
BEGIN
  SELECT format('SELECT * FROM %s(%s)', p.oid::regproc,
                (SELECT string_agg('NULL::' || t::regtype, ', ') FROM unnest(proargtypes) t))
    INTO call FROM pg_proc p WHERE p.oid = f;
  PERFORM set_config('role', 'regress_tde_user', true);
  EXECUTE call;
  RESET ROLE;
  RETURN 'runs';
EXCEPTION
  WHEN insufficient_privilege THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
    RETURN CASE WHEN detail LIKE 'Only superusers may use this function%' THEN 'superusers only'
                WHEN message = format('permission denied for function %s',
                       (SELECT proname FROM pg_proc WHERE oid = f)) THEN 'denied'
                WHEN message LIKE 'permission denied for function %' THEN 'runs, and is denied the next'
                ELSE message END;
  WHEN OTHERS THEN
    RETURN 'runs';
END $$;
CREATE FUNCTION try_granted(f oid) RETURNS text LANGUAGE plpgsql AS $$
DECLARE result text;
BEGIN
  EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO regress_tde_user', f::regprocedure);
  result := try(f);
  EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM regress_tde_user', f::regprocedure);
  RETURN result;
END $$;
SELECT DISTINCT class, try(oid) AS as_it_is, try_granted(oid) AS if_granted
  FROM expected JOIN actual USING (name, arguments)
 WHERE arguments <> 'internal' AND actual.result <> 'event_trigger'
 ORDER BY 1, 2, 3;
-- and nothing of that stays
SELECT name FROM actual WHERE has_function_privilege('regress_tde_user', oid, 'EXECUTE')
                          AND NOT has_function_privilege('public', oid, 'EXECUTE');
DROP FUNCTION try, try_granted;
DROP ROLE regress_tde_user;
