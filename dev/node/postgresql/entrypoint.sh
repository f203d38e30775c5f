#!/bin/sh
# Makes the database at the first start, then becomes the server.
set -eu
mkdir -p "$PGDATA"
# A volume's fsGroup opens the folder to the group, and the server refuses to start then.
chmod 700 "$PGDATA"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  user=${POSTGRES_USER:-postgres}
  database=${POSTGRES_DB:-$user}
  password=$(mktemp)
  printf '%s\n' "${POSTGRES_PASSWORD:?}" >"$password"
  initdb --pgdata "$PGDATA" --username "$user" --encoding UTF8 --auth-local trust --auth-host scram-sha-256 --pwfile "$password" >/dev/null
  rm -f "$password"
  echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
  pg_ctl --pgdata "$PGDATA" --options '-c listen_addresses=' --wait start >/dev/null
  [ "$database" = postgres ] || createdb --username "$user" "$database"
  pg_ctl --pgdata "$PGDATA" --mode fast --wait stop >/dev/null
fi
exec "$@" -c listen_addresses='*'
