/* contrib/pg_tde/pg_tde--2.0--2.1.sql */

-- complain if script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION pg_tde UPDATE TO '2.1'" to load this file. \quit

-- The versions are those of the extension whose interface this one has; its
-- scripts ask for them.  Here all are the same.
